"""Fetching from nginx, which is slow, silent, busy, dishonest or in circles as its configuration says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from oneiric.core.retry import is_passing
from oneiric.errors import FetchError
from oneiric.remote.fetch import Fetched, Fetcher, NotModified
from tests.harness.servers import believes_nobody, nginx

pytestmark = pytest.mark.anyio

LOCATIONS = """
location /slow { limit_rate 2000; try_files /file =404; }
location /silent { return 444; }
location /busy { limit_req zone=one; limit_req_status 429; try_files /file =404; }
location /loop { return 302 /loop; }
location /two-lengths { add_header Content-Length 999; return 200 "hello"; }
location /down { add_header Retry-After 120 always; return 503; }
location /gzip { gzip on; gzip_types *; add_header Content-Encoding gzip; try_files /file =404; }
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nginx(tmp_path_factory.mktemp("nginx"), LOCATIONS) as base:
        yield base


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher(idle_timeout=5, ssl_context=believes_nobody()) as fetcher:
        yield fetcher


async def failure(fetcher: Fetcher, url: str, **more: str) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await fetcher.fetch(url, limit_bytes=1 << 20, deadline=0.5, **more)  # type: ignore[arg-type]
    return caught.value


async def test_nginx_serves_a_file_and_knows_its_tag(fetcher: Fetcher, base: str) -> None:
    found = await fetcher.fetch(f"{base}/file", limit_bytes=1 << 20, deadline=5)
    assert isinstance(found, Fetched)
    assert found.content == b"x" * 100_000
    again = await fetcher.fetch(f"{base}/file", limit_bytes=1 << 20, deadline=5, etag=found.etag)
    assert again == NotModified(f"{base}/file")


async def test_nginx_that_is_slow_ends_at_the_deadline(fetcher: Fetcher, base: str) -> None:
    assert (await failure(fetcher, f"{base}/slow")).reason == "timeout"


async def test_nginx_that_hangs_up_is_a_connection_failure(fetcher: Fetcher, base: str) -> None:
    assert (await failure(fetcher, f"{base}/silent")).reason == "connection"


async def test_nginx_that_limits_requests_is_tried_again_later(fetcher: Fetcher, base: str) -> None:
    await fetcher.fetch(f"{base}/busy", limit_bytes=1 << 20, deadline=5)
    error = await failure(fetcher, f"{base}/busy")
    assert (error.status, error.retry_after, is_passing(error)) == (429, None, True)


async def test_nginx_that_is_down_says_when_to_come_back(fetcher: Fetcher, base: str) -> None:
    error = await failure(fetcher, f"{base}/down")
    assert (error.message, error.retry_after) == (f"http: 503 Service Unavailable from {base}/down", 120.0)


async def test_nginx_that_redirects_in_circles_is_left(fetcher: Fetcher, base: str) -> None:
    assert (await failure(fetcher, "/loop", same_origin_as=base)).reason == "redirect"


async def test_nginx_with_two_lengths_is_refused(fetcher: Fetcher, base: str) -> None:
    error = await failure(fetcher, f"{base}/two-lengths")
    assert error.message.endswith("the answer is malformed: conflicting Content-Length headers")


async def test_nginx_that_claims_compression_is_refused(fetcher: Fetcher, base: str) -> None:
    assert "compressed" in (await failure(fetcher, f"{base}/gzip")).message

"""Fetching what is well served: content, tags, caps, progress, files of this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from oneiric.errors import FetchError
from oneiric.remote.fetch import Fetched, Fetcher, NotModified
from tests.harness.servers import Server, believes_nobody, by_path, never, respond, serving

pytestmark = pytest.mark.anyio

BODY = b'{"source": "shop"}'


@pytest.fixture
def server() -> Iterator[Server]:
    large = b"x" * 300_000
    with serving(by_path(manifest=respond(200, BODY, etag='"one"'), large=respond(200, large), never=never)) as server:
        yield server


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with Fetcher(idle_timeout=5, ssl_context=believes_nobody()) as fetcher:
        yield fetcher


async def get(
    fetcher: Fetcher, url: str, *, limit_bytes: int = 1 << 20, deadline: float = 5, **more: object
) -> Fetched:
    found = await fetcher.fetch(url, limit_bytes=limit_bytes, deadline=deadline, **more)  # type: ignore[arg-type]
    assert isinstance(found, Fetched)
    return found


async def failure(fetcher: Fetcher, url: str, **more: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await get(fetcher, url, **more)  # type: ignore[arg-type]
    assert caught.value.message.startswith(f"{caught.value.reason}: ")
    return caught.value


BOTH = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@BOTH
async def test_fetch_returns_what_was_served(fetcher: Fetcher, server: Server) -> None:
    url = server.url("/manifest")
    assert await get(fetcher, url) == Fetched(BODY, '"one"', url)


async def test_fetch_asks_for_no_compression_and_keeps_no_connection(fetcher: Fetcher, server: Server) -> None:
    await get(fetcher, server.url("/manifest"))
    headers = server.requests[0].headers
    assert (headers["accept-encoding"], headers["connection"]) == ("identity", "close")


async def test_fetch_sends_the_query_it_never_shows(
    fetcher: Fetcher, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    found = await get(fetcher, server.url("/manifest?sig=SECRET#FRAGMENT"))
    assert server.requests[0].target == "/manifest?sig=SECRET"
    assert "manifest" in caplog.text
    assert "SECRET" not in caplog.text + repr(found)


async def test_fetch_with_a_current_tag_is_not_modified(fetcher: Fetcher) -> None:
    with serving(respond(304, etag='"one"')) as server:
        found = await fetcher.fetch(server.url(), limit_bytes=1, deadline=5, etag='"one"')
    assert found == NotModified(server.url())
    assert server.requests[0].headers["if-none-match"] == '"one"'


async def test_fetch_that_did_not_ask_refuses_not_modified(fetcher: Fetcher) -> None:
    with serving(respond(304)) as server:
        assert (await failure(fetcher, server.url())).status == 304


@pytest.mark.parametrize("etag", ["one", '"a"b"', '"a\r\nX: y"', '"' + "x" * 300 + '"', ""])
async def test_fetch_does_not_repeat_a_tag_that_is_none(fetcher: Fetcher, server: Server, etag: str) -> None:
    await get(fetcher, server.url("/manifest"), etag=etag)
    assert "if-none-match" not in server.requests[0].headers


async def test_fetch_keeps_no_tag_that_is_none(fetcher: Fetcher) -> None:
    with serving(respond(200, BODY, etag="one")) as server:
        assert (await get(fetcher, server.url())).etag is None


async def test_fetch_keeps_no_cookies(fetcher: Fetcher) -> None:
    with serving(respond(200, BODY, set_cookie="track=1")) as server:
        await get(fetcher, server.url())
        await get(fetcher, server.url())
    assert "cookie" not in server.requests[1].headers


async def test_fetch_of_exactly_the_cap_is_accepted(fetcher: Fetcher, server: Server) -> None:
    assert len((await get(fetcher, server.url("/large"), limit_bytes=300_000)).content) == 300_000


async def test_fetch_of_one_byte_more_than_the_cap_is_refused(fetcher: Fetcher, server: Server) -> None:
    assert (await failure(fetcher, server.url("/large"), limit_bytes=299_999)).reason == "size"


async def test_fetch_reports_progress_up_to_the_length(fetcher: Fetcher, server: Server) -> None:
    seen: list[tuple[int, int | None]] = []
    await get(fetcher, server.url("/large"), progress=lambda *step: seen.append(step))
    assert seen[-1] == (300_000, 300_000)
    assert [received for received, _ in seen] == sorted({received for received, _ in seen})


async def test_fetch_of_an_artifact_resolves_it_beside_the_manifest(fetcher: Fetcher) -> None:
    with serving(respond(200, BODY)) as server:
        await get(fetcher, "wheels/shop.whl", same_origin_as=server.url("/v1/manifest.json?sig=x"))
    assert server.requests[0].target == "/v1/wheels/shop.whl"


async def test_fetch_over_ipv6_works(fetcher: Fetcher) -> None:
    with serving(respond(200, BODY), host="::1") as server:
        assert (await get(fetcher, server.url())).content == BODY


async def test_fetch_that_is_cancelled_closes_the_connection(fetcher: Fetcher) -> None:
    closed = anyio.Event()

    async def answer(stream: anyio.abc.SocketStream) -> None:
        await stream.receive()
        fetching.cancel()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        closed.set()
        await stream.aclose()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as serving_tasks:
            serving_tasks.start_soon(listener.serve, answer)
            with anyio.CancelScope() as fetching:
                await fetcher.fetch(f"http://127.0.0.1:{port}/", limit_bytes=1, deadline=60)
            with anyio.fail_after(5):
                await closed.wait()
            serving_tasks.cancel_scope.cancel()
    assert fetching.cancelled_caught


async def test_fetcher_believes_the_authorities_of_the_system(server: Server) -> None:
    async with Fetcher() as fetcher:
        assert (await get(fetcher, server.url("/manifest"))).content == BODY


async def test_fetcher_names_the_authorities_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(FetchError, match=r"^tls: the certificate authorities cannot be read: no such file"):
        await Fetcher().__aenter__()


async def test_fetcher_that_is_not_open_is_a_mistake_of_ours() -> None:
    with pytest.raises(RuntimeError):
        await Fetcher().fetch("http://127.0.0.1/", limit_bytes=1, deadline=1)


# Files of this machine


@pytest.fixture
def published(tmp_path: Path) -> Path:
    directory = tmp_path / "published"
    (directory / "wheels").mkdir(parents=True)
    (directory / "manifest.json").write_bytes(BODY)
    (directory / "wheels" / "shop.whl").write_bytes(b"wheel")
    (tmp_path / "secret").write_bytes(b"secret")
    return directory


async def test_file_is_read_from_a_path(fetcher: Fetcher, published: Path) -> None:
    assert (await get(fetcher, str(published / "manifest.json"))).content == BODY


async def test_file_is_read_from_a_relative_path(
    fetcher: Fetcher, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(published)
    assert (await get(fetcher, "manifest.json")).url == (published / "manifest.json").as_uri()


async def test_file_is_read_from_a_url(fetcher: Fetcher, published: Path) -> None:
    assert (await get(fetcher, (published / "manifest.json").as_uri())).content == BODY


async def test_file_that_the_operator_named_may_be_a_link(fetcher: Fetcher, published: Path, tmp_path: Path) -> None:
    link = tmp_path / "current.json"
    link.symlink_to(published / "manifest.json")
    assert (await get(fetcher, str(link))).content == BODY


async def test_artifact_of_a_local_manifest_is_read_beside_it(fetcher: Fetcher, published: Path) -> None:
    found = await get(fetcher, "wheels/shop.whl", same_origin_as=str(published / "manifest.json"))
    assert found.content == b"wheel"


async def test_artifact_is_read_beside_the_real_manifest_behind_a_link(
    fetcher: Fetcher, published: Path, tmp_path: Path
) -> None:
    mounted = tmp_path / "mounted"  # as a ConfigMap is: the file that was named is a link into a hidden directory
    mounted.mkdir()
    (mounted / "manifest.json").symlink_to(published / "manifest.json")
    found = await get(fetcher, "wheels/shop.whl", same_origin_as=str(mounted / "manifest.json"))
    assert found.content == b"wheel"


@pytest.mark.parametrize("spelled", ["../published/manifest.json", "{above}/other/../published/manifest.json"])
async def test_artifact_is_read_beside_a_manifest_that_was_named_with_dots(
    fetcher: Fetcher, published: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    (published.parent / "other").mkdir()
    monkeypatch.chdir(published.parent / "other")
    found = await get(fetcher, "wheels/shop.whl", same_origin_as=spelled.format(above=published.parent))
    assert found.content == b"wheel"


@pytest.mark.parametrize(
    "uri", ["../secret", "wheels/../../secret", "%2e%2e/secret", "file:///etc/passwd", "/etc/passwd", "."]
)
async def test_artifact_outside_the_directory_of_the_manifest_is_refused(
    fetcher: Fetcher, published: Path, uri: str
) -> None:
    error = await failure(fetcher, uri, same_origin_as=str(published / "manifest.json"))
    assert error.reason in ("policy", "file")
    assert uri != "." or "not a regular file" in error.message


@pytest.mark.parametrize("uri", ["link.whl", "wheels/link.whl", "elsewhere/secret"])
async def test_artifact_behind_a_link_is_refused(fetcher: Fetcher, published: Path, tmp_path: Path, uri: str) -> None:
    (published / "link.whl").symlink_to(tmp_path / "secret")
    (published / "wheels" / "link.whl").symlink_to("shop.whl")
    (published / "elsewhere").symlink_to(tmp_path)
    error = await failure(fetcher, uri, same_origin_as=str(published / "manifest.json"))
    assert error.reason == "policy"


async def test_artifact_in_a_file_is_refused_for_a_manifest_from_the_network(fetcher: Fetcher, published: Path) -> None:
    url = (published / "wheels" / "shop.whl").as_uri()
    error = await failure(fetcher, url, same_origin_as="https://publisher.test/m.json")
    assert error.message.endswith("a manifest from the network names a file of this machine")


async def test_file_larger_than_the_cap_is_refused(fetcher: Fetcher, published: Path) -> None:
    assert (await failure(fetcher, str(published / "manifest.json"), limit_bytes=len(BODY) - 1)).reason == "size"


async def test_file_that_is_missing_is_reported_with_its_path(fetcher: Fetcher, published: Path) -> None:
    error = await failure(fetcher, str(published / "absent.json"))
    assert error.message == f"file: {published}/absent.json: no such file or directory"


async def test_pipe_in_place_of_a_file_does_not_hang(fetcher: Fetcher, published: Path) -> None:
    os.mkfifo(published / "pipe")
    assert "not a regular file" in (await failure(fetcher, str(published / "pipe"))).message


@pytest.mark.parametrize("url", ["file://host/m.json", "file:m.json", "file:///m%00.json", "m\0.json"])
async def test_file_url_that_names_no_file_of_ours_is_refused(fetcher: Fetcher, url: str) -> None:
    assert (await failure(fetcher, url)).reason in ("policy", "file")

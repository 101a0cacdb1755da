"""The example publisher: what it makes is trusted, what it serves is what it made, and its faults are faults."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from examples.publisher.press import build_wheel, new_key, public_key, publish
from examples.publisher.serve import BARGAIN, Fault, Publisher, cut, fail, hang, hang_up, replace, tamper
from oneiric.core.keys import parse_key
from oneiric.core.trust import TrustPolicy, VerifiedManifest, verify_manifest
from oneiric.errors import FetchError, TrustError
from oneiric.remote.artifact import Artifact
from oneiric.remote.fetch import Fetched, Fetcher, NotModified

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SIGNER = new_key()
ENTRY = {"domain": "service", "key": "pricing", "provider": "bargain", "factory": "shop_bargain:Bargain"}


def print_bargain(directory: Path, **more: Any) -> bytes:
    """Publish a wheel in *directory* and return the manifest."""
    wheel = build_wheel(directory, "shop-bargain", "1.0", {"shop_bargain.py": "class Bargain:\n    pass\n"})
    return publish(directory, {**ENTRY, "wheel": wheel}, signer=SIGNER, **more).read_bytes()


def verify(content: bytes, *, now: datetime | None = None) -> VerifiedManifest:
    policy = TrustPolicy(keys=(parse_key(public_key(SIGNER)),))
    return verify_manifest(content, policy=policy, floor=None, now=now or datetime.now(UTC), url="https://127.0.0.1/m")


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    print_bargain(tmp_path)
    with Publisher(tmp_path) as publisher:
        yield publisher


@pytest.fixture
async def fetcher(publisher: Publisher) -> AsyncIterator[Fetcher]:
    async with Fetcher(ssl_context=publisher.client_context()) as fetcher:
        yield fetcher


async def get(fetcher: Fetcher, url: str, *, deadline: float = 5, **more: Any) -> Fetched:
    found = await fetcher.fetch(url, limit_bytes=1 << 20, deadline=deadline, **more)
    assert isinstance(found, Fetched)
    return found


def test_published_manifest_is_trusted(tmp_path: Path) -> None:
    (entry,) = verify(print_bargain(tmp_path)).manifest.entries
    assert (entry.uri, entry.length) == (
        "shop_bargain-1.0-py3-none-any.whl",
        (tmp_path / str(entry.uri)).stat().st_size,
    )


def test_published_manifest_has_one_version_more_each_time(tmp_path: Path) -> None:
    versions = [verify(print_bargain(tmp_path)).manifest.manifest_version for _ in range(2)]
    assert [*versions, verify(print_bargain(tmp_path, version=9)).manifest.manifest_version] == [1, 2, 9]


def test_published_manifest_expires(tmp_path: Path) -> None:
    content = print_bargain(tmp_path, expires_in=timedelta(hours=1))
    with pytest.raises(TrustError, match="expired"):
        verify(content, now=datetime.now(UTC) + timedelta(hours=2))


def test_wheel_of_the_same_files_has_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for directory in (tmp_path / "a", tmp_path / "b"):
        directory.mkdir()
        digests.add(hashlib.sha256(build_wheel(directory, "x", "1", {"x.py": "A = 1\n"}).read_bytes()).hexdigest())
    assert len(digests) == 1


async def test_publisher_serves_an_artifact_that_opens(publisher: Publisher, fetcher: Fetcher) -> None:
    (entry,) = verify((await get(fetcher, publisher.url)).content).manifest.entries
    content = (await get(fetcher, str(entry.uri), same_origin_as=publisher.url)).content
    artifact = Artifact.open(str(entry.uri), content, sha256=str(entry.sha256), length=entry.length)
    assert artifact.load(entry.factory).__name__ == "Bargain"
    artifact.release()


async def test_publisher_knows_what_did_not_change(publisher: Publisher, fetcher: Fetcher) -> None:
    etag = (await get(fetcher, publisher.url)).etag
    assert isinstance(await fetcher.fetch(publisher.url, limit_bytes=1, deadline=5, etag=etag), NotModified)
    assert publisher.requests[-1].headers["if-none-match"] == etag


async def test_publisher_serves_what_was_published_since(
    publisher: Publisher, fetcher: Fetcher, tmp_path: Path
) -> None:
    etag = (await get(fetcher, publisher.url)).etag
    content = print_bargain(tmp_path)
    assert (await get(fetcher, publisher.url, etag=etag)).content == content


@pytest.mark.parametrize("path", ["absent.whl", ".hidden", "../outside", "%2e%2e/outside", "%00"])
async def test_publisher_serves_nothing_else(publisher: Publisher, fetcher: Fetcher, tmp_path: Path, path: str) -> None:
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(FetchError) as caught:
        await get(fetcher, publisher.url.replace("manifest.json", path))
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (fail(503, Retry_After="9"), "http: 503 Service Unavailable"),
        (hang, "timeout: "),
        (cut, "broke off"),
        (hang_up, "server disconnected"),
    ],
)
async def test_fault_of_the_publisher_shows(publisher: Publisher, fetcher: Fetcher, fault: Fault, words: str) -> None:
    publisher.faults["*"] = fault
    with pytest.raises(FetchError) as caught:
        await get(fetcher, publisher.url, deadline=0.3)
    assert words in caught.value.message


@pytest.mark.parametrize("fault", [tamper, replace(b"{}")])
async def test_content_that_the_publisher_changed_is_another(
    publisher: Publisher, fetcher: Fetcher, fault: Fault, tmp_path: Path
) -> None:
    publisher.faults["/manifest.json"] = fault
    assert (await get(fetcher, publisher.url)).content != (tmp_path / "manifest.json").read_bytes()


def test_publisher_closes_although_a_client_holds_its_connection(tmp_path: Path) -> None:
    with Publisher(tmp_path, tls=False) as publisher:
        client = socket.create_connection(("127.0.0.1", int(publisher.url.split(":")[2].split("/")[0])), 5)
        client.sendall(b"GET /absent HTTP/1.1\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 404"
    while client.recv(4096):
        pass
    client.close()
    assert not [thread for thread in threading.enumerate() if "process_request" in thread.name]


def test_bargain_is_a_third_off_the_shops_price(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, "shop-bargain", "1.0", {"shop_bargain.py": BARGAIN})
    asking = """
import asyncio, hashlib, sys
from pathlib import Path
from oneiric.remote.artifact import Artifact
from shop.pricing import Regular
wheel = Path(sys.argv[1])
content = wheel.read_bytes()
artifact = Artifact.open(wheel.name, content, sha256=hashlib.sha256(content).hexdigest())
label = asyncio.run(Regular().price("tea"))
bargain = asyncio.run(artifact.load("shop_bargain:Bargain")().price("tea"))
print(bargain.by, bargain.cents == label.cents * 2 // 3)
"""
    done = subprocess.run(
        [sys.executable, "-c", asking, str(wheel)],
        cwd=ROOT / "examples" / "shop",
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "bargain True\n"


async def test_command_prints_settings_with_which_it_is_trusted(tmp_path: Path) -> None:
    options = ["--directory", "published", "--private-key", "key", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.publisher.serve", *options],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        settings, trust = process.stdout.readline(), process.stdout.readline()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
    key = settings.partition("public_key: ")[2].removesuffix("}\n")
    policy = TrustPolicy(keys=(parse_key(key),))
    content = (tmp_path / "published" / "manifest.json").read_bytes()
    assert verify_manifest(content, policy=policy, floor=None, now=datetime.now(UTC), url="https://127.0.0.1/m")
    assert Path(trust.partition("=")[2].strip()).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600

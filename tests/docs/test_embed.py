"""The page about embedding shows programs that run: each block is written to the file it names, and tried."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.harness.daemon import wait_until
from tests.harness.markdown import read
from tests.harness.pages import require_tests_pass, require_typed, typed, unused, write_files

PAGE = read(Path(__file__).parents[2] / "docs" / "how-to" / "embed.md")
STARTS = f'PATH="{Path(sys.executable).parent}:$PATH"; exec env '
HANGING = "async def build():\n    import asyncio\n    await asyncio.Event().wait()\n"
ADAPTERS = 'selections: {cache: hanging}\ncandidates: [{key: cache, provider: hanging, factory: "hanging:build"}]\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory with every file of the page; what it keeps under /tmp is beside them."""
    return write_files(PAGE, tmp_path, {"/tmp/oneiric": str(tmp_path / "kept")})


def command() -> str:
    (only,) = typed(PAGE)
    return only.command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str) -> int:
    """Return the status of an answer, 0 when nobody is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


@contextmanager
def started(place: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Type the command of the page with another port."""
    line = command()
    assert line.startswith("PORT=8080 ")
    process = subprocess.Popen(
        ["sh", "-c", STARTS + line.replace("8080", str(port))],
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_every_block_names_a_file_or_is_typed() -> None:
    assert unused(PAGE) == []


@pytest.mark.parametrize("file", [block.use for block in PAGE.blocks if block.use.startswith("test_")])
def test_tests_of_the_page_pass(place: Path, file: str) -> None:
    require_tests_pass(place, file)


def test_application_is_typed(place: Path) -> None:
    require_typed(place, "shop.py", "fast_shop.py")


def test_serverless_start_serves_on_its_port(place: Path) -> None:
    port = free_port()
    with started(place, port):
        wait_until(lambda: answers(port, "/readyz") == 200, "/readyz answers")


def test_serverless_start_is_bounded_although_a_provider_hangs(place: Path) -> None:
    (place / "hanging.py").write_text(HANGING)
    (place / "settings" / "adapters.yml").write_text(ADAPTERS)
    port, begun = free_port(), monotonic()
    with started(place, port):
        wait_until(lambda: answers(port, "/healthz") == 200, "/healthz answers", timeout=30)
        assert monotonic() - begun > 2  # the activation_timeout of the page: it did wait for the provider


def test_serverless_daemon_ends_by_sigterm_and_keeps_nothing_elsewhere(place: Path) -> None:
    before = {path.name for path in place.iterdir()}
    port = free_port()
    with started(place, port) as process:
        wait_until(lambda: answers(port, "/readyz") == 200, "/readyz answers")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert {path.name for path in place.iterdir()} - before <= {"kept"}

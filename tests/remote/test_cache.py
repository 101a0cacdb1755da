"""The cache directory: only files, only ours, old or new and never half; and what happens when somebody meddles."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.errors import OneiricError
from oneiric.remote import files
from oneiric.remote.cache import EVIDENCE, Cache, artifact_name
from tests.harness.faults import full, require, require_root, tmpfs
from tests.remote.wheels import digest

NOBODY = 65534
NAME = "0123456789ab-shop.whl"
DIGEST = "a" * 64
LIMIT = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def path_of(cache: Cache) -> Path:
    return cache.directory / "artifacts" / NAME


def temporaries(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob(f"{files.TEMPORARY}*")]


# Names


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("artifacts/shop-1.0-py3-none-any.whl", "shop-1.0-py3-none-any.whl"),
        ("https://example.com/a/b/shop.whl?token=secret#part", "shop.whl"),
        ("https://example.com/", "artifact"),
        ("../../etc/passwd", "passwd"),
        ("a/..", "artifact"),
        ("a/%2e%2e%2f%2e%2e%2fetc%2fcron.d%2fevil.py", "evil.py"),
        ("a/%00shop.whl", "_shop.whl"),
        ("a/\N{GREEK SMALL LETTER ALPHA}\n.whl", "_.whl"),
        ("a/.tmp-0", "tmp-0"),
        ("a/" + "x" * 500 + ".whl", "x" * 76 + ".whl"),
        ("a/$(reboot).whl", "_reboot_.whl"),
        ("a/-rf", "-rf"),
        ("file:///etc/shadow", "shadow"),
        ("a\\b\\c.whl", "a_b_c.whl"),
    ],
)
def test_artifact_name_is_a_plain_file_name(uri: str, name: str) -> None:
    assert artifact_name(DIGEST, uri) == f"aaaaaaaaaaaa-{name}"


@given(st.text(max_size=300) | st.from_regex(r"[./%\\0-9a-f]{0,40}", fullmatch=True))
def test_artifact_name_of_any_uri_stays_inside_its_directory(uri: str) -> None:
    with suppress(ValueError):  # what urllib cannot split is refused long before, when the entry is judged
        assert re.fullmatch(r"[0-9a-f]{12}-[A-Za-z0-9._-]{1,80}", artifact_name(DIGEST, uri))


# Whose it is


def test_cache_is_for_its_owner_alone_whatever_the_umask(cache: Cache) -> None:
    before = os.umask(0)
    try:
        cache.write_artifact(NAME, b"content")
        cache.write_manifest(b"manifest")
        cache.keep_evidence(NAME, b"evidence", at="now")
    finally:
        os.umask(before)
    found = {stat.S_IMODE(path.stat().st_mode) for path in [cache.directory, *cache.directory.rglob("*")]}
    assert found == {0o700, 0o600}


VERBS: dict[str, Callable[[Cache], Any]] = {
    "read the manifest": lambda cache: cache.read_manifest(LIMIT),
    "write the manifest": lambda cache: cache.write_manifest(b"x"),
    "read an artifact": lambda cache: cache.read_artifact(NAME, LIMIT),
    "write an artifact": lambda cache: cache.write_artifact(NAME, b"x"),
    "quarantine": lambda cache: cache.quarantine(NAME, at="now"),
    "keep evidence": lambda cache: cache.keep_evidence(NAME, b"x", at="now"),
    "list": lambda cache: cache.stored(),
    "look": lambda cache: cache.fingerprint(),
    "prune": lambda cache: cache.prune(()),
    "forget": lambda cache: cache.forget((), most=9),
    "collect": lambda cache: cache.collecting().__enter__(),
    "lock": lambda cache: cache.lock().__enter__(),
}


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"), target_is_directory=True)


def make_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


def give_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


TAKEOVERS: dict[str, Callable[[Path], Any]] = {
    "a link": link,
    "a file": make_a_file,
    "open to its group": lambda path: path.chmod(0o770),
    "open to all": lambda path: path.chmod(0o777),
    "somebody else's": give_away,
}


@pytest.mark.parametrize("takeover", TAKEOVERS)
@pytest.mark.parametrize("verb", VERBS)
def test_cache_directory_that_is_not_ours_is_not_used(cache: Cache, verb: str, takeover: str) -> None:
    require_root()
    cache.write_artifact(NAME, b"content")
    cache.write_manifest(b"manifest")
    TAKEOVERS[takeover](cache.directory)
    with pytest.raises(OneiricError, match=re.escape(str(cache.directory))) as caught:
        VERBS[verb](cache)
    assert "chmod 700" in caught.value.hint


@pytest.mark.parametrize("takeover", TAKEOVERS)
@pytest.mark.parametrize(
    "verb", ["read an artifact", "write an artifact", "quarantine", "list", "look", "prune", "forget", "collect"]
)
def test_artifacts_directory_that_is_not_ours_is_not_used(cache: Cache, verb: str, takeover: str) -> None:
    require_root()
    cache.write_artifact(NAME, b"content")
    TAKEOVERS[takeover](cache.directory / "artifacts")
    with pytest.raises(OneiricError, match="artifacts cannot be used"):
        VERBS[verb](cache)


def test_evidence_is_not_written_through_a_link(cache: Cache, tmp_path: Path) -> None:
    cache.write_artifact(NAME, b"content")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (cache.directory / "quarantine").symlink_to(tmp_path / "elsewhere")
    for verb in ("quarantine", "keep evidence"):
        with pytest.raises(OneiricError, match="links are not followed"):
            VERBS[verb](cache)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("verb", ["read the manifest", "read an artifact", "list", "look", "prune", "forget"])
def test_look_at_a_cache_that_is_not_there_makes_none(cache: Cache, verb: str) -> None:
    VERBS[verb](cache)
    assert not cache.directory.exists()


# What is in a file's place


def bind(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket's name
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def fill(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(b"x")


IMPOSTORS: dict[str, Callable[[Path], Any]] = {
    "link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "pipe": lambda path: os.mkfifo(path),
    "directory": lambda path: path.mkdir(),
    "directory with a file": fill,
    "socket": bind,
}


@pytest.fixture(params=IMPOSTORS)
def impostor(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    return IMPOSTORS[request.param]


def test_impostor_of_an_artifact_reads_as_nothing(cache: Cache, impostor: Callable[[Path], Any]) -> None:
    cache.write_artifact("another", b"")
    impostor(path_of(cache))
    assert cache.read_artifact(NAME, LIMIT) == b""
    assert [one.sha256 for one in cache.stored() if one.name == NAME] == [""]


def test_impostor_of_an_artifact_is_replaced_and_what_it_leads_to_is_not(
    cache: Cache, impostor: Callable[[Path], Any]
) -> None:
    passwd = Path("/etc/passwd").read_bytes()
    cache.write_artifact("another", b"")
    impostor(path_of(cache))
    cache.write_artifact(NAME, b"content")
    assert (path_of(cache).read_bytes(), Path("/etc/passwd").read_bytes()) == (b"content", passwd)
    assert stat.S_ISREG(path_of(cache).lstat().st_mode)


def test_impostor_of_the_manifest_reads_as_nothing_and_is_replaced(
    cache: Cache, impostor: Callable[[Path], Any]
) -> None:
    cache.write_manifest(b"old")
    (cache.directory / "manifest.yaml").unlink()
    impostor(cache.directory / "manifest.yaml")
    assert cache.read_manifest(LIMIT) == b""
    cache.write_manifest(b"new")
    assert cache.read_manifest(LIMIT) == b"new"


def test_impostor_of_an_artifact_is_quarantined_as_it_is(cache: Cache, impostor: Callable[[Path], Any]) -> None:
    cache.write_artifact("another", b"")
    impostor(path_of(cache))
    kind = stat.S_IFMT(path_of(cache).lstat().st_mode)
    cache.quarantine(NAME, at="2030")
    evidence = cache.directory / "quarantine" / f"2030-{NAME}"
    assert (stat.S_IFMT(evidence.lstat().st_mode), cache.names()) == (kind, ("another",))


def test_impostor_of_an_artifact_is_pruned(cache: Cache, impostor: Callable[[Path], Any]) -> None:
    cache.write_artifact("another", b"")
    impostor(path_of(cache))
    assert [one.name for one in cache.prune(["another"])] == [NAME]
    assert cache.names() == ("another",)


def test_read_of_impostors_leaves_no_descriptor_open(cache: Cache, impostor: Callable[[Path], Any]) -> None:
    cache.write_artifact("another", b"")
    impostor(path_of(cache))
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        cache.read_artifact(NAME, LIMIT)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_file_larger_than_the_limit_reads_as_nothing(cache: Cache) -> None:
    cache.write_artifact(NAME, b"12345")
    assert (cache.read_artifact(NAME, 5), cache.read_artifact(NAME, 4)) == (b"12345", b"")


# Old or new


def test_write_on_a_full_disk_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", size="256k"):
        cache = Cache(tmp_path / "disk")
        cache.write_artifact(NAME, b"old")
        cache.write_manifest(b"old")
        with full(tmp_path / "disk"):
            for write in (cache.write_manifest, lambda content: cache.write_artifact(NAME, content)):
                with pytest.raises(OSError, match="No space left"):
                    write(b"x" * 100_000)
            found = cache.read_manifest(LIMIT), cache.read_artifact(NAME, LIMIT), temporaries(tmp_path / "disk")
    assert found == (b"old", b"old", [])


WORKER = """
import sys
from pathlib import Path
from oneiric.remote.cache import Cache
cache = Cache(Path(sys.argv[1]))
try:
    print(eval(sys.argv[2]))
except OSError as error:
    print(error.strerror)
"""


def failing(cache: Cache, work: str, *how: str) -> str:
    """Do *work* in a process whose system calls fail as strace(1) is told; return what came of it."""
    require("strace")
    program = [sys.executable, "-c", WORKER, str(cache.directory), work]
    command = ["strace", "--follow-forks", "--output=/dev/null", *how, *program]  # the last output wins
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


@pytest.mark.parametrize("calls", ["fsync", "rename,renameat,renameat2"])
def test_write_that_the_disk_refuses_keeps_the_old_file_and_leaves_nothing_else(cache: Cache, calls: str) -> None:
    cache.write_artifact(NAME, b"old")
    said = failing(cache, f"cache.write_artifact({NAME!r}, b'new')", f"--inject={calls}:error=EIO:when=1")
    assert said == "Input/output error"
    assert (cache.read_artifact(NAME, LIMIT), temporaries(cache.directory)) == (b"old", [])


def test_unreadable_block_reads_as_a_damaged_file(cache: Cache) -> None:
    cache.write_artifact(NAME, b"content")
    how = (f"--trace-path={path_of(cache)}", "--inject=read:error=EIO")
    assert failing(cache, f"cache.read_artifact({NAME!r}, 99)", *how) == "b''"


def test_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_write_ends(cache: Cache) -> None:
    trace = cache.directory.with_name("trace")
    calls = "--trace=openat,write,fsync,renameat"
    failing(cache, f"cache.write_artifact({NAME!r}, b'content')", "-y", calls, f"--output={trace}")
    lines = [line for line in trace.read_text().splitlines() if f"{cache.directory}/artifacts" in line]
    done = [re.sub(r"\d+ +(\w+)\(.*", r"\1", line) for line in lines if "O_DIRECTORY" not in line]
    assert done == ["openat", "write", "fsync", "renameat", "fsync"]
    assert ("O_EXCL" in lines[-5], ".tmp-" in lines[-3], ".tmp-" in lines[-1]) == (True, True, False)


def test_what_a_crash_left_behind_goes_with_the_next_manifest(cache: Cache) -> None:
    cache.write_artifact(NAME, b"content")
    cache.keep_evidence(NAME, b"evidence", at="2030")
    for part in ("", "artifacts", "quarantine"):
        (cache.directory / part / f"{files.TEMPORARY}0").write_bytes(b"half")
    with cache.lock():
        cache.write_manifest(b"manifest")
    assert (temporaries(cache.directory), cache.names(), len(cache.quarantined())) == ([], (NAME,), 1)


# Evidence


def test_quarantine_keeps_the_newest_16(cache: Cache) -> None:
    for number in range(20):
        cache.write_artifact(NAME, b"%d" % number)
        cache.quarantine(NAME, at=f"2030-01-01T00:00:{number:02}+00:00")
    for number in range(20, 25):
        cache.keep_evidence(NAME, b"%d" % number, at=f"2030-01-01T00:00:{number:02}+00:00")
    kept = [(cache.directory / "quarantine" / name).read_bytes() for name in cache.quarantined()]
    assert kept == [b"%d" % number for number in range(25 - EVIDENCE, 25)]


def test_quarantine_keeps_16_directories_at_most(cache: Cache) -> None:
    cache.write_artifact("another", b"")
    for number in range(20):
        fill(path_of(cache))
        cache.quarantine(NAME, at=f"{number:02}")
    assert cache.quarantined() == tuple(f"{number:02}-{NAME}" for number in range(4, 20))


def test_evidence_is_named_by_the_instant_without_what_a_shell_minds(cache: Cache) -> None:
    cache.keep_evidence(NAME, b"x", at="2030-01-15T12:00:00.5+00:00")
    assert cache.quarantined() == (f"2030-01-15T120000.50000-fetched-{NAME}",)


def test_evidence_says_where_the_wrong_bytes_were(cache: Cache) -> None:
    cache.write_artifact(NAME, b"x")
    cache.quarantine(NAME, at="2030-01-15T12:00:00+00:00")
    cache.keep_evidence(NAME, b"y", at="2030-01-15T12:00:01+00:00")
    assert [(one.artifact, one.origin, one.at.second) for one in cache.evidence()] == [
        (NAME, "cache", 0),
        (NAME, "fetched", 1),
    ]


def test_evidence_of_before_the_last_success_is_left_out(cache: Cache) -> None:
    for second in (1, 5):
        cache.keep_evidence(NAME, b"y", at=f"2030-01-15T12:00:0{second}+00:00")
    since = datetime(2030, 1, 15, 12, 0, 3, tzinfo=UTC)
    assert [one.at.second for one in cache.evidence(since=since)] == [5]


def test_quarantine_of_what_is_gone_is_no_error(cache: Cache) -> None:
    cache.write_artifact("another", b"")
    cache.quarantine(NAME, at="2030")
    assert cache.quarantined() == ()


# Removal


def test_prune_removes_what_is_not_named_and_what_a_crash_left_behind(cache: Cache) -> None:
    for name in (NAME, "old-1", "old-2"):
        cache.write_artifact(name, name.encode())
    (cache.directory / "artifacts" / f"{files.TEMPORARY}0").write_bytes(b"half")
    with cache.lock():
        gone = cache.prune([NAME])
    assert [(one.name, one.size_bytes, one.sha256) for one in gone] == [
        (name, len(name), digest(name.encode())) for name in ("old-1", "old-2")
    ]
    assert (cache.names(), temporaries(cache.directory)) == ((NAME,), [])


def test_deleted_cache_reads_as_empty_and_is_made_again(cache: Cache) -> None:
    cache.write_artifact(NAME, b"content")
    cache.write_manifest(b"manifest")
    shutil.rmtree(cache.directory)
    assert (cache.read_manifest(LIMIT), cache.read_artifact(NAME, LIMIT), cache.stored()) == (None, None, ())
    cache.write_artifact(NAME, b"content")
    assert (cache.read_artifact(NAME, LIMIT), cache.size_bytes()) == (b"content", 7)


def test_listing_beside_a_writer_and_a_pruner_raises_nothing(cache: Cache) -> None:
    done = threading.Event()

    def work() -> None:
        for number in range(100):
            cache.write_artifact(f"{number % 7}-x.whl", b"x")
            if number % 5 == 0:
                with cache.lock():
                    cache.prune([NAME])
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        assert {one.sha256 for one in cache.stored()} <= {digest(b"x")}
        cache.fingerprint()
        cache.size_bytes()
    worker.join()


def touch(cache: Cache) -> None:
    os.utime(path_of(cache), ns=(0, 0))


@pytest.mark.parametrize(
    "change",
    [
        touch,
        lambda cache: path_of(cache).unlink(),
        lambda cache: cache.write_artifact(NAME, b"content"),
        lambda cache: cache.write_artifact("another", b""),
        lambda cache: cache.write_manifest(b"manifest"),
        lambda cache: (cache.directory / "manifest.yaml").unlink(),
        lambda cache: shutil.rmtree(cache.directory),
    ],
)
def test_fingerprint_differs_after_a_change(cache: Cache, change: Callable[[Cache], Any]) -> None:
    cache.write_artifact(NAME, b"content")
    cache.write_manifest(b"manifest")
    before = cache.fingerprint()
    assert cache.fingerprint() == before
    change(cache)
    assert cache.fingerprint() != before


def test_forget_removes_no_more_than_it_may_and_nothing_that_is_kept(cache: Cache) -> None:
    for name in (NAME, "old-1", "old-2", "old-3"):
        cache.write_artifact(name, b"")
    with cache.lock():
        gone = cache.forget([NAME], most=2)
    assert (gone, cache.names()) == (("old-1", "old-2"), (NAME, "old-3"))


def test_forget_removes_nothing_while_anybody_collects(cache: Cache) -> None:
    cache.write_artifact(NAME, b"")
    with cache.collecting(), cache.collecting():
        pass
    with cache.collecting():
        assert cache.forget((), most=9) == ()
    assert cache.forget((), most=9) == (NAME,)


def test_collecting_leaves_no_descriptor_open(cache: Cache) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with cache.collecting():
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before

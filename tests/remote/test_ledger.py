"""What is remembered of the manifest's source: all of it or nothing, and what is damaged is not taken for nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.core.breaker import Breaker
from oneiric.core.trust import Floor
from oneiric.errors import TrustError
from oneiric.remote import files, ledger
from oneiric.remote.ledger import Ledger, Record
from tests.harness.faults import full, require_root, tmpfs
from tests.remote.wheels import digest

NOON = datetime(2030, 1, 15, 12, tzinfo=UTC)
FLOOR = Floor(version=5, digest="d" * 64, key_ids=("a" * 16, "b" * 16), signed_at=NOON)
RECORD = Record(
    source="shop", url="https://example.com/manifest.json", floor=FLOOR, accepted_at=NOON, registrations={"task": 2}
)


def keep(record: Record) -> Callable[[Record], Record]:
    return lambda _last: record


@pytest.fixture
def written(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "state")
    found.update(keep(RECORD))
    return found


def test_ledger_of_a_first_start_is_empty_and_makes_nothing(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "state").load() == Record()
    assert not (tmp_path / "state").exists()


instants = st.integers(0, 10**10).map(lambda seconds: NOON + timedelta(seconds=seconds))
floors = st.builds(
    Floor,
    version=st.none() | st.integers(1, 2**53 - 1),
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    key_ids=st.lists(st.text("0123456789abcdef", min_size=16, max_size=16), max_size=3).map(tuple),
    signed_at=st.none() | instants,
)
records = st.builds(
    Record,
    source=st.text(max_size=20),
    url=st.text(max_size=50),
    floor=st.none() | floors,
    accepted_at=st.none() | instants,
    last_error=st.text(max_size=200),
    failures=st.integers(0, 10**9),
    last_duration=st.floats(0, 1e6),
)


@given(records)
def test_ledger_returns_what_it_was_given(record: Record) -> None:
    with TemporaryDirectory() as name:
        Ledger(Path(name)).update(keep(record))
        assert Ledger(Path(name)).load() == record


def test_ledger_is_for_its_owner_alone(written: Ledger) -> None:
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (written.path.parent, written.path)]
    assert modes == [0o700, 0o600]


def test_failures_in_a_row_end_with_a_success() -> None:
    breaker = Breaker().failed(NOON, Breaker().ask(NOON)[1])
    fail = partial(ledger.failed, now=NOON, duration=1.5, breaker=breaker, error="no luck")
    failed = fail(fail(RECORD))
    done = ledger.succeeded(failed, url="u", now=NOON + timedelta(hours=1), duration=0.5, breaker=Breaker())
    assert (failed.failures, failed.consecutive_failures, failed.last_error, failed.last_success_at) == (
        2,
        2,
        "no luck",
        None,
    )
    assert (done.failures, done.successes, done.consecutive_failures, done.last_error) == (2, 1, 0, "")
    assert (failed.floor, done.floor) == (FLOOR, FLOOR)


# What is there and is not ours


def refused(found: Ledger) -> TrustError:
    with pytest.raises(TrustError) as caught:
        found.load()
    assert (caught.value.reason, caught.value.exit_code) == ("state", 5)
    return caught.value


OTHERS: dict[str, bytes] = {
    "nothing": b"",
    "an empty mapping": b"{}",
    "an empty record": msgspec.json.encode(Record()),
    "another kind": b"[]",
    "null": b"null",
    "text": b"version: 5",
    "zeros": bytes(500),
    "no UTF-8": b'{"sha256": "\xff", "record": {}}',
    "nothing but brackets": b"[" * 100_000,
    "a record without its digest": b'{"sha256": "", "record": {}}',
    "more than it may be": b" " * (1 << 20) + b"{}",
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_ledger_of_others_is_refused_with_the_remedy(written: Ledger, content: bytes) -> None:
    written.path.write_bytes(content)
    error = refused(written)
    assert str(written.path) in error.message
    assert error.hint == (
        f"restore {written.path} from a backup, or remove it to accept any version the publisher signed"
    )


def test_ledger_of_a_later_version_is_refused(written: Ledger) -> None:
    record = {**msgspec.to_builtins(RECORD), "trust_chain": []}
    content = json.dumps(record)
    written.path.write_text(f'{{"sha256": "{digest(content.encode())}", "record": {content}}}')
    assert "trust_chain" in refused(written).message


@given(st.data())
def test_ledger_whose_bytes_changed_is_refused_or_says_the_same(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        found = Ledger(Path(name))
        found.update(keep(RECORD))
        content = bytearray(found.path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        found.path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
        assert load(found) in (RECORD, "state")


def load(found: Ledger) -> Record | str:
    try:
        return found.load()
    except TrustError as error:
        return error.reason


@given(st.binary(max_size=2000))
def test_ledger_of_any_content_is_refused(content: bytes) -> None:
    with TemporaryDirectory() as name:
        found = Ledger(Path(name))
        found.path.write_bytes(content)
        refused(found)


def test_lower_version_written_by_hand_is_refused(written: Ledger) -> None:
    lowered = written.path.read_bytes().replace(b'"version":5', b'"version":4')
    assert lowered != written.path.read_bytes()
    written.path.write_bytes(lowered)
    refused(written)


def put_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("put", [put_a_directory, put_a_pipe, put_a_link])
def test_ledger_that_is_no_file_is_refused(written: Ledger, put: Callable[[Path], Any]) -> None:
    put(written.path)
    refused(written)


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_state_directory_that_others_may_write_to_is_refused(written: Ledger, mode: int) -> None:
    written.path.parent.chmod(mode)
    error = refused(written)
    assert (str(written.path.parent) in error.message, "chmod 700" in error.hint) == (True, True)


def test_state_directory_of_another_user_is_refused(written: Ledger) -> None:
    require_root()
    os.chown(written.path.parent, 65534, 65534)
    refused(written)


def test_damaged_ledger_is_not_written_over(written: Ledger) -> None:
    written.path.write_bytes(b"damaged")
    with pytest.raises(TrustError):
        written.update(keep(RECORD))
    assert written.path.read_bytes() == b"damaged"


# Written whole


def left(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_full_disk_keeps_what_was_remembered_and_leaves_nothing_else(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", size="256k"):
        found = Ledger(tmp_path / "disk")
        found.update(keep(RECORD))
        with full(tmp_path / "disk"), pytest.raises(OSError, match="No space left"):
            found.update(keep(Record(last_error="x" * 100_000)))
        assert (found.load(), left(tmp_path / "disk")) == (RECORD, {"remote.json", "remote.lock"})


def test_what_is_staged_and_not_committed_changes_nothing(written: Ledger) -> None:
    with written.lock(), written.staged(Record()):
        assert written.load() == RECORD
    assert (written.load(), left(written.path.parent)) == (RECORD, {"remote.json", "remote.lock"})


def test_what_a_crash_left_behind_goes_with_the_next_write(written: Ledger) -> None:
    (written.path.parent / f"{files.TEMPORARY}0").write_bytes(b"half")
    written.update(keep(RECORD))
    assert left(written.path.parent) == {"remote.json", "remote.lock"}


def test_changes_made_at_once_are_all_remembered(tmp_path: Path) -> None:
    def count(record: Record) -> Record:
        return msgspec.structs.replace(record, successes=record.successes + 1)

    def work(_number: int) -> None:
        mine = Ledger(tmp_path / "state")
        for _ in range(10):
            mine.update(count)

    with ThreadPoolExecutor(4) as at_once:
        list(at_once.map(work, range(4)))
    assert Ledger(tmp_path / "state").load().successes == 40

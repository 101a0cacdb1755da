"""Whatever the bytes are, a wheel is read or refused; what is read keeps its promises."""

from __future__ import annotations

import zipfile

from hypothesis import given
from hypothesis import strategies as st

from oneiric.errors import ManifestError
from oneiric.remote.modules import sources_in
from oneiric.remote.wheel import MAX_FILES, MAX_UNPACKED_BYTES, read_artifact
from tests.remote.wheels import METADATA, NAME, archive, wheel

GOOD = wheel({"shop/__init__.py": "x = 1\n" * 20, "shop/cache.py": "y = 2\n", "shop/data.bin": bytes(100)})
NAMES = st.text(st.sampled_from("aA./\\:-_\0\n \xe9\u0301\ufb01.py"), max_size=12) | st.text(max_size=8)


def read_or_refuse(content: bytes) -> dict[str, bytes]:
    """Return the files of a wheel, or none when it is refused; any other error is ours."""
    try:
        return read_artifact(NAME, content)
    except ManifestError as error:
        refused = error
    assert (refused.reason != "", refused.hint != "", refused.message.isprintable()) == (True, True, True)
    return {}


def check(files: dict[str, bytes]) -> None:
    assert len(files) <= MAX_FILES
    assert sum(map(len, files.values())) <= MAX_UNPACKED_BYTES
    folded = {path.casefold() for path in files}
    assert len(folded) == len(files)
    for path in files:
        assert path.isprintable()
        assert not set(path.split("/")) & {"", ".", ".."}
        assert not set(path) & set("\\:\0")


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    check(read_or_refuse(content))


@given(st.binary(max_size=500), st.binary(max_size=500))
def test_any_bytes_around_an_archive_are_read_or_refused(before: bytes, after: bytes) -> None:
    check(read_or_refuse(b"PK\3\4" + before + GOOD[GOOD.find(b"PK\1\2") :] + after))


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_wheel_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for position, value in changes:
        content[position] = value

    check(read_or_refuse(bytes(content)))


@given(
    field=st.sampled_from([4, 6, 8, 10, 16, 20, 24, 28, 30, 32, 34, 36, 38, 42]),
    value=st.sampled_from([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1),
    which=st.integers(0, 3),
)
def test_lying_directory_is_read_or_refused(field: int, value: int, which: int) -> None:
    at = -1
    for _entry in range(which + 1):
        at = GOOD.index(b"PK\1\2", at + 1)
    content = bytearray(GOOD)
    width = 2 if field in (4, 6, 8, 10, 28, 30, 32, 34, 36) else 4
    content[at + field : at + field + width] = value.to_bytes(4, "little")[:width]

    check(read_or_refuse(bytes(content)))


@given(
    field=st.sampled_from([4, 6, 8, 10, 12, 16, 20]),
    value=st.sampled_from([0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1),
)
def test_lying_end_record_is_read_or_refused(field: int, value: int) -> None:
    at = GOOD.rindex(b"PK\5\6") + field
    content = bytearray(GOOD)
    width = 4 if field in (12, 16) else 2
    content[at : at + width] = value.to_bytes(4, "little")[:width]

    check(read_or_refuse(bytes(content)))


@given(names=st.lists(NAMES, max_size=6, unique=True), stored=st.booleans())
def test_any_names_are_read_or_refused(names: list[str], stored: bool) -> None:
    writable = [name for name in names if name and "\0" not in name]  # zipfile writes only what is before a NUL
    files: dict[str, str | bytes] = {name.encode("utf-8", "replace").decode(): b"x = 1" for name in writable}
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED

    check(read_or_refuse(archive({**files, "shop-1.0.dist-info/WHEEL": METADATA}, compression=method)))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,3}(\.py|\.txt|/__init__\.py)", fullmatch=True), st.binary(max_size=20)
    )
)
def test_ordinary_files_are_read_or_collide(files: dict[str, bytes]) -> None:
    found = read_or_refuse(wheel(dict(files)))
    check(found)
    folders = {path[:at] for path in files for at, letter in enumerate(path) if letter == "/"}

    assert (files.items() <= found.items()) is not bool(folders & set(files))


@given(
    st.dictionaries(
        st.from_regex(r"[a-c]{1,2}(/[a-c]{1,2}){0,3}(\.py|\.txt|/__init__\.py)", fullmatch=True), st.just(b"")
    )
)
def test_every_source_is_a_module(files: dict[str, bytes]) -> None:
    found = sources_in(files)
    shadowed = {path for path in files if path.removesuffix(".py") + "/__init__.py" in files}

    assert {path for path in files if path.endswith(".py")} - shadowed == {
        source for source in found.values() if not source.endswith("/")
    }

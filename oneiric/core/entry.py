"""One entry of a manifest, and how entries are read: in batches, so that nobody waits long for the next one.

An entry that is written out again as the very bytes it was read from holds nothing that its type does not know: no
duplicate key, no unknown field. So the many that are tidy cost what msgspec costs; others get a closer look.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, NoReturn

import msgspec
from msgspec import Meta

from oneiric.core.candidate import NAME_RULE, is_factory_path, is_name
from oneiric.core.domain import DOMAINS
from oneiric.core.json_document import DEPTH, nesting, quoted, read_json, too_deep
from oneiric.core.words import reworded
from oneiric.errors import ManifestError

BATCH: Final = 500
_SAFE: Final = 1 << 53  # every JSON reader there is agrees about integers up to here

Whole = Annotated[int, Meta(ge=-_SAFE, le=_SAFE)]
Positive = Annotated[int, Meta(ge=1, le=_SAFE)]
Seconds = Annotated[float, Meta(gt=0, le=_SAFE)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One provider's offer, as published; what the format does not know is in ``extra`` and never trusted.

    A field that is described as kept is read and passed on by tools; nothing here is decided by it.
    """

    domain: Annotated[str, Meta(description="Kind of part: adapter, service, task, event, workflow or action.")]
    key: Annotated[str, Meta(description="The slot's key in the domain.")]
    provider: Annotated[str, Meta(description="The name of who offers.")]
    factory: Annotated[
        str, Meta(description="module:attribute, in the artifact that uri leads to, or else installed here.")
    ]
    uri: Annotated[
        str | None,
        Meta(description="Where the artifact is: relative to the manifest, of its origin, or on an allowed host."),
    ] = None
    sha256: Annotated[str | None, Meta(description="Digest of the artifact: 64 hex digits; required with uri.")] = None
    length: Annotated[Positive | None, Meta(description="Size of the artifact in bytes.")] = None
    stack_level: Annotated[
        Whole | None, Meta(description="The larger wins; used where ONEIRIC_STACK_ORDER names none for the source.")
    ] = None
    priority: Annotated[Whole, Meta(description="The larger wins between equal stack levels.")] = 0
    version: Annotated[str, Meta(description="PEP 440; the newer wins between equal priorities.")] = "0"
    metadata: Annotated[
        dict[str, Any], Meta(description="For people; its hint is shown when the candidate is rejected.")
    ] = {}
    capabilities: Annotated[
        tuple[str, ...], Meta(description="What the provider can do: names, or mappings with a name.")
    ] = ()
    owner: Annotated[str, Meta(description="Who answers for it. Kept.")] = ""
    requires_secrets: Annotated[bool, Meta(description="Whether it wants secrets. Kept.")] = False
    settings_model: Annotated[str, Meta(description="The type of its settings. Kept.")] = ""
    side_effect_free: Annotated[bool, Meta(description="Whether calls change nothing. Kept.")] = False
    timeout_seconds: Annotated[Seconds | None, Meta(description="How long a call should take. Kept.")] = None
    retry_policy: Annotated[dict[str, Any], Meta(description="How to call again. Kept.")] = {}
    requires: Annotated[
        tuple[str, ...], Meta(description="PEP 508 requirements that must be installed; never installed by us.")
    ] = ()
    conflicts_with: Annotated[tuple[str, ...], Meta(description="Providers it does not work beside. Kept.")] = ()
    python_version: Annotated[str, Meta(description="PEP 440 specifier that Python must meet, such as >=3.12.")] = ""
    os_platform: Annotated[tuple[str, ...], Meta(description="linux, darwin, windows; empty means any.")] = ()
    license: Annotated[str, Meta(description="Licence of the artifact. Kept.")] = ""
    documentation_url: Annotated[str, Meta(description="Where it is described. Kept.")] = ""
    event_topics: Annotated[tuple[str, ...], Meta(description="Topics of an event handler. Kept.")] = ()
    event_max_concurrency: Annotated[
        Positive | None, Meta(description="Calls of an event handler at a time. Kept.")
    ] = None
    event_filters: Annotated[
        tuple[dict[str, Any], ...], Meta(description="What an event handler wants to see. Kept.")
    ] = ()
    event_priority: Annotated[Whole | None, Meta(description="Rank among event handlers. Kept.")] = None
    event_fanout_policy: Annotated[str, Meta(description="How an event reaches its handlers. Kept.")] = ""
    dag: Annotated[dict[str, Any], Meta(description="Steps of a workflow. Kept.")] = {}
    extra: dict[str, Any] = {}


FIELDS: Final = frozenset(Entry.__struct_fields__) - {"extra"}

_DECODER: Final = msgspec.json.Decoder(list[Entry])
_ROWS_DECODER: Final = msgspec.json.Decoder(list[dict[str, Any]])
_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_SIXTY_FOUR_BITS: Final = msgspec.msgpack.Encoder()  # which raises OverflowError for an integer beyond them
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
# What passes at one glance: domain, key, provider, factory and digest. Whatever does not is looked at more closely.
_PLAIN: Final = re.compile(
    rf"(?:{'|'.join(DOMAINS)}) [a-z0-9][a-z0-9._-]{{0,127}} [a-z0-9][a-z0-9._-]{{0,127}} "
    r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]* (?:None|[0-9a-f]{64})",
    re.ASCII,
)


def iterate_entries(rows: Sequence[Any], *, batch: int = BATCH) -> Iterator[list[Entry]]:
    """Yield the entries that *rows* are, *batch* at a time.

    Args:
        rows: JSON not yet decoded (``msgspec.Raw``), or the plain values that it says.

    Raises ManifestError for the first that is wrong, with its index, its field and what would be accepted.
    """
    examiner = _Examiner()
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        entries = _tidy(chosen)
        if entries is None:
            entries = [_careful(row, index) for index, row in enumerate(chosen, start)]
        examiner.examine(entries, start)
        yield entries


def _tidy(rows: Sequence[Any]) -> list[Entry] | None:
    """Return the entries, or None unless each is written as we would write it."""
    if not isinstance(rows[0], msgspec.Raw):
        return None
    text = b"[" + b",".join(rows) + b"]"
    if b'"extra":' in text:  # no field that the format knows
        return None
    try:
        entries = _DECODER.decode(text)
        again = _ENCODER.encode_lines(entries).splitlines()
        others = [row for row, line in zip(rows, again, strict=True) if bytes(row) != line]
        is_tidy = not others or _are_canonical(others)
        _SIXTY_FOUR_BITS.encode(entries)
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError):
        return None
    in_lower_case = all(one.sha256 is None or one.sha256 == one.sha256.lower() for one in entries)
    return entries if is_tidy and in_lower_case else None


def _are_canonical(rows: Sequence[msgspec.Raw]) -> bool:
    """Say whether *rows* are what ``manifest pack`` writes of entries that have only fields which the format knows.

    That lets pass what a publisher wrote although it is the default, and text beyond ASCII.
    """
    text = b"[" + b",".join(rows) + b"]"
    values = _ROWS_DECODER.decode(text)
    if not all(row.keys() <= FIELDS for row in values):
        return False
    if _ENCODER.encode(values) == text:
        return True
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() == text


def _careful(row: Any, index: int) -> Entry:
    """Return one entry: null counts as not given, a digest may be in upper case, a capability may be a mapping."""
    given = _mapping(row, index)
    fields = {name: value for name, value in given.items() if name in FIELDS}
    extra = {name: value for name, value in given.items() if name not in FIELDS}
    if isinstance(fields.get("sha256"), str):
        fields["sha256"] = fields["sha256"].lower()
    described = fields.get("capabilities")
    if isinstance(described, list) and any(isinstance(capability, dict) for capability in described):
        fields["capabilities"] = [one.get("name") if isinstance(one, dict) else one for one in described]
        extra["capabilities"] = described
    try:
        return msgspec.convert({**fields, "extra": extra}, Entry)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        _refuse(index, path.rstrip("`").lstrip("."), reworded(what))


def _mapping(row: Any, index: int) -> dict[str, Any]:
    if isinstance(row, msgspec.Raw):
        try:
            row = read_json(bytes(row).decode())
        except UnicodeDecodeError:
            _refuse(index, "", "not UTF-8")
        except ManifestError as error:
            _refuse(index, "", error.message)
    if not isinstance(row, dict):
        _refuse(index, "", "not a mapping", "{domain: ..., key: ..., provider: ..., factory: ...}")
    return {name: value for name, value in row.items() if value is not None}


class _Examiner:
    """Checks entries one by one, and against those before them; remembers the versions and requirements it has seen."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str, str], int] = {}
        self._known: set[tuple[Any, ...]] = set()

    def examine(self, entries: list[Entry], start: int) -> None:
        """Raise ManifestError for the first of *entries* that is wrong."""
        for index, entry in enumerate(entries, start):
            words = (entry.version, entry.python_version, entry.requires)
            if words not in self._known or not _is_plain(entry):
                for field, what, accepted in _problems(entry):
                    _refuse(index, field, what, accepted)
                self._known.add(words)
            place = (entry.domain, entry.key, entry.provider)
            first = self._places.setdefault(place, index)
            if first != index:
                what = f"{entry.provider!r} is offered for {entry.domain}/{entry.key} already by entries[{first}]"
                _refuse(index, "provider", what, "one entry for each")
        free = [
            one for e in entries for one in (e.metadata, e.retry_policy, e.dag, e.extra, list(e.event_filters)) if one
        ]
        if nesting(free) > DEPTH - 2:  # the document and its list of entries stand around the entry
            raise too_deep()


def _is_plain(entry: Entry) -> bool:
    """Say whether nothing can be wrong with the names, the factory, the digest and the address of *entry*."""
    if entry.uri is not None and not (entry.uri and entry.sha256):
        return False
    text = f"{entry.domain} {entry.key} {entry.provider} {entry.factory} {entry.sha256}"
    return _PLAIN.fullmatch(text) is not None and ".." not in text


def _problems(entry: Entry) -> Iterable[tuple[str, str, str]]:
    """Yield what is wrong with *entry*: the field, what is the matter with it, and what would be accepted."""
    digest = entry.sha256
    for holds, field, what, accepted in (
        (entry.domain in DOMAINS, "domain", f"{quoted(entry.domain)} is none", f"one of: {', '.join(DOMAINS)}"),
        (is_name(entry.key), "key", f"{quoted(entry.key)} is not a name", NAME_RULE),
        (is_name(entry.provider), "provider", f"{quoted(entry.provider)} is not a name", NAME_RULE),
        (is_factory_path(entry.factory), "factory", f"{quoted(entry.factory)} is not a path", "package.module:name"),
        (entry.uri != "", "uri", "is empty", "leave it out, or say where the artifact is"),
        (entry.uri is None or digest is not None, "sha256", "is missing, and there is a uri", "64 hex digits"),
        (
            digest is None or _DIGEST.fullmatch(digest),
            "sha256",
            f"{quoted(digest or '')} is no digest",
            "64 hex digits",
        ),
    ):
        if not holds:
            yield field, what, accepted
    yield from _unreadable(entry)


def _unreadable(entry: Entry) -> Iterable[tuple[str, str, str]]:
    """Yield the version, the specifier and the requirements that ``packaging`` cannot read."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    for reader, field, texts, accepted in (
        (Version, "version", (entry.version,), "PEP 440, such as 1.2.0"),
        (SpecifierSet, "python_version", (entry.python_version,), "PEP 440, such as >=3.11"),
        (Requirement, "requires", entry.requires, "PEP 508, such as redis>=5"),
    ):
        for text in texts:
            try:
                reader(text)
            except (ValueError, RecursionError):
                yield field, f"{quoted(text)} cannot be read", accepted


def _refuse(index: int, field: str, what: str, accepted: str = "") -> NoReturn:
    where = f"entries[{index}]" + (f".{field}" if field else "")
    raise ManifestError(f"{where}: {what}", reason="entry", hint=accepted)

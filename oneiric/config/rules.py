"""What a setting must be beyond its type, by the setting it applies to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from oneiric.config.secrets import FORMS, malformed, texts
from oneiric.config.source import Source, Trail, quoted, suggestion
from oneiric.core.candidate import NAME_RULE, is_factory_path, is_name
from oneiric.core.config import (
    ApiSettings,
    AppSettings,
    CandidateSettings,
    DomainSettings,
    MetricsSettings,
    SlotSettings,
)

Rule = Callable[[Any, Trail, Source], None]
PLATFORMS: Final = ("linux", "darwin", "windows")
SOCKET_LIMIT_BYTES: Final = 107  # sun_path holds 108, the last of which is NUL

_LONGEST: Final = 300  # characters of a version or a requirement


def _socket(value: str, trail: Trail, source: Source) -> None:
    _path(value, trail, source)
    length = len(os.fsencode(value))
    if length > SOCKET_LIMIT_BYTES:
        what = f"is {length} bytes long, and the kernel accepts {SOCKET_LIMIT_BYTES}"
        source.refuse(trail, what, "a shorter path such as /run/oneiric.sock")


def _http(value: str, trail: Trail, source: Source) -> None:
    host, colon, port = value.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if is_bracketed else host
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535
    if not (colon and bare and is_port) or (":" in bare) != is_bracketed or any(c in " /@[]" for c in bare):
        accepted = "such as 127.0.0.1:9464 or [::1]:9464, a port at most 65535"
        source.refuse(trail, f"{quoted(value)} is not HOST:PORT", accepted)


def _collector(value: str, trail: Trail, source: Source) -> None:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:  # nor is it shown: it may hold a password
        source.refuse(trail, "is not an http or https URL", "such as http://127.0.0.1:4318")


def _path(value: str, trail: Trail, source: Source) -> None:
    if not value.strip():
        source.refuse(trail, "is empty", "a path")


def _name(value: str, trail: Trail, source: Source, *, at_key: bool = False) -> None:
    if not is_name(value):
        source.refuse(trail, f"{quoted(value)} is not a name", NAME_RULE, at_key=at_key)


def _factory(value: str, trail: Trail, source: Source) -> None:
    if not is_factory_path(value):
        source.refuse(trail, f"{quoted(value)} is not a factory's path", "package.module:attribute")


def _version(value: str, trail: Trail, source: Source) -> None:
    from packaging.version import Version

    if not _accepted(Version, value):
        source.refuse(trail, f"{quoted(value)} is not a PEP 440 version", "such as 1.2.0")


def _python_version(value: str, trail: Trail, source: Source) -> None:
    from packaging.specifiers import SpecifierSet

    if not _accepted(SpecifierSet, value):
        source.refuse(trail, f"{quoted(value)} is not a PEP 440 specifier", 'such as ">=3.12"')


def _requires(value: list[Any], trail: Trail, source: Source) -> None:
    from packaging.requirements import Requirement

    for here, text in texts(value, trail):
        if not _accepted(Requirement, text):
            source.refuse(here, f"{quoted(text)} is not a PEP 508 requirement", 'such as "redis>=5"')


def _accepted(kind: Callable[[str], object], text: str) -> bool:
    """Say whether *kind* can be made of *text*; nobody needs one so long that its digits or brackets overwhelm it."""
    if len(text) > _LONGEST:
        return False
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _platforms(value: list[Any], trail: Trail, source: Source) -> None:
    for here, text in texts(value, trail):
        if text not in PLATFORMS:
            source.refuse(here, f"unknown platform {quoted(text)}{suggestion(text, PLATFORMS)}", ", ".join(PLATFORMS))


def _selections(value: Mapping[str, Any], trail: Trail, source: Source) -> None:
    _keys(value, trail, source)
    for here, provider in texts(value, trail):
        _name(provider, here, source)


def _keys(value: Mapping[str, Any], trail: Trail, source: Source) -> None:
    for key in value:
        _name(key, (*trail, key), source, at_key=True)


def _candidates(value: list[Any], trail: Trail, source: Source) -> None:
    first: dict[tuple[str, str], int] = {}
    for index, candidate in enumerate(value):
        match candidate:
            case {"key": str(key), "provider": str(provider)} if first.setdefault((key, provider), index) != index:
                what = f"provider {quoted(provider)} is offered for {quoted(key)} twice"
                source.refuse((*trail, index), what, f"first at {source.origin((*trail, first[key, provider]))}")


def _provider_settings(value: Mapping[str, Any], trail: Trail, source: Source) -> None:
    for name in value:
        if not all(is_name(part) for part in name.split("/", 1)):
            source.refuse(
                (*trail, name), f"{quoted(name)} is neither provider nor key/provider", NAME_RULE, at_key=True
            )
    for here, text in texts(value, trail):
        if wrong := malformed(text):
            source.refuse(here, wrong, FORMS)


RULES: Final[Mapping[tuple[type, str], Rule]] = MappingProxyType(
    {
        (AppSettings, "cache_dir"): _path,
        (AppSettings, "state_dir"): _path,
        (ApiSettings, "socket"): _socket,
        (ApiSettings, "http"): _http,
        (MetricsSettings, "otlp_endpoint"): _collector,
        (CandidateSettings, "key"): _name,
        (CandidateSettings, "provider"): _name,
        (CandidateSettings, "factory"): _factory,
        (CandidateSettings, "stack"): _name,
        (CandidateSettings, "version"): _version,
        (CandidateSettings, "requires"): _requires,
        (CandidateSettings, "python_version"): _python_version,
        (CandidateSettings, "os_platform"): _platforms,
        (DomainSettings, "selections"): _selections,
        (DomainSettings, "candidates"): _candidates,
        (DomainSettings, "provider_settings"): _provider_settings,
        (DomainSettings, "capabilities"): _keys,
        (DomainSettings, "slots"): _keys,
        (SlotSettings, "before_swap"): _factory,
        (SlotSettings, "after_swap"): _factory,
    }
)

"""What an URL says: how to print it, where it leads, and whether we may go there.

Everything here is pure. Only URLs of one plain shape pass ``require_safe``, so that no two parsers can disagree about
the host: ASCII, no user or password, a DNS name in labels or an IP address as everybody writes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

from oneiric.core import origin as origins
from oneiric.core.origin import CHARACTERS, Origin, is_host_name, is_link_local, is_local, join, to_address
from oneiric.errors import FetchError

__all__ = ["Allow", "Origin", "allowed_by", "is_local", "origin_of", "printable", "refusal", "require_safe", "resolve"]

Allow = Callable[[str, str], bool]
"""Says whether an artifact's URL (first) may be fetched for the manifest that came from the second."""

_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[1-9][0-9]{0,4})?")
_LONGEST: Final = 8192
_MAX_PRINTED: Final = 512


def printable(url: str) -> str:
    """Return *url* without user, password, query and fragment, on one line: the only form that is ever shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "<malformed URL>"
    start = f"{parts.scheme}:" if parts.scheme else ""
    if host is not None:
        text = f"{start}//{f'[{host}]' if ':' in host else host}{'' if port is None else f':{port}'}{parts.path}"
    elif parts.netloc or parts.scheme not in ("", "file", "tuf+file"):
        return "<malformed URL>"
    else:
        text = f"{start}//{parts.path}" if start else parts.path
    text = "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)
    return text if len(text) <= _MAX_PRINTED else text[:_MAX_PRINTED] + "..."


def origin_of(url: str) -> Origin:
    """Return the origin of an http or https URL; raises ValueError for anything else."""
    origin = origins.origin_of(url)
    if origin is None:
        raise ValueError("not an http or https URL with a host")
    return origin


def require_safe(url: str, *, allow_plain_http: bool = False) -> Origin:
    """Return the origin of *url*; raises FetchError where we do not go, whoever sends us there.

    That is: malformed, another scheme, credentials inside, http to another machine unless *allow_plain_http*, and
    link-local addresses, where clouds keep their metadata services.
    """
    if len(url) > _LONGEST or CHARACTERS.fullmatch(url) is None:
        what = "the URL is too long, or holds a character that must be percent-encoded"
        raise refusal(url, what, "percent-encode it")
    try:
        parts, origin = urlsplit(url), origin_of(url)
    except ValueError as error:
        raise refusal(url, f"the URL is malformed: {error}", "use https://host/path") from None
    if "@" in parts.netloc:
        raise refusal(url, "the URL holds a user or a password", "remove what stands before the @")
    if _AUTHORITY.fullmatch(parts.netloc) is None:
        raise refusal(url, "the URL is malformed before its path", "use https://host/path")
    address = to_address(origin.host)
    if address is None and not is_host_name(origin.host):
        raise refusal(url, "the host is neither a name nor an IP address", "use https://host/path")
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise refusal(url, "the host is an IPv4 address written as IPv6", f"use {address.ipv4_mapped}")
    if address is not None and is_link_local(address):
        raise refusal(url, f"{address} is a link-local address", "use an address that is routed")
    if not origin.is_private and not allow_plain_http:
        raise refusal(url, "plain http to another machine", "use https, or set remote.allow_plain_http")
    return origin


def allowed_by(hosts: Iterable[str]) -> Allow:
    """Return a rule: an artifact may come from the manifest's own origin, and from each of *hosts*.

    Args:
        hosts: ``host`` for any port of it, or ``host:port``.
    """
    allowed = frozenset(host.lower() for host in hosts)

    def allow(url: str, manifest_url: str) -> bool:
        origin = origin_of(url)
        if not is_local(manifest_url) and origin == origin_of(manifest_url):
            return True
        return origin.is_among(allowed)

    return allow


def resolve(manifest_url: str, uri: str) -> str:
    """Return the URL of an artifact whose *uri* may be relative to the manifest's; raises FetchError if malformed."""
    try:
        return join(manifest_url, uri)
    except ValueError as error:
        raise refusal(uri, f"the URL is malformed: {error}", "use https://host/path") from None


def refusal(url: str, what: str, hint: str) -> FetchError:
    """Return the error for a URL that policy keeps us from."""
    return FetchError(f"policy: {printable(url)}: {what}", reason="policy", hint=hint)

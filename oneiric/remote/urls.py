"""What an URL says: how to print it, where it leads, and whether we may go there.

Everything here is pure. Only URLs of one plain shape pass ``require_safe``, so that no two parsers can disagree about
the host: ASCII, no user or password, a DNS name in labels or an IP address as everybody writes it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from oneiric.errors import FetchError

Allow = Callable[[str, str], bool]
"""Says whether an artifact's URL (first) may be fetched for the manifest that came from the second."""

_PORTS: Final = {"https": 443, "http": 80}
_CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]{1,8192}")
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[1-9][0-9]{0,4})?")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_LIKE_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_MAX_PRINTED: Final = 512

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Origin(NamedTuple):
    """Scheme, host and port: what may see a credential meant for one of its URLs."""

    scheme: str
    host: str
    port: int

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along: TLS, or never leaving this machine."""
        return self.scheme == "https" or is_loopback(self.host)


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


def is_local(url: str) -> bool:
    """Say whether *url* names a file of this machine: ``file:`` or a plain path."""
    return url.lower().startswith("file:") or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url)


def origin_of(url: str) -> Origin:
    """Return the origin of an http or https URL; raises ValueError for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("not an http or https URL with a host")
    address = to_address(parts.hostname)
    return Origin(parts.scheme, str(address or parts.hostname), parts.port or _PORTS[parts.scheme])


def require_safe(url: str, *, allow_plain_http: bool = False) -> Origin:
    """Return the origin of *url*; raises FetchError where we do not go, whoever sends us there.

    That is: malformed, another scheme, credentials inside, http to another machine unless *allow_plain_http*, and
    link-local addresses, where clouds keep their metadata services.
    """
    if _CHARACTERS.fullmatch(url) is None:
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
    if address is None and (_NAME.fullmatch(origin.host) is None or _LIKE_A_NUMBER.fullmatch(origin.host)):
        raise refusal(url, "the host is neither a name nor an IP address", "use https://host/path")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        raise refusal(url, "the host is an IPv4 address written as IPv6", f"use {address.ipv4_mapped}")
    if address is not None and is_link_local(address):
        raise refusal(url, f"{address} is a link-local address", "use an address that is routed")
    if not origin.is_private and not allow_plain_http:
        raise refusal(url, "plain http to another machine", "use https, or set remote.allow_plain_http")
    return origin


def to_address(host: str) -> Address | None:
    """Return the IP address that *host* is, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Say whether *host* is this machine, by name or by address."""
    address = to_address(host)
    return host in ("localhost", "localhost.") if address is None else address.is_loopback


def is_link_local(address: Address) -> bool:
    """Say whether *address* is in 169.254.0.0/16 or fe80::/10, also in the IPv6 clothes of a mapping or of NAT64."""
    if isinstance(address, ipaddress.IPv6Address) and (address in _NAT64 or address.ipv4_mapped):
        address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.is_link_local


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
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        return not allowed.isdisjoint({origin.host, host, f"{host}:{origin.port}"})

    return allow


def resolve(manifest_url: str, uri: str) -> str:
    """Return the URL of an artifact whose *uri* may be relative to the manifest's; raises FetchError if malformed."""
    try:
        return urljoin(manifest_url, uri)
    except ValueError as error:
        raise refusal(uri, f"the URL is malformed: {error}", "use https://host/path") from None


def refusal(url: str, what: str, hint: str) -> FetchError:
    """Return the error for a URL that policy keeps us from."""
    return FetchError(f"policy: {printable(url)}: {what}", reason="policy", hint=hint)

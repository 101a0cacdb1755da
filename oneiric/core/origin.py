"""Whose a URL is, and where artifacts may come from: beside their manifest, or from hosts that the operator named.

Only addresses of one plain shape pass, so that no two parsers can disagree about the host. Nothing is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

_PORTS: Final = {"https": 443, "http": 80}
CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", re.ASCII)
"""What a URL may consist of."""
_BELOW: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._~+-]*)*", re.ASCII)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_LIKE_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.ASCII)
_NAT64: Final = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class Origin(NamedTuple):
    """Scheme, host and port: what may see a credential meant for one of its URLs."""

    scheme: str
    host: str
    port: int

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along: TLS, or never leaving this machine."""
        return self.scheme == "https" or is_loopback(self.host)

    def is_among(self, hosts: frozenset[str]) -> bool:
        """Say whether it is one of *hosts*, in lower case: ``host`` for any port of it, or ``host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return not hosts.isdisjoint({self.host, host, f"{host}:{self.port}"})


class Origins:
    """What the entries of one manifest may name as their artifact.

    Args:
        manifest_url: where the manifest came from: an http or https URL, a ``file:`` URL, or a path.
        allowed_hosts: ``host`` for any port of it, or ``host:port``.
        allow_plain_http: whether http may lead to another machine.
    """

    def __init__(self, manifest_url: str, *, allowed_hosts: Iterable[str] = (), allow_plain_http: bool = False) -> None:
        self._is_local = is_local(manifest_url)
        self._url = quote(manifest_url) if self._is_local and not _is_file_url(manifest_url) else manifest_url
        self._own = None if self._is_local else origin_of(manifest_url)
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._plain_http = allow_plain_http
        self._trusts_own = self._is_local or self._refusal_of(manifest_url) is None

    def refusal(self, uri: str) -> str | None:
        """Say why an artifact may not come from *uri*, without repeating it; None when it may."""
        if self._trusts_own and _BELOW.fullmatch(uri) and ".." not in uri:
            return None
        if CHARACTERS.fullmatch(uri) is None:
            return "holds a character that must be percent-encoded"
        try:
            target = join(self._url, uri)
        except ValueError:
            return "is malformed"
        return self._refusal_of_file(target) if is_local(target) else self._refusal_of(target)

    def _refusal_of_file(self, target: str) -> str | None:
        if not self._is_local:
            return "names a file of this machine, and the manifest came from another"
        home, path = _path(self._url).rpartition("/")[0], _path(target)
        is_below = path.startswith(f"{home}/") if home else not path.startswith("/") or self._url.startswith("/")
        if not is_below or ".." in path.split("/") or "\0" in path or urlsplit(target).netloc not in ("", "localhost"):
            return "leads out of the directory of the manifest"
        return None

    def _refusal_of(self, target: str) -> str | None:
        origin = origin_of(target)
        if origin is None:
            return "is neither relative nor an https URL with a host"
        if "@" in urlsplit(target).netloc:
            return "holds a user or a password"
        return _refusal_of_host(origin.host) or self._refusal_of_origin(origin)

    def _refusal_of_origin(self, origin: Origin) -> str | None:
        if not origin.is_private and not self._plain_http:
            return "is plain http to another machine"
        if origin != self._own and not origin.is_among(self._hosts):
            return f"leads to {origin.host}, which is neither where the manifest came from nor in remote.allowed_hosts"
        return None


def join(base: str, uri: str) -> str:
    """Return the URL that *uri* is beside *base*; raises ValueError when it is none."""
    # What has a scheme is complete: urljoin takes https:x for relative, and others take it for a host.
    return uri if _SCHEME.match(uri) else urljoin(base, uri)


def is_local(url: str) -> bool:
    """Say whether *url* names a file of this machine: ``file:`` or a plain path."""
    return _is_file_url(url) or not (_SCHEME.match(url) or url.startswith("//"))


def is_loopback(host: str) -> bool:
    """Say whether *host* is this machine, by name or by address."""
    address = to_address(host)
    return host in ("localhost", "localhost.") if address is None else address.is_loopback


def is_link_local(address: Address) -> bool:
    """Say whether *address*, or the IPv4 address that it may be in the clothes of IPv6, is link-local."""
    return any(meant.is_link_local for meant in _meanings(address))


def is_host_name(host: str) -> bool:
    """Say whether *host* is a DNS name in labels, and nothing that somebody reads as a number."""
    return _HOST.fullmatch(host) is not None and _LIKE_A_NUMBER.fullmatch(host) is None


def to_address(host: str) -> Address | None:
    """Return the IP address that *host* is; None for a name, and for a zone, which only one machine understands."""
    if "%" in host:
        return None
    try:
        return ip_address(host)
    except ValueError:
        return None


def origin_of(url: str) -> Origin | None:
    """Return the origin of an http or https URL, None of anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host:
        return None
    return Origin(parts.scheme, str(to_address(host) or host), _PORTS[parts.scheme] if port is None else port)


def _is_file_url(url: str) -> bool:
    return url[:5].lower() == "file:"


def _refusal_of_host(host: str) -> str | None:
    address = to_address(host)
    if address is None:
        return None if is_host_name(host) else "has a host that is neither a name nor an address as everybody writes it"
    return "leads to a link-local address" if is_link_local(address) else None


def _meanings(address: Address) -> list[Address]:
    """Return *address*, and the IPv4 address that it may be in the clothes of IPv6."""
    if isinstance(address, IPv4Address):
        return [address]
    inner = [address.ipv4_mapped, address.sixtofour]
    if address in _NAT64:
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(one for one in inner if one is not None)]


def _path(url: str) -> str:
    return unquote(urlsplit(url).path)

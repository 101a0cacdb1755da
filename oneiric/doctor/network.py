"""Runbook 3, scenario A: the manifest cannot be reached. What kind of trouble it is, and how to look closer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from oneiric.doctor.vitals import RemoteVital, Vitals
from oneiric.doctor.wording import app_file, host_of, port_of, quoted

REASONS: Final = frozenset({"timeout", "connection", "dns", "tls", "http", "redirect"})
"""The reasons of failed synchronisations that this scenario covers."""

_STATUS: Final = re.compile(r"\bhttp: ([1-5]\d\d)\b")
_PROXY: Final = re.compile(r"\bthe proxy \S|proxy variable of the environment|\bhttp: 407\b")
_URL: Final = re.compile(r"\bhttps?://[^\s'\"<>]+")
_CONNECTED: Final = re.compile(r"broke off|cut in the middle|reset")

_TITLES: Final = {
    "dns": "the name of {what}'s host does not resolve",
    "connection refused": "{what}'s host refuses connections",
    "connection": "connections to {what}'s host fail",
    "timeout": "{what}'s host does not answer in time",
    "tls": "{what}'s host cannot prove itself: TLS fails",
    "proxy": "the proxy does not let {what} through",
    "http status": "{what}'s server answers with an error",
    "http": "{what}'s server gives an answer that is none",
    "redirect": "{what}'s server sends us elsewhere",
}

_NOT_LET_IN: Final = "# {file}: correct remote.token, or ask the publisher to let this machine in"
_GONE: Final = "# {file}: correct remote.manifest_url, or ask the publisher where the file went"
_SERVER: Final = "# the publisher: the server at {host} is at fault, see what curl shows"
_UNREACHED: Final = "# {place}: see that the publisher's server runs; firewall: allow it outwards"
_REMEDIES: Final = {
    "dns": "# {file}: correct the host in remote.manifest_url if it is misspelt; else no name server knows it",
    "tls": "# the publisher: renew the certificate; your own authority: SSL_CERT_FILE; check the clock",
    "proxy": "# the daemon's environment: correct {proxies}, or name {host} in NO_PROXY; then restart oneiric",
    "timeout": "# firewall: allow {place} outwards; {file}: raise remote.timeout if the publisher is slow",
    "redirect": "# {file}: set remote.manifest_url to where the file really is",
    "http status": _SERVER,
    "http": _SERVER,
    **dict.fromkeys(("401", "403"), _NOT_LET_IN),
    **dict.fromkeys(("404", "410"), _GONE),
}
"""What to change, by the kind of trouble or the HTTP status."""


class Trouble(NamedTuple):
    """What kind of network trouble it is, in the words of a finding."""

    variant: str
    title: str


def asked(remote: RemoteVital) -> RemoteVital:
    """Return *remote* with the URL that could not be had: the manifest's, or that of an artifact it names."""
    found = _URL.search(remote.last_error)
    url = found[0].rstrip(":;,.)") if found else ""
    return msgspec.structs.replace(remote, url=url) if host_of(url) else remote


def is_elsewhere(remote: RemoteVital) -> bool:
    """Say whether what could not be had is on another host than the manifest."""
    there = asked(remote).url
    return (host_of(there), port_of(there)) != (host_of(remote.url), port_of(remote.url))


def trouble(remote: RemoteVital, reason: str) -> Trouble:
    """Return what kind of trouble keeps the manifest, or an artifact of it, away."""
    variant = _variant(asked(remote), reason)
    return Trouble(variant, _TITLES[variant].format(what="an artifact" if is_elsewhere(remote) else "the manifest"))


def _variant(remote: RemoteVital, reason: str) -> str:
    error = remote.last_error
    if _PROXY.search(error):
        return "proxy"
    if reason == "connection":
        return "connection refused" if "refused" in error.lower() else "connection"
    if reason == "http":
        return "http status" if _STATUS.search(error) else "http"
    return reason if reason in _TITLES else "connection"


def is_over(remote: RemoteVital, reason: str) -> bool:
    """Say whether what kept the manifest away is gone: nobody took connections then, and somebody does now.

    Of a server that took them and did not answer as it should, a connection proves nothing; nor does one that goes
    past the proxy.
    """
    if remote.reachable != "" or is_elsewhere(remote) or proxy_for(remote):
        return False
    return reason == "dns" or (reason == "connection" and not _CONNECTED.search(remote.last_error))


def proxy_for(remote: RemoteVital) -> str:
    """Return the proxy through which *remote* is asked, "" where it is asked directly."""
    variables: dict[str, str] = {}
    for line in remote.proxies:
        name, _, value = line.partition("=")
        variables[name.upper()] = value
    host = host_of(remote.url)
    if not host or _is_direct(host, variables.get("NO_PROXY", "").split(",")):
        return ""
    name = "HTTP_PROXY" if urlsplit(remote.url.removeprefix("tuf+")).scheme == "http" else "HTTPS_PROXY"
    value = variables.get(name) or variables.get("ALL_PROXY", "")
    return value if "//" in value or not value else f"http://{value}"


def _is_direct(host: str, exceptions: Iterable[str]) -> bool:
    """Say whether *host* is asked without a proxy: this machine always is."""
    for exception in ("localhost", "127.0.0.0/8", "::1", *map(str.strip, exceptions)):
        name = exception.lower().removeprefix("*.").removeprefix(".")
        is_name_itself = name == host and not exception.startswith((".", "*."))
        if name and (name == "*" or is_name_itself or host.endswith(f".{name}")):
            return True
        try:
            if ip_address(host) in ip_network(name, strict=False):
                return True
        except ValueError:
            continue
    return False


def commands(vitals: Vitals, remote: RemoteVital, variant: str, sync: str) -> Iterator[str]:
    """Yield what to type, in the runbook's order; *sync* is the command to end with."""
    host, url = host_of(remote.url), quoted(remote.url.removeprefix("tuf+"))
    if host:
        name = quoted(host)
        if variant == "dns":
            yield f"nslookup {name}"
        elif variant in ("connection refused", "connection", "timeout"):
            yield f"ping -c 3 {name}"
        yield f"curl -v {url}"
        if variant == "tls":
            yield f"openssl s_client -connect {name}:{port_of(remote.url)} -servername {name} </dev/null"
            yield "date -u"
        if variant == "proxy":
            yield f"curl -v --noproxy '*' {url}"
        yield f"docker exec -it oneiric curl -v {url}"
    yield _remedy(vitals, remote, variant, host)
    yield sync


def _remedy(vitals: Vitals, remote: RemoteVital, variant: str, host: str) -> str:
    found = _STATUS.search(remote.last_error) if variant == "http status" else None
    status = found[1] if found else ""
    return _REMEDIES.get(status, _REMEDIES.get(variant, _UNREACHED)).format(
        file=app_file(vitals),
        host=host,
        place=f"{host}:{port_of(remote.url)}",
        proxies=", ".join(remote.proxies) or "HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
    )

"""The variables of the environment that are read and are no setting of their own section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VARIABLES: Final[Mapping[str, str]] = {
    "ONEIRIC_STACK_ORDER": "The level of each stack, as `name:level` with commas: `myapp:20,oneiric:10,default:0`; "
    "`default` holds for the rest. A malformed value is an error.",
    "PORT": "Moves HTTP to that port on every address, where nothing else sets api.http.",
    "HTTP_PROXY": "The proxy for http, of a manifest and its artifacts. Lower case holds too.",
    "HTTPS_PROXY": "The proxy for https, likewise.",
    "ALL_PROXY": "The proxy for both, where neither is set.",
    "NO_PROXY": "Hosts, domains and networks that are reached without a proxy, with commas.",
    "SSL_CERT_FILE": "A file of the certificate authorities to believe, in place of the machine's.",
    "SSL_CERT_DIR": "A directory of them.",
    "NO_COLOR": "Anything: no colours, as --no-color.",
    "NOTIFY_SOCKET": "Set by systemd: where the daemon says that it is ready, how it is, and that it stops.",
    "WATCHDOG_USEC": "Set by systemd: within how many microseconds the daemon must show a sign of life.",
    "LISTEN_PID": "Set by systemd, with `LISTEN_FDS`: whom the sockets are for.",
    "LISTEN_FDS": "Set by systemd: 1 hands over the listening TCP socket, which replaces api.http.",
    "_ONEIRIC_COMPLETE": "Set by the script of `oneiric completion`, when a shell asks what may come next.",
}

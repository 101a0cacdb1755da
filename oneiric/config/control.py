"""Where the daemon's control socket is, for commands that must find it even while the settings are broken."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from os.path import join
from typing import Any, Final

from oneiric.config.files import read_bounded
from oneiric.core.places import CONTROL_SOCKET

VARIABLE: Final = "ONEIRIC_API__SOCKET"
LIMIT_BYTES: Final = 1 << 20


def control_socket(directory: PathLike[str] | str, environ: Mapping[str, str], flag: str | None) -> str:
    """Return the control socket's path: a flag, the environment, ``app.yml`` as far as it can be read, the default.

    Says nothing of mistakes in the settings and never raises.
    """
    return flag or environ.get(VARIABLE) or _from_file(join(directory, "app.yml")) or CONTROL_SOCKET  # noqa: PTH118


def _from_file(file: str) -> str:
    try:
        content = read_bounded(file, LIMIT_BYTES)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return ""
    if b"socket" not in content:  # not worth importing a YAML parser
        return ""
    from oneiric.config.reader import decode, parse
    from oneiric.config.source import Source

    source = Source(file)
    text = decode(content, source)
    socket = None if text is None else _under(_under(parse(text, source), "api"), "socket")
    return socket if isinstance(socket, str) else ""


def _under(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None

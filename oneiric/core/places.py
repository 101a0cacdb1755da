"""Where things are unless settings say otherwise; relative to the working directory."""

from __future__ import annotations

from typing import Final

CACHE_DIR: Final = ".oneiric_cache"
STATE_DIR: Final = ".oneiric_state"
CONTROL_SOCKET: Final = f"{STATE_DIR}/oneiric.sock"

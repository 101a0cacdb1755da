"""What kinds of metrics there are, and what they are about: words that the catalog and the API's documents share."""

from __future__ import annotations

from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Group = Literal["resolution", "lifecycle", "remote", "settings", "process"]

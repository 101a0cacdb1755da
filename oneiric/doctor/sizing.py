"""The runbook's formula for memory: how much to allow for so many instances, and how to say so where it runs."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

INSTANCE_MB: Final = 50
OVERHEAD_MB: Final = 500
_RESERVE: Final = 1.1  # what the formula gives is met exactly by nobody


class Size(NamedTuple):
    """What so many instances need, and the limit to set."""

    instances: int
    needed_mb: int
    limit_gib: int

    @property
    def formula(self) -> str:
        """The runbook's formula, carried out."""
        gigabytes = self.needed_mb / 1000
        return f"{self.instances} * {INSTANCE_MB} MB + {OVERHEAD_MB} MB = {self.needed_mb} MB ({gigabytes:g} GB)"

    @property
    def commands(self) -> dict[str, str]:
        """What to type to set the limit, by where it runs."""
        return {
            "docker": f"docker update --memory {self.limit_gib}g oneiric",
            "systemd": f"sudo systemctl set-property oneiric MemoryMax={self.limit_gib}G",
            "kubernetes": f"kubectl patch deployment oneiric -p '{self._patch}'",
        }

    @property
    def _patch(self) -> str:
        container = {"name": "oneiric", "resources": {"limits": {"memory": f"{self.limit_gib}Gi"}}}
        return json.dumps({"spec": {"template": {"spec": {"containers": [container]}}}}, separators=(",", ":"))


def size_for(instances: int) -> Size:
    """Return what *instances* need by the runbook's formula, and a limit of whole GiB with a tenth to spare."""
    needed = instances * INSTANCE_MB + OVERHEAD_MB
    return Size(instances, needed, max(1, -int(-needed * _RESERVE // 1024)))

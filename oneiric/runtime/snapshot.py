"""Everything there is to know at one moment, as a value: what the API, the command line and services report from.

Imports no engine: with no daemon the command line fills one from settings and plugins on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from oneiric.core.candidate import Slot
from oneiric.core.registry import Registry
from oneiric.core.resolution import Policy, Resolution, resolve
from oneiric.core.states import State, shown

if TYPE_CHECKING:
    from oneiric.lifecycle.reports import Health, Leak, SwapRecord
    from oneiric.plugins.discovery import Plugin
    from oneiric.runtime.remembered import Pin, Remembered


class SlotRecord(msgspec.Struct, frozen=True):
    """One slot: who should fill it (``resolution``), who does (``provider``), and how that came about."""

    slot: Slot[Any]
    resolution: Resolution
    state: State = State.INACTIVE
    provider: str = ""
    instance_id: str = ""
    built_at: datetime | None = None
    pin: Pin | None = None
    note: str = ""
    leases: int = 0
    leaks: tuple[Leak, ...] = ()
    instances: int = 0
    memory_bytes: int = 0
    outcomes: Mapping[str, int] = {}
    last_error: str = ""
    health: Health | None = None
    history: tuple[SwapRecord, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """All slots with a candidate or an instance, and what decides between candidates. ``live`` is false from disk."""

    live: bool
    registry: Registry
    policy: Policy
    slots: tuple[SlotRecord, ...]
    plugins: tuple[Plugin, ...] = ()

    def select(self, *, domain: str | None = None, key: str | None = None) -> tuple[SlotRecord, ...]:
        """Return the records of a domain, a key, or both."""
        return tuple(r for r in self.slots if domain in (None, r.slot.domain) and key in (None, r.slot.key))

    def record(self, slot: Slot[Any]) -> SlotRecord:
        """Return the record of *slot*, also when nothing was ever offered for it."""
        found = next((record for record in self.slots if record.slot == slot), None)
        return found or SlotRecord(slot, resolve(self.registry, self.policy, slot))


def from_disk(
    registry: Registry, policy: Policy, plugins: tuple[Plugin, ...] = (), remembered: Remembered | None = None
) -> Snapshot:
    """Return what would be, were a daemon running: every slot resolved, none active, with what the last one left."""
    pins = remembered.pins if remembered is not None else {}
    activities = remembered.activities if remembered is not None else {}
    records = tuple(
        SlotRecord(
            slot,
            resolve(registry, policy, slot),
            state=shown(State.INACTIVE, activities[slot].activity) if slot in activities else State.INACTIVE,
            pin=pins.get(slot),
            note=activities[slot].note if slot in activities else "",
            history=remembered.swaps(slot) if remembered is not None else (),
        )
        for slot in registry.slots()
    )
    return Snapshot(live=False, registry=registry, policy=policy, slots=records, plugins=plugins)

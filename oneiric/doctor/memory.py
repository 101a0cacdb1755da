"""Runbook 5: instances that stay, memory that grows, many instances, and slots that swap without end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oneiric.core.words import plural
from oneiric.doctor import growth, looping
from oneiric.doctor.failures import RESTART, of_slot, place
from oneiric.doctor.finding import Finding
from oneiric.doctor.gather import gathered
from oneiric.doctor.sizing import size_for
from oneiric.doctor.vitals import ProcessVital, Residue, SlotVital, Vitals
from oneiric.doctor.wording import cut, size, span

MANY: Final = 100
"""Instances from which on OneiricActiveInstancesHigh fires."""
TOO_MANY: Final = 200
"""Instances from which on OneiricActiveInstancesExtremelyHigh fires."""
REFERENCED: Final = 3
"""Closed instances of a slot that something still refers to; fewer may only wait for the garbage collector."""
_SHOWN: Final = 10
_LEAKED: Final = (
    "sum(oneiric_lifecycle_swap_total) - sum(oneiric_lifecycle_cleanup_total) - sum(oneiric_lifecycle_active_instances)"
)
_INSTANCES: Final = "PromQL: oneiric:system_active_instances_total:5m"


def examine(vitals: Vitals) -> Iterator[Finding]:
    """Yield what uses up memory."""
    yield from gathered(_leaks(vitals))
    yield from gathered(looping.examine(vitals))
    if vitals.process is not None:
        yield from growth.examine(vitals, vitals.process)
        yield from _many(vitals, vitals.process)


# 5A


def _leaks(vitals: Vitals) -> Iterator[Finding]:
    for slot in vitals.slots:
        kinds = {kind: [one for one in slot.residues if one.kind == kind] for kind in _KINDS}
        if len(kinds["referenced"]) < REFERENCED:
            kinds["referenced"] = []
        if any(kinds.values()):
            yield _leak(vitals, slot, kinds)


_KINDS: Final = ("held", "not-closed", "referenced")


def _leak(vitals: Vitals, slot: SlotVital, kinds: dict[str, list[Residue]]) -> Finding:
    held, unclosed, referenced = (kinds[kind] for kind in _KINDS)
    facts = [plural(len(found), f"instance {words}") for words, found in _worded(kinds) if found]
    left = [*held, *unclosed, *referenced]
    facts += [_residue(one) for one in left[:_SHOWN]]
    if len(left) > _SHOWN:
        facts.append(f"... and {len(left) - _SHOWN} more")
    failed = of_slot(vitals, slot, "cleanup-failed")
    if failed:
        error = cut(str(failed[-1].fields.get("error", "")))
        facts.append(f"{plural(len(failed), 'failed cleanup')} in the last 5 min, the last: {error}")
    holders = ", ".join(dict.fromkeys(one.holder for one in held if one.holder)) or "whoever holds them"
    cure = []
    if held:
        cure.append(
            f"# {holders}: end the leases, each in async with around one use; the instances close by themselves"
        )
    if unclosed:
        cure.append("# correct how the provider closes: aclose(), cleanup() or close() must end and not raise")
    if referenced:
        cure.append("# the program: keep no instance outside its lease, in an attribute or a global name")
    return Finding(
        code="5A",
        priority="P2",
        title="instances that should be gone are not",
        subject=str(slot),
        variant="held" if held else "not closed" if unclosed else "referenced",
        evidence=tuple(facts),
        commands=(f"oneiric status {place(slot)}", *cure, f"# restart to free them at once: {RESTART}"),
        confirm=(
            f"oneiric status {place(slot)}: leaked 0",
            f"PromQL: {_LEAKED} == 0",
            _INSTANCES,
        ),
        caused_by="2D" if unclosed and not held else "",
    )


def _worded(kinds: dict[str, list[Residue]]) -> Iterator[tuple[str, list[Residue]]]:
    yield "held by callers past the drain timeout", kinds["held"]
    yield "whose cleanup failed", kinds["not-closed"]
    yield "closed and still referred to", kinds["referenced"]


def _residue(one: Residue) -> str:
    by = f" by {one.holder}" if one.holder else ""
    leases = f", {plural(one.leases, 'lease')}" if one.leases else ""
    return f"{one.provider} {one.instance_id}: {one.kind}{by}{leases}, {span(one.age)} old"


# 5C


def _many(vitals: Vitals, process: ProcessVital) -> Iterator[Finding]:
    active = process.active_instances
    if active < MANY:
        return
    needs, limit = size_for(active), process.memory_limit_bytes
    where = needs.commands
    raises = (
        *("# the one of these where it runs:", where["docker"], where["kubernetes"], where["systemd"]),
        "# or take components out of the settings that nobody needs",
    )
    facts = [
        f"{active} active instances in {plural(sum(bool(slot.serving) for slot in vitals.slots), 'slot')}",
        f"needed: {needs.formula}; measured: {size(process.resident_bytes)}",
        f"memory limit: {size(limit)}" if limit is not None else "memory limit: none",
    ]
    is_enough = limit is not None and limit >= needs.needed_mb * 1_000_000
    if is_enough:
        facts.append("the limit allows for that")
    yield Finding(
        code="5C",
        priority="P0" if active >= TOO_MANY else "P2",
        title=f"{active} instances are active, none of them leaked",
        evidence=tuple(facts),
        commands=("oneiric status", f"oneiric doctor --size {active}", *raises),
        confirm=(f"{_INSTANCES} < {MANY}", "docker inspect oneiric | jq '.[0].State.OOMKilled': false"),
    )
    if limit is None:
        yield Finding(
            code="5C",
            priority="P3",
            title="no memory limit is set, so that other programs of the machine suffer first",
            variant="no memory limit",
            evidence=(f"{active} active instances, no limit in the cgroup of process {process.pid}",),
            commands=(f"oneiric doctor --size {active}", *raises[:-1]),
            confirm=("oneiric doctor: says no more that there is no memory limit",),
        )

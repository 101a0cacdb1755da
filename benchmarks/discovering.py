"""What it costs to find what is installed: a fresh process each time, with so many distributions more than there are.

Each is a ``dist-info`` directory with a console script, as most have; every tenth is a plugin of ours.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.commands import ONEIRIC
from benchmarks.measure import Budget, Claim, Row, Sample, measure
from benchmarks.processes import Launcher, launcher, plugin

EVERY: Final = 10
GROUPS: Final = tuple(f"oneiric.{domain}s" for domain in ("adapter", "service", "task", "event", "workflow", "action"))
STANDARD: Final = f"from importlib.metadata import entry_points; [entry_points(group=each) for each in {GROUPS}]"
OURS: Final = """
import sys
from oneiric.core.config import PluginsSettings
from oneiric.plugins.discovery import selected
selected(PluginsSettings(), sys.path)
"""
COMMANDS: Final = {
    "importlib.metadata, a call for each group": (sys.executable, "-c", STANDARD),
    "find plugins": (sys.executable, "-c", "; ".join(OURS.split("\n")[1:-1])),
    "oneiric plugins": (*ONEIRIC, "plugins"),
}
BASELINE: Final = next(iter(COMMANDS))
SOURCE: Final = """
from oneiric import Candidate, Slot

def offer(number):
    return Candidate(slot=Slot("adapter", f"part-{number}"), provider="only", factory="parts:Part")

"""
TIMES: Final = 1.2


async def discovering(budget: Budget) -> list[Row]:
    """Finding the entry points of our groups, and loading them, against asking ``importlib.metadata`` for them."""
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    launchers: dict[str, tuple[Launcher, tuple[str, ...]]] = {}
    with TemporaryDirectory(prefix="oneiric-benchmarks-") as text, ExitStack() as stack:
        for size in budget.sizes(0, 50, 500):
            place = installed(Path(text, str(size)), size)
            starts = stack.enter_context(launcher(place.parent, PYTHONPATH=str(place)))
            for name, command in COMMANDS.items():
                contender = f"{name}, N={size:,}"
                if error := starts.error(*command):
                    raise AssertionError(f"{contender}: {error}")
                contenders[contender] = starts.process(*command)
                launchers[contender] = starts, command
                baseline = "" if name == BASELINE else f"{BASELINE}, N={size:,}"
                claims.append(Claim(name, size, contender, baseline, target=TIMES if name == "find plugins" else None))
        rows = await measure(contenders, claims, budget)
        peaks = [starts.peak(*command) for starts, command in (launchers[claim.subject] for claim in claims)]
    return [
        replace(row, memory=peak, baseline=BASELINE if row.baseline else "")
        for row, peak in zip(rows, peaks, strict=True)
    ]


def installed(place: Path, distributions: int) -> Path:
    """Fill *place* with what looks like so many distributions, and the module that those which are plugins offer."""
    place.mkdir()
    numbers = range(0, distributions, EVERY)
    (place / "parts.py").write_text(SOURCE + "".join(f"PART_{number} = offer({number})\n" for number in numbers))
    for number in range(distributions):
        ours = f"[oneiric.adapters]\nparts = parts:PART_{number}\n" if number in numbers else ""
        plugin(place, f"fabricated_{number}", f"[console_scripts]\nrun-{number} = fabricated:main\n{ours}")
    return place

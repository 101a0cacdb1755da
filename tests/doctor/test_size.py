"""What the doctor does grows with what there is to look at, not with its square."""

from __future__ import annotations

from typing import Any

from oneiric.doctor.examine import examine
from oneiric.doctor.vitals import Happening
from tests.doctor.remotes import NOW
from tests.doctor.vitals import slot, vitals


class Counted(dict[str, Any]):
    """Fields of an event that count how often they are asked for."""

    asked = 0

    def get(self, *arguments: Any) -> Any:
        """Count, and answer."""
        Counted.asked += 1
        return super().get(*arguments)


def test_examination_reads_each_event_a_bounded_number_of_times() -> None:
    slots = [slot(key=f"part-{number}") for number in range(100)]
    fields = [Counted(domain="adapter", key=one.key, provider="redis") for one in slots * 10]
    recent = tuple(Happening(at=NOW, level="info", event="cleanup-complete", fields=one) for one in fields)
    Counted.asked = 0

    examine(vitals(*slots, recent=recent))

    assert 0 < Counted.asked <= 10 * len(recent)

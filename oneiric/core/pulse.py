"""When to probe an instance next, and when enough is enough."""

from __future__ import annotations

from typing import Final, NamedTuple

DOUBLINGS: Final = 4
"""How many times an interval is doubled at the most: 30 s grow to 8 minutes."""


class Pulse(NamedTuple):
    """What the probes of one provider said: failures in a row, and when to ask next."""

    failures: int = 0
    next_at: float = 0.0

    def after(self, *, healthy: bool, now: float, interval: float, threshold: int) -> Pulse:
        """Return the pulse after a probe.

        Up to *threshold* failures it is asked again after *interval* seconds; from then on, for it will hardly recover
        within seconds, after twice that, four times that and so on.
        """
        if healthy:
            return Pulse(0, now + interval)
        failures = self.failures + 1
        return Pulse(failures, now + interval * 2 ** min(max(failures - threshold, 0), DOUBLINGS))

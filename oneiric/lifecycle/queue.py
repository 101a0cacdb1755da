"""What was asked of one slot and has not begun: of requests that would undo one another only the last is kept."""

from __future__ import annotations

from collections import deque
from typing import Any

import anyio

from oneiric.core.candidate import Slot
from oneiric.errors import OneiricError, SupersededError
from oneiric.lifecycle.reports import SwapReport, SwapRequest


class Attempt:
    """One request under way, and who waits for it.

    ``answered`` is set when there is something to say: at its end, or when the rest takes time; ``retired`` when the
    instance it replaced is gone as well, or the rest takes time. ``first`` is what ``request.first`` returned.
    """

    __slots__ = ("answered", "done", "error", "first", "report", "request", "retired", "scope")

    def __init__(self, request: SwapRequest) -> None:
        self.request = request
        self.first: Any = None
        self.answered = anyio.Event()
        self.retired = anyio.Event()
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()
        self.report: SwapReport | None = None
        self.error: OneiricError | None = None

    def postpone(self, report: SwapReport) -> None:
        """Tell who waits what there is to say now, for the rest will take a while."""
        self.report = report
        self.answered.set()
        self.retired.set()

    def finish(self, error: OneiricError | None = None) -> None:
        """Tell who waits that it is over."""
        self.error = error if error is not None else self.error
        self.done.set()
        self.answered.set()
        self.retired.set()

    async def result(self, *, early: bool = False) -> SwapReport:
        """Wait for the answer, and unless *early* for the drain; return the report or raise the error."""
        await (self.answered if early else self.retired).wait()
        if self.error is not None:
            raise self.error
        assert self.report is not None  # noqa: S101 - set before `answered`
        return self.report


class Queue:
    """At most one decision (the latest), one wish to follow precedence, and any number of rehearsals.

    A decision goes before a wish to follow, which then finds it made; so neither a decision nor a change of the
    settings is lost, whichever came first. A wish that has to wait for long is answered before it is carried out, and
    lets rehearsals go first.
    """

    def __init__(self, slot: Slot[Any]) -> None:
        self.working = False
        self.decided = anyio.Event()
        """Set when a decision waits."""
        self.asked = anyio.Event()
        """Set when a decision or a rehearsal waits."""
        self._slot = slot
        self._later: SwapReport | None = None
        self._decision: Attempt | None = None
        self._follow: Attempt | None = None
        self._rehearsals: deque[Attempt] = deque()

    def put(self, request: SwapRequest) -> Attempt:
        """Take *request* in; return its attempt, which it may share with an equal one that waits already."""
        if request.dry_run:
            self._rehearsals.append(Attempt(request))
            self.asked.set()
            return self._rehearsals[-1]
        if request.follow:
            self._follow = self._follow or Attempt(request)
            self.postpone(self._later)
            return self._follow
        waiting = self._decision
        if waiting is not None and waiting.request.aim == request.aim:
            return waiting
        self._decision = Attempt(request)
        self.decided.set()
        self.asked.set()
        if waiting is not None:
            whom = request.provider or "whom precedence chooses"
            text = f"{self._slot}: superseded before it began by a later request, by {request.by}, for {whom}"
            waiting.finish(SupersededError(text, hint=f"oneiric explain {self._slot.key} --domain {self._slot.domain}"))
        return self._decision

    def postpone(self, report: SwapReport | None) -> None:
        """Tell *report* to who wishes to follow, also from now on; None, or something that is taken, ends it."""
        self._later = report
        if report is not None and self._follow is not None:
            self._follow.postpone(report)

    def peek(self) -> Attempt | None:
        """Return what is next, or None."""
        rehearsal = next(iter(self._rehearsals), None)
        rest = (self._follow, rehearsal) if self._later is None else (rehearsal, self._follow)
        return self._decision or rest[0] or rest[1]

    def take(self, attempt: Attempt) -> None:
        """Begin *attempt*, which was next."""
        self._later = None
        if attempt is self._decision:
            self._decision, self.decided = None, anyio.Event()
        elif attempt is self._follow:
            self._follow = None
        else:
            self._rehearsals.popleft()
        if self._decision is None and not self._rehearsals:
            self.asked = anyio.Event()

    def drop(self, error: OneiricError) -> None:
        """Tell everyone who waits that it will not be done."""
        while (attempt := self.peek()) is not None:
            self.take(attempt)
            attempt.finish(error)

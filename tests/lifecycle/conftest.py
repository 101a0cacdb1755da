"""The lifecycle is tested on virtual time: an hour's timeout takes no time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from oneiric import Candidate, Runtime
from oneiric.testing import Events, Part, bare_settings, virtual_clock
from tests.harness.illness import Health
from tests.harness.simulation import without_threads

Opened = Callable[..., AbstractAsyncContextManager[Runtime]]


@pytest.fixture
def anyio_backend() -> object:
    return virtual_clock()


@pytest.fixture
def no_threads() -> Iterator[None]:
    """What would run in a thread runs in the loop, so that virtual time passes."""
    with without_threads():
        yield


@pytest.fixture
def health() -> Health:
    """Whether a is well."""
    return Health()


@pytest.fixture
def sole() -> type[Part]:
    """A kind of part of which there may be one; building another raises."""

    class Sole(Part):
        there: list[Any] = []

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            if self.there:
                raise OSError(f"address in use by {self.there}")
            self.there.append(self)

        async def aclose(self) -> None:
            await super().aclose()
            self.there.remove(self)

    return Sole


@pytest.fixture
def opened(events: Events) -> Opened:
    """Open a runtime that has the given candidates and nothing else."""

    @asynccontextmanager
    async def opened(*candidates: Candidate[Any], **lifecycle: float) -> AsyncIterator[Runtime]:
        async with Runtime.open(bare_settings(**lifecycle), sink=events, environ={}) as runtime:
            runtime.register(*candidates)
            yield runtime

    return opened

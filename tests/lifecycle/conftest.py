"""The lifecycle is tested on virtual time: an hour's timeout takes no time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from oneiric import Candidate, Runtime
from oneiric.testing import Events, bare_settings, virtual_clock

Opened = Callable[..., AbstractAsyncContextManager[Runtime]]


@pytest.fixture
def anyio_backend() -> object:
    return virtual_clock()


@pytest.fixture
def opened(events: Events) -> Opened:
    """Open a runtime that has the given candidates and nothing else."""

    @asynccontextmanager
    async def opened(*candidates: Candidate[Any], **lifecycle: float) -> AsyncIterator[Runtime]:
        async with Runtime.open(bare_settings(**lifecycle), sink=events, environ={}) as runtime:
            runtime.register(*candidates)
            yield runtime

    return opened

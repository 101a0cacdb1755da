"""Programs that the adapters' tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def redis_shared() -> Iterator[RedisServer]:
    """A Redis server for the whole run; each test uses a prefix of its own."""
    with redis_server() as server:
        yield server

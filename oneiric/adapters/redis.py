"""A cache on a Redis server. Needs the extra ``redis``: pip install 'oneiric[redis]'."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any

import redis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_GLOB = re.compile(r"[\\*?\[\]^-]")
_BATCH = 500


class RedisCache:
    """A cache that every process using the same server, database and prefix shares.

    Its candidate ranks below ``memory``, for an installed library does not mean that a server runs: where one does,
    select ``redis`` or offer it with a higher priority. A connection that broke is made anew once, at once.

    Args:
        url: ``redis://HOST:PORT/DATABASE``, ``rediss://`` for TLS, or ``unix:///path``.
        prefix: begins each key on the server; ``clear`` forgets what begins with it, so with an empty one all.
        timeout: seconds to connect, to find a free connection, and to wait for each answer.
    """

    provider = "redis"

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        username: str | None = None,
        password: str | None = None,
        prefix: str = "oneiric:",
        timeout: float = 2.0,
    ) -> None:
        login = {name: text for name, text in (("username", username), ("password", password)) if text is not None}
        try:
            self._pool = BlockingConnectionPool.from_url(
                url,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                decode_responses=True,
                retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
                **login,
            )
        except ValueError:  # its message may quote a part of the password
            raise ValueError("url is not one of redis://HOST:PORT/DATABASE, rediss://..., unix:///path") from None
        self._redis = Redis(connection_pool=self._pool)
        self._prefix = prefix
        self._timeout = timeout

    async def get(self, key: str) -> str | None:
        """Return what is kept under *key*, or None."""
        value: str | None = await self._answer(self._redis.get(self._prefix + key))
        return value

    async def set(self, key: str, value: str, ttl: float | None = None) -> None:
        """Keep *value* under *key*, for *ttl* seconds if given; raises ValueError unless *ttl* is more than 0."""
        if ttl is not None and not ttl > 0:
            raise ValueError(f"a ttl must be more than 0 seconds, not {ttl}")
        milliseconds = None if ttl is None else max(1, round(ttl * 1000))
        await self._answer(self._redis.set(self._prefix + key, value, px=milliseconds))

    async def delete(self, key: str) -> None:
        """Keep nothing under *key*."""
        await self._answer(self._redis.delete(self._prefix + key))

    async def clear(self) -> None:
        """Forget every key that begins with the prefix."""
        pattern = _GLOB.sub(r"\\\g<0>", self._prefix) + "*"
        cursor = 0
        while True:
            cursor, keys = await self._answer(self._redis.scan(cursor, match=pattern, count=_BATCH))
            if keys:
                await self._answer(self._redis.unlink(*keys))
            if cursor == 0:
                return

    async def health(self) -> bool:
        """Say whether the server answers a PING."""
        return bool(await self._answer(self._redis.ping()))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.disconnect()

    async def _answer(self, command: Awaitable[Any]) -> Any:
        """Return the answer to *command*; the library's errors become Python's own, short and without a trace of it."""
        try:
            return await command
        except redis.TimeoutError:
            raise TimeoutError(f"redis: no answer within {self._timeout:g} s") from None
        except redis.ConnectionError as error:
            raise ConnectionError(f"redis: {error}") from None

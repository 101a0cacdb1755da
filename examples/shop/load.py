"""Ask the shop for prices as fast as it answers, and count the answers, by who gave them, and the failures.

    python load.py [--url http://127.0.0.1:8080] [--seconds 30] [--workers 50]

Swap something meanwhile. Exits 1 if a single request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlsplit

ITEMS = [f"item-{number}" for number in range(1_000)]
ANSWER_TIMEOUT = 5.0
MAX_REQUESTS = 10_000_000
MAX_BODY_BYTES = 65_536


@dataclass
class Tally:
    """What was asked and what came of it."""

    requests: int = 0
    reconnects: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __str__(self) -> str:
        by = ", ".join(f"{count} priced by {p} cached by {c}" for (p, c), count in sorted(self.answers.items()))
        return f"{self.requests} requests, {self.failures.total()} failed; {by or 'no answer yet'}"


class Connection:
    """A keep-alive HTTP/1.1 connection that is made when it is needed."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, tally: Tally) -> bytes:
        """Return the body of a 200 answer; raises OSError or ValueError.

        A server may close an idle connection at any time. When one that was used before gives not one byte of an
        answer, the request is sent once more on a new one, as every HTTP client does with a GET (RFC 9110, 9.2.2).
        """
        used = self._streams is not None
        try:
            return await self._exchange(path)
        except ConnectionError:
            self.close()
            if not used:
                raise
        tally.reconnects += 1
        return await self._exchange(path)

    async def _exchange(self, path: str) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._address[0]}\r\n\r\n".encode())
        await writer.drain()
        status_line = await reader.readline()
        if not status_line:
            raise ConnectionResetError("closed before it answered")
        try:
            headers = {}
            while line := (await reader.readuntil(b"\r\n")).rstrip().lower():
                name, _, value = line.partition(b":")
                headers[name] = value.strip()
            body = await reader.readexactly(min(int(headers[b"content-length"]), MAX_BODY_BYTES))
        except (EOFError, KeyError, ConnectionError) as error:
            raise ValueError(f"broken answer: {type(error).__name__}") from error
        if headers.get(b"connection") == b"close":
            self.close()
        if b" 200 " not in status_line:
            raise ValueError(f"{status_line.decode().strip()}: {body.decode('utf-8', 'replace')}")
        return body

    def close(self) -> None:
        """Close the connection; the next request makes another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def run(url: str, *, seconds: float, workers: int, tell: bool = True) -> Tally:
    """Load the shop at *url* for so many *seconds* with so many connections; return the tally."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    tally, end = Tally(), monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        for _ in range(workers):
            tasks.create_task(_work(Connection(host, port), tally, end))
        if tell:
            tasks.create_task(_tell(tally, end))
    return tally


async def _work(connection: Connection, tally: Tally, end: float) -> None:
    while monotonic() < end and tally.requests < MAX_REQUESTS:
        tally.requests += 1
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = json.loads(await connection.get(f"/price/{random.choice(ITEMS)}", tally))
            tally.answers[answer["priced_by"], answer["cached_by"]] += 1
        except (OSError, ValueError, KeyError) as error:
            connection.close()
            tally.failures[f"{type(error).__name__}: {error}"] += 1
            await asyncio.sleep(0.05)  # nobody there: do not spin
    connection.close()


async def _tell(tally: Tally, end: float) -> None:
    before = Tally()
    while monotonic() < end:
        await asyncio.sleep(min(1.0, max(0.0, end - monotonic())))
        print(
            Tally(
                requests=tally.requests - before.requests,
                failures=tally.failures - before.failures,
                answers=tally.answers - before.answers,
            ),
            flush=True,
        )
        before = Tally(tally.requests, 0, tally.failures.copy(), tally.answers.copy())


def _positive(kind: type[int] | type[float], most: int) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"must be more than 0 and at most {most}")
        return value

    return number


def main() -> int:
    """Read the command line, load the shop, print the sum."""
    parser = argparse.ArgumentParser(description="Load the shop, and count failures.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the shop is (%(default)s)")
    parser.add_argument("--seconds", default=30.0, type=_positive(float, 3_600), help="how long (%(default)s)")
    parser.add_argument("--workers", default=50, type=_positive(int, 500), help="connections (%(default)s)")
    asked = parser.parse_args()
    tally = asyncio.run(run(asked.url, seconds=asked.seconds, workers=asked.workers))
    print(f"\nsum: {tally}; {tally.requests / asked.seconds:.0f} a second; {tally.reconnects} reconnects")
    for reason, count in tally.failures.most_common(5):
        print(f"  {count} x {reason}")
    return 1 if tally.failures or not tally.answers else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

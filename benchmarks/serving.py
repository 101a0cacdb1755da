"""The daemon as a process: how it starts, what it answers, what it takes while nobody asks.

``python -m benchmarks.serving`` is run as a child: the smallest server, or a process that does nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.measure import FLAT, Budget, Claim, Row, Sample, measure
from benchmarks.processes import DAEMON, Server, project, serving

SMALLEST: Final = "starlette on uvicorn, one constant"
IDLE: Final = "an asyncio process that wakes once a second"
CHILD: Final = (sys.executable, "-m", "benchmarks.serving")
SOCKET: Final = "app.sock"
SAMPLE: Final = 0.1
"""Seconds in which a client asks again and again."""
CLIENTS: Final = 10
WINDOW: Final = 30.0
"""Seconds in which a daemon does once, at least, whatever it does from time to time."""
MOST_CPU: Final = 0.01
SCRAPE: Final = 2.0

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def starting(budget: Budget) -> list[Row]:
    """From the start of the process until it serves with every slot filled, and its memory then."""
    sizes = sorted(budget.sizes(0, 100, 1_000, budget.largest // 20))
    memory: dict[str, list[float]] = {}
    with _place() as place:
        contenders = {SMALLEST: _start(place, *CHILD, "serve", memory=memory.setdefault(SMALLEST, []))}
        for size in sizes:
            directory = project(place / f"start-{size}", size)
            contenders[_name(size)] = _start(directory, *DAEMON, memory=memory.setdefault(_name(size), []))
        claims = [
            Claim(SMALLEST, 1, SMALLEST),
            *(Claim("daemon, start to ready", size, _name(size), SMALLEST) for size in sizes),
        ]
        rows = await measure(contenders, claims, replace(budget, rounds=min(budget.rounds, 3)))
    rows = [replace(row, memory=median(memory[claim.subject])) for row, claim in zip(rows, claims, strict=True)]
    return [*rows, *(_each(row, rows[1]) for row in rows[2:])]


def _each(row: Row, empty: Row) -> Row:
    """Return what each slot adds to a daemon without any."""
    assert row.median is not None
    assert empty.median is not None
    assert row.memory is not None
    assert empty.memory is not None
    seconds = max((row.median - empty.median) / row.size, 1e-9)
    memory = max((row.memory - empty.memory) / row.size, 0.0)
    return Row("daemon, each slot", row.size, median=seconds, p10=seconds, memory=memory, rounds=row.rounds)


async def answering(budget: Budget) -> list[Row]:
    """Requests over the Unix socket against a constant answer of the smallest server, and a scrape of the metrics."""
    few, many = (budget.sizes(10, 1_000) * 2)[:2]
    one = "GET /v1/explain?domain=adapter&key=part-1"
    with _place() as place, ExitStack() as stack:
        app = _unix(stack.enter_context(serving(place, *CHILD, "serve")), SOCKET)
        servers = {
            size: stack.enter_context(serving(project(place / f"answer-{size}", size), *DAEMON)) for size in (few, many)
        }
        daemons = {size: _unix(server, server.ready["socket"]) for size, server in servers.items()}
        contenders = {
            "a constant answer": _asking(app, "GET /"),
            "a constant answer, together": _asking(app, "GET /", clients=CLIENTS),
            "list": _asking(daemons[many], "GET /v1/list"),
        }
        claims: list[Claim] = []
        for size, daemon in daemons.items():
            contenders[f"one, N={size:,}"] = _asking(daemon, one)
            contenders[f"together, N={size:,}"] = _asking(daemon, one, clients=CLIENTS)
            claims += [
                Claim("control request, one client", size, f"one, N={size:,}", "a constant answer"),
                Claim(
                    f"control request, {CLIENTS} clients", size, f"together, N={size:,}", "a constant answer, together"
                ),
            ]
        claims.append(Claim("control request is flat", many, f"one, N={many:,}", f"one, N={few:,}", target=FLAT))
        claims.append(Claim("list of all slots", many, "list", "a constant answer"))
        rows = [_with_rate(row) for row in await measure(contenders, claims, budget)]
        return [*rows, await _scraping(servers[many], many, budget)]


async def _scraping(daemon: Server, size: int, budget: Budget) -> Row:
    """Return what a scrape costs against ``prometheus_client`` writing as many series that stand still."""
    host, _, port = daemon.ready["http"].rpartition(":")

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(host, int(port))

    reader, writer = await connect()
    page = await _ask(reader, writer, "GET /metrics")
    writer.close()
    series = sum(not line.startswith(b"#") for line in page.splitlines())
    written = f"prometheus_client, {series:,} series"
    contenders = {"scrape": _asking(connect, "GET /metrics"), written: _static(series)}
    (row,) = await measure(contenders, [Claim("scrape", size, "scrape", written, target=SCRAPE)], budget)
    return replace(row, note=f"{series:,} series, {len(page) / 2**20:.1f} MiB")


def _static(series: int) -> Sample:
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    gauge = Gauge("parts", "What stands still.", ["domain", "key", "provider"], registry=registry)
    for number in range(series):
        gauge.labels("adapter", f"part-{number}", "only").set(number)

    async def sample() -> Sequence[float]:
        begin = perf_counter()
        generate_latest(registry)
        return [perf_counter() - begin]

    return sample


async def idling(budget: Budget) -> list[Row]:
    """The time on a core, and the memory, that processes take in a second in which nobody asks them anything."""
    sizes = budget.sizes(0, 1_000)
    seconds = min(WINDOW, 5 * budget.seconds)
    with _place() as place, ExitStack() as stack:
        idle = [
            (IDLE, 1, stack.enter_context(serving(place, *CHILD, "idle"))),
            (SMALLEST, 1, stack.enter_context(serving(place, *CHILD, "serve"))),
            *(
                ("daemon, idle", size, stack.enter_context(serving(project(place / f"idle-{size}", size), *DAEMON)))
                for size in sizes
            ),
        ]
        await asyncio.sleep(seconds / 4)  # what a start leaves to do
        begin, before = perf_counter(), [server.cpu_seconds for _, _, server in idle]
        await asyncio.sleep(seconds)
        passed = perf_counter() - begin
        spent = [server.cpu_seconds - taken for (_, _, server), taken in zip(idle, before, strict=True)]
        return [
            _idle_row(name, size, max(taken / passed, 1e-9), server)
            for (name, size, server), taken in zip(idle, spent, strict=True)
        ]


def _idle_row(name: str, size: int, share: float, server: Server) -> Row:
    target = MOST_CPU if name.startswith("daemon") else None
    note = f"{share:.2%} of a core"
    memory = float(server.resident_bytes)
    return Row(name, size, median=share, p10=share, median_target=target, memory=memory, rounds=1, note=note)


# Samples


def _name(size: int) -> str:
    return f"daemon, N={size:,}"


def _start(directory: Path, *command: str, memory: list[float]) -> Sample:
    async def sample() -> Sequence[float]:
        begin = perf_counter()
        with serving(directory, *command) as server:
            taken = perf_counter() - begin
            memory.append(float(server.resident_bytes))
        return [taken]

    return sample


def _unix(server: Server, path: str) -> Connect:
    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(server.directory / path))

    return connect


def _asking(connect: Connect, what: str, *, clients: int = 1) -> Sample:
    """Return what a request takes of the time in which so many clients ask, each as often as it can."""

    async def sample() -> Sequence[float]:
        begin = perf_counter()
        asked = await asyncio.gather(*(_series(connect, what, begin + SAMPLE) for _ in range(clients)))
        return [(perf_counter() - begin) / sum(asked)]

    return sample


async def _series(connect: Connect, what: str, end: float) -> int:
    """Ask over one connection until *end*, at least once; return how often."""
    reader, writer = await connect()
    asked = 0
    try:
        while not asked or perf_counter() < end:
            await _ask(reader, writer, what)
            asked += 1
    finally:
        writer.close()
    return asked


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str) -> bytes:
    writer.write(f"{what} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200 "):
        raise AssertionError(f"{what} is answered {head.splitlines()[0]!r}")
    return await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))


def _with_rate(row: Row) -> Row:
    return replace(row, note=f"{1 / row.median:,.0f}/s" if row.median else "")


@contextmanager
def _place() -> Iterator[Path]:
    with TemporaryDirectory(prefix="oneiric-benchmarks-") as text:
        yield Path(text)


# Children


def serve() -> None:
    """Answer every request with one constant, on a Unix socket in the working directory."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def constant(_request: Request) -> JSONResponse:
        return JSONResponse({"answer": "a constant answer"})

    class Telling(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print(json.dumps({"event": "app-ready"}), flush=True)

    app = Starlette(routes=[Route("/", constant)])
    Telling(uvicorn.Config(app, uds=SOCKET, log_config=None, access_log=False)).run()


async def idle() -> None:
    """Wake once a second."""
    print(json.dumps({"event": "idle-ready"}), flush=True)
    while True:  # noqa: ASYNC110 - waking is what it is for
        await asyncio.sleep(1)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else asyncio.run(idle())

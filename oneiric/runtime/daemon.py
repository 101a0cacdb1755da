"""The daemon: one runtime, watched settings, a control socket, HTTP for probes, and an orderly end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack
from datetime import UTC, datetime
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec.structs import replace

from oneiric import __version__
from oneiric.config.loader import load
from oneiric.config.watcher import DirectoryWatch
from oneiric.core.config import FILES, Settings, keep_fixed
from oneiric.core.domain import DOMAINS
from oneiric.core.reconcile import Change
from oneiric.doctor.examine import examine
from oneiric.doctor.finding import Finding
from oneiric.doctor.gauges import finding_gauges
from oneiric.doctor.vitals import ProcessVital, Vitals
from oneiric.errors import ConfigError, OneiricError, Problem
from oneiric.lifecycle.memory import limit_bytes, resident_bytes
from oneiric.observability.describe import describe
from oneiric.observability.logs import LibraryHandler, Sink, to_stream
from oneiric.observability.meters import Reading
from oneiric.runtime import premises
from oneiric.runtime.delivery import Delivery
from oneiric.runtime.lag import LoopLag
from oneiric.runtime.notify import Notifier
from oneiric.runtime.otlp_export import OtlpExport
from oneiric.runtime.recent import Growth, Recent
from oneiric.runtime.runtime import Runtime
from oneiric.runtime.scrape import Scrape
from oneiric.runtime.snapshot import Snapshot
from oneiric.runtime.state import StateStore
from oneiric.runtime.vitals import busiest, live_vitals

_GRACE = 10.0
_EXAMINATION_INTERVAL = 15.0
_DOMAIN_OF = {domain.settings_file: name for name, domain in DOMAINS.items()}


class Listeners(NamedTuple):
    """The sockets the daemon listens on."""

    control: socket.socket
    http: socket.socket


class Serve(Protocol):
    """Serves the control API and HTTP on the daemon's sockets until it is cancelled."""

    async def __call__(self, daemon: Daemon, listeners: Listeners) -> None:
        """Serve until cancelled."""


class Daemon:
    """Runs a :class:`Runtime` until a signal ends it.

    Args:
        directory: the settings directory.
        flags: settings given on the command line, by dotted path.
        serve: what answers on the sockets; handed in, because the API stands above this layer.
    """

    def __init__(
        self,
        directory: Path,
        *,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        serve: Serve,
        watch: bool = True,
        remote: bool = True,
    ) -> None:
        self.directory = directory
        self.started_at = datetime.now(UTC)
        self.http = ""
        self.ready = False
        self.config_error = ""
        self.invalid: frozenset[str] = frozenset()
        self.log_error = ""
        self._lag = LoopLag()
        self.recent = Recent()
        self._growth = Growth(lambda: self.runtime.instances)
        self._findings: tuple[Finding, ...] = ()
        self._scrape: Scrape
        self.runtime: Runtime
        self._flags = flags
        self.environ = environ
        self._serve = serve
        self._notifier = Notifier(environ)
        watched = DirectoryWatch(directory, on_degraded=self._report_degraded_watch)  # before the files are read
        self._settings = load(directory, environ=environ, flags=flags)
        self._present = self._files()
        watched.debounce = self._settings.app.watch.debounce
        self.with_remote = remote
        self.delivery: Delivery
        self._watch = watched if watch and self._settings.app.watch.enabled else None
        self._starting: anyio.CancelScope
        self._stop = anyio.Event()
        self._hung_up = anyio.Event()
        self._cause = ""

    # The course of things

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code. Raises DaemonRefusedError when it cannot start here."""
        app = self._settings.app
        state_dir = Path(app.state_dir)
        with ExitStack() as held:
            lock = premises.claim(state_dir)
            held.callback(os.close, lock)
            control = held.enter_context(premises.control_socket(Path(app.api.socket)))
            held.callback(premises.remove_socket, Path(app.api.socket))
            inherited = premises.inherited_socket(self.environ)
            http = held.enter_context(inherited or premises.http_socket(app.api.http))
            host, port = http.getsockname()[:2]
            self.http = f"{host}:{port}"
            out = to_stream(sys.stdout, minimum=app.logging.level, as_json=app.logging.format == "json")
            sink = self.recent.beside(self._steadily(out))
            logging.getLogger().addHandler(LibraryHandler(sink))
            opened = Runtime.open(
                self._settings,
                store=StateStore(state_dir),
                sink=sink,
                eager=True,
                environ=self.environ,
                prepare=self._prepare,
            )
            return await self._live(opened, Listeners(control, http))

    async def _live(self, opened: AbstractAsyncContextManager[Runtime], listeners: Listeners) -> int:
        """Open the runtime, serve until the end is asked for, and close it; return the exit code."""
        self._starting = anyio.CancelScope()  # cancelled by a signal that comes before the daemon serves
        unclosed = 0
        refusal: OneiricError | None = None
        async with anyio.create_task_group() as outer:
            outer.start_soon(self._listen_to_signals)
            try:
                with self._starting:
                    async with opened as self.runtime, anyio.create_task_group() as tasks:
                        await self._go(tasks, listeners)
                    unclosed = self.runtime.unclosed
                    self.runtime.emit(
                        "daemon-stopped", pid=os.getpid(), unclosed=unclosed, duration_ms=self._stopping_ms()
                    )
            except OneiricError as error:  # raised below, where no task group wraps it
                refusal = error
            outer.cancel_scope.cancel()
        if refusal is not None:
            raise refusal
        return 1 if unclosed else 0

    def _steadily(self, sink: Sink) -> Sink:
        """Return *sink* without its failures: a log that a full disk or a reader that left refuses stops no work."""

        def write(level: str, event: str, fields: Mapping[str, Any]) -> None:
            try:
                sink(level, event, fields)
                self.log_error = ""
            except (OSError, ValueError) as error:  # ValueError: the stream was closed
                self.log_error = f"the log cannot be written: {describe(error)}"

        return write

    async def _prepare(self, runtime: Runtime) -> None:
        self.delivery = Delivery(runtime, environ=self.environ)
        self._scrape = Scrape(
            runtime,
            syncer=self.delivery.syncer if self.with_remote else None,
            lag=self._lag,
            invalid=lambda: self.invalid,
        )
        self._export = OtlpExport(
            settings=lambda: runtime.settings.app.metrics,
            read=self.readings,
            emit=runtime.emit,
            started_at=self.started_at,
        )
        if self.with_remote:
            await self.delivery.restore()

    async def readings(self) -> tuple[Reading, ...]:
        """Return every metric of the catalog, as of now."""
        return (*await self._scrape.read(), *finding_gauges(self._findings))

    async def vitals(self) -> Vitals:
        """Return everything a diagnosis needs, as of now."""
        most = busiest(await self.runtime.readings())
        return await live_vitals(
            self.runtime,
            syncer=self.delivery.syncer if self.with_remote else None,
            settings=self.directory,
            problems=self.config_error.splitlines(),
            process=partial(self._process, most),
            recent=self.recent.happenings,
            environ=self.environ,
        )

    def _process(self, most: tuple[tuple[str, int], ...], snapshot: Snapshot) -> ProcessVital:
        return ProcessVital(
            pid=os.getpid(),
            version=__version__,
            started_at=self.started_at,
            resident_bytes=resident_bytes(),
            memory_limit_bytes=limit_bytes(),
            instances=self.runtime.instances,
            active_instances=sum(bool(record.provider) for record in snapshot.slots),
            samples=self._growth.coarse,
            recent_samples=self._growth.fine,
            busiest=most,
            loop_lag=self._lag.worst,
            abandoned_calls=self.runtime.abandoned_calls,
            degraded="; ".join(filter(None, (self.runtime.degraded, self.log_error))),
            watch=self.watch,
        )

    async def _examine(self) -> None:
        """Have the doctor look every now and then, so that a scrape tells what he found."""
        while True:
            self._findings = await to_thread.run_sync(examine, await self.vitals())
            await anyio.sleep(_EXAMINATION_INTERVAL)

    async def _go(self, tasks: TaskGroup, listeners: Listeners) -> None:
        self._supervise(tasks, "loop-lag", self._lag.run)
        self._supervise(tasks, "growth", self._growth.run)
        self._supervise(tasks, "doctor", self._examine)
        if self.with_remote:
            self._supervise(tasks, "remote", self.delivery.run)
        self._supervise(tasks, "metrics", self._export.run)
        self._supervise(tasks, "api", lambda: self._serve(self, listeners))
        self._supervise(tasks, "reload", self._follow_hang_ups)
        if self._watch is not None:
            self._supervise(tasks, "watch", partial(self._follow_settings, self._watch))
        if self._notifier.watchdog_interval:
            self._supervise(tasks, "watchdog", self._show_signs_of_life)
        self.ready = True
        self._notifier.send("READY=1", f"STATUS=serving, http {self.http}")
        self.runtime.emit(
            "daemon-ready",
            pid=os.getpid(),
            version=__version__,
            socket=self._settings.app.api.socket,
            http=self.http,
            slots=len(self.runtime.snapshot().slots),
        )
        await self._stop.wait()
        self.ready = False
        self._stopped_at = anyio.current_time()
        self._notifier.send("STOPPING=1", f"STATUS=stopping: {self._cause}")
        self.runtime.emit("daemon-stopping", pid=os.getpid(), cause=self._cause)
        tasks.cancel_scope.cancel()

    def _stopping_ms(self) -> float:
        return round((anyio.current_time() - self._stopped_at) * 1000, 3)

    async def _listen_to_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async for number in received:
                if number == signal.SIGHUP:
                    self._hung_up.set()  # carried out elsewhere: however long it takes, the next signal is heard
                elif self._stop.is_set():
                    os._exit(128 + number)  # asked twice: at once
                else:
                    self._cause = signal.Signals(number).name
                    self._bound_the_end()
                    self._stop.set()
                    if not self.ready:
                        self._starting.cancel()

    def _bound_the_end(self) -> None:
        """Make sure the process ends although foreign code may block the loop or swallow its cancellation."""
        lifecycle = self._settings.app.lifecycle
        limit = lifecycle.drain_timeout + lifecycle.cleanup_timeout + _GRACE

        def end() -> None:
            print(f"error[daemon]: not stopped after {limit:g} s; ending all the same", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()

    def _supervise(self, tasks: TaskGroup, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*; when it raises report it and start it again, at most 5 times a minute, then end the daemon."""

        async def keep_running() -> None:
            failures: list[float] = []
            while True:
                try:
                    await work()
                    return
                except Exception as error:
                    now = anyio.current_time()
                    failures = [*(at for at in failures if now - at < 60), now]
                    self.runtime.emit("task-failed", task=name, error=describe(error))
                    if len(failures) > 5:
                        raise
                await anyio.sleep(min(0.1 * 2 ** len(failures), 5.0))

        tasks.start_soon(keep_running, name=f"oneiric-{name}")

    async def _show_signs_of_life(self) -> None:
        while True:
            self._notifier.send("WATCHDOG=1")
            await anyio.sleep(self._notifier.watchdog_interval)

    # Settings

    @property
    def watch(self) -> Literal["on", "paused", "off"]:
        """Whether changes of the settings are followed."""
        if self._watch is None:
            return "off"
        return "paused" if self._watch.paused else "on"

    def set_watch(self, *, paused: bool, by: str) -> None:
        """Stop following the settings' changes, or follow them again; what changed meanwhile is then applied."""
        if self._watch is None:
            raise OneiricError(
                "this daemon does not watch its settings", hint="start it without --no-watch, and with watch.enabled"
            )
        if paused:
            self._watch.pause()
        else:
            self._watch.resume()
        self.runtime.emit("watch-paused" if paused else "watch-resumed", by=by)

    async def _follow_hang_ups(self) -> None:
        while True:
            await self._hung_up.wait()
            self._hung_up = anyio.Event()  # those that come from here on want one more reload
            await self._reload_reported("SIGHUP")

    async def _follow_settings(self, watch: DirectoryWatch) -> None:
        async for files in watch.changes():
            await self._reload_reported("watch", files)
            watch.debounce = self._settings.app.watch.debounce

    def _report_degraded_watch(self, error: str) -> None:
        self.runtime.emit("watch-degraded", error=error)

    async def _reload_reported(self, by: str, files: frozenset[str] = frozenset()) -> None:
        """Reload, and again while the machine is too short of threads, files or memory for it; never raise."""
        for pause in chain((1, 5, 15), repeat(60)):
            try:
                await self.reload(by=by, files=files)
                return
            except OneiricError:
                return  # reported as config-rejected; the last good settings stay
            except (OSError, RuntimeError, MemoryError) as error:
                self.config_error = f"{self.directory}: not read, tried again in {pause} s: {describe(error)}"
                self.invalid = frozenset({"app"})
                self.runtime.emit("config-rejected", file=str(self.directory), error=self.config_error)
            await anyio.sleep(pause)

    async def reload(self, *, by: str, files: frozenset[str] = frozenset()) -> tuple[Change, ...]:
        """Read the settings again and apply them; raises ConfigError, and changes nothing, when they are invalid."""
        try:
            settings = await to_thread.run_sync(self._read)
            steps = await self.runtime.apply(settings, by=by)
        except ConfigError as error:
            self.config_error = str(error)
            self.invalid = frozenset(_domain_of(problem) for problem in error.problems)
            for problem in error.problems:
                self.runtime.emit("config-rejected", file=problem.where, error=str(problem))
            raise
        self.config_error, self.invalid = "", frozenset()
        changed = files or _changed(self._settings, settings)
        self._settings, self._present = settings, self._files()
        self.delivery.wake()
        for file in sorted(changed):
            self.runtime.emit("config-changed", file=f"{self.directory}/{file}", domain=_DOMAIN_OF.get(file, "app"))
        return steps

    def _read(self) -> Settings:
        gone = self._present - self._files()
        if gone:
            names = ", ".join(sorted(f"{self.directory}/{name}" for name in gone))
            raise _removed(names)
        settings = load(self.directory, environ=self.environ, flags=self._flags)
        app, held = keep_fixed(self._settings.app, settings.app)
        for name in held:
            self.runtime.emit("config-held", setting=name, error="takes effect at a restart")
        return replace(settings, app=app)

    def _files(self) -> frozenset[str]:
        return frozenset(name for name in FILES if (self.directory / name).exists())


def _domain_of(problem: Problem) -> str:
    """Return whose settings file *problem* stands in: a domain's, or "app" for all else."""
    return next((domain for file, domain in _DOMAIN_OF.items() if file in problem.where), "app")


def _changed(old: Settings, new: Settings) -> frozenset[str]:
    """Return the settings files whose values differ; a value of the environment counts for the file it stands above."""
    domains = (DOMAINS[name].settings_file for name in DOMAINS if old.domains[name] != new.domains[name])
    return frozenset({*domains, *(("app.yml",) if old.app != new.app else ())})


def _removed(names: str) -> ConfigError:
    return ConfigError(
        Problem(names, "was removed while the daemon runs; the last good settings stay"),
        hint="put it back, or leave it empty to mean the defaults",
    )

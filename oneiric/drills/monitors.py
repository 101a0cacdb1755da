"""Who watches a sandbox's daemon: a real Prometheus and Alertmanager, or, without them, the rules evaluated here."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from oneiric.drills.drill import Monitor
from oneiric.drills.run import Watch
from oneiric.drills.sandbox import DrillFailedError, Sandbox
from oneiric.monitoring.configuration import alertmanager, prometheus
from oneiric.monitoring.profiles import DRILL
from oneiric.monitoring.rules import rules

_PROGRAMS: Final = ("prometheus", "prometheus-alertmanager")
_START_TIMEOUT: Final = 30.0
_OPEN: Final = build_opener(ProxyHandler({})).open


def watch(*, real: bool) -> Watch:
    """Return what watches a daemon.

    Args:
        real: by Prometheus and Alertmanager, if both are installed.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if real and not missing:
        return _by_prometheus
    from oneiric.drills.evaluation import Evaluated

    return Evaluated.watching


@contextmanager
def _by_prometheus(sandbox: Sandbox) -> Iterator[Monitor]:
    """Start both beside the sandbox's daemon, with the rules of drills, and a receiver of what they tell."""
    place = sandbox.directory / "monitoring"
    place.mkdir()
    (place / "oneiric.yml").write_text(rules(DRILL), encoding="utf-8")
    with _Receiver() as receiver:
        manager = _Program("prometheus-alertmanager", place, "--cluster.listen-address=")
        manager.configure(alertmanager(DRILL, webhook=receiver.url), "--storage.path=" + str(place / "alerts"))
        files = [str(place / "oneiric.yml")]
        scraper = _Program("prometheus", place, "--log.level=warn")
        configuration = prometheus(DRILL, rule_files=files, targets=[sandbox.http], alertmanagers=[manager.address])
        scraper.configure(configuration, "--storage.tsdb.path=" + str(place / "data"))
        try:
            manager.start()
            scraper.start()
            yield _Watching(scraper, receiver)
        finally:
            scraper.stop()
            manager.stop()


class _Watching:
    """A Prometheus whose alerts are those that its Alertmanager told our receiver."""

    def __init__(self, scraper: _Program, receiver: _Receiver) -> None:
        self._scraper = scraper
        self._receiver = receiver

    @property
    def name(self) -> str:
        """What it is."""
        return "Prometheus and Alertmanager"

    def query(self, expression: str) -> list[float]:
        """Return the values of *expression* now, NaN left out."""
        answer = self._scraper.ask(f"/api/v1/query?{urlencode({'query': expression})}")
        if answer["status"] != "success":
            raise DrillFailedError(f"{expression}: {answer.get('error')}")
        data = answer["data"]
        found = [data["result"]] if data["resultType"] == "scalar" else [one["value"] for one in data["result"]]
        return [float(value) for _, value in found if not math.isnan(float(value))]

    def is_firing(self, alert: str) -> bool:
        """Say whether *alert* fires, as somebody who was notified knows it."""
        return self._receiver.state(alert) == "firing"


class _Program:
    """One of the two servers, on a free loopback port."""

    def __init__(self, name: str, place: Path, *arguments: str) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self._name = name
        self._place = place
        self._arguments = [*arguments, f"--web.listen-address={self.address}"]
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, configuration: str, *arguments: str) -> None:
        """Write its configuration file."""
        path = self._place / f"{self._name}.yml"
        path.write_text(configuration, encoding="utf-8")
        self._arguments += [f"--config.file={path}", *arguments]

    def start(self) -> None:
        """Start it and wait until it is ready."""
        log = self._place / f"{self._name}.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - a program of the system, our arguments
                [shutil.which(self._name) or self._name, *self._arguments],
                cwd=self._place,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        until = time.monotonic() + _START_TIMEOUT
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise DrillFailedError(f"{self._name} did not start: {log.read_text(errors='replace')[-1000:]}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        with suppress(OSError), _OPEN(f"http://{self.address}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
        return False

    def ask(self, path: str) -> Any:
        """Return the JSON that it answers, also of a refusal."""
        try:
            with _OPEN(f"http://{self.address}{path}", timeout=5) as answer:
                return json.load(answer)
        except HTTPError as error:
            return json.loads(error.read())

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Receiver:
    """Receives what Alertmanager tells, under each of its receivers' names."""

    def __init__(self) -> None:
        self._states: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> _Receiver:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def state(self, alert: str) -> str:
        """Return ``firing`` if one of the alerts of that name is, ``resolved`` if all are, "" if none ever was."""
        states = set(self._states.get(alert, {}).values())
        return "firing" if "firing" in states else "resolved" if states else ""

    def _told(self, document: Any) -> None:
        for alert in document["alerts"]:
            known = self._states.setdefault(alert["labels"]["alertname"], {})
            known[alert["fingerprint"]] = alert["status"]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        told = self._told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told(json.loads(self.rfile.read(int(self.headers.get("content-length", 0)))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library names it
                """Say nothing."""

        return Handler


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port

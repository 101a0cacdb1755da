"""Daemons, sockets, streams and settings as they should not be: what, where, what next, and no traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect as shapes

from oneiric.api.client import Client
from oneiric.api.routes import ROUTES
from oneiric.api.schemas import ErrorDocument
from oneiric.errors import DaemonUnreachableError
from tests.cli.conftest import Typing
from tests.cli.impostor import CONTINUE, http, impostor
from tests.harness.daemon import ADAPTERS, Daemon, oneiric, project, running

SLOT = ("--domain", "adapter", "--key", "cache")
COMMAND = [sys.executable, "-m", "oneiric.cli"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(project(tmp_path_factory.mktemp("errors") / "p", app="watch: {debounce: 0.1}\n")) as daemon:
        yield daemon


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is the working directory; its path is short enough for a socket's."""
    directory = project(tmp_path_factory.mktemp("e") / "p")
    monkeypatch.chdir(directory)
    return directory


# Daemons.


def test_hung_daemon_is_told_within_seconds(daemon: Daemon) -> None:
    before = daemon.slot("adapter", "cache")["instance_id"]
    lines = [("list",), ("status",), ("health", "--probe"), ("swap", *SLOT, "--provider", "redis"), ("watch", "pause")]
    daemon.signal(signal.SIGSTOP)
    try:
        asked = [
            subprocess.Popen(
                [*COMMAND, *line], cwd=daemon.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for line in lines
        ]
        answers = [(process.communicate(timeout=60), process.returncode) for process in asked]
    finally:
        daemon.signal(signal.SIGCONT)
    pid = daemon.process.pid
    for (out, err), code in answers:
        assert (out, code) == ("", 3)
        assert err == (
            "error[no-daemon]: the daemon at .oneiric_state/oneiric.sock does not answer within 10 s; "
            "it may be stopped or blocked\n"
            f"try: ps -o pid,stat,etime,args -p {pid}   # stat T: stopped; kill -CONT {pid}\n"
        )
    after = daemon.client.get("/v1/status")
    assert after["slots"][0]["instance_id"] == before, "what was given up was carried out later"
    assert after["daemon"]["watch"] == "on"
    assert "Traceback" not in daemon.output


def test_request_that_takes_too_long_is_not_called_undone(place: Path) -> None:
    def respond(request: bytes) -> bytes:
        return CONTINUE if b"Expect: 100-continue\r\n" in request else b""

    with impostor(place, respond), pytest.raises(DaemonUnreachableError) as caught:
        Client(".oneiric_state/oneiric.sock").post("/v1/swap", {}, timeout=0.2)
    assert "did not finish within 0.2 s and may go on" in str(caught.value)
    assert caught.value.hint == "oneiric status"


def test_broken_settings_do_not_hide_the_daemon(daemon: Daemon) -> None:
    broken = [
        (daemon.directory / "settings" / f"{name}.yml", text) for name, text in (("app", "api: ["), ("tasks", "{"))
    ]
    before = [file.read_text() if file.exists() else None for file, _ in broken]
    for file, text in broken:
        file.write_text(text)
    daemon.wait_event("config-rejected")
    answer = daemon.cli("status")
    for (file, _), text in zip(broken, before, strict=True):
        file.unlink() if text is None else file.write_text(text)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"daemon pid {daemon.process.pid}, ")
    assert "degraded: settings/app.yml:1:7: " in answer.stdout


def test_broken_settings_without_a_daemon_are_told_with_their_place(place: Path, typed: Typing) -> None:
    (place / "settings" / "adapters.yml").write_text("selections:\n  cache redis\n")
    answer = typed("list")
    assert (answer.code, answer.out) == (4, "")
    assert re.fullmatch(r"error\[config\]: settings/adapters\.yml:2:3: .+\ntry: oneiric config check\n", answer.err)


def test_socket_that_was_left_behind_counts_as_no_daemon(place: Path, typed: Typing) -> None:
    with impostor(place, lambda _: b""):
        pass
    assert typed("list").code == 0
    answer = typed("unpin", *SLOT)
    assert (answer.code, "nobody listens on the socket it left behind" in answer.err) == (3, True)


# Sockets.


@pytest.mark.parametrize("command", [("list",), ("swap", *SLOT)], ids=lambda words: words[0])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_socket_that_is_none_is_told(place: Path, typed: Typing, kind: str, command: tuple[str, ...]) -> None:
    path = place / "odd"
    path.mkdir() if kind == "directory" else path.write_text("")
    answer = typed(*command, "--socket", "odd")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err == (
        "error[no-daemon]: the daemon at odd cannot be reached: no socket is there but a file\n"
        "try: oneiric --socket PATH ..., or api.socket in settings/app.yml\n"
    )


def test_socket_path_that_cannot_be_is_told(typed: Typing) -> None:
    answer = typed("list", "--socket", "x" * 200)
    assert (answer.code, answer.out) == (3, "")
    assert "x cannot be reached: AF_UNIX path too long\ntry: oneiric --socket PATH" in answer.err


@pytest.mark.parametrize("command", [("list",), ("swap", *SLOT)], ids=lambda words: words[0])
def test_socket_of_another_user_is_told(place: Path, command: tuple[str, ...]) -> None:
    # What a stranger may not even read is imported before we become one. Root has to: no mode applies to it.
    stranger = (
        "import json, locale, os, socket, sys, oneiric.cli.look, oneiric.cli.change\n"
        "from oneiric.cli.main import main\n"
        "os.geteuid() or os.setuid(65534)\n"
        "main(sys.argv[1:])\n"
    )
    with impostor(place, lambda _: None):
        (place / ".oneiric_state" / "oneiric.sock").chmod(0)
        answer = subprocess.run([sys.executable, "-c", stranger, *command], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (3, "")
    assert "belongs to another user: the socket admits its own user and root only\ntry: " in answer.stderr


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x16\x03\x01 not http at all",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b'HTTP/1.1 200 OK\r\n\r\n{"schema": "oneiric.list/1", "slo',
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
        b'{"schema": "oneiric.list/1"}',
        http([]),
        http(None),
        http({}),
        http({"schema": 1}),
        http({"schema": "kubernetes/1"}),
        http({"error": {}, "schema": "oneiric.error/1"}, 999)[:-1],
        http({"error": []}, 500),
        http({"error": {"exit_code": "many"}}, 500),
        http({"schema": "oneiric.list/1"}, 404),
    ],
)
@pytest.mark.parametrize("command", [("list",), ("swap", *SLOT)], ids=lambda words: words[0])
def test_garbage_is_told_and_never_believed(
    place: Path, typed: Typing, garbage: bytes, command: tuple[str, ...]
) -> None:
    with impostor(place, lambda _: garbage):
        answer = typed(*command)
    assert (answer.code, answer.out) == (3, "")
    assert re.fullmatch(r"error\[no-daemon\]: the daemon at \S+ (gave an answer|closed the).*\ntry: .+\n", answer.err)


def test_drain_that_leaves_leases_exits_1(place: Path, typed: Typing) -> None:
    document = {"schema": "oneiric.drain/1", "domain": "adapter", "key": "cache", "state": "draining", "note": ""}
    with impostor(place, lambda _: http({**document, "drained": False, "leases": 2, "warnings": ["slow"]})):
        answer = typed("drain", *SLOT)
    assert (answer.code, answer.err) == (1, "warning: slow\n")
    assert "2 leases still held" in answer.out


# Streams.


def test_reader_that_leaves_early_gets_no_complaint(quiet: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        answer = subprocess.run(
            [*COMMAND, "list"], cwd=quiet, env=BUFFERED, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (answer.returncode, answer.stderr) == (141, "no daemon runs: answered from settings and plugins on disk\n")


def test_head_takes_what_it_wants(quiet: Path) -> None:
    line = f"{sys.executable} -m oneiric.cli list --show-shadowed | head -1"
    answer = subprocess.run(line, shell=True, cwd=quiet, env=BUFFERED, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout.split()[0], "Traceback" in answer.stderr) == (0, "DOMAIN", False)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("list",), 1, "error[output]: done, but the answer could not be written to stdout: No space left on device\n"),
        (("swap", *SLOT, "--json"), 3, "error[no-daemon]: "),
        (("--help",), 1, "No space left on device\n"),
    ],
    ids=["answer", "error in JSON", "help"],
)
def test_full_stdout_is_told(quiet: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    with open("/dev/full", "wb") as full:
        answer = subprocess.run(
            [*COMMAND, *arguments], cwd=quiet, env=BUFFERED, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (answer.returncode, "Traceback" in answer.stderr, "Exception" in answer.stderr) == (code, False, False)
    assert says in answer.stderr


@pytest.mark.parametrize(("stream", "code"), [("stdout", 0), ("stderr", 3)])
def test_closed_stream_changes_no_exit_code(quiet: Path, stream: str, code: int) -> None:
    command = "list" if stream == "stdout" else f"swap {' '.join(SLOT)}"
    line = f"exec {sys.executable} -m oneiric.cli {command} {'>' if stream == 'stdout' else '2>'}&-"
    answer = subprocess.run(line, shell=True, cwd=quiet, env=BUFFERED, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout, "Traceback" in answer.stderr) == (code, "", False)


def test_full_stderr_changes_no_exit_code(quiet: Path) -> None:
    with open("/dev/full", "wb") as full:
        answer = subprocess.run(
            [*COMMAND, "swap", *SLOT], cwd=quiet, env=BUFFERED, stderr=full, stdout=subprocess.PIPE, check=False
        )
    assert (answer.returncode, answer.stdout) == (3, b"")


def test_ascii_locale_prints_what_it_can(tmp_path: Path) -> None:
    text = ADAPTERS + "provider_settings: {memory: {label: grüße}}\n"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    answer = oneiric(project(tmp_path / "p", adapters=text), "config", "show", environ=ascii_only)
    assert answer.returncode == 0
    assert re.search(r"^adapters\.provider_settings\.memory\.label +gr", answer.stdout, re.MULTILINE)


def test_interrupt_exits_130_in_silence(place: Path) -> None:
    typed = (  # a shell's job may have been started with the signal ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from oneiric.cli.main import main; main()"
    )
    with impostor(place, lambda _: None) as silent:
        process = subprocess.Popen(
            [sys.executable, "-c", typed, "swap", *SLOT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert silent.asked.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.strip()) == (130, "", "")


# What others wrote.

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\x00\x7f\u202eevil\u2028\u2066\n"


def evil(kind: shapes.Type, name: str = "") -> Any:
    """Return a value of *kind* with hostile text wherever text may stand."""
    match kind:
        case shapes.StructType():
            return {field.name: evil(field.type, field.name) for field in kind.fields}
        case shapes.VarTupleType():
            return [evil(kind.item_type)]
        case shapes.DictType():
            return dict.fromkeys(("success", "failed", "rollback", EVIL), 1)
        case shapes.UnionType():
            return evil(next(one for one in kind.types if not isinstance(one, shapes.NoneType)))
        case shapes.BoolType():
            return True
        case shapes.IntType() | shapes.FloatType():
            return 1
        case _:
            return "oneiric.evil/1" if name == "schema" else EVIL


ANSWERS = {f"{route.method} {route.path}": evil(shapes.type_info(route.answer)) for route in ROUTES}


@pytest.mark.parametrize("json_too", [False, True], ids=["text", "json"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--show-shadowed"),
        ("explain", *SLOT),
        ("status",),
        ("status", "-v"),
        ("health",),
        ("health", "--probe"),
        ("plugins",),
        ("swap", *SLOT),
        ("unpin", *SLOT),
        ("pause", *SLOT),
        ("drain", *SLOT),
        ("watch", "pause"),
        ("config", "show"),
        ("config", "show", "--origin"),
    ],
    ids=" ".join,
)
def test_hostile_text_never_reaches_the_terminal_raw(
    place: Path, typed: Typing, arguments: tuple[str, ...], json_too: bool
) -> None:
    def respond(request: bytes) -> bytes:
        return http(ANSWERS[re.split(r" HTTP/|\?", request.decode())[0]])

    with impostor(place, respond):
        answer = typed(*arguments, *(["--json"] if json_too else []))
    assert answer.code in (0, 1)
    assert "evil" in answer.out + answer.err
    assert controls(answer.out + answer.err) == set()


def test_hostile_error_never_reaches_the_terminal_raw(place: Path, typed: Typing) -> None:
    document = evil(shapes.type_info(ErrorDocument))
    with impostor(place, lambda _: http(document, 500)):
        answer = typed("list", "--json")
    assert (answer.code, "evil" in answer.out, "evil" in answer.err) == (1, True, True)
    assert controls(answer.out + answer.err) == set()


def test_hostile_line_feed_makes_no_row(place: Path, typed: Typing) -> None:
    row = evil(shapes.type_info(next(r.answer for r in ROUTES if r.path == "/v1/status")))["slots"][0]
    row |= {"note": "x\nfake: row", "last_error": "x\nfake: row"}
    document = {"schema": "oneiric.status/1", "live": True, "slots": [row], "daemon": None}
    with impostor(place, lambda _: http(document)):
        lines = typed("status", "-v").out.splitlines()
    assert [line for line in lines if line.startswith("fake")] == []


def controls(text: str) -> set[str]:
    """Return the characters in *text* that do something to a terminal, or to how it is read; line feeds aside."""
    return {one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp") and one != "\n"}


# Bugs.


def test_bug_is_called_one_and_shows_no_traceback(place: Path) -> None:
    with impostor(place, lambda _: http({"schema": "oneiric.list/1"})):
        answer = oneiric(place, "list")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == (
        "error[bug]: a bug in oneiric: KeyError: 'slots'\ntry: the same command with --debug, and report it\n"
    )


def test_bug_shows_its_traceback_with_debug(place: Path) -> None:
    with impostor(place, lambda _: http({"schema": "oneiric.list/1"})):
        answer = oneiric(place, "list", "--debug")
    assert answer.returncode == 1
    assert answer.stderr.startswith("Traceback (most recent call last):\n")
    assert answer.stderr.endswith("KeyError: 'slots'\n")


def test_mistake_shows_no_traceback_with_debug(place: Path, typed: Typing) -> None:
    assert "Traceback" not in typed("swap", *SLOT, "--debug").err

"""The unit: what systemd's own tools say of it, the notify protocol for real, and what its sandbox forbids."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from oneiric.core.config import ApiSettings, LifecycleSettings
from oneiric.errors import DaemonRefusedError
from tests.deployment.bubble import USER, require_bubbles
from tests.deployment.unit import (
    PROGRAM,
    SERVICE,
    SOCKET,
    UNIT,
    Manager,
    command,
    directories,
    environ,
    one,
    parse,
    seconds,
)
from tests.harness.daemon import Daemon, project, running, wait_until
from tests.harness.faults import require, require_root

LIMIT = 1.0
"""Seconds without a sign of life that the watchdog of these tests allows."""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("not installed: systemd-analyze; try: apt-get install -y systemd", pytrace=False)
    words = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


# What systemd says


def verified(directory: Path, text: str) -> tuple[int, str]:
    """Verify a unit that starts a program which is here."""
    program = directory / "oneiric"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = directory / "oneiric.service"
    unit.write_text(text.replace(PROGRAM, str(program)))
    done = analyze("verify", str(unit))
    return done.returncode, done.stdout + done.stderr


def test_unit_verifies_without_a_word(tmp_path: Path) -> None:
    assert verified(tmp_path, UNIT.read_text()) == (0, "")


def test_verification_finds_a_misspelt_name(tmp_path: Path) -> None:
    _, said = verified(tmp_path, UNIT.read_text().replace("WatchdogSec", "WatchdogSecs"))
    assert "'WatchdogSecs'" in said


def test_unit_is_exposed_at_most_1_2() -> None:
    done = analyze("security", "--offline=true", str(UNIT))
    (exposure,) = re.findall(r"Overall exposure level for oneiric\.service: (\d+\.\d+)", done.stdout)
    assert float(exposure) <= 1.2, done.stdout


# What the unit says of the daemon


def test_settings_are_checked_before_the_start(tmp_path: Path) -> None:
    (project(tmp_path) / "settings/app.yml").write_text("lifecycle: {drain_timout: 3}\n")
    done = subprocess.run(
        command("ExecStartPre"), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 4, done.stderr


def test_unit_gives_the_daemon_longer_to_end_than_it_takes() -> None:
    lifecycle = LifecycleSettings()
    assert seconds("TimeoutStopSec") > lifecycle.drain_timeout + lifecycle.cleanup_timeout + 10


def test_unit_has_the_memory_the_doctor_says() -> None:
    asked = [sys.executable, "-m", "oneiric", "doctor", "--size", "20"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"systemctl set-property oneiric MemoryMax={one('MemoryMax')}" in said


def test_unit_has_a_user_that_operators_can_become() -> None:
    assert one("User") == "oneiric"
    assert "DynamicUser" not in SERVICE


def test_daemon_writes_to_the_directories_of_the_unit_only(tmp_path: Path) -> None:
    directories(tmp_path)
    home = project(tmp_path / "etc/oneiric")
    before = set(home.rglob("*"))
    values = {**environ(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    with running(home, environ=values) as daemon:
        assert daemon.cli("status").returncode == 0
    assert set(home.rglob("*")) == before
    assert (tmp_path / "var/lib/oneiric/state.db").is_file()


# The notify protocol


@contextmanager
def managed(directory: Path, address: str = "") -> Iterator[tuple[Manager, Daemon]]:
    """Start the daemon as systemd starts a unit of ``Type=notify`` with a watchdog."""
    directories(directory)
    home = project(directory / "etc/oneiric")
    manager = Manager(address or str(directory / "notify"))
    values = {
        **environ(directory),
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": str(int(LIMIT * 1_000_000)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with manager.socket, running(home, environ=values) as daemon:
        yield manager, daemon


def test_unit_has_systemd_wait_for_the_daemons_own_word() -> None:
    assert (one("Type"), one("NotifyAccess"), command("ExecStart")[-1]) == ("notify", "main", "orchestrate")


@pytest.mark.parametrize("name", ["", "@oneiric-{pid}"], ids=["path", "abstract"])
def test_daemon_says_that_it_is_ready_as_the_main_process(tmp_path: Path, name: str) -> None:
    with managed(tmp_path, name.format(pid=os.getpid())) as (manager, daemon):
        assert manager.wait("READY=1") == daemon.process.pid


def test_daemon_says_that_it_is_ready_once_it_serves(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, daemon):
        manager.wait("READY=1")
        assert daemon.cli("status").returncode == 0


def test_daemon_gives_every_sign_of_life_in_time(tmp_path: Path) -> None:
    gaps = []
    with managed(tmp_path) as (manager, _):
        manager.wait("WATCHDOG=1")
        for _ in range(4):
            before = time.monotonic()
            manager.wait("WATCHDOG=1")
            gaps.append(time.monotonic() - before)
    assert max(gaps) < LIMIT


def test_daemon_that_hangs_gives_no_sign_of_life(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, daemon):
        manager.wait("WATCHDOG=1")
        daemon.signal(signal.SIGSTOP)
        try:
            wait_until(lambda: state(daemon.process.pid) == "T", "stopped")
            manager.drain()
            with pytest.raises(TimeoutError):
                manager.receive(2 * LIMIT)
        finally:
            daemon.signal(signal.SIGCONT)
        manager.wait("WATCHDOG=1")


def state(pid: int) -> str:
    """Return the state of a process, in one letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_daemon_says_that_it_stops(tmp_path: Path) -> None:
    with managed(tmp_path) as (manager, daemon):
        manager.wait("READY=1")
        daemon.signal(signal.SIGTERM)
        manager.wait("STOPPING=1")
        assert daemon.process.wait(20) == 0


def test_daemon_without_a_watchdog_gives_no_sign_of_life(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    with manager.socket, running(project(tmp_path), environ={"NOTIFY_SOCKET": manager.address}) as daemon:
        manager.wait("READY=1")
        daemon.signal(signal.SIGTERM)
        said = manager.receive(20)[1]
    assert said[0] == "STOPPING=1"


def test_reload_reads_the_settings_again_in_the_same_process(tmp_path: Path) -> None:
    home = project(tmp_path)
    with running(home, "--no-watch") as daemon:
        adapters = home / "settings/adapters.yml"
        adapters.write_text(adapters.read_text().replace("cache: memory", "cache: redis"))
        subprocess.run(command("ExecReload", MAINPID=str(daemon.process.pid)), timeout=20, check=True)
        daemon.wait_event("swap-complete", provider="redis")
        assert daemon.process.poll() is None


# A socket that systemd holds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def activated(home: Path, *addresses: str) -> Iterator[subprocess.Popen[str]]:
    """Have systemd's own program listen, and start the daemon once somebody calls."""
    if shutil.which("systemd-socket-activate") is None:
        pytest.fail("not installed: systemd-socket-activate; try: apt-get install -y systemd", pytrace=False)
    listens = [word for address in addresses for word in ("-l", address)]
    command = ["systemd-socket-activate", *listens, sys.executable, "-m", "oneiric", "orchestrate"]
    passed = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with subprocess.Popen(
        command,
        cwd=home,
        env={**passed, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def called(port: int) -> socket.socket:
    """Connect as soon as somebody listens."""
    wait_until(lambda: is_open(port), "somebody listens")
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def is_open(port: int) -> bool:
    """Say whether the kernel knows of a listener, without calling it."""
    listeners = re.findall(r"^ *\d+: \S+:(\w{4}) \S+ 0A ", Path("/proc/net/tcp").read_text(), re.MULTILINE)
    return f"{port:04X}" in listeners


def test_socket_unit_verifies_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "oneiric.socket").write_text(SOCKET.read_text())
    assert verified(tmp_path, UNIT.read_text()) == (0, "")
    done = analyze("verify", str(tmp_path / "oneiric.socket"))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_socket_unit_listens_where_the_daemon_would() -> None:
    (address,) = parse(SOCKET.read_text())["Socket"]["ListenStream"]
    assert address == ApiSettings().http


def test_caller_who_was_there_before_the_daemon_is_answered(tmp_path: Path) -> None:
    port = free_port()
    with activated(project(tmp_path), f"127.0.0.1:{port}"), called(port) as caller:
        caller.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert caller.recv(15) == b"HTTP/1.1 200 OK"


def test_daemon_refuses_a_second_socket_and_says_what_to_change(tmp_path: Path) -> None:
    port = free_port()
    with activated(project(tmp_path), f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}") as process:
        called(port).close()
        assert process.wait(20) == DaemonRefusedError.exit_code
        assert process.stdout is not None
        assert "keep one ListenStream=HOST:PORT in oneiric.socket" in process.stdout.read()


def test_daemon_refuses_a_socket_that_is_not_of_the_internet(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with activated(project(tmp_path), str(path)) as process, socket.socket(socket.AF_UNIX) as caller:
        wait_until(path.exists, "somebody listens")
        caller.connect(str(path))
        assert process.wait(20) == DaemonRefusedError.exit_code
        assert process.stdout is not None
        assert "a socket that is not a listening TCP socket" in process.stdout.read()


def test_daemon_leaves_alone_what_its_parent_was_handed(tmp_path: Path) -> None:
    with running(project(tmp_path), environ={"LISTEN_PID": "1", "LISTEN_FDS": "1"}) as daemon:
        assert httpx2.get(f"http://{daemon.http}/healthz", timeout=20).status_code == 200


# The sandbox: no systemd runs here, so what the daemon asks the kernel is compared with what the unit allows


def members(name: str) -> set[str]:
    """Return the system calls of a set, of sets within it too."""
    lines = analyze("syscall-filter", name).stdout.splitlines()
    listed = [line.strip() for line in lines[1:] if line.strip() and not line.strip().startswith("#")]
    return {call for word in listed for call in (members(word) if word.startswith("@") else {word})}


def allowed() -> set[str]:
    """Return the system calls that the unit allows."""
    calls: set[str] = members("@default")
    for line in SERVICE["SystemCallFilter"]:
        named = {call for word in line.lstrip("~").split() for call in members(word)}
        calls = calls - named if line.startswith("~") else calls | named
    return calls


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a daemon asks the kernel from its start through a swap, a reload and a scrape to its end; not as root."""
    require("strace")
    require_bubbles()
    home = project(tmp_path_factory.mktemp("traced"))
    output = home / "trace"
    user = ["bwrap", "--unshare-user", "--uid", str(USER), "--gid", str(USER), "--dev-bind", "/", "/"]
    with running(home, within=[*user, "strace", "-f", "-qq", "-o", str(output)]) as daemon:
        assert daemon.cli("swap", "--domain", "adapter", "--key", "cache", "--provider", "redis").returncode == 0
        assert httpx2.get(f"http://{daemon.http}/metrics", timeout=20).status_code == 200
        adapters = home / "settings/adapters.yml"
        adapters.write_text(adapters.read_text().replace("priority: 5", "priority: 6"))
        daemon.wait_event("config-changed")
        os.kill(daemon.wait_event("daemon-ready")["pid"], signal.SIGTERM)
        daemon.wait_event("daemon-stopped")
        daemon.process.wait(20)
    return output.read_text()


def test_daemon_makes_only_system_calls_that_the_unit_allows(trace: str) -> None:
    made = set(re.findall(r"^\d+ +(\w+)\(", trace, re.MULTILINE))
    assert "openat" in made
    assert made - allowed() == set()


def test_daemon_needs_no_memory_that_can_be_written_and_run(trace: str) -> None:
    assert re.findall(r"mmap\(.*PROT_WRITE\|PROT_EXEC.*|mprotect\(.*PROT_EXEC.*", trace) == []


def test_daemon_finds_in_proc_what_alerts_ask_for(tmp_path: Path) -> None:
    require("mount", "unshare")
    require_root()
    subset = {"all": "", "pid": ",subset=pid"}[one("ProcSubset")]
    hidden = f"hidepid={one('ProtectProc')}{subset}"
    mount = ["sh", "-c", 'mount -t proc -o "$0" proc /proc && exec "$@"', hidden]
    with running(tmp_path, within=["unshare", "--mount", "--propagation", "private", *mount]) as daemon:
        told = httpx2.get(f"http://{daemon.http}/metrics", timeout=20).text
    asked = {"process_start_time_seconds", "process_resident_memory_bytes"}
    assert asked <= set(re.findall(r"^\w+", told, re.MULTILINE))


def test_daemon_opens_only_sockets_that_the_unit_allows(trace: str) -> None:
    made = set(re.findall(r"socket\((AF_\w+)", trace))
    assert made
    assert made <= set(one("RestrictAddressFamilies").split())

"""The daemon as a process: start, refusals, signals, end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from oneiric.errors import DaemonUnreachableError
from tests.harness.daemon import Daemon, project, running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return project(tmp_path / "p")


def test_start_activates_what_settings_select(place: Path) -> None:
    with running(place) as daemon:
        row = daemon.slot("adapter", "cache")
    assert (row["state"], row["provider"]) == ("ready", "memory")


def test_sigterm_closes_every_instance_and_exits_0(place: Path) -> None:
    with running(place, environ={"TRACE": str(place / "trace")}) as daemon:
        code = daemon.stop(signal.SIGTERM)
    assert (code, (place / "trace").read_text().split("\n")[:2]) == (0, ["built memory", "closed memory"])


def test_sigint_ends_the_daemon_in_order(place: Path) -> None:
    with running(place) as daemon:
        code = daemon.stop(signal.SIGINT)
    assert (code, daemon.events[-1]["event"]) == (0, "daemon-stopped")


def test_sighup_reloads_and_does_not_end_the_daemon(place: Path) -> None:
    with running(place, "--no-watch") as daemon:
        (place / "settings" / "adapters.yml").write_text(
            (place / "settings" / "adapters.yml").read_text().replace("cache: memory", "cache: redis")
        )
        daemon.signal(signal.SIGHUP)
        daemon.wait_event("swap-complete", provider="redis")
        assert daemon.process.poll() is None


def test_second_daemon_refuses_and_names_the_first(place: Path) -> None:
    with running(place) as first:
        second = Daemon(place)
        code = second.process.wait(20)
        second.stop()
    assert code == 1
    assert f"another daemon (pid {first.process.pid}) uses the state directory" in second.output


def test_start_after_sigkill_replaces_the_stale_socket(place: Path) -> None:
    with running(place) as first:
        first.stop(signal.SIGKILL)
    with running(place) as second:
        assert second.slot("adapter", "cache")["state"] == "ready"


def test_socket_is_removed_at_the_end(place: Path) -> None:
    with running(place) as daemon:
        daemon.stop()
        assert not (place / ".oneiric_state" / "oneiric.sock").exists()


def test_socket_is_for_its_owner_only(place: Path) -> None:
    with running(place):
        mode = (place / ".oneiric_state" / "oneiric.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def _as_nobody(place: Path) -> subprocess.CompletedProcess[str]:
    ask = "import socket,sys\ns = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
    ask += "s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\nprint(s.recv(9))\n"
    command = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", ask, "oneiric.sock"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=20)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@needs_root
def test_socket_refuses_another_user_by_its_mode(place: Path) -> None:
    with running(place, "--socket", "oneiric.sock"):
        place.chmod(0o755)
        for parent in list(place.parents)[:3]:
            parent.chmod(0o755)
        asked = _as_nobody(place)
    assert "PermissionError" in asked.stderr


@needs_root
def test_socket_refuses_another_user_even_when_its_mode_is_wrong(place: Path) -> None:
    with running(place, "--socket", "oneiric.sock"):
        for directory in (place, *list(place.parents)[:3]):
            directory.chmod(0o755)
        (place / "oneiric.sock").chmod(0o666)
        asked = _as_nobody(place)
    assert "HTTP/1.1" not in asked.stdout
    assert "PermissionError" not in asked.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (("--http", "127.0.0.1:{taken}"), {}, "cannot listen on 127.0.0.1:{taken}"),
        (("--socket", "x" * 120 + ".sock"), {}, "107"),
        ((), {"ONEIRIC_STATE_DIR": "settings/adapters.yml/state"}, "cannot be used"),
        ((), {"ONEIRIC_STATE_DIR": "open"}, "others may write to it"),
        (("--socket", "settings/adapters.yml"), {}, "is not a socket"),
    ],
    ids=["port taken", "socket path too long", "state under a file", "state writable by all", "socket path taken"],
)
def test_start_is_refused_with_place_and_remedy(
    place: Path, arguments: tuple[str, ...], environ: dict[str, str], says: str
) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        daemon = Daemon(place, *(word.replace("{taken}", port) for word in arguments), environ=environ)
        code = daemon.process.wait(20)
        daemon.stop()
    assert code in (1, 4)
    assert says.replace("{taken}", port) in daemon.output
    assert "try: " in daemon.output
    assert "Traceback" not in daemon.output


@needs_root
@pytest.mark.skipif(shutil.which("mount") is None, reason="mount(8) is not installed")
def test_start_on_a_read_only_state_directory_is_refused_with_a_remedy(place: Path) -> None:
    state = place / ".oneiric_state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", str(state)], check=True)
    try:
        daemon = Daemon(place)
        code = daemon.process.wait(20)
        daemon.stop()
    finally:
        subprocess.run(["umount", str(state)], check=True)
    assert code == 1
    assert "Read-only file system" in daemon.output
    assert "try: " in daemon.output


def test_invalid_settings_at_start_exit_4_and_list_every_problem(place: Path) -> None:
    (place / "settings" / "app.yml").write_text("lifecycle: {drain_timout: 3}\n")
    (place / "settings" / "tasks.yml").write_text("selections: [")
    daemon = Daemon(place)
    code = daemon.process.wait(20)
    daemon.stop()
    assert code == 4
    assert "settings/app.yml:1:13" in daemon.output
    assert "settings/tasks.yml:1:" in daemon.output


def test_daemon_without_settings_runs_on_defaults(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert daemon.client.get("/v1/status")["daemon"]["version"]


def test_client_of_a_stopped_daemon_says_it_is_not_running(place: Path) -> None:
    with running(place) as daemon:
        daemon.stop()
        with pytest.raises(DaemonUnreachableError, match="does not run"):
            daemon.client.get("/v1/status")


class Manager:
    """The service manager's end of sd_notify."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(20)

    def wait(self, line: str) -> None:
        while line not in self.socket.recv(4096).decode().split("\n"):
            pass


def test_notify_tells_the_service_manager_ready_alive_and_stopping(place: Path) -> None:
    manager = Manager(place / "notify")
    environ = {"NOTIFY_SOCKET": str(place / "notify"), "WATCHDOG_USEC": "200000"}
    with manager.socket, running(place, environ=environ) as daemon:
        manager.wait("READY=1")
        manager.wait("WATCHDOG=1")
        manager.wait("WATCHDOG=1")
        daemon.signal(signal.SIGTERM)
        manager.wait("STOPPING=1")


def test_log_lines_are_flat_json(place: Path) -> None:
    with running(place) as daemon:
        daemon.stop()
    flat = (str, int, float, bool, type(None))
    assert all(isinstance(value, flat) for event in daemon.events for value in event.values())
    assert len(daemon.events) == len(daemon.lines)


def test_blocking_factory_times_out_while_others_are_served(place: Path) -> None:
    (place / "settings" / "app.yml").write_text("lifecycle: {activation_timeout: 0.3}\n")
    with running(place) as daemon:
        asked = daemon.cli("swap", "--domain", "adapter", "--key", "cache", "--provider", "blocking")
        row = daemon.slot("adapter", "cache")
        abandoned = daemon.client.get("/v1/status")["daemon"]["abandoned_calls"]
        code = daemon.stop()
    assert (asked.returncode, row["provider"], row["state"], abandoned) == (1, "memory", "ready", 1)
    assert "timeout" in asked.stderr
    assert code == 1, "a call that still blocks is reported by the exit code"


def test_collector_passes_by_what_the_daemon_imported(place: Path) -> None:
    (place / "counting.py").write_text(
        "import gc, pathlib\n\ndef build():\n    pathlib.Path('frozen').write_text(str(gc.get_freeze_count()))\n"
        "    return object()\n"
    )
    (place / "settings" / "services.yml").write_text(
        'selections: {count: counting}\ncandidates: [{key: count, provider: counting, factory: "counting:build"}]\n'
    )
    with running(place):
        assert int((place / "frozen").read_text()) > 10_000

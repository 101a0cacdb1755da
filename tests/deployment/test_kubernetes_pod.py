"""A process with the pod's command, user, read-only root, volumes and environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.deployment.objects import container, get, pod
from tests.deployment.pod import publish, started, volumes
from tests.harness.faults import require, require_root


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """The volumes of the pod in production, as the kubelet leaves them."""
    require("mount", "unshare", "setpriv")
    require_root()
    data = get("overlays/production", "ConfigMap", "oneiric-settings")["data"]
    tmp_path.chmod(0o755)
    return volumes(tmp_path, pod("overlays/production"), {"settings": data, "secrets": {"redis-password": "x"}})


def test_pod_answers_its_probes(tmp_path: Path, places: dict[str, Path]) -> None:
    with started(tmp_path, pod("overlays/production"), places) as daemon:
        port = daemon.http.rpartition(":")[2]
        paths = [container("base")[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")]
        answers = [httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=5) for path in [*paths, "/metrics"]]
    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_pod_follows_a_swapped_settings_volume(tmp_path: Path, places: dict[str, Path]) -> None:
    data = get("overlays/production", "ConfigMap", "oneiric-settings")["data"]
    with started(tmp_path, pod("overlays/production"), places) as daemon:
        publish(places["settings"], {**data, "adapters.yml": "selections: {}\n"})
        changed = daemon.wait_event("config-changed")
    assert changed["file"] == "settings/adapters.yml"


def test_pod_starts_again_on_the_state_it_left(tmp_path: Path, places: dict[str, Path]) -> None:
    for _ in range(2):
        with started(tmp_path, pod("overlays/production"), places) as daemon:
            ready = daemon.wait_event("daemon-ready")
            ended = daemon.stop()
        assert (ready["socket"], ended) == ("/run/oneiric/oneiric.sock", 0)
    found = (places["state"] / "state").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (65532, 0o700)


def test_pod_has_no_power_of_root(tmp_path: Path, places: dict[str, Path]) -> None:
    with started(tmp_path, pod("overlays/production"), places) as daemon:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        told = dict(re.findall(r"(\w+):\s+(\w+)", status))
    assert (told["Uid"], told["Gid"], told["NoNewPrivs"]) == ("65532", "65532", "1")
    assert {int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_pod_answers_to_the_names_of_its_service_alone(tmp_path: Path, places: dict[str, Path]) -> None:
    with started(tmp_path, pod("overlays/production"), places) as daemon:
        url = f"http://127.0.0.1:{daemon.http.rpartition(':')[2]}/metrics"
        answers = [
            httpx2.get(url, headers={"Host": f"{name}:9464"}, timeout=5).status_code
            for name in ("oneiric.oneiric.svc", "attacker.example")
        ]
    assert answers == [200, 421]


def test_state_opened_to_the_group_is_what_the_daemon_refuses(tmp_path: Path, places: dict[str, Path]) -> None:
    state = places["state"] / "state"
    state.mkdir()
    state.chmod(0o2770)  # what fsGroupChangePolicy "Always" makes of it
    os.chown(state, 65532, 65532)
    with pytest.raises(AssertionError, match="others may write to it"), started(tmp_path, pod("base"), places):
        pass


def test_command_typed_into_the_pod_reaches_the_daemon(tmp_path: Path, places: dict[str, Path]) -> None:
    with started(tmp_path, pod("overlays/production"), places) as daemon:
        enter = ["nsenter", f"--target={daemon.process.pid}", "--mount", "--root", "--wd", "--setuid=65532"]
        command = [*enter, "--setgid=65532", sys.executable, "-m", "oneiric", "status", "--json"]
        done = subprocess.run(command, env=daemon.environ, capture_output=True, text=True, timeout=60, check=False)
    assert '"live": true' in done.stdout, done.stderr

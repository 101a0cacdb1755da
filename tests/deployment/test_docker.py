"""The image and the compose file: their text, and the image's command in its layout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
import pytest
import yaml

import oneiric
from oneiric.core.config import LifecycleSettings
from tests.deployment.bubble import USER, Container, Image, require_bubbles
from tests.deployment.dockerfile import PINNED, complaints, parse

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deployment/docker"
TEXT = (DOCKER / "Dockerfile").read_text()
FINAL = parse(TEXT)[-1]
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yml").read_text())
OURS: dict[str, Any] = COMPOSE["services"]["oneiric"]
COPIED = [word.rstrip("/") for each in parse(TEXT)[0].all("COPY") for word in each.rest.split()[:-1]]
"""What the first stage takes from the repository."""
FROM_DOCKER = {"/var/run/docker.sock"}
"""What is mounted of the host itself: Docker's own socket, by which Alloy reads the log."""


# The Dockerfile


def test_dockerfile_keeps_every_rule() -> None:
    assert list(complaints(TEXT)) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (r"python:\S+ AS build", "python:latest AS build", "no version in its tag"),
        (r"python:\S+ AS build", "python AS build", "no version in its tag"),
        (r"USER 65532:65532", "USER root", "USER is root"),
        (r"USER 65532:65532", "", "USER is root"),
        (r"USER 65532:65532", "USER 65532\nRUN true", "RUN after USER"),
        (r"HEALTHCHECK .*", "", "0 HEALTHCHECK"),
        (r"LABEL ", "ENV ", "0 LABEL"),
        (r'ENTRYPOINT \["oneiric"\]', "ENTRYPOINT oneiric", "a shell would be process 1"),
        (r"RUN pip uninstall", "RUN apt-get install -y gcc; pip uninstall", "a build tool in the final stage"),
        (r"RUN pip uninstall \S+", "RUN true", "pip in the final stage"),
        (r"--chown=0:0", "--chown=65532:65532", "could change its own code"),
        (r"--from=build", "--from=nowhere", "no such stage"),
        (r"COPY oneiric/ oneiric/", "COPY . .", "takes everything"),
        (r"COPY oneiric/", "ADD oneiric/", "ADD where COPY does"),
        (r'"--no-cache-dir", "--no-deps"', '"--no-deps"', "keeps its cache"),
        (r'PORT="9464"', 'PORT="9464" API_TOKEN="x"', "a secret would stay"),
    ],
)
def test_broken_dockerfile_is_complained_about(old: str, new: str, complaint: str) -> None:
    broken, changes = re.subn(old, new, TEXT, count=1)
    assert changes == 1
    assert any(complaint in said for said in complaints(broken)), list(complaints(broken))


def test_dockerfile_builds_and_runs_on_one_python() -> None:
    assert len({stage.image for stage in parse(TEXT)}) == 1


def test_dockerfile_installs_only_what_has_a_known_hash() -> None:
    installs = [each.command for each in parse(TEXT)[0].all("RUN") if "install" in each.text]
    assert all("--require-hashes" in words or "--no-deps" in words for words in installs), installs


def test_dockerfile_labels_say_what_the_project_says() -> None:
    labels = {name.rpartition("image.")[2]: value for name, value in FINAL.last("LABEL").pairs.items()}
    project = (ROOT / "pyproject.toml").read_text()
    assert labels["version"] == oneiric.__version__
    assert f'description = "{labels["description"]}"' in project
    assert f'license = "{labels["licenses"]}"' in project
    assert labels["base.name"] == FINAL.image


def test_dockerfile_copies_only_what_the_context_lets_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    through = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert set(COPIED) == through
    assert all((ROOT / name).exists() for name in COPIED)


def test_dockerfile_makes_its_volumes_private_to_its_user() -> None:
    (made,) = re.findall(rf"--owner={USER} --group={USER} --mode=0700 (.*)", FINAL.last("RUN").text)
    environ = FINAL.environ
    places = [environ["ONEIRIC_STATE_DIR"], environ["ONEIRIC_CACHE_DIR"]]
    assert made.split() == places == FINAL.last("VOLUME").command


# The compose file


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_service_has_an_image_with_a_version(name: str) -> None:
    assert PINNED.fullmatch(COMPOSE["services"][name]["image"])


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_service_mounts_what_exists(name: str) -> None:
    for mount in COMPOSE["services"][name]["volumes"]:
        source, inside, *mode = mount.split(":")
        assert PurePosixPath(inside).is_absolute()
        if source.startswith("."):
            assert (DOCKER / source).exists(), mount
            assert mode == ["ro"], mount
        else:
            assert source in {*COMPOSE["volumes"], *FROM_DOCKER}, mount


def test_every_volume_is_mounted_by_one_service() -> None:
    named = [mount.split(":")[0] for each in COMPOSE["services"].values() for mount in each["volumes"]]
    assert sorted(name for name in named if name.isalpha()) == sorted(COMPOSE["volumes"])


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_service_is_published_on_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"][name].get("ports", []))


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_service_gains_no_privileges(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "user"} & service.keys()


def test_oneiric_runs_hardened() -> None:
    assert (OURS["read_only"], OURS["cap_drop"], OURS["init"]) == (True, ["ALL"], True)


def test_oneiric_writes_to_its_two_volumes_only() -> None:
    writable = {inside for source, inside, *mode in (m.split(":") for m in OURS["volumes"]) if mode != ["ro"]}
    assert writable == set(FINAL.last("VOLUME").command)
    assert "tmpfs" not in OURS


def test_oneiric_has_the_name_the_runbooks_type_and_this_version() -> None:
    assert (OURS["container_name"], OURS["image"]) == ("oneiric", f"oneiric:{oneiric.__version__}")


def test_oneiric_is_built_from_the_dockerfile_here() -> None:
    build = OURS["build"]
    context = (DOCKER / build["context"]).resolve()
    assert (context, context / build["dockerfile"]) == (ROOT, DOCKER / "Dockerfile")


def test_oneiric_is_given_longer_to_end_than_it_takes() -> None:
    lifecycle = LifecycleSettings()
    needed = lifecycle.drain_timeout + lifecycle.cleanup_timeout + 10
    assert int(OURS["stop_grace_period"].removesuffix("s")) > needed


def test_oneiric_has_the_memory_the_doctor_says() -> None:
    asked = [sys.executable, "-m", "oneiric", "doctor", "--size", "20"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"docker update --memory {OURS['mem_limit']} oneiric" in said


def test_prometheus_asks_oneiric_by_a_name_it_answers_to() -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"][0]
    (target,) = scraped["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert (host, port) == ("oneiric", FINAL.environ["PORT"])
    assert host in yaml.safe_load(OURS["environment"]["ONEIRIC_API__ALLOWED_HOSTS"])


@pytest.mark.parametrize(
    "path",
    [
        "docker/prometheus.yml",
        "monitoring/grafana/provisioning/datasources/oneiric.yml",
        "monitoring/loki/config.alloy",
    ],
)
def test_what_is_asked_by_name_is_a_service(path: str) -> None:
    text = (ROOT / "deployment" / path).read_text()
    named = set(re.findall(r"(?:https?://|^ *- )([a-z]+):\d+", text, re.MULTILINE))
    assert named
    assert named <= COMPOSE["services"].keys()


def test_rules_are_where_prometheus_looks() -> None:
    mounts = dict(mount.split(":")[1::-1] for mount in COMPOSE["services"]["prometheus"]["volumes"])
    (wanted,) = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["rule_files"]
    directory, name = wanted.split("/")
    assert (DOCKER / mounts[f"/etc/prometheus/{directory}"] / name).is_file()


def test_dashboards_are_where_grafana_looks() -> None:
    mounts = dict(mount.split(":")[1::-1] for mount in COMPOSE["services"]["grafana"]["volumes"])
    provisioned = ROOT / "deployment/monitoring/grafana/provisioning/dashboards/oneiric.yml"
    (provider,) = yaml.safe_load(provisioned.read_text())["providers"]
    assert list((DOCKER / mounts[provider["options"]["path"]]).glob("oneiric-*.json"))


def test_log_shipper_forwards_to_what_the_asset_defines() -> None:
    (receiver,) = set(re.findall(r"forward_to = \[loki\.(\w+\.\w+)\.receiver\]", (DOCKER / "docker.alloy").read_text()))
    kind, name = receiver.split(".")
    asset = (ROOT / "deployment/monitoring/loki/config.alloy").read_text()
    assert re.search(rf'^loki\.{kind} "{name}" \{{', asset, re.MULTILINE)


# The image's command, in its layout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first stage builds from what it copies, and from nothing else."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in COPIED:
        taken = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        (source / name).parent.mkdir(exist_ok=True)
        taken(ROOT / name, source / name)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture
def image(tmp_path: Path, wheel: Path) -> Image:
    """The image with two fresh volumes and the settings of the compose file."""
    require_bubbles()
    volumes = {inside: tmp_path / PurePosixPath(inside).parts[2] for inside in FINAL.last("VOLUME").command}
    for place in volumes.values():
        place.mkdir(mode=0o700)
    mounts = {"/etc/oneiric/settings": DOCKER / "settings"}
    return Image(tmp_path, FINAL, wheel=wheel, volumes=volumes, mounts=mounts)


@pytest.fixture
def container(image: Image) -> Iterator[Container]:
    """The image's own command on a free port."""
    with image.started({**OURS["environment"], "PORT": "0"}) as started:
        yield started


def get(container: Container, path: str, host: str = "") -> int:
    port = container.http.rpartition(":")[2]
    headers = {"Host": f"{host}:{port}"} if host else {}
    return httpx2.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=10).status_code


def test_image_is_ready_on_every_address(container: Container) -> None:
    assert container.http.startswith("0.0.0.0:")
    assert get(container, "/readyz") == 200


def test_image_answers_prometheus_by_name(container: Container) -> None:
    assert (get(container, "/metrics", "oneiric"), get(container, "/metrics", "other")) == (200, 421)


def test_image_runs_as_its_user_without_power(container: Container) -> None:
    process = Path("/proc", str(container.pid))
    told = dict(re.findall(r"(\w+):\s+(\w+)", (process / "status").read_text()))
    users = [(process / name).read_text().split()[0] for name in ("uid_map", "gid_map")]
    assert (users, told["CapEff"], told["NoNewPrivs"]) == ([str(USER)] * 2, "0" * 16, "1")


def test_image_answers_status_through_its_socket(container: Container, image: Image) -> None:
    done = image.run("oneiric", "--json", "status")
    assert done.returncode == 0, done.stderr
    assert '"live": true' in done.stdout
    assert '"provider": "memory"' in done.stdout


def test_healthcheck_passes_while_the_daemon_runs(container: Container, image: Image) -> None:
    done = image.run(*healthcheck())
    assert done.returncode == 0, done.stdout + done.stderr


def test_healthcheck_fails_without_a_daemon(image: Image) -> None:
    assert image.run(*healthcheck()).returncode == 3


def healthcheck() -> list[str]:
    _, _, command = FINAL.last("HEALTHCHECK").text.partition("CMD ")
    return list(yaml.safe_load(command))


def test_image_ends_with_0_on_sigterm(container: Container) -> None:
    assert container.stop() == 0
    assert container.events[-1]["event"] == "daemon-stopped"


def test_image_can_write_to_its_volumes_only(image: Image) -> None:
    script = (
        "import os, sys\n"
        "def writable(place):\n"
        "    try: open(os.path.join(place, 'probe'), 'w').close()\n"
        "    except OSError: return False\n"
        "    return True\n"
        "places = [at for at, _, _ in os.walk('/') if not at.startswith(('/proc', '/dev', '/usr/share'))]\n"
        "print('\\n'.join(filter(writable, places)))\n"
    )
    done = image.run("/opt/oneiric/bin/python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(FINAL.last("VOLUME").command)


def test_image_leaves_its_own_files_as_they_were(image: Image) -> None:
    def snapshot() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in image.tree.rglob("*")}

    before = snapshot()
    with image.started({"PORT": "0"}) as container:
        image.run("oneiric", "status")
        container.stop()
    assert snapshot() == before

"""The image without an engine: its files, user, environment and commands in a bubble whose root is read-only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.dockerfile import Stage
from tests.harness.daemon import wait_until

USER = 65532


def require_bubbles() -> None:
    """Fail where no bubble can be made: what this is about would go untested."""
    if shutil.which("bwrap") is None:
        pytest.fail("not installed: bwrap; try: apt-get install -y bubblewrap", pytrace=False)
    asked = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    tried = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    if tried.returncode:
        said = tried.stderr.strip()
        remedy = "run the tests as root, or where user namespaces are allowed"
        pytest.fail(f"bwrap cannot make namespaces here: {said}; try: {remedy}", pytrace=False)


class Image:
    """What the final stage of a Dockerfile holds, in *directory*; a started one is a container.

    The dependencies are those of the Python that runs the tests.

    Args:
        wheel: Oneiric.
        volumes: directories outside by where they are inside; these can be written to.
        mounts: the same, read-only.
    """

    def __init__(
        self, directory: Path, stage: Stage, *, wheel: Path, volumes: Mapping[str, Path], mounts: Mapping[str, Path]
    ) -> None:
        self.stage = stage
        self.log = directory / "log"
        self.tree = directory / "image"
        self._volumes = volumes
        venv.create(self.tree / "opt/oneiric", symlinks=True)
        (packages,) = (self.tree / "opt/oneiric/lib").glob("python3*/site-packages")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(packages)
        (packages / "dependencies.pth").write_text("/opt/dependencies\n")
        program = self.tree / "opt/oneiric/bin/oneiric"
        program.write_text(
            "#!/opt/oneiric/bin/python\nimport sys\nfrom oneiric.cli.main import main\nsys.exit(main())\n"
        )
        program.chmod(0o755)
        installed = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
        self._mounts = {
            "/usr": Path("/usr"),
            sys.base_prefix: Path(sys.base_prefix),
            "/opt/oneiric": self.tree / "opt/oneiric",
            "/opt/dependencies": installed,
            **mounts,
        }

    def _bubble(self, environ: Mapping[str, str]) -> list[str]:
        words = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]
        words += ["--uid", str(USER), "--gid", str(USER), "--cap-drop", "ALL", "--new-session", "--die-with-parent"]
        for inside in ("/etc/oneiric/settings", "/tmp", "/var/tmp", "/run"):
            words += ["--dir", inside]
        for inside, outside in self._mounts.items():
            words += ["--ro-bind", str(outside), inside]
        for name in ("bin", "lib", "lib64"):
            words += ["--symlink", f"usr/{name}", f"/{name}"]
        words += ["--proc", "/proc", "--dev", "/dev"]
        for inside, outside in self._volumes.items():
            words += ["--bind", str(outside), inside]
        words += ["--remount-ro", "/", "--chdir", self.stage.last("WORKDIR").rest, "--clearenv"]
        for name, value in {**self.stage.environ, **environ}.items():
            words += ["--setenv", name, value]
        return words

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run *command* in the image, beside what runs there: the same volumes, another process."""
        words = [*self._bubble({}), *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    @contextmanager
    def started(self, environ: Mapping[str, str]) -> Iterator[Container]:
        """Run what the image runs when nothing else is asked for, until the block ends."""
        entry = self.stage.last("ENTRYPOINT").command + self.stage.last("CMD").command
        told, tell = os.pipe()
        with self.log.open("wb") as log:
            words = self._bubble(environ)
            process = subprocess.Popen(
                [*words, "--info-fd", str(tell), *entry],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[tell],
            )
        os.close(tell)
        with os.fdopen(told) as channel:
            said = channel.read()
        try:
            yield Container(process, json.loads(said)["child-pid"], self.log).wait_ready()
        finally:
            if process.poll() is None:
                process.kill()  # and, dying with it, what it contains
                process.wait()


class Container:
    """A started image."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self.pid = pid
        self._process = process
        self._log = log

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def wait_ready(self) -> Container:
        """Wait until it serves."""
        wait_until(lambda: self._process.poll() is not None or self._ready(), "daemon-ready", timeout=40)
        assert self._ready(), f"ended with {self._process.returncode}:\n{self._log.read_text()}"
        return self

    def _ready(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == "daemon-ready"]

    @property
    def http(self) -> str:
        """``host:port`` of its HTTP listener."""
        return str(self._ready()[0]["http"])

    def stop(self) -> int:
        """Send process 1 what an engine sends; return its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self._process.wait(40)

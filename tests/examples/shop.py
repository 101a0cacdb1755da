"""The shop as ``make run`` opens it, in a copy of its own and on free ports."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import urlopen

from oneiric.api.client import Client

SHOP = Path(__file__).parents[2] / "examples" / "shop"
TIMEOUT = 40.0


def copy_shop(to: Path) -> Path:
    """Copy the shop, without what running it left behind, and the publisher; return where the shop is."""
    left_behind = shutil.ignore_patterns("__pycache__", ".oneiric_*", ".shop")
    shutil.copytree(SHOP.parent / "publisher", to / "examples" / "publisher", ignore=left_behind)
    return shutil.copytree(SHOP, to / "examples" / "shop", ignore=left_behind)


def load_module() -> ModuleType:
    """Return ``load.py`` as a module."""
    spec = importlib.util.spec_from_file_location("shop_load", SHOP / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class OpenShop:
    """``start.py`` in *directory*, in a process group of its own as in a terminal, and what it printed."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.client = Client(directory / ".oneiric_state" / "oneiric.sock")
        self.output = ""
        self._arrived = threading.Condition()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ONEIRIC_", "SHOP_"))}
        self.process = subprocess.Popen(
            [sys.executable, "start.py", "--port", "0"],
            cwd=directory,
            env={**inherited, "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._arrived:
                self.output += line
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    def wait_printed(self, pattern: str) -> str:
        """Wait until it printed *pattern* and return the group of it."""
        with self._arrived:
            self._arrived.wait_for(
                lambda: re.search(pattern, self.output) or not self._reader.is_alive(), timeout=TIMEOUT
            )
            found = re.search(pattern, self.output)
        assert found is not None, f"{pattern} was not printed:\n{self.output}"
        return found[1]

    def wait_open(self) -> OpenShop:
        """Wait until it said what to try, which is the last thing it does."""
        self.wait_printed("(Ctrl-C closes the shop)")
        return self

    @property
    def url(self) -> str:
        """Where its front is."""
        return self.wait_printed(r"The shop is open: (http://\S+)/price/tea")

    def get(self, path: str) -> str:
        """Ask its front."""
        with urlopen(self.url + path, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def swap(self, domain: str, key: str, provider: str) -> dict[str, Any]:
        """Swap by the control socket, as ``oneiric swap`` does."""
        return self.client.post("/v1/swap", {"domain": domain, "key": key, "provider": provider})

    def unpin(self, domain: str, key: str) -> None:
        """Let precedence choose again."""
        self.client.post("/v1/unpin", {"domain": domain, "key": key})

    def publish(self, percent: int) -> str:
        """Run ``publish.py`` and return the version that it published."""
        done = subprocess.run(
            [sys.executable, "publish.py", "--percent", str(percent)],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        found = re.fullmatch(rf"published member (\d+\.0): {percent} % off\n", done.stdout)
        assert found is not None, done
        return found[1]

    def explain(self, domain: str, key: str) -> str:
        """Return the text of ``oneiric explain``."""
        text: str = self.client.get("/v1/explain", domain=domain, key=key)["text"]
        return text

    def children(self) -> dict[int, str]:
        """Return the processes it started, by id, with the command of each."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids}

    def close(self, number: int = signal.SIGINT) -> int:
        """Press Ctrl-C, or send another signal; return the exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        try:
            return self.process.wait(TIMEOUT)
        finally:
            if self.process.poll() is None:
                started = self.children()
                self.process.kill()
                for pid in started:
                    os.kill(pid, signal.SIGKILL)
                self.process.wait()
            self._reader.join(5)
            if self.process.stdout is not None:
                self.process.stdout.close()


@contextmanager
def open_shop(directory: Path, environ: Mapping[str, str] | None = None) -> Iterator[OpenShop]:
    """Open the shop for the length of a block."""
    shop = OpenShop(directory, environ or {})
    try:
        yield shop.wait_open()
    finally:
        shop.close()

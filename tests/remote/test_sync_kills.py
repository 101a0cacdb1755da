"""``oneiric remote-sync`` killed, or refused by the disk, at any system call by which it changes something.

What the next start finds is what was there before or what was to be there, whole and verified; what the next
synchronisation leaves is what one leaves that nobody disturbed. ``make soak`` tries every call, a normal run those that
write.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import msgspec
import pytest

from oneiric.config.loader import load
from oneiric.core.candidate import Candidate, Deferred
from oneiric.errors import OneiricError
from oneiric.remote import files
from oneiric.runtime.delivery import syncer
from tests.harness.daemon import oneiric, project
from tests.harness.delivery import Upstream
from tests.harness.faults import require
from tests.remote.wheels import digest

CACHE, STATE = ".oneiric_cache", ".oneiric_state"
PARTS: Final = (CACHE, f"{CACHE}/artifacts", f"{CACHE}/quarantine", STATE, f"{CACHE}/lock", f"{STATE}/remote.lock")
# These go to files whose names nobody knows beforehand, so every one of the process counts; others go by their paths.
ANYWHERE: Final = ("write", "fsync", "renameat", "unlinkat")
BY_PATH: Final = ("openat", "mkdir", "mkdirat", "flock")
# The command line, saying nothing: what it says would be counted among its writes.
SILENT: Final = """
import io, sys
sys.stdout = sys.stderr = io.StringIO()
sys.argv = ["oneiric", "remote-sync"]
from oneiric.cli.main import main
main()
"""
DAMAGED: Final = b"damaged"
OLD, NEW = {"cache": "1.0", "more": "1.0"}, {"cache": "1.0", "more": "2.0"}
Serves = dict[str, str] | str
"""What is served after a start, by key; or why nothing is."""


class Point(NamedTuple):
    """The n-th system call of its name."""

    call: str
    number: int


class Scene:
    """Machines about to synchronise to version 2 of two artifacts, of which one is new; all alike."""

    def __init__(self, directory: Path, prepare: Callable[[Path], None]) -> None:
        self.directory = directory
        self._upstream = Upstream(directory / "up")
        old = self._release("1.0")
        app = self._upstream.settings(str(self._upstream.manifest))
        self._template = project(directory / "template", adapters="{}\n", app=app)
        assert oneiric(self._template, "remote-sync").returncode == 0
        prepare(self._template)
        self.manifests = {old if (self._template / CACHE).exists() else None, self._release("2.0")}
        self.starts_with = served_at_start(self._template)
        undisturbed, code = self.run("undisturbed")
        assert (code, served_at_start(undisturbed)) == (0, NEW)
        self._leaves = left(undisturbed)

    def _release(self, version: str) -> bytes:
        code = f'class Cache:\n    version = "{version}"\n'
        named = {"domain": "adapter", "key": "more", "provider": "remote", "factory": "more:Cache"}
        more = self._upstream.pack("more", version, {"more.py": code}, **named)
        return self._upstream.publish(self._upstream.entry(), more)

    def run(self, name: str, calls: Sequence[str] = ("none",), *how: str) -> tuple[Path, int]:
        """Synchronise a fresh machine with its *calls* traced; return it and the exit code."""
        place = self.directory / name
        shutil.copytree(self._template, place, symlinks=True)
        paths = [f"--trace-path={path}" for part in PARTS for path in (part, place / part)]
        tracer = ["strace", "-f", "-qq", f"--trace={','.join(calls)}", *how]
        program = [sys.executable, "-B", "-c", SILENT]
        command = [*tracer, *(paths if set(calls) <= set(BY_PATH) else []), *program]
        done = subprocess.run(
            command, cwd=place, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=60
        )
        return place, done.returncode

    def points(self) -> list[Point]:
        """Return every system call by which a synchronisation changes something or is about to."""
        points = []
        for calls in (ANYWHERE, BY_PATH):
            trace = self.directory / f"{calls[0]}.trace"
            place, code = self.run(f"dry-{calls[0]}", calls, "-y", f"--output={trace}")
            assert code == 0
            ours = (line for line in trace.read_text().splitlines() if str(place) in line)
            begun = filter(None, (re.match(r"(\d+) +(\w+)\(", line) for line in ours))
            made = Counter(found.groups() for found in begun)
            most = {call: max(n for (_, name), n in made.items() if name == call) for call in {c for _, c in made}}
            points += [Point(call, number) for call in sorted(most) for number in range(1, most[call] + 1)]
        return points

    def disturbed(self, point: Point, how: str) -> tuple[int, list[str]]:
        """Synchronise, disturbed at *point*; return the exit code, and what is wrong afterwards."""
        inject = f"--inject={point.call}:{how}:when={point.number}"
        place, code = self.run(f"{point.call}-{point.number}-{how}", (point.call,), "--output=/dev/null", inject)
        manifest = place / CACHE / "manifest.yaml"
        wrong = []
        if (manifest.read_bytes() if manifest.exists() else None) not in self.manifests:
            wrong.append("the manifest is neither the old one nor the new one")
        wrong += [f"{path.name} is half there" for path in artifacts_of(place) if not is_whole(path)]
        may_serve = [self.starts_with, NEW, *([OLD] if self.starts_with == "digest" else [])]  # healed before the rest
        if (serves := served_at_start(place)) not in may_serve:
            wrong.append(f"after a start it serves {serves}")
        if (serves := served_by_sync(place)) != NEW:
            wrong.append(f"the next synchronisation ends with {serves}")
        if (leaves := left(place)) != self._leaves:
            wrong.append(f"it leaves {leaves ^ self._leaves}")
        return code, wrong


def artifacts_of(place: Path) -> Iterable[Path]:
    return (path for path in (place / CACHE / "artifacts").glob("*") if not path.name.startswith(files.TEMPORARY))


def is_whole(path: Path) -> bool:
    return path.name.startswith(digest(path.read_bytes())[:12]) or path.read_bytes() == DAMAGED


def left(place: Path) -> set[str]:
    """Return the files of the cache and of the state, but for evidence, whose names hold an instant."""
    found = (path.relative_to(place) for part in (CACHE, STATE) for path in (place / part).rglob("*") if path.is_file())
    return {str(path) for path in found if path.parent.name != "quarantine" or files.TEMPORARY in path.name}


def served(place: Path, how: str) -> Serves:
    """Start or synchronise a machine in this process; return what it then serves."""
    app = load(place / "settings", environ={}).app
    app = msgspec.structs.replace(app, cache_dir=str(place / CACHE), state_dir=str(place / STATE))
    offered: tuple[Candidate[Any], ...] = ()

    async def publish(candidates: tuple[Candidate[Any], ...]) -> None:
        nonlocal offered
        offered = candidates

    try:
        anyio.run(getattr(syncer(lambda: app, emit=lambda _event, **_fields: None, environ={}, publish=publish), how))
    except OneiricError as error:
        return str(getattr(error, "reason", error))
    return {candidate.slot.key: version_of(candidate) for candidate in offered}


def version_of(candidate: Candidate[Any]) -> str:
    assert isinstance(candidate.factory, Deferred)
    return str(candidate.factory.find().version)


def served_at_start(place: Path) -> Serves:
    return served(place, "restore")


def served_by_sync(place: Path) -> Serves:
    return served(place, "sync")


def forget_everything(place: Path) -> None:
    shutil.rmtree(place / CACHE)
    shutil.rmtree(place / STATE)


def damage(place: Path) -> None:
    (artifact,) = (place / CACHE / "artifacts").glob("*upstream*")
    artifact.write_bytes(DAMAGED)


SCENES: dict[str, tuple[Callable[[Path], None], Serves]] = {
    "update": (lambda _place: None, OLD),
    "first": (forget_everything, {}),
    "damaged": (damage, "digest"),
}
KILL = "signal=KILL"


def disturb(scene: Scene, points: Iterable[Point], how: str) -> dict[Point, tuple[int, list[str]]]:
    chosen = list(points)
    with ThreadPoolExecutor(3) as at_once:
        return dict(zip(chosen, at_once.map(lambda point: scene.disturbed(point, how), chosen), strict=True))


def assert_harmless(found: dict[Point, tuple[int, list[str]]], codes: set[int]) -> None:
    assert {point: outcome for point, outcome in found.items() if outcome[1] or outcome[0] not in codes} == {}


def assert_killed(found: dict[Point, tuple[int, list[str]]]) -> None:
    """Assert that nearly all were: in which thread a call is made may differ from run to run, and so its number."""
    killed = sum(code == -signal.SIGKILL for code, _ in found.values())
    assert killed > 0.8 * len(found), f"{killed} of {len(found)}"


def open_scene(directory: Path, name: str) -> Scene:
    require("strace")
    scene = Scene(directory, SCENES[name][0])
    assert scene.starts_with == SCENES[name][1]
    return scene


@pytest.fixture(scope="module")
def update(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return open_scene(tmp_path_factory.mktemp("update"), "update")


def test_sync_killed_at_any_change_is_the_old_one_or_the_new_one(update: Scene) -> None:
    points = update.points()
    assert {"openat", "write", "fsync", "renameat", "flock"} <= {point.call for point in points}
    found = disturb(update, (point for point in points if point.call in ("write", "fsync", "renameat")), KILL)
    assert_harmless(found, {-signal.SIGKILL, 0})
    assert_killed(found)


def test_sync_whose_files_cannot_be_moved_is_the_old_one_or_the_new_one(update: Scene) -> None:
    found = disturb(update, [Point("renameat", number) for number in (1, 2, 3)], "error=EIO")
    assert_harmless(found, {1})


@pytest.mark.soak
@pytest.mark.parametrize("name", SCENES)
def test_sync_killed_at_any_call_is_the_old_one_or_the_new_one(tmp_path: Path, name: str) -> None:
    scene = open_scene(tmp_path, name)
    found = disturb(scene, scene.points(), KILL)
    print(f"{name}: {len(found)} kills")
    assert_harmless(found, {-signal.SIGKILL, 0})
    assert_killed(found)


@pytest.mark.soak
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", SCENES)
def test_sync_refused_by_the_disk_at_any_call_is_the_old_one_or_the_new_one(
    tmp_path: Path, name: str, error: str
) -> None:
    scene = open_scene(tmp_path, name)
    found = disturb(scene, scene.points(), f"error={error}")
    print(f"{name}: {len(found)} times {error}")
    assert_harmless(found, {0, 1, 5})

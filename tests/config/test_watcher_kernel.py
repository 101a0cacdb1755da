"""The watch on the settings directory with real files and the kernel's own notifications, however a file is saved."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import aclosing

import anyio
import pytest

from oneiric.config.watcher import DirectoryWatch, kernel_notifier

pytestmark = pytest.mark.anyio

NEVER = 3600.0  # seconds between two looks, so that only a notification can be why a change is noticed
BOUND = 20  # seconds after which a test gives up


def in_place(directory):
    (directory / "adapters.yml").write_text("new: 1")


def in_two_halves(directory):
    with (directory / "adapters.yml").open("w") as file:
        file.write("new:")
        file.flush()
        os.fsync(file.fileno())
        file.write(" 1")


def appending(directory):
    with (directory / "adapters.yml").open("a") as file:
        file.write("new: 1")


def atomically(directory):
    (directory / ".adapters.yml.tmp").write_text("new: 1")
    (directory / ".adapters.yml.tmp").replace(directory / "adapters.yml")


def from_elsewhere(directory):
    (directory.parent / "adapters.yml").write_text("new: 1")
    (directory.parent / "adapters.yml").replace(directory / "adapters.yml")


def like_vim(directory):
    (directory / "4913").touch()
    (directory / "4913").unlink()
    (directory / "adapters.yml").rename(directory / "adapters.yml~")
    (directory / "adapters.yml").write_text("new: 1")
    (directory / "adapters.yml~").unlink()


def with_sed(directory):
    subprocess.run(["sed", "-i", "s/old/new/", str(directory / "adapters.yml")], check=True)


def by_removal(directory):
    (directory / "adapters.yml").unlink()


def by_linking(directory):
    (directory / "adapters.yml").unlink()
    (directory.parent / "target").write_text("new: 1")
    (directory / "adapters.yml").symlink_to(directory.parent / "target")


def by_mode(directory):
    (directory / "adapters.yml").unlink()
    (directory / "adapters.yml").mkdir()


WAYS = [
    in_place,
    in_two_halves,
    appending,
    atomically,
    from_elsewhere,
    like_vim,
    with_sed,
    by_removal,
    by_linking,
    by_mode,
]


class Watching:
    """A watch whose kernel notifications, once there are any, are waited for before a test goes on."""

    def __init__(self, directory, poll=NEVER):
        self.degraded = []
        self._listening = anyio.Event()
        self._watch = DirectoryWatch(
            directory, debounce=0.05, poll=poll, notifier=self._make, on_degraded=self.degraded.append
        )

    def _make(self, directory):
        notifier = kernel_notifier(directory)
        self._listening.set()
        return notifier

    async def after(self, *acts):
        """Do each of *acts* and return what the watch yielded after it."""
        seen = []
        with anyio.fail_after(BOUND):
            async with aclosing(self._watch.changes()) as changes, anyio.create_task_group() as tasks:
                yielded, received = anyio.create_memory_object_stream(10)

                async def follow():
                    async for files in changes:
                        await yielded.send(files)

                tasks.start_soon(follow)
                await self._listening.wait()
                for act in acts:
                    act()
                    seen.append(await received.receive())
                tasks.cancel_scope.cancel()
                yielded.close()
                received.close()
        assert self.degraded == []
        return seen


@pytest.fixture
def settings(directory):
    (directory / "adapters.yml").write_text("old: 1")
    (directory / "app.yml").write_text("app: 1")
    return directory


@pytest.mark.parametrize("save", WAYS, ids=[way.__name__ for way in WAYS])
async def test_notification_tells_of_a_change_however_it_is_made(settings, save):
    assert await Watching(settings).after(lambda: save(settings)) == [{"adapters.yml"}]


@pytest.mark.parametrize("save", [atomically, like_vim, with_sed])
async def test_notification_tells_of_a_second_change_made_that_way(settings, save):
    def save_another():
        (settings / "adapters.yml").write_text("third")

    assert await Watching(settings).after(lambda: save(settings), save_another) == [{"adapters.yml"}] * 2


async def test_notification_tells_of_a_file_that_was_not_there(settings):
    assert await Watching(settings).after(lambda: (settings / "tasks.yml").write_text("new: 1")) == [{"tasks.yml"}]


async def test_notification_tells_of_a_configmap_that_was_swapped(settings):
    def version(number, text):
        path = settings / f"..{number}"
        path.mkdir()
        (path / "adapters.yml").write_text(text)
        return path

    def point_at(path):
        (settings / "..data_tmp").symlink_to(path.name)
        (settings / "..data_tmp").replace(settings / "..data")

    def swap_again():
        point_at(version(3, "newest: 1"))
        shutil.rmtree(settings / "..2")

    point_at(version(1, "old: 1"))
    (settings / "adapters.yml").unlink()
    (settings / "adapters.yml").symlink_to("..data/adapters.yml")

    seen = await Watching(settings).after(lambda: point_at(version(2, "new: 1")), swap_again)

    assert seen == [{"adapters.yml"}] * 2


async def test_touched_file_is_not_among_what_changed(settings):
    def touch_one_and_save_another():
        os.utime(settings / "app.yml")
        (settings / "app.yml").chmod(0o600)
        in_place(settings)

    assert await Watching(settings).after(touch_one_and_save_another) == [{"adapters.yml"}]


async def test_directory_removed_and_made_again_is_followed(settings):
    def make_again():
        settings.mkdir()
        in_place(settings)

    def save_another():
        (settings / "adapters.yml").write_text("newest: 1")

    seen = await Watching(settings, poll=0.05).after(lambda: shutil.rmtree(settings), make_again, save_another)

    assert seen == [{"adapters.yml", "app.yml"}, {"adapters.yml"}, {"adapters.yml"}]


async def test_directory_replaced_by_another_is_followed(settings):
    def replace():
        settings.rename(settings.with_name("away"))
        shutil.copytree(settings.with_name("away"), settings)
        in_place(settings)

    def save_another():
        (settings / "adapters.yml").write_text("newest: 1")

    assert await Watching(settings, poll=0.05).after(replace, save_another) == [{"adapters.yml"}] * 2


async def test_directory_behind_a_symbolic_link_is_followed(settings):
    link = settings.with_name("link")
    link.symlink_to(settings)

    assert await Watching(link).after(lambda: in_place(settings)) == [{"adapters.yml"}]


async def test_watch_that_is_cancelled_while_it_waits_ends_at_once(settings):
    with anyio.fail_after(BOUND):
        assert await Watching(settings).after() == []


@pytest.mark.parametrize("save", WAYS, ids=[way.__name__ for way in WAYS])
async def test_polling_alone_notices_a_change_however_it_is_made(settings, save):
    watch = DirectoryWatch(settings, debounce=0.01, poll=0.01, notifier=None)
    save(settings)

    with anyio.fail_after(BOUND):
        async with aclosing(watch.changes()) as changes:
            assert await anext(changes) == {"adapters.yml"}


WITHOUT_WATCHES = ["unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh"]
FOLLOWER = """
import sys, anyio
from pathlib import Path
from oneiric.config.watcher import DirectoryWatch

async def main():
    watch = DirectoryWatch(Path(sys.argv[1]), debounce=0.01, poll=0.01, on_degraded=print)
    Path(sys.argv[1], "adapters.yml").write_text("new: 1")
    with anyio.fail_after(20):
        print(await anext(watch.changes()))

anyio.run(main)
"""


def test_kernel_without_a_watch_to_give_is_reported_and_polled(settings):
    probe = subprocess.run([*WITHOUT_WATCHES, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no user namespaces here: {probe.stderr.strip()}")

    done = subprocess.run(
        [*WITHOUT_WATCHES, sys.executable, "-c", FOLLOWER, str(settings)], capture_output=True, text=True, check=True
    )

    degraded, noticed = done.stdout.splitlines()
    assert degraded.startswith("OSError: ")
    assert noticed == "frozenset({'adapters.yml'})"

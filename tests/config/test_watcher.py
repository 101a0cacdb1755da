"""The watch on the settings directory, on virtual time: an hour of waiting takes no time."""

from __future__ import annotations

import os
from contextlib import aclosing
from itertools import pairwise

import anyio
import pytest

from oneiric.config.watcher import DirectoryWatch
from oneiric.testing import virtual_clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return virtual_clock()


class Kernel:
    """Notifications of a kernel that works as told, and a ``run`` that takes virtual time while one is awaited."""

    def __init__(self, error=None):
        self.error = error
        self.listening_to = []
        self.limits = []
        self.stops = []
        self._rung = anyio.Event()

    def __call__(self, directory):
        self.listening_to.append(directory)
        if self.error:
            raise self.error
        return self

    def watch(self, debounce_ms, step_ms, timeout_ms, stop_event):
        self.limits.append(timeout_ms / 1000)
        self.stops.append(stop_event)

    async def run(self, work):
        waits = len(self.limits)
        result = work()
        if len(self.limits) > waits:
            with anyio.move_on_after(self.limits[-1]):
                await self._rung.wait()
            self._rung = anyio.Event()
        else:
            await anyio.lowlevel.checkpoint()
        return result

    def ring(self):
        self._rung.set()


async def inline(work):
    await anyio.lowlevel.checkpoint()
    return work()


def polling(directory, **options):
    return DirectoryWatch(directory, **{"debounce": 0.5, "notifier": None, "run": inline, **options})


async def follow(watch, script, seconds=60.0):
    """Run *script*, pairs of an instant and what to do then; return what the watch yielded, and when."""
    seen = []
    started = anyio.current_time()

    async def play():
        for at, act in script:
            await anyio.sleep_until(started + at)
            act()

    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play)
            async with aclosing(watch.changes()) as changes:
                async for files in changes:
                    seen += [(round(anyio.current_time() - started, 3), sorted(files))]
    return seen


def save(path, text):
    """Return an act that saves *text*. Its size must differ from the text before: two saves can share an instant."""

    def act():
        path.write_text(text)

    return act


async def test_change_is_yielded_once_when_the_directory_fell_quiet(directory):
    assert await follow(polling(directory), [(10.5, save(directory / "app.yml", "a: 1"))]) == [(11.5, ["app.yml"])]


async def test_all_files_of_one_quiet_period_are_yielded_together(directory):
    script = [(10.5, save(directory / "app.yml", "a: 1")), (11.2, save(directory / "tasks.yml", "b: 1"))]

    assert await follow(polling(directory), script) == [(12.0, ["app.yml", "tasks.yml"])]


async def test_change_is_yielded_at_the_latest_after_four_quiet_periods(directory):
    flapping = [(10 + n / 10, save(directory / "app.yml", "x" * n)) for n in range(1, 200)]

    seen = await follow(polling(directory), flapping)

    assert [files for _, files in seen] == [["app.yml"]] * len(seen)
    assert all(later - earlier >= 2 for (earlier, _), (later, _) in pairwise(seen))
    assert 5 <= len(seen) <= 10


async def test_flapping_file_that_rests_in_between_is_yielded_once_per_rest(directory):
    app = directory / "app.yml"
    bursts = [(start + n / 10, save(app, "x" * (start + n))) for start in (10, 20, 30) for n in range(5)]

    assert [files for _, files in await follow(polling(directory), bursts)] == [["app.yml"]] * 3


async def test_file_that_flaps_back_to_what_it_was_is_not_yielded(directory):
    app = directory / "app.yml"
    app.write_text("a: 1")

    script = [(10.5, save(app, "other")), (11.2, save(app, "a: 1"))]

    assert await follow(polling(directory), script) == []


async def test_touch_without_change_is_not_yielded(directory):
    app = directory / "app.yml"
    app.write_text("a: 1")

    assert await follow(polling(directory), [(10.5, lambda: os.utime(app, (1, 1)))]) == []


async def test_same_content_saved_anew_is_not_yielded(directory):
    app = directory / "app.yml"
    app.write_text("a: 1")

    def replace():
        (directory / "new").write_text("a: 1")
        (directory / "new").replace(app)

    assert await follow(polling(directory), [(10.5, replace)]) == []


async def test_file_that_is_not_ours_is_not_yielded(directory):
    assert await follow(polling(directory), [(10.5, save(directory / "notes.txt", "x"))]) == []


async def test_change_with_the_old_times_restored_is_yielded(directory):
    app = directory / "app.yml"
    app.write_text("a: 1")
    before = app.stat()

    def save_slyly():
        app.write_text("a: 2")
        os.utime(app, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert await follow(polling(directory), [(10.5, save_slyly)]) == [(11.5, ["app.yml"])]


async def test_removed_file_is_yielded(directory):
    (directory / "app.yml").write_text("a: 1")

    assert await follow(polling(directory), [(10.5, (directory / "app.yml").unlink)]) == [(11.5, ["app.yml"])]


async def test_file_that_becomes_a_directory_is_yielded(directory):
    assert await follow(polling(directory), [(10.5, (directory / "app.yml").mkdir)]) == [(11.5, ["app.yml"])]


async def test_empty_file_is_not_the_same_as_none(directory):
    assert await follow(polling(directory), [(10.5, (directory / "app.yml").touch)]) == [(11.5, ["app.yml"])]


async def test_directory_that_is_made_later_is_followed(tmp_path):
    settings = tmp_path / "settings"

    script = [(10.2, settings.mkdir), (20.2, save(settings / "app.yml", "a: 1"))]

    assert await follow(polling(settings), script) == [(21.0, ["app.yml"])]


async def test_second_change_is_yielded_too(directory):
    script = [(10.5, save(directory / "app.yml", "a: 1")), (20.2, save(directory / "app.yml", "a: 10"))]

    assert await follow(polling(directory), script) == [(11.5, ["app.yml"]), (21.0, ["app.yml"])]


async def test_change_between_making_the_watch_and_following_it_is_yielded(directory):
    watch = polling(directory)
    (directory / "app.yml").write_text("a: 1")

    assert await follow(watch, []) == [(1.5, ["app.yml"])]


async def test_change_while_the_consumer_is_busy_is_yielded_afterwards(directory):
    watch = polling(directory)
    seen = []
    (directory / "app.yml").write_text("a: 1")
    with anyio.move_on_after(60):
        async with aclosing(watch.changes()) as changes:
            async for files in changes:
                seen.append(files)
                if len(seen) == 1:
                    (directory / "tasks.yml").write_text("b: 1")
                    await anyio.sleep(10)

    assert seen == [{"app.yml"}, {"tasks.yml"}]


async def test_debounce_is_how_long_the_directory_must_be_quiet(directory):
    watch = polling(directory, debounce=5)

    assert await follow(watch, [(10.5, save(directory / "app.yml", "a: 1"))]) == [(16.0, ["app.yml"])]


async def test_debounce_may_be_set_anew(directory):
    watch = polling(directory)
    script = [(5, lambda: setattr(watch, "debounce", 3)), (10.5, save(directory / "app.yml", "a: 1"))]

    assert await follow(watch, script) == [(14.0, ["app.yml"])]


async def test_paused_watch_yields_nothing(directory):
    watch = polling(directory)

    script = [(5, watch.pause), (10.5, save(directory / "app.yml", "a: 1"))]

    assert await follow(watch, script) == []


async def test_resumed_watch_yields_what_changed_in_the_meantime(directory):
    watch = polling(directory)
    script = [
        (5, watch.pause),
        (10.5, save(directory / "app.yml", "a: 1")),
        (12.5, save(directory / "tasks.yml", "b: 1")),
        (30, watch.resume),
    ]

    assert await follow(watch, script) == [(30.5, ["app.yml", "tasks.yml"])]


async def test_pause_in_the_quiet_period_holds_the_change_back(directory):
    watch = polling(directory)
    script = [(10.5, save(directory / "app.yml", "a: 1")), (11.2, watch.pause), (30, watch.resume)]

    assert await follow(watch, script) == [(30.5, ["app.yml"])]


async def test_change_undone_during_a_pause_is_not_yielded(directory):
    app = directory / "app.yml"
    app.write_text("a: 1")
    watch = polling(directory)

    script = [(5, watch.pause), (10, save(app, "other")), (20, save(app, "a: 1")), (30, watch.resume)]

    assert await follow(watch, script) == []


async def test_paused_tells_whether_changes_are_held_back(directory):
    watch = polling(directory)
    told = [watch.paused]
    for act in (watch.pause, watch.pause, watch.resume, watch.resume):
        act()
        told.append(watch.paused)

    assert told == [False, True, True, False, False]


async def test_notification_makes_the_watch_look_at_once(directory):
    kernel = Kernel()
    watch = polling(directory, poll=600, notifier=kernel, run=kernel.run)

    script = [(10.5, save(directory / "app.yml", "a: 1")), (10.5, kernel.ring)]

    assert await follow(watch, script) == [(11.0, ["app.yml"])]


async def test_lost_notification_costs_one_poll(directory):
    kernel = Kernel()
    watch = polling(directory, poll=30, notifier=kernel, run=kernel.run)

    assert await follow(watch, [(10.5, save(directory / "app.yml", "a: 1"))]) == [(30.5, ["app.yml"])]
    assert set(kernel.limits) == {30}


async def test_notification_about_another_file_is_not_yielded(directory):
    kernel = Kernel()
    watch = polling(directory, notifier=kernel, run=kernel.run)

    assert await follow(watch, [(at, kernel.ring) for at in (1.5, 2.5, 3.5)]) == []


async def test_watch_lets_go_of_the_kernel_when_it_ends(directory):
    kernel = Kernel()

    await follow(polling(directory, notifier=kernel, run=kernel.run), [])

    assert kernel.stops[-1].is_set()


async def test_kernel_is_asked_anew_when_another_directory_takes_the_name(directory):
    kernel = Kernel()

    def replace():
        directory.rename(directory.with_name("away"))
        directory.mkdir()

    await follow(polling(directory, notifier=kernel, run=kernel.run), [(10.5, replace)])

    assert kernel.listening_to == [directory, directory]


async def test_kernel_is_not_asked_about_a_directory_that_is_not_there(tmp_path):
    kernel, degraded = Kernel(FileNotFoundError("no such directory")), []
    watch = polling(tmp_path / "absent", notifier=kernel, run=kernel.run, on_degraded=degraded.append)

    await follow(watch, [])

    assert (kernel.listening_to, degraded) == ([], [])


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ImportError("watchfiles"), RuntimeError("x")]
)
async def test_watch_without_notifications_polls_and_says_so_once(directory, error):
    kernel, degraded = Kernel(error), []
    watch = polling(directory, notifier=kernel, run=kernel.run, on_degraded=degraded.append)

    script = [(10.5, save(directory / "app.yml", "a: 1")), (20.2, save(directory / "app.yml", "a: 10"))]

    assert await follow(watch, script) == [(11.5, ["app.yml"]), (21.0, ["app.yml"])]
    (reason,) = degraded
    assert str(error) in reason


async def test_watch_whose_notifications_break_polls_and_says_so_once(directory):
    kernel, degraded = Kernel(), []

    def break_down(*_):
        raise OSError("broken")

    kernel.watch = break_down
    watch = polling(directory, notifier=kernel, run=kernel.run, on_degraded=degraded.append)

    assert await follow(watch, [(10.5, save(directory / "app.yml", "a: 1"))]) == [(11.5, ["app.yml"])]
    assert degraded == ["OSError: broken"]


async def test_watch_without_threads_still_notices(directory):
    async def run(_):
        raise RuntimeError("can't start new thread")

    degraded = []
    watch = polling(directory, notifier=Kernel(), run=run, on_degraded=degraded.append)

    assert await follow(watch, [(10.5, save(directory / "app.yml", "a: 1"))]) == [(11.5, ["app.yml"])]
    assert degraded == ["RuntimeError: can't start new thread"]


async def test_watch_without_anyone_to_tell_degrades_silently(directory):
    watch = polling(directory, notifier=Kernel(OSError("no")))

    assert await follow(watch, [(10.5, save(directory / "app.yml", "a: 1"))]) == [(11.5, ["app.yml"])]

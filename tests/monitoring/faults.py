"""Real faults on virtual time: a runtime, or a syncer, that something happens to while it is scraped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec

from oneiric import Runtime, Slot
from oneiric.core.breaker import BreakerState
from oneiric.core.config import Settings
from oneiric.errors import OneiricError
from oneiric.observability.meters import Reading, Sample
from oneiric.runtime.scrape import remote_gauges
from oneiric.testing import PART, Events, Workshop, answer, bare_settings, fail
from tests.harness.promtool import Expected, Scenario, firing, quiet, recorded, scrape_at
from tests.harness.simulation import without_threads
from tests.harness.slots import settings_of, use_once
from tests.monitoring.boundaries import LONG_AGO, STARTED, UP
from tests.remote.consumer import Consumer, part, unavailable
from tests.remote.publisher import ALICE, MALLORY, NOW, URL

OTHER: Slot[Any] = Slot("adapter", "other")
TIMESTAMPS = "_timestamp_seconds"


def shows(at: float, query: str, value: float) -> Expected:
    """Expect that what a quiet case is about did happen."""
    return Expected(at, f"sum({query})", value)


class Scene:
    """A runtime on a virtual clock, what it has offered, and a web that it synchronises with."""

    def __init__(self, runtime: Runtime, home: Path) -> None:
        self.runtime = runtime
        self.workshop = Workshop()
        self.consumer = Consumer(home)
        self.syncer = self.consumer.syncer(emit=runtime.emit)
        self.snapshots: list[Sequence[Reading]] = []
        self._began = anyio.current_time()

    @property
    def now(self) -> float:
        """Seconds since it began; the publisher's clock runs along."""
        return anyio.current_time() - self._began

    async def at(self, seconds: float) -> None:
        """Let time pass, up to *seconds* after the beginning."""
        await anyio.sleep_until(self._began + seconds)
        self.consumer.now = NOW + timedelta(seconds=self.now)

    async def scrape(self) -> None:
        """Read everything each fifteen seconds, for ever."""
        for number in count():
            await anyio.sleep_until(self._began + scrape_at(number))
            self.snapshots.append((*await self.runtime.readings(), *self._remote()))

    def _remote(self) -> Iterator[Reading]:
        now, record = NOW + timedelta(seconds=self.now), self.consumer.record
        is_open = self.syncer.breaker(record).state(now) is BreakerState.OPEN
        kept = self.consumer.cache.quarantined(since=record.last_success_at)
        yield Sample("oneiric_remote_quarantined_artifacts", (), len(kept))
        app = msgspec.structs.replace(bare_settings().app, remote=self.consumer.settings)
        for sample in remote_gauges(record, app, is_open=is_open):
            early = sample.metric.endswith(TIMESTAMPS) and sample.value  # promtool's clock begins at 0
            yield sample._replace(value=sample.value - NOW.timestamp()) if early else sample

    def offer(self, provider: str, **how: Any) -> None:
        """Register a candidate that behaves as told."""
        self.runtime.register(self.workshop.candidate(provider, **how))

    async def swap(self, provider: str, slot: Slot[Any] = PART, **how: Any) -> None:
        """Swap, whatever comes of it."""
        with suppress(OneiricError):
            await self.runtime.swap(slot, provider=provider, **how)

    async def call(self, slot: Slot[Any], until: float, every: float) -> None:
        """Use a slot again and again, whatever comes of it."""
        while self.now < until:
            with suppress(OneiricError):
                await use_once(self.runtime, slot)
            await self.at(self.now + every)

    async def sync(self, *, force: bool = False) -> None:
        """Synchronise, whatever comes of it."""
        with suppress(OneiricError):
            await self.syncer.sync(force=force)


class Fault(NamedTuple):
    """What happens, and what the rules make of it."""

    happens: Callable[[Scene], Awaitable[None]]
    expected: Sequence[Expected]
    settings: Settings = bare_settings()

    @property
    def name(self) -> str:
        """In words."""
        return self.happens.__name__.replace("_", " ")


def play(fault: Fault, home: Path) -> Scenario:
    """Let it happen, and return what was scraped meanwhile as a scenario."""
    from trio.testing import MockClock

    async def scene() -> Sequence[Sequence[Reading]]:
        async with (
            Runtime.open(fault.settings, sink=Events(), environ={}) as runtime,
            anyio.create_task_group() as tasks,
        ):
            scene = Scene(runtime, home)
            tasks.start_soon(scene.scrape)
            await fault.happens(scene)
            await scene.at(max(expected.at for expected in fault.expected))
            tasks.cancel_scope.cancel()
        return scene.snapshots

    with without_threads():  # in which time would pass
        snapshots = anyio.run(scene, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})
    process = {UP: [1.0] * len(snapshots), STARTED: [LONG_AGO] * len(snapshots)}
    return Scenario(fault.name, {**recorded(snapshots), **process}, fault.expected)


# Resolution

RESOLUTION = "OneiricResolutionFailureRateHigh"
CANDIDATES = "OneiricLowCandidateCount"


async def callers_want_a_slot_that_nobody_offers_until_somebody_does(scene: Scene) -> None:
    scene.offer("a")
    async with anyio.create_task_group() as callers:
        callers.start_soon(scene.call, PART, 700, 1)
        await scene.at(60)
        callers.start_soon(scene.call, OTHER, 700, 5)
        await scene.at(300)
        scene.offer("b", slot=OTHER)


async def callers_meet_swaps_that_work(scene: Scene) -> None:
    scene.offer("a")
    scene.offer("b")
    async with anyio.create_task_group() as callers:
        callers.start_soon(scene.call, PART, 400, 1)
        for minute in range(6):
            await scene.at(60 * minute)
            await scene.swap("ab"[minute % 2])


# Swaps

SWAPS, ROLLBACKS = "OneiricLifecycleSwapFailureRateHigh", "OneiricRollbackRateHigh"
RAPID, DURATION = "OneiricRapidSwapping", "OneiricSwapDurationHigh"


async def a_swap_fails_because_a_module_is_missing(scene: Scene) -> None:
    scene.offer("a")
    await use_once(scene.runtime, PART)
    scene.offer("b", build=fail(ModuleNotFoundError("No module named 'redis'")), priority=-1)
    await scene.at(60)
    await scene.swap("b")


async def one_swap_of_ten_fails(scene: Scene) -> None:
    for provider in "ab":
        scene.offer(provider)
    scene.offer("c", build=fail(ImportError("no")), priority=-1)
    await scene.at(60)
    for number in range(9):
        await scene.swap("ab"[number % 2])
    await scene.swap("c")


async def three_swaps_are_rolled_back(scene: Scene) -> None:
    scene.offer("a")
    scene.offer("b", health=answer(False), priority=-1)
    await use_once(scene.runtime, PART)
    for at in (60, 120, 180):
        await scene.at(at)
        await scene.swap("b")


async def two_swaps_are_rolled_back(scene: Scene) -> None:
    scene.offer("a")
    scene.offer("b", health=answer(False), priority=-1)
    await use_once(scene.runtime, PART)
    for at in (60, 120):
        await scene.at(at)
        await scene.swap("b")


async def settings_flap_between_two_providers(scene: Scene) -> None:
    for provider in "ab":
        scene.offer(provider)
    await use_once(scene.runtime, PART)
    for number in range(30):
        await scene.at(60 + 8 * number)
        await scene.runtime.apply(settings_of(selections={"part": "ab"[number % 2]}, max_swaps_per_minute=60))


async def settings_flap_but_swaps_are_throttled(scene: Scene) -> None:
    for provider in "ab":
        scene.offer(provider)
    await use_once(scene.runtime, PART)
    for number in range(30):
        await scene.at(60 + 8 * number)
        await scene.runtime.apply(settings_of(selections={"part": "ab"[number % 2]}, max_swaps_per_minute=2))


async def a_factory_takes_15_seconds(scene: Scene) -> None:
    async def slowly() -> None:
        await anyio.sleep(15)

    scene.offer("a")
    scene.offer("b", build=slowly, priority=-1)
    await use_once(scene.runtime, PART)
    await scene.at(60)
    await scene.swap("b")


async def a_factory_takes_5_seconds(scene: Scene) -> None:
    async def slowly() -> None:
        await anyio.sleep(5)

    scene.offer("a")
    scene.offer("b", build=slowly, priority=-1)
    await use_once(scene.runtime, PART)
    await scene.at(60)
    await scene.swap("b")


# Instances

HEALTH, LEAK = "OneiricHealthCheckFailures", "OneiricInstanceLeak"
HIGH, EXTREME = "OneiricActiveInstancesHigh", "OneiricActiveInstancesExtremelyHigh"


async def a_backend_stops_and_comes_back(scene: Scene) -> None:
    well = True

    async def health() -> bool:
        return well

    scene.offer("a", health=health)
    await use_once(scene.runtime, PART)
    await scene.at(60)
    well = False
    await scene.at(400)
    well = True


async def a_probe_fails_once(scene: Scene) -> None:
    answers = iter((True, False))

    async def health() -> bool:
        return next(answers, True)

    scene.offer("a", health=health)
    await use_once(scene.runtime, PART)


async def a_caller_keeps_an_old_instance(scene: Scene, until: float = 400) -> None:
    scene.offer("a", priority=1)
    scene.offer("b")
    async with scene.runtime.use(PART):
        await scene.at(60)
        await scene.swap("b", force=True)
        await scene.at(until)


async def a_caller_takes_90_seconds(scene: Scene) -> None:
    await a_caller_keeps_an_old_instance(scene, until=150)


async def a_cleanup_raises(scene: Scene) -> None:
    scene.offer("a", cleanup=fail(OSError("busy")), priority=1)
    scene.offer("b")
    await use_once(scene.runtime, PART)
    await scene.at(60)
    await scene.swap("b")


async def two_hundred_components_are_used(scene: Scene, number: int = 200) -> None:
    slots = [Slot[Any]("adapter", f"part-{one}") for one in range(number)]
    for slot in slots:
        scene.offer("a", slot=slot)
    await scene.at(60)
    for slot in slots:
        await use_once(scene.runtime, slot)


async def ninety_nine_components_are_used(scene: Scene) -> None:
    await two_hundred_components_are_used(scene, 99)


# Remote delivery

ROW, BREAKER = "OneiricRemoteSyncConsecutiveFailures", "OneiricCircuitBreakerOpen"
STALE, EXPIRING = "OneiricRemoteSyncStale", "OneiricManifestExpiring"
DIGEST, SIGNATURE = "OneiricDigestVerificationFailed", "OneiricSignatureVerificationFailed"


async def the_manifest_server_stops_and_comes_back(scene: Scene) -> None:
    scene.consumer.web.publish(part())
    await scene.sync()
    scene.consumer.web.faults[URL] = unavailable()
    for at in (300, 400, 500):
        await scene.at(at)
        await scene.sync()
    await scene.at(1200)
    scene.consumer.web.faults.clear()
    await scene.sync()


async def two_synchronisations_fail(scene: Scene) -> None:
    scene.consumer.web.publish(part())
    await scene.sync()
    scene.consumer.web.faults[URL] = unavailable()
    for at in (100, 200):
        await scene.at(at)
        await scene.sync()
    scene.consumer.web.faults.clear()
    await scene.at(300)
    await scene.sync()


async def an_artifact_was_altered_at_the_publisher(scene: Scene) -> None:
    web = scene.consumer.web
    web.publish(part())
    (url,) = (name for name in web.files if name != URL)
    right, web.files[url] = web.files[url], part(2)
    await scene.at(60)
    await scene.sync()
    await scene.at(600)
    web.files[url] = right
    await scene.sync(force=True)


async def every_artifact_is_right(scene: Scene) -> None:
    for number, at in enumerate((60, 160, 260), 1):
        scene.consumer.web.publish(part(number), version=number)
        await scene.at(at)
        await scene.sync()


async def a_manifest_is_signed_by_somebody_else(scene: Scene) -> None:
    scene.consumer.web.publish(part(), keys=(MALLORY,))
    await scene.at(60)
    await scene.sync()
    scene.consumer.web.publish(part(), keys=(ALICE,))
    await scene.at(120)
    await scene.sync()


async def a_manifest_is_about_to_expire(scene: Scene) -> None:
    soon = (NOW + timedelta(days=3, seconds=300)).isoformat().replace("+00:00", "Z")
    scene.consumer.web.publish(part(), version=1, expires_at=soon)
    await scene.sync()
    await scene.at(600)
    scene.consumer.web.publish(part(), version=2)
    await scene.sync()


FAULTS = (
    Fault(
        callers_want_a_slot_that_nobody_offers_until_somebody_does,
        [
            quiet(60, RESOLUTION),
            quiet(60, CANDIDATES),
            firing(90, CANDIDATES, domain="adapter"),
            firing(150, RESOLUTION, domain="adapter"),
            firing(300, RESOLUTION),
            quiet(330, CANDIDATES),
            quiet(615, RESOLUTION),
        ],
        settings_of(selections={"other": "b"}),
    ),
    Fault(
        callers_meet_swaps_that_work,
        [
            quiet(120, RESOLUTION),
            quiet(400, RESOLUTION),
            quiet(400, SWAPS),
            shows(400, 'oneiric_lifecycle_swap_total{outcome="success"}', 6),
        ],
    ),
    Fault(
        a_swap_fails_because_a_module_is_missing,
        [quiet(90, SWAPS), firing(120, SWAPS), firing(345, SWAPS), quiet(390, SWAPS), quiet(390, LEAK)],
    ),
    Fault(
        one_swap_of_ten_fails,
        [quiet(120, SWAPS), quiet(300, SWAPS), quiet(300, LEAK), shows(300, "oneiric_lifecycle_swap_total", 10)],
    ),
    Fault(
        three_swaps_are_rolled_back,
        [quiet(180, ROLLBACKS), firing(210, ROLLBACKS, key="part"), firing(210, SWAPS), quiet(390, ROLLBACKS)],
    ),
    Fault(
        two_swaps_are_rolled_back,
        [
            quiet(210, ROLLBACKS),
            quiet(330, ROLLBACKS),
            shows(330, 'oneiric_lifecycle_swap_total{outcome="rollback"}', 2),
        ],
    ),
    Fault(
        settings_flap_between_two_providers,
        [quiet(180, RAPID), firing(300, RAPID, key="part"), quiet(300, SWAPS), quiet(615, RAPID), quiet(615, LEAK)],
    ),
    Fault(
        settings_flap_but_swaps_are_throttled,
        [quiet(300, RAPID), quiet(600, RAPID), Expected(600, "sum(oneiric_lifecycle_swap_total) > bool 5", 1)],
    ),
    Fault(
        a_factory_takes_15_seconds,
        [quiet(195, DURATION), firing(225, DURATION, domain="adapter"), firing(360, DURATION), quiet(405, DURATION)],
    ),
    Fault(
        a_factory_takes_5_seconds,
        [quiet(225, DURATION), quiet(360, DURATION), shows(360, "oneiric_lifecycle_swap_duration_ms_sum", 5000)],
    ),
    Fault(
        a_backend_stops_and_comes_back,
        [quiet(240, HEALTH), firing(330, HEALTH, key="part", provider="a"), quiet(720, HEALTH)],
    ),
    Fault(
        a_probe_fails_once,
        [quiet(240, HEALTH), quiet(330, HEALTH), shows(330, "oneiric_lifecycle_health_check_failures_total", 1)],
    ),
    Fault(a_caller_keeps_an_old_instance, [quiet(180, LEAK), firing(210, LEAK), firing(390, LEAK), quiet(435, LEAK)]),
    Fault(
        a_caller_takes_90_seconds,
        [quiet(165, LEAK), quiet(210, LEAK), quiet(300, LEAK), shows(300, "oneiric_lifecycle_cleanup_total", 1)],
    ),
    Fault(a_cleanup_raises, [quiet(180, LEAK), firing(210, LEAK)]),
    Fault(
        two_hundred_components_are_used,
        [quiet(180, EXTREME), quiet(180, HIGH), firing(210, EXTREME), firing(210, HIGH)],
    ),
    Fault(
        ninety_nine_components_are_used,
        [quiet(210, HIGH), quiet(400, HIGH), quiet(400, LEAK), shows(400, "oneiric_lifecycle_active_instances", 99)],
    ),
    Fault(
        the_manifest_server_stops_and_comes_back,
        [
            quiet(495, ROW),
            firing(530, ROW, source="remote"),
            firing(530, BREAKER, source="remote"),
            quiet(600, BREAKER),
            quiet(960, STALE),
            firing(990, STALE),
            firing(1190, ROW),
            quiet(1230, ROW),
            quiet(1230, STALE),
        ],
    ),
    Fault(
        two_synchronisations_fail,
        [
            quiet(230, ROW),
            quiet(230, BREAKER),
            quiet(330, ROW),
            shows(230, "oneiric_remote_sync_consecutive_failures", 2),
        ],
    ),
    Fault(
        an_artifact_was_altered_at_the_publisher,
        [quiet(60, DIGEST), firing(90, DIGEST, component="security"), firing(585, DIGEST, 1), quiet(930, DIGEST)],
    ),
    Fault(
        every_artifact_is_right,
        [
            quiet(90, DIGEST),
            quiet(300, DIGEST),
            quiet(300, SIGNATURE),
            shows(300, 'oneiric_remote_digest_checks_total{outcome="success"}', 3),
            shows(300, 'oneiric_remote_signature_checks_total{outcome="success"}', 3),
        ],
    ),
    Fault(
        a_manifest_is_signed_by_somebody_else,
        [quiet(60, SIGNATURE), firing(90, SIGNATURE, source="remote"), firing(345, SIGNATURE), quiet(390, SIGNATURE)],
    ),
    Fault(a_manifest_is_about_to_expire, [quiet(345, EXPIRING), firing(390, EXPIRING), quiet(630, EXPIRING)]),
)

"""How contenders are compared: each in a worker of its own, and what goes wrong in one becomes a row."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS, FULL_ONLY, chosen
from benchmarks.measure import Budget, Row
from benchmarks.peers import environments
from benchmarks.peers.crew import Crew
from benchmarks.peers.environments import HERE, LIMITS, OURS, PUBLISHED, REQUIREMENTS, Environment
from benchmarks.peers.replacing import Load, Parts
from benchmarks.peers.swapping import swapping
from benchmarks.peers.tables import TABLES
from benchmarks.peers.workers import Worker, WorkerError, variables, worker

SHORT = Budget(seconds=0, sample_seconds=0.0001, largest=20, rounds=1)
LOAD = {"call_seconds": 0.01, "every_seconds": 0.01, "swaps": 2, "rest_seconds": 0.1}
PEERS = set(REQUIREMENTS) - {LIMITS, OURS}

BAD = """
from benchmarks.peers.contender import Exchange

OFFERS_NOT = {"rank": "not offered: nothing is ranked"}

async def call(size, stack):
    print("noise on the output", flush=True)
    raise LookupError("no such part")

async def replace(stack, build):
    current = [build()]

    async def use(seconds):
        await current[0].work(seconds)

    async def swap():
        old, current[0] = current[0], build()
        await old.aclose()

    async def leak():
        current[0] = build()

    return [Exchange("closes at once", use, swap), Exchange("never closes", use, leak)]
"""


def here(name: str) -> Environment:
    """The environment of a contender that needs nothing but what runs the tests."""
    return Environment(name, Path(sys.executable))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("contenders") / "bad.py"
    file.write_text(BAD)
    return file


@pytest.fixture
def limits() -> Iterator[Worker]:
    with worker(here(LIMITS)) as found:
        yield found


def prepare(found: Worker, table: str, size: int = 10) -> list[dict[str, Any]]:
    ways: list[dict[str, Any]] = found.ask(do="prepare", table=table, size=size, sample_seconds=0.0001)["ways"]
    return ways


def test_worker_tells_the_ways_of_its_contender(limits: Worker) -> None:
    assert [way["name"] for way in prepare(limits, "get")] == ["dict[str]", "attribute"]


def test_worker_answers_a_sample_in_seconds(limits: Worker) -> None:
    prepare(limits, "get")
    (seconds,) = limits.ask(do="sample", table="get", size=10, way=0)["seconds"]
    assert 0 < seconds < 0.001


def test_worker_says_what_went_wrong_and_goes_on(limits: Worker) -> None:
    with pytest.raises(WorkerError, match="KeyError"):
        limits.ask(do="sample", table="get", size=10, way=0)
    assert prepare(limits, "call")


def test_worker_that_broke_down_leaves_its_last_words(tmp_path: Path) -> None:
    (file := tmp_path / "broken.py").write_text("import a_library_that_is_not_installed")
    with worker(here("broken"), contender=file) as found, pytest.raises(WorkerError, match="a_library_that_is_not"):
        found.ask(do="about")


def test_worker_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    (file := tmp_path / "endless.py").write_text("while True: pass")
    with worker(here("endless"), contender=file, deadline=0.1) as found, pytest.raises(WorkerError, match="within"):
        found.ask(do="about")


def test_output_of_a_library_is_not_taken_for_an_answer(bad: Path) -> None:
    with worker(here("bad"), contender=bad) as found, pytest.raises(WorkerError, match="LookupError: no such part"):
        prepare(found, "call")


@pytest.mark.parametrize("name", sorted(REQUIREMENTS))
def test_only_our_contender_is_shown_this_checkout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(environments.ROOT))
    assert ("PYTHONPATH" in variables(here(name).path)) is (name == OURS)


def test_worker_says_what_its_library_does_not_offer(bad: Path) -> None:
    with worker(here("bad"), contender=bad) as found, pytest.raises(WorkerError, match="not offered: nothing is"):
        prepare(found, "rank")


@pytest.mark.parametrize("table", ["get", "call", "rank"])
def test_our_contender_is_sampled_every_way(table: str) -> None:
    with worker(here(OURS)) as found:
        ways = prepare(found, table)
        samples = [found.ask(do="sample", table=table, size=10, way=number)["seconds"] for number in range(len(ways))]
    assert [seconds for (seconds,) in samples if not seconds > 0] == []
    assert [way["name"] for way in ways if not way["name"].startswith("ours, ")] == []


def test_our_contender_registers_and_says_how_much_memory_each_takes() -> None:
    with worker(here(OURS)) as found:
        ways = prepare(found, "register", size=20)
        assert found.ask(do="sample", table="register", size=20, way=0)["seconds"]
    assert [way for way in ways if not way["memory"] > 0] == []


def test_our_contender_keeps_every_promise() -> None:
    with worker(here(OURS)) as found:
        answers = found.ask(do="behave")["behaviours"]
    assert [answers[promise].partition(":")[0] for promise in sorted(answers)] == [
        "1 built, 0 never closed",
        "0 built, 0 never closed",
        "callers have an open instance",
        "10 candidates",
        "refused",
        "the higher stack wins",
        "the old one serves",
    ]


@pytest.mark.anyio
async def test_contenders_are_held_against_the_baseline() -> None:
    with Crew("get", 10, SHORT, [here(LIMITS), here(OURS)]) as crew:
        rows = {row.name: row for row in await crew.compare("dict[str]")}
    assert rows["get: dict[str]"].ratio is None
    assert rows["get: ours, resolve"].baseline == "dict[str], N=10"
    assert (rows["get: ours, resolve"].ratio or 0) > 0


@pytest.mark.anyio
async def test_contender_that_cannot_be_measured_is_a_row_that_says_why() -> None:
    absent = Environment(PUBLISHED, error="needs Python 3.13")
    with Crew("call", 1, SHORT, [here(LIMITS), absent]) as crew:
        rows = {row.name: (row.note, row.error) for row in await crew.compare("bare await")}
    assert rows["call: published"] == ("not run: needs Python 3.13", "")


@pytest.mark.anyio
async def test_failure_of_our_own_contender_is_an_error() -> None:
    with Crew("call", 1, SHORT, [Environment(OURS, error="not installed")]) as crew:
        assert [row.error for row in await crew.compare("")] == ["not installed"]


@pytest.mark.anyio
async def test_way_that_breaks_becomes_a_row_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with Crew("get", 10, SHORT, [here(LIMITS)]) as crew:
        asked = crew.members["attribute"].worker.ask

        def ask(**order: Any) -> dict[str, Any]:
            if order["way"] == 1:
                raise WorkerError("broke")
            return asked(**order)

        monkeypatch.setattr(crew.members["attribute"].worker, "ask", ask)
        rows = {row.name: row for row in await crew.compare("dict[str]")}
    assert rows["get: attribute"] == Row("get: attribute", 10, error="broke")
    assert rows["get: dict[str]"].median


async def replaced(found: Environment, contender: Path | None = None) -> dict[str, dict[str, Any]]:
    """Return what each way of a contender tells of one hot replacement under twenty callers."""
    with worker(found, contender=contender) as process:
        ways = process.ask(do="prepare", table="replace", size=20, sample_seconds=0)["ways"]
        load = {**LOAD, "callers": 20}
        return {
            way["name"]: process.ask(do="sample", table="replace", size=20, way=number, load=load)
            for number, way in enumerate(ways)
        }


@pytest.mark.anyio
async def test_replacement_that_closes_what_is_used_is_seen_to_fail(bad: Path) -> None:
    told = (await replaced(here("bad"), bad))["closes at once"]
    assert told["failed"] >= 20
    assert told["why"] == ["ClosedError: closed"]


@pytest.mark.anyio
async def test_replacement_that_closes_nothing_is_seen_to_leak(bad: Path) -> None:
    told = (await replaced(here("bad"), bad))["never closes"]
    assert (told["failed"], told["left_open"]) == (0, 2)


@pytest.mark.anyio
async def test_our_replacement_fails_no_call_and_leaves_nothing_open() -> None:
    told = await replaced(here(OURS))
    assert {(each["failed"], each["swaps_failed"], each["left_open"]) for each in told.values()} == {(0, 0, 0)}
    assert [each for each in told.values() if not (len(each["seconds"]) == 2 and each["calls"] > 20)] == []


@pytest.mark.anyio
async def test_table_of_replacement_counts_failures_and_leaks_in_its_notes(
    bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Environment, "contender", bad)
    notes = {row.name: row.note for row in await swapping(SHORT, found=[here("bad")], callers=10, load=LOAD)}
    assert re.search("calls, [0-9]+ FAILED", notes["replace: closes at once, p99 of waits"])
    assert re.search("none failed, [0-9]+ instances never closed", notes["replace: never closes, p99 of waits"])


def test_instance_that_serves_is_not_counted_as_left_open() -> None:
    parts = Parts()
    for _ in range(3):
        parts()
    parts.built[0].closed = True
    assert parts.left_open() == 1


def test_load_is_that_of_the_table() -> None:
    assert Load().callers == 1_000


def test_environment_is_made_once_and_again_from_other_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(_python: Path, directory: Path, _requirements: Path | None) -> str:
        made.append(directory)
        directory.mkdir(parents=True, exist_ok=True)
        return ""

    wanted = tmp_path / "some.txt"
    monkeypatch.setattr(environments, "interpreter", lambda: (Path(sys.executable), (3, 13, 0)))
    monkeypatch.setattr(environments, "_make", make)
    monkeypatch.setattr(environments, "REQUIREMENTS", {"some": wanted})
    for content in ("a==1", "a==1", "a==2"):
        wanted.write_text(content)
        environments.environment.cache_clear()
        environments.environment("some", tmp_path / "built")
    environments.environment.cache_clear()
    assert made == [tmp_path / "built" / "some"] * 2


def test_published_project_is_not_run_without_its_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "interpreter", lambda: (Path(sys.executable), (3, 11, 7)))
    environments.environment.cache_clear()
    found = environments.environment(PUBLISHED)
    environments.environment.cache_clear()
    assert found.error == "needs Python 3.13"


@pytest.mark.parametrize("name", sorted(PEERS))
def test_peer_is_pinned_with_hashes_and_without_addresses(name: str) -> None:
    requirements = REQUIREMENTS[name]
    assert requirements is not None
    text = requirements.read_text(encoding="utf-8")
    assert "://" not in text
    assert all("--hash=sha256:" in pinned for pinned in re.split(r"\n(?=\S)", text.strip()))
    assert (HERE / "contenders" / f"{name}.py").is_file()


def test_comparison_runs_only_when_asked_for() -> None:
    assert set(TABLES) <= FULL_ONLY <= set(BENCHMARKS)


def test_peers_stands_for_all_their_tables() -> None:
    assert chosen(["peers"], full=False) == list(TABLES)

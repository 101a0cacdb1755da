"""The runbooks can be typed: each block says where it works, its commands succeed, its queries find data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import yaml

from oneiric.api.client import Client
from oneiric.core.config import FILES
from oneiric.drills.publisher import Publisher
from tests.adapters.redis_server import require_program
from tests.harness.daemon import Daemon, oneiric, running
from tests.harness.logql import Metric, parse
from tests.harness.markdown import Block, read
from tests.harness.prometheus import Prometheus, write_drill_rules

ROOT = Path(__file__).parents[2]
PAGES = [read(path) for path in sorted((ROOT / "docs" / "runbooks").glob("*.md"))]
BLOCKS = [block for page in PAGES for block in page.blocks]
USES = {
    "bash": {"run", "run-offline", "needs-docker", "illustration"},
    "promql": {"run"},
    "logql": {"run"},
    "yaml": {"illustration"},
    "text": {"illustration"},
    "markdown": {"illustration"},
}
ADAPTERS = """
selections: {cache: redis}
candidates:
  - {key: cache, provider: redis, factory: "oneiric.drills.parts:Cache"}
  - {key: cache, provider: memory, factory: "oneiric.drills.parts:Cache"}
"""
Outcomes = Mapping[Block, "Future[subprocess.CompletedProcess[str]]"]
SLOT = {"domain": "adapter", "key": "cache"}


def name_of(block: Block) -> str:
    return f"{block.page.stem}:{block.line}"


def of_kind(language: str, use: str) -> list[Block]:
    return [block for block in BLOCKS if (block.language, block.use) == (language, use)]


def blocks(language: str, use: str) -> pytest.MarkDecorator:
    """Run a test with each block of that kind."""
    return pytest.mark.parametrize("block", [pytest.param(b, id=name_of(b)) for b in of_kind(language, use)])


# What the documents say


def test_block_says_where_it_works() -> None:
    untagged = [
        f"{name_of(block)}: {block.info!r}" for block in BLOCKS if block.use not in USES.get(block.language, ())
    ]
    assert untagged == []


def test_block_in_bash_is_bash() -> None:
    shell = [block for block in BLOCKS if block.language == "bash"]
    wrong = [(name_of(block), said) for block in shell if (said := _shell("-n", block.text).stderr)]
    assert shell
    assert wrong == []


def _shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    *options, text = arguments
    command = ["bash", *options, "-c", text]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)


def test_block_of_settings_is_valid() -> None:
    shown = [(block, re.match(r"# settings/(\w+\.yml)\n", block.text)) for block in BLOCKS if block.language == "yaml"]
    assert [name_of(block) for block, file in shown if file is None] == []
    for block, file in shown:
        assert file is not None
        msgspec.convert(yaml.safe_load(block.text), FILES[file[1]])


# What happens when it is typed


class Site(NamedTuple):
    """A project, a publisher that delivers to it, and what the documents leave to variables."""

    project: Path
    publisher: Publisher
    environ: Mapping[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Make a project whose cache holds what was published; no daemon ever ran in it."""
    require_program("curl", "apt-get install -y --no-install-recommends curl")
    place = tmp_path_factory.mktemp("site")
    project, published, temporary = place / "project", place / "published", place / "tmp"
    for directory in (project / "settings", published, temporary, place / "backup"):
        directory.mkdir(parents=True)
    publisher = Publisher(published)
    try:
        publisher.publish("prices", "stock")
        remote = {"manifest_url": publisher.url, "public_key": publisher.public_key}
        (project / "settings" / "app.yml").write_text(yaml.safe_dump({"watch": {"debounce": 0.1}, "remote": remote}))
        (project / "settings" / "adapters.yml").write_text(ADAPTERS)
        kept = {name: value for name, value in os.environ.items() if not re.search("_proxy$|^oneiric_", name.lower())}
        environ = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(temporary),
            "NO_COLOR": "1",
            "BACKUP": str(place / "backup"),
            "EVIDENCE": str(place / "evidence"),
            "MANIFEST_URL": publisher.url,
            "PUBLIC_KEY": publisher.public_key,
        }
        synchronised = oneiric(project, "remote-sync", environ=environ)
        assert synchronised.returncode == 0, synchronised.stderr
        artifact = next(path.name for path in (project / ".oneiric_cache" / "artifacts").iterdir())
        yield Site(project, publisher, {**environ, "ARTIFACT": artifact})
    finally:
        publisher.stop()


@pytest.fixture(scope="module")
def daemon(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run the daemon of a copy of the project, and back up its state."""
    project = tmp_path_factory.mktemp("live") / "project"
    shutil.copytree(site.project, project)
    with running(project, environ=site.environ) as daemon:
        for name in ("state.db", "remote.json"):
            shutil.copy(project / ".oneiric_state" / name, site.environ["BACKUP"])
        yield daemon


@pytest.fixture(scope="module")
def offline(site: Site, daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """Begin to type what needs no daemon, each block in a copy of the project, while the other tests go on."""
    assert daemon  # whose state is in the backup

    def type_in(block: Block) -> subprocess.CompletedProcess[str]:
        project = tmp_path_factory.mktemp("offline") / "project"
        shutil.copytree(site.project, project)
        return run(block, project, site.environ)

    with ThreadPoolExecutor(2) as pool:
        yield {block: pool.submit(type_in, block) for block in of_kind("bash", "run-offline")}


@pytest.fixture(scope="module")
def prometheus(daemon: Daemon, offline: Outcomes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrape the daemon, and see it swap; what is begun before uses the seconds until the first scrape."""
    assert offline
    place = tmp_path_factory.mktemp("prometheus")
    jobs = {"oneiric": [daemon.http]}
    with Prometheus(place, jobs, rule_files=[write_drill_rules(place)]) as prometheus:
        prometheus.wait_scraped("oneiric")
        daemon.client.post("/v1/swap", {**SLOT, "provider": "memory"})
        daemon.client.post("/v1/unpin", SLOT)
        prometheus.wait_for("histogram_quantile(0.95, rate(oneiric_lifecycle_swap_duration_ms_bucket[5m])) >= 0")
        yield prometheus


@pytest.fixture
def clean(daemon: Daemon, site: Site) -> Iterator[None]:
    """Undo what a block did to the daemon and to its project."""
    yield
    client: Client = daemon.client
    client.post("/v1/watch/resume")
    client.post("/v1/unpin", SLOT)
    client.post("/v1/resume", SLOT)
    shutil.rmtree(site.environ["EVIDENCE"], ignore_errors=True)
    for path in (site.project / "settings").iterdir():
        assert (daemon.directory / "settings" / path.name).read_bytes() == path.read_bytes()


def run(block: Block, directory: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Type what is in *block*."""
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{block.text}"],
        cwd=directory,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def require_success(block: Block, done: subprocess.CompletedProcess[str]) -> None:
    """See that every command of *block* succeeded, or is said to fail, and that none has a bug."""
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, f"{name_of(block)} ends with {done.returncode}:\n{block.text}\n{said}"
    assert not re.search(r"Traceback|error\[bug\]", said), said


@pytest.mark.usefixtures("clean")
@blocks("bash", "run")
def test_command_works_beside_a_daemon(block: Block, site: Site, daemon: Daemon, prometheus: Prometheus) -> None:
    environ = {**site.environ, "PROMETHEUS": prometheus.url, "DAEMON": f"http://{daemon.http}"}
    require_success(block, run(block, daemon.directory, environ))


@blocks("promql", "run")
def test_query_of_metrics_finds_a_number(block: Block, prometheus: Prometheus) -> None:
    assert block.statements
    for query in block.statements:
        assert any(not series.empty for series in prometheus.query(query)), query


@blocks("logql", "run")
def test_query_of_logs_is_answered(block: Block, daemon: Daemon) -> None:
    lines = [line for line in daemon.lines if line.startswith("{")]
    stream = {"app": "oneiric"}
    assert block.statements
    for query in block.statements:
        parsed = parse(query)
        if isinstance(parsed, Metric):
            parsed.measure(lines, datetime.now(UTC), stream)
        else:
            assert not any("__error__" in found.labels for found in parsed.select(lines, stream)), query


@blocks("bash", "run-offline")
def test_command_works_without_a_daemon(block: Block, offline: Outcomes) -> None:
    require_success(block, offline[block].result())

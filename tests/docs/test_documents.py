"""What the documents name exists: files, anchors, alerts, scenarios, error codes, commands and their options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from oneiric.cli.main import cli
from oneiric.cli.output import OutputError
from oneiric.doctor.finding import RUNBOOKS, SCENARIOS
from oneiric.drills.sandbox import DrillFailedError
from oneiric.drills.scenarios import drills
from oneiric.errors import OneiricError
from oneiric.monitoring.alerts import alerts
from oneiric.monitoring.profiles import PROD
from tests.harness.markdown import Page, read

ROOT = Path(__file__).parents[2]
RUNBOOKS_OF = ROOT / "docs" / "runbooks"
INCIDENTS, TROUBLE = RUNBOOKS_OF / "INCIDENT_RESPONSE.md", RUNBOOKS_OF / "TROUBLESHOOTING.md"
PAGES = [read(path) for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]]
each_page = pytest.mark.parametrize("page", [pytest.param(page, id=str(page.path.relative_to(ROOT))) for page in PAGES])


@each_page
def test_document_links_and_anchors_lead_somewhere(page: Page) -> None:
    lost = []
    for link in page.links:
        path, _, anchor = link.partition("#")
        target = page.path if not path else (page.path.parent / path).resolve()
        if not re.match(r"[a-z]+:", link) and not (target.exists() and (not anchor or anchor in read(target).anchors)):
            lost.append(link)
    assert lost == []


def test_alert_leads_to_an_anchor_that_exists() -> None:
    lost = [
        alert.anchor
        for alert in alerts(PROD)
        if alert.anchor.partition("#")[2] not in read(ROOT / alert.anchor.partition("#")[0]).anchors
    ]
    assert lost == []


def test_monitoring_links_to_anchors_that_exist() -> None:
    files = [*(ROOT / "deployment").rglob("*.json"), *(ROOT / "deployment").rglob("*.yml")]
    found = {link for file in files for link in re.findall(r"docs/runbooks/(\w+\.md)#([\w-]+)", file.read_text())}
    anchors = {path.name: read(path).anchors for path in RUNBOOKS_OF.iterdir()}
    assert len(found) > len(RUNBOOKS)
    assert {(file, anchor) for file, anchor in found if anchor not in anchors[file]} == set()


def test_runbook_has_every_scenario_of_the_doctor() -> None:
    number, found = "", {}
    for heading in read(INCIDENTS).headings:
        if runbook := re.fullmatch(r"Runbook (\d): (.+)", heading.text):
            number = runbook[1]
            assert RUNBOOKS[int(number)] == runbook[2]
        elif scenario := re.fullmatch(r"Scenario ([A-D]): (.+)", heading.text):
            found[number + scenario[1]] = scenario[2]
    assert found == SCENARIOS


def test_troubleshooting_names_every_alert() -> None:
    assert {alert.name for alert in alerts(PROD)} <= set(read(TROUBLE).spans)


def test_troubleshooting_has_every_error_code_with_its_exit_code() -> None:
    assert {OutputError, DrillFailedError}  # are imported, so that they are among the subclasses
    kinds = [OneiricError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    codes = {kind.code: str(kind.exit_code) for kind in kinds if kind.__module__.startswith("oneiric.")}
    section = TROUBLE.read_text().partition("## Error codes")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `([\w-]+)` \| (\d) \|", section, re.MULTILINE)) == {**codes, "bug": "1"}


_TYPED = re.compile(r"(?:^|[|&;(]|\$ )\s*(?:\w+=\S+\s+)*(?:\S*/|python -m )?oneiric(?:\.cli)?((?: +[^|&;()#\n]+)?)")


def typed(page: Page) -> Iterator[list[str]]:
    """Yield the arguments of every oneiric command in *page*, in blocks and in prose."""
    written = [
        line
        for block in page.blocks
        for line in block.text.splitlines()
        if block.language == "bash" or (block.language == "console" and line.startswith("$ "))
    ]
    for line in [*written, *page.spans]:
        for arguments in _TYPED.findall(line):
            words = arguments.replace("...", "").split()
            while words and words[0].startswith("-"):  # global options; --socket, --settings and --cache-dir take one
                del words[: 2 if words[0] in ("--socket", "--settings", "--cache-dir") else 1]
            if words and not words[0].isupper() and words != ["no-such-command"]:
                yield words


def unknown(words: list[str]) -> str:
    """Say what in a command does not exist, "" when all does."""
    command: click.Command = cli
    context = click.Context(cli)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest.pop(0))
        if found is None:
            return f"no such command: oneiric {' '.join(words)}"
        command = found
    known = {name for parameter in command.params for name in parameter.opts} | {"-h", "--help"}
    options = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    return "".join(
        f"no such option: {option} of oneiric {' '.join(words)}" for option in options if option not in known
    )


@each_page
def test_document_names_commands_and_options_that_exist(page: Page) -> None:
    assert [wrong for words in typed(page) if (wrong := unknown(words))] == []


def test_document_names_drills_that_exist() -> None:
    named = {words[2] for page in PAGES for words in typed(page) if words[:2] == ["drill", "run"] and len(words) > 2}
    assert {"2A", "3A"} <= named
    assert named - {"all", "ID", "ID|all"} <= {drill.code for drill in drills()}

"""Every LogQL query that anybody is told to type is LogQL, by its official grammar, and known to our evaluator."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.logql import parse
from tests.monitoring.runbook import QUERIES, SPEC, filled_in, other_queries, queries_in

GRAMMAR = Path(sys.prefix) / "logql"
WRONG = {
    "truncated": '{app="oneiric"} | json | event=',
    "not closed": '{app="oneiric" | json',
    "two stages in one": '{app="oneiric"} | json | event="a" event="b"',
}
OURS = {f"runbook:{line}": query for line, query in QUERIES.items()} | other_queries()


@pytest.fixture(scope="module")
def errors() -> dict[str, list[int]]:
    """Where the grammar finds errors in each query; one process looks at all."""
    node = shutil.which("node")
    if node is None or not (GRAMMAR / "node_modules" / "@grafana" / "lezer-logql").is_dir():
        pytest.fail(f"no grammar of LogQL in {GRAMMAR}; install it: make .venv/logql (needs npm and its registry)")
    asked = OURS | WRONG
    answer = subprocess.run(
        [node, Path(__file__).with_name("grammar.cjs"), GRAMMAR],
        input=json.dumps(list(asked.values())),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return dict(zip(asked, json.loads(answer.stdout), strict=True))


@pytest.mark.skipif(
    not SPEC.exists(), reason="the runbook is not beside this checkout; the copy of its queries is used"
)
def test_copy_of_the_runbooks_queries_is_what_the_runbook_says() -> None:
    assert queries_in(SPEC.read_text()) == QUERIES


def test_runbook_has_25_queries_of_which_23_differ() -> None:
    assert (len(QUERIES), len(set(QUERIES.values()))) == (25, 23)


@pytest.mark.parametrize("where", OURS)
def test_query_has_no_error_by_the_official_grammar(where: str, errors: dict[str, list[int]]) -> None:
    assert errors[where] == [], OURS[where]


@pytest.mark.parametrize("why", WRONG)
def test_query_that_is_wrong_has_an_error_by_the_official_grammar(why: str, errors: dict[str, list[int]]) -> None:
    assert errors[why]


@pytest.mark.parametrize("where", OURS)
def test_query_is_known_to_the_evaluator(where: str) -> None:
    parse(OURS[where])


def test_variables_of_a_dashboard_are_filled_in() -> None:
    query = 'sum(count_over_time({app="oneiric", instance=~"$instance"} | json | domain=~"${domain}" [$__range]))'
    assert filled_in(query) == ('sum(count_over_time({app="oneiric", instance=~".*"} | json | domain=~".*" [5m]))')


def test_queries_are_found_in_fenced_blocks_only() -> None:
    page = '{app="a"}\n```logql\n# why\nrate({app="b"}[5m])\n```\n{app="c"}\n```bash\nls {app=\n{app="d"}\n```\n'
    assert queries_in(page) == {4: 'rate({app="b"}[5m])', 9: '{app="d"}'}

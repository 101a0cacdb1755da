"""The page of the benchmarks is what rendering makes of the figures, and leaves none of them out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plot, render, table
from benchmarks.__main__ import BENCHMARKS
from benchmarks.measure import Row
from benchmarks.record import Run, read, write

DOCS = Path(__file__).parents[2] / "docs"
KEPT = read(DOCS / "benchmarks.json")
TEXT = render.EXPLAINED.read_text(encoding="utf-8")
WORDS = """Said first.

# lookup: Looking up

How it is done.

## lookup

It is far.

# other: Others
"""
MISSED = Row("lookup", 10, "dict", median=2e-6, p10=1e-6, ratio=5.0, ratio_p10=4.0, ratio_p90=6.0, target=4)
HERE = {"processor": "one", "Python": "CPython"}


def run(*rows: Row, where: Mapping[str, str] = HERE) -> Run:
    return Run(rows, "full", where, seconds=12.4, load=0.3)


def page(**runs: Run) -> str:
    return render.rendered(runs, WORDS, "page")["page.md"]


def plots(*rows: Row) -> dict[str, str]:
    pages = render.rendered({"lookup": run(*rows)}, WORDS, "page")
    return {name: text for name, text in pages.items() if name != "page.md"}


# What is kept in docs


def test_page_in_docs_is_what_rendering_makes_of_the_figures() -> None:
    stale = [
        name
        for name, text in render.rendered(KEPT, TEXT, "benchmarks").items()
        if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "try: python -m benchmarks.render docs/benchmarks.json"


def test_docs_keep_no_plot_that_is_not_on_the_page() -> None:
    kept = {f"benchmarks/{file.name}" for file in (DOCS / "benchmarks").iterdir()}
    assert kept == render.rendered(KEPT, TEXT, "benchmarks").keys() - {"benchmarks.md"}


def test_every_missed_target_in_docs_is_explained() -> None:
    assert render.unexplained(KEPT, render.explained(TEXT)[1]) == []


def test_every_benchmark_has_its_text() -> None:
    assert BENCHMARKS.keys() - render.explained(TEXT)[1].keys() == set()


def test_every_explanation_names_a_row_that_exists() -> None:
    rows = {name: {row.name for row in each.rows} for name, each in KEPT.items()}
    stale = {
        f"{name}: {row}"
        for name, section in render.explained(TEXT)[1].items()
        for row in section.missed
        if row not in rows.get(name, ())
    }
    assert stale == set()


def test_docs_keep_no_figures_of_a_quick_run() -> None:
    assert [name for name, each in KEPT.items() if each.budget == "quick"] == []


def test_docs_name_no_path_of_a_machine() -> None:
    assert re.findall(r'"(?:/|[^"]*/(?:root|home|tmp|usr)/)[^"]*"', (DOCS / "benchmarks.json").read_text()) == []


# The page


def test_every_row_is_a_line_of_the_page() -> None:
    rows = [MISSED, replace(MISSED, size=20, ratio=3.0), Row("broken", 1, error="exit 1: no such thing")]
    text = page(lookup=run(*rows))
    assert [row for row in rows if f"| {' | '.join(table.cells(row))} |" not in text] == []


def test_page_lists_what_was_missed_with_its_explanation() -> None:
    text = page(lookup=run(MISSED))
    assert "| lookup | 10 | 5.00 | <= 4 |" in text
    assert "**Missed: lookup.** It is far." in text


def test_miss_without_an_explanation_is_named() -> None:
    runs = {"other": run(MISSED)}
    assert render.unexplained(runs, render.explained(WORDS)[1]) == ["other: lookup"]
    assert render.UNEXPLAINED in page(**runs)


def test_explanation_of_what_is_met_is_not_shown() -> None:
    assert "It is far" not in page(lookup=run(replace(MISSED, ratio=3.0)))


def test_one_environment_is_shown_once() -> None:
    assert page(lookup=run(MISSED), other=run(MISSED)).count("- processor: one") == 1


def test_each_run_of_several_environments_says_which_is_its_own() -> None:
    text = page(lookup=run(MISSED), other=run(MISSED, where={"processor": "two"}))
    assert re.findall(r"run of 12 s on (.),", text) == ["A", "B"]


def test_rendering_twice_gives_the_same() -> None:
    runs = {"lookup": run(MISSED, replace(MISSED, size=100))}
    assert render.rendered(runs, WORDS, "page") == render.rendered(dict(runs), WORDS, "page")


# The plots


def test_what_has_more_than_one_size_is_plotted() -> None:
    (text,) = plots(MISSED, replace(MISSED, size=100), replace(MISSED, name="once")).values()
    assert ("lookup" in text, "once" in text) == (True, False)


def test_size_of_none_is_not_plotted() -> None:
    assert plots(MISSED, replace(MISSED, size=0)) == {}


def test_many_against_one_baseline_are_bars_at_the_largest_size() -> None:
    many = [replace(MISSED, name=f"get: {name}", baseline=f"dict, N={n}", size=n) for n in (10, 90) for name in "abcd"]
    drawn = plots(*many)
    assert "multiples of dict, N=90" in drawn["page/lookup-ratios-1.svg"]
    assert drawn["page/lookup-ratios-1.svg"].count("<rect") == 1 + 4


@pytest.mark.parametrize(
    "drawing",
    [
        pytest.param(
            plot.lines("a < b", {"c & d": [(1, 1e-6), (1_000, 2e-3)]}, x_label="N", y_label="time", tick=str),
            id="lines",
        ),
        pytest.param(plot.bars("a < b", [plot.Bar("c & d", 0.5, 0.4, 0.6, is_ours=True)], x_label="times"), id="bars"),
    ],
)
def test_plot_is_svg_whose_text_is_text(drawing: str) -> None:
    words = [element.text for element in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")]
    assert {"a < b", "c & d"} <= set(words)


def test_linear_growth_rises_as_the_guide_does() -> None:
    drawing = plot.lines("t", {"s": [(10, 1e-5), (1_000, 1e-3)]}, x_label="N", y_label="time", tick=str)
    line = re.search(r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)"', drawing)
    guide = re.search(r'class="guide" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', drawing)
    assert line is not None
    assert guide is not None
    assert [float(each) for each in line.groups()] == [float(each) for each in guide.groups()]


# What is kept of runs


def test_record_reads_what_it_wrote(tmp_path: Path) -> None:
    runs = {"lookup": run(MISSED, Row("broken", 1, error="exit 1"))}
    write(tmp_path / "kept.json", runs)
    assert read(tmp_path / "kept.json") == runs


def test_record_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text('{"schema": "oneiric.benchmarks/1", "rows": []}')
    with pytest.raises(ValueError, match=r"oneiric\.benchmarks/1"):
        read(tmp_path / "kept.json")

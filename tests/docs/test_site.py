"""The site: built once, without a warning, whole, on its own, and with links that lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

from tests.harness.markdown import read

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("0*.md"))
ASKING = {"src", "srcset", "poster", "data", "action", "formaction"}  # attributes for which a browser asks by itself
WORDS = """
activation active artifact breaker candidate cleanup commit digest domain drain event exclusive explain factory failed
floor instance key lease manifest mirror pin poolable precedence priority probe provider quarantine rank readiness
rejected resolve roll-back rollback selection shadowed signature slot soak source stack stack-level success swap
trust-root
"""


class Markup(HTMLParser):
    """What of a page matters here."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.written: list[str] = []  # those of the text, not of the navigation
        self.in_text = False
        self.asked: list[str] = []
        self.within: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        if tag == "a":
            found = [given["href"]] if "href" in given else []
            self.links += found
            self.written += found if self.in_text else []
        elif "href" in given:
            self.asked.append(given["href"])
        self.in_text = self.in_text or tag == "article"
        self.asked += [value for name, value in given.items() if name in ASKING]
        if tag == "style" or (tag == "script" and "src" not in given) or any(name.startswith("on") for name in given):
            self.within.append(self.get_starttag_text() or tag)

    def handle_endtag(self, tag: str) -> None:
        self.in_text = self.in_text and tag != "article"


class Site(NamedTuple):
    """What a build made and said."""

    directory: Path
    code: int
    said: str
    pages: dict[Path, Markup]

    def page(self, name: str) -> Markup:
        return self.pages[self.directory / name]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    directory = tmp_path_factory.mktemp("site")
    options = ["-n", "-W", "--keep-going", "-q", "-d", str(directory / "trees"), "-b", "html"]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(directory / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    pages = {path: Markup(path) for path in sorted((directory / "html").rglob("*.html"))}
    return Site(directory / "html", built.returncode, built.stdout + built.stderr, pages)


def is_elsewhere(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def test_site_builds_without_a_warning(site: Site) -> None:
    assert site.said.splitlines() == []
    assert site.code == 0


def test_site_has_every_page_in_its_navigation(site: Site) -> None:
    named = {urlsplit(link).path for link in site.page("index.html").links}
    pages = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert pages - named - {"index.html"} == set()


def test_site_asks_no_other_host_for_anything(site: Site) -> None:
    asked = {one for page in site.pages.values() for one in page.asked}
    sheets = [sheet.read_text() for sheet in site.directory.rglob("*.css")]
    asked |= {one for sheet in sheets for one in re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")\s;]+)", sheet)}
    assert "_static/site.css" in {one.partition("?")[0] for one in asked}
    assert {one for one in asked if is_elsewhere(one)} == set()


def test_site_has_no_script_or_style_within_a_page(site: Site) -> None:
    assert {str(path): page.within for path, page in site.pages.items() if page.within} == {}


def test_site_links_and_anchors_lead_somewhere(site: Site) -> None:
    lost = []
    for path, page in site.pages.items():
        for link in page.links:
            to = urlsplit(link)
            target = (path.parent / unquote(to.path)).resolve() if to.path else path
            if to.scheme or to.netloc:
                continue
            if not target.is_file() or (target in site.pages and to.fragment not in {"", *site.pages[target].ids}):
                lost.append(f"{path.relative_to(site.directory)}: {link}")
    assert lost == []


def test_site_has_the_anchors_of_a_code_host(site: Site) -> None:
    lost = {
        f"{path.relative_to(DOCS)}#{anchor}"
        for path in DOCS.rglob("*.md")
        for anchor in read(path).anchors - site.page(path.relative_to(DOCS).with_suffix(".html").as_posix()).ids
    }
    assert lost == set()


@pytest.mark.parametrize(
    ("page", "link"),
    [
        pytest.param("project/security.html", "../deployment/systemd.html", id="from a README to another"),
        pytest.param("project/security.html", "../runbooks/MAINTENANCE.html#upgrade", id="from a README to a page"),
        pytest.param("deployment/monitoring.html", "loki.html", id="to a README below"),
        pytest.param("examples/publisher.html", "shop.html", id="to a directory"),
    ],
)
def test_link_out_of_the_site_leads_to_the_page_that_shows_it(site: Site, page: str, link: str) -> None:
    assert link in site.page(page).written


def test_glossary_has_every_word(site: Site) -> None:
    assert set(WORDS.split()) - site.page("glossary.html").ids == set()


def test_why_has_only_figures_that_are_measured() -> None:
    measured = "".join((ROOT / path).read_text() for path in ("README.md", "docs/benchmarks.md"))
    figures = set(re.findall(r"\b\d[\d,.]*\d\b", read(DOCS / "why.md").prose))
    assert {"3,528,377", "10,000"} <= figures
    assert {
        figure for figure in figures if not re.search(rf"(?<![\d,.]){re.escape(figure)}(?![\d,]*\d)", measured)
    } == set()


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_its_parts_and_names_files_that_exist(decision: Path) -> None:
    page = read(decision)
    named = {span for span in page.spans if re.match(r"(?:oneiric|tests|benchmarks)/", span)}
    assert [heading.text for heading in page.headings[1:]] == ["Context", "Decision", "Consequences"]
    assert {span for span in named if not (ROOT / span).exists()} == set()


def test_decisions_are_listed_by_their_numbers() -> None:
    listed = re.findall(r"^(\d+)\. \[(.+)\]\((.+)\)$", (DOCS / "decisions" / "index.md").read_text(), re.MULTILINE)
    assert [(int(number), file) for number, _, file in listed] == list(enumerate((d.name for d in DECISIONS), 1))
    assert [f"{number}. {title}" for number, title, _ in listed] == [read(d).headings[0].text for d in DECISIONS]

"""The parser of documents reads what is there, and refuses what could be read in two ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.markdown import MarkdownError, Page, read


def page(directory: Path, text: str) -> Page:
    path = directory / "page.md"
    path.write_text(text)
    return read(path)


def test_block_has_its_language_its_use_and_its_line(tmp_path: Path) -> None:
    (block,) = page(tmp_path, "text\n\n```bash run-offline\n# why\n\nls\n```\n").blocks
    assert (block.language, block.use, block.line, block.text, block.statements) == (
        "bash",
        "run-offline",
        3,
        "# why\n\nls\n",
        ["ls"],
    )


def test_block_within_a_list_loses_its_indentation(tmp_path: Path) -> None:
    (block,) = page(tmp_path, "- one\n\n  ```promql\n  up\n  ```\n").blocks
    assert block.text == "up\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("```bash\nls\n", id="does not end"),
        pytest.param("```bash\nls\n```bash\n", id="another begins"),
        pytest.param("  ```bash\n  ls\n```\n", id="ends elsewhere"),
        pytest.param("~~~bash\nls\n~~~\n", id="tildes"),
        pytest.param("````bash\nls\n````\n", id="four backticks"),
        pytest.param("```ls```\n", id="code in prose"),
    ],
)
def test_block_that_is_unclear_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MarkdownError):
        page(tmp_path, text)


def test_heading_has_the_anchor_that_github_gives_it(tmp_path: Path) -> None:
    text = "## Too Many Domains/Keys\n\n### `a_b` & [c](d.md)\n\n## Again\n\n## Again\n\n```text\n# none\n```\n"
    anchors = [heading.anchor for heading in page(tmp_path, text).headings]
    assert anchors == ["too-many-domainskeys", "a_b--c", "again", "again-1"]


def test_link_within_code_is_none(tmp_path: Path) -> None:
    text = "[one](a.md#x) `[two](b.md)` [three](<c.md>)\n\n```text\n[four](d.md)\n```\n"
    assert page(tmp_path, text).links == ["a.md#x", "c.md"]

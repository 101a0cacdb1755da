"""What is shipped to Loki: each line as it is, under two labels. No Loki or Alloy is at hand, so texts are read."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import yaml

from tests.harness.logql import STREAM
from tests.monitoring.runbook import DASHBOARDS

ALLOY = (DASHBOARDS / "loki" / "config.alloy").read_text()
LABELS = ["app", "instance"]


def blocks(text: str) -> dict[str, str]:
    """Return the outermost blocks of an Alloy configuration by their heads; each line of their bodies is indented."""
    return {found[1]: found[2] for found in re.finditer(r"^(\S[^\n]*?) \{\n(.*?)^\}$", text, re.DOTALL | re.MULTILINE)}


def quoted(text: str) -> list[str]:
    return re.findall(r'"([^"]*)"', text)


@pytest.fixture(params=["file", "docker", "journal"])
def variant(request: pytest.FixtureRequest) -> str:
    """The configuration with one of its sources, the others in comments or left out."""
    if request.param == "file":
        return "".join(line for line in ALLOY.splitlines(keepends=True) if not line.lstrip().startswith("//"))
    bare = re.sub(r"^// ?(?=\S* ?\S*(?: \S+)? \{$|  |\}$|$)", "", ALLOY, flags=re.MULTILINE)
    kept = [
        f"{head} {{\n{body}}}\n"
        for head, body in blocks(bare).items()
        if request.param in head or head.startswith(("loki.process", "loki.write"))
    ]
    return "\n".join(kept)


def test_variant_has_one_source_that_leads_to_loki_through_what_sets_the_labels(variant: str) -> None:
    found = blocks(variant)
    (source,) = (head for head in found if head.startswith("loki.source."))
    assert "forward_to = [loki.process.oneiric.receiver]" in found[source]
    assert "forward_to = [loki.write.oneiric.receiver]" in found['loki.process "oneiric"']
    assert "/loki/api/v1/push" in found['loki.write "oneiric"']


def test_components_that_a_variant_refers_to_are_there(variant: str) -> None:
    named = set(re.findall(r"[\[ ]((?:local|loki|discovery)\.\w+\.oneiric)\.(?:targets|receiver)", variant))
    there = {f"{head.split()[0]}.oneiric" for head in blocks(variant)}
    assert named
    assert named <= there


def test_brackets_of_a_variant_are_closed(variant: str) -> None:
    count = Counter(re.sub(r'"[^"]*"', "", variant))
    assert (count["{"], count["["], count["("]) == (count["}"], count["]"], count[")"])


def test_labels_are_set_and_all_others_dropped(variant: str) -> None:
    process = blocks(variant)['loki.process "oneiric"']
    static = re.search(r"stage\.static_labels \{\n\s*values = \{(.*)\}", process)
    kept = re.search(r"stage\.label_keep \{\n\s*values = \[(.*)\]", process)
    assert static is not None
    assert kept is not None
    assert re.findall(r'"(\w+)" =', static[1]) == LABELS
    assert quoted(kept[1]) == LABELS
    assert process.index("label_keep") > process.index("static_labels")


def test_no_field_is_promoted(variant: str) -> None:
    stages = re.findall(r"stage\.(\w+)", variant)
    assert stages == ["json", "timestamp", "static_labels", "label_keep"]


def test_labels_are_those_that_tests_of_queries_suppose() -> None:
    assert (list(STREAM), STREAM["app"]) == (LABELS, "oneiric")


@pytest.fixture(scope="module")
def loki() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DASHBOARDS / "loki" / "loki.yml").read_text())
    return found


def test_loki_adds_no_label_of_its_own(loki: dict[str, Any]) -> None:
    limits = loki["limits_config"]
    assert (limits["discover_service_name"], limits["discover_log_levels"]) == ([], False)


def test_loki_stores_what_version_3_wants(loki: dict[str, Any]) -> None:
    (schema,) = loki["schema_config"]["configs"]
    assert (schema["store"], schema["schema"], schema["index"]["period"]) == ("tsdb", "v13", "24h")
    assert isinstance(schema["from"], str)


def test_loki_that_deletes_what_is_old_knows_where_to_note_it(loki: dict[str, Any]) -> None:
    assert loki["limits_config"]["retention_period"].endswith("h")
    assert (loki["compactor"]["retention_enabled"], loki["compactor"]["delete_request_store"]) == (True, "filesystem")


@pytest.mark.parametrize("gone", ["boltdb_shipper", "boltdb-shipper", "shared_store", "table_manager"])
def test_loki_is_not_told_what_version_3_has_removed(gone: str) -> None:
    assert gone not in (DASHBOARDS / "loki" / "loki.yml").read_text()

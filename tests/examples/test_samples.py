"""The manifests in ``tests/samples``: each entry loads, lists, resolves and is explained as a local candidate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneiric.api.client import RemoteError
from oneiric.config.loader import load, local_candidates
from oneiric.core.candidate import Candidate
from oneiric.core.config import CandidateSettings
from oneiric.core.registry import Registry
from oneiric.core.resolution import Host, Policy, Resolution, resolve
from tests.examples.samples import ENTRIES, NAMES, Entry, every_entry, every_sample, published, unmet
from tests.harness.daemon import Daemon, running

FIELDS = set(CandidateSettings.__struct_fields__)


def write_settings(sample: str, place: Path) -> Path:
    """Write the entries of *sample* as ``candidates:`` of settings files in *place*; return the settings directory."""
    by_domain: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, fields in published(sample):
        offer = {name: value for name, value in fields.items() if name in FIELDS}
        by_domain[fields["domain"]].append(offer)
    directory = place / "settings"
    directory.mkdir()
    for domain, candidates in by_domain.items():
        (directory / f"{domain}s.yml").write_text(yaml.safe_dump({"candidates": candidates}))
    return directory


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Candidate[Any], ...]]:
    """What the settings made of each sample offer."""
    return {
        sample: local_candidates(load(write_settings(sample, tmp_path_factory.mktemp(sample)), environ={}))
        for sample in NAMES
    }


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Daemon]]:
    """A daemon on the settings made of each sample; no test changes what it serves."""
    places = {sample: tmp_path_factory.mktemp(f"daemon-{sample}") for sample in NAMES}
    for sample, place in places.items():
        write_settings(sample, place)
    with running(places["v1"]) as v1, running(places["v2"]) as v2:
        yield {"v1": v1, "v2": v2}


def resolved(offered: tuple[Candidate[Any], ...], entry: Entry, host: Host) -> Resolution:
    return resolve(Registry().with_source("settings", offered), Policy(host=host), entry.slot)


def test_samples_are_those_published() -> None:
    assert {sample: len(published(sample)) for sample in NAMES} == {"v1": 35, "v2": 31}


# Through the library


@every_entry
def test_entry_keeps_what_it_says_about_itself(entry: Entry, candidates: dict[str, tuple[Candidate[Any], ...]]) -> None:
    (candidate,) = [c for c in candidates[entry.sample] if c.slot == entry.slot]
    said = {name: value for name, value in entry.fields.items() if name in FIELDS - {"key"}}
    read = {name: getattr(candidate, name) for name in said}
    assert {n: sorted(v) if isinstance(v, frozenset | tuple | list) else v for n, v in read.items()} == {
        n: sorted(v) if isinstance(v, list) else v for n, v in said.items()
    }


@every_entry
def test_entry_fills_its_slot_where_all_it_needs_is_there(
    entry: Entry, candidates: dict[str, tuple[Candidate[Any], ...]]
) -> None:
    able = Host("3.13.0", "linux", installed=lambda name: "9999")
    winner = resolved(candidates[entry.sample], entry, able).require()
    assert winner.provider == entry.fields["provider"]


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.fields.get("requires")], ids=str)
def test_explain_names_every_requirement_that_is_missing(
    entry: Entry, candidates: dict[str, tuple[Candidate[Any], ...]]
) -> None:
    bare = Host("3.13.0", "linux", installed=lambda name: None)
    text = str(resolved(candidates[entry.sample], entry, bare))
    assert [r for r in entry.fields["requires"] if f"requires {r}: not installed" not in text] == []


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.fields.get("python_version")], ids=str)
def test_explain_names_the_python_that_is_needed(
    entry: Entry, candidates: dict[str, tuple[Candidate[Any], ...]]
) -> None:
    old = Host("3.11.7", "linux", installed=lambda name: "9999")
    resolution = resolved(candidates[entry.sample], entry, old)
    assert f"needs Python {entry.fields['python_version']}, this is 3.11.7" in str(resolution)


# Through a daemon


@every_sample
def test_daemon_lists_every_slot_of_a_sample(sample: str, daemons: dict[str, Daemon]) -> None:
    listed = {(row["domain"], row["key"]) for row in daemons[sample].client.get("/v1/list")["slots"]}
    assert {entry.slot for entry in published(sample)} - listed == set()


@every_entry
def test_daemon_explains_an_entry_with_all_that_it_lacks_here(entry: Entry, daemons: dict[str, Daemon]) -> None:
    answer = daemons[entry.sample].client.get("/v1/explain", domain=entry.slot.domain, key=entry.slot.key)
    (placing,) = [p for p in answer["placings"] if p["source"].startswith("settings/")]
    lacking = unmet(entry)
    assert (placing["verdict"] == "rejected", [words for words in lacking if words not in answer["text"]]) == (
        bool(lacking),
        [],
    )


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if not unmet(entry)], ids=str)
def test_daemon_says_which_module_an_entry_lacks_and_goes_on(entry: Entry, daemons: dict[str, Daemon]) -> None:
    client, module = daemons[entry.sample].client, entry.fields["factory"].partition(":")[0]
    body = {name: entry.fields[name] for name in ("domain", "key", "provider")}
    with pytest.raises(RemoteError, match=r"ImportError\(ModuleNotFoundError\): No module named '(.*?)'") as caught:
        client.post("/v1/swap", {**body, "dry_run": True})
    missing = str(caught.value).split("No module named '")[1].split("'")[0]
    assert f"{module}.".startswith(f"{missing}.")

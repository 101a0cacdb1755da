"""The manifests in ``tests/samples``, signed by us and served to a daemon; and as they are, by the command."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from examples.publisher.press import build_wheel, new_key, public_key
from oneiric.remote.signing import pack, sign
from tests.examples.samples import ENTRIES, NAMES, SAMPLES, Entry, every_entry, every_sample, published, unmet
from tests.harness.daemon import Daemon, oneiric, running
from tests.harness.delivery import Upstream, serving, trusting

SIGNER = new_key()
REFUSED = {"v1": "unsigned: ", "v2": "signature: "}


def stand_in(entry: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return *entry* with a small wheel of ours, beside the manifest, in the place of the artifact it names."""
    module, _, attribute = entry["factory"].partition(":")
    path = f"{module.replace('.', '/')}.py"
    wheel = build_wheel(directory, entry["key"], "1.0", {path: f"class {attribute}:\n    source = 'wheel'\n"})
    content = wheel.read_bytes()
    return {**entry, "uri": wheel.name, "sha256": hashlib.sha256(content).hexdigest(), "length": len(content)}


def sign_sample(sample: str, directory: Path) -> None:
    """Publish *sample* in *directory*, signed by us, with artifacts that can be had."""
    document = yaml.safe_load((SAMPLES / NAMES[sample]).read_text())
    entries = [stand_in(entry, directory) if "uri" in entry else entry for entry in document["entries"]]
    signed = sign(
        {**document, "entries": entries},
        SIGNER,
        now=datetime.now(UTC),
        expires_in=timedelta(days=1),
        manifest_version=1,
    )
    (directory / "manifest.json").write_bytes(pack(signed))


class Delivered(NamedTuple):
    """A daemon that was delivered a sample, and what it said about that."""

    daemon: Daemon
    report: dict[str, Any]


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Delivered]]:
    """A daemon for each sample, which it has from an HTTPS server; no test changes what it serves."""
    places = {sample: tmp_path_factory.mktemp(sample) for sample in NAMES}
    ups = {sample: Upstream(place / "up", signer=SIGNER) for sample, place in places.items()}
    for sample, up in ups.items():
        sign_sample(sample, up.directory)
        modules = {
            entry.fields["factory"].partition(":")[0] for entry in published(sample) if "uri" not in entry.fields
        }
        settings = places[sample] / "settings"
        settings.mkdir()
        (settings / "app.yml").write_text(up.settings(allowed_factories=sorted(modules)))
    with (
        serving(ups["v1"], tls=True) as one,
        serving(ups["v2"], tls=True) as two,
        running(places["v1"], environ=trusting(ups["v1"])) as first,
        running(places["v2"], environ=trusting(ups["v2"])) as second,
    ):
        yield {
            "v1": Delivered(first, first.client.post("/v1/remote/sync", {"manifest": one.url})),
            "v2": Delivered(second, second.client.post("/v1/remote/sync", {"manifest": two.url})),
        }


@every_sample
def test_signed_sample_is_accepted_whole(sample: str, delivered: dict[str, Delivered]) -> None:
    report = delivered[sample].report
    with_artifact = [entry for entry in published(sample) if "uri" in entry.fields]
    assert (report["outcome"], report["entries"], report["fetched"]) == (
        "success",
        len(published(sample)),
        len(with_artifact),
    )


@every_sample
def test_delivered_sample_is_listed_slot_by_slot(sample: str, delivered: dict[str, Delivered]) -> None:
    listed = delivered[sample].daemon.client.get("/v1/list", shadowed=True)["slots"]
    assert {entry.slot for entry in published(sample)} - {(row["domain"], row["key"]) for row in listed} == set()


@every_entry
def test_delivered_entry_is_explained_with_its_source_and_all_that_it_lacks_here(
    entry: Entry, delivered: dict[str, Delivered]
) -> None:
    answer = delivered[entry.sample].daemon.client.get("/v1/explain", domain=entry.slot.domain, key=entry.slot.key)
    (placing,) = [placing for placing in answer["placings"] if placing["source"] == "remote"]
    lacking = unmet(entry)
    assert placing["provider"] == entry.fields["provider"]
    assert (placing["verdict"] == "rejected", [words for words in lacking if words not in answer["text"]]) == (
        bool(lacking),
        [],
    )


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "uri" in entry.fields], ids=str)
def test_artifact_of_a_delivered_entry_is_in_the_cache_and_right(entry: Entry, delivered: dict[str, Delivered]) -> None:
    answer = delivered[entry.sample].daemon.cli("cache", "verify", "--json")
    (row,) = json.loads(answer.stdout)["artifacts"]
    assert (answer.returncode, row["verdict"]) == (0, "right")
    assert row["name"].endswith(f"-{entry.fields['key']}-1.0-py3-none-any.whl")


# As they are


@every_sample
def test_sample_as_it_is_published_is_refused_by_the_command(sample: str, tmp_path: Path) -> None:
    shutil.copy(SAMPLES / NAMES[sample], tmp_path / "manifest.yaml")
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "app.yml").write_text(f"remote: {{public_key: {public_key(SIGNER)}}}\n")
    answer = oneiric(tmp_path, "remote-sync", "--manifest", "manifest.yaml")
    assert (answer.returncode, answer.stdout) == (5, "")
    assert f"error[trust]: {REFUSED[sample]}{tmp_path / 'manifest.yaml'}: " in answer.stderr
    assert not (tmp_path / ".oneiric_cache" / "manifest.yaml").exists()

"""``docs/how-to/migrate-from-the-published-format.md``: typed on a manifest that the other project publishes."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml

from examples.publisher.press import new_key, public_key
from oneiric.cli.main import cli, main
from oneiric.core.config import FILES
from oneiric.core.manifest import canonical_bytes
from tests.examples.samples import NAMES, SAMPLES
from tests.harness.daemon import running
from tests.harness.markdown import read
from tests.harness.walk import Walk

PAGE = read(Path(__file__).parents[2] / "docs" / "how-to" / "migrate-from-the-published-format.md")
STEPS = (
    "Sign it",
    "See which entries would be refused",
    "Allow what is installed",
    "Publish the code with the manifest",
    "Settings",
)
WITH_DAEMON = "acme daemon"
SIGNER = new_key()


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the page, when all of it has been done."""
    place = tmp_path_factory.mktemp("acme")
    shutil.copy(SAMPLES / NAMES["v1"], place / "published.yaml")
    walk = Walk(PAGE, {"acme": place, WITH_DAEMON: place}, names={"/srv/acme": str(place)})
    for heading in STEPS:
        for block in walk.section(heading):
            with running(place) if block.use == WITH_DAEMON else nullcontext():
                walk.do(block)
    return place


def test_published_manifest_is_taken_over_as_the_page_says(acme: Path) -> None:
    document = json.loads((acme / "manifest.json").read_bytes())
    assert (document["manifest_version"], len(document["entries"])) == (2, 1)


def test_digest_on_the_page_is_that_of_the_code_on_the_page() -> None:
    (code,) = (block for block in PAGE.blocks if block.use == "acme/acme_cache.py")
    (entry,) = (block for block in PAGE.blocks if block.use == "acme/manifest.yaml")
    said = yaml.safe_load(entry.text)["entries"][0]
    assert (said["sha256"], said["length"]) == (hashlib.sha256(code.text.encode()).hexdigest(), len(code.text))


def test_every_block_is_used() -> None:
    walk = Walk(PAGE, {})
    assert [block for heading in STEPS for block in walk.section(heading)] == list(PAGE.blocks)


# What else may be refused


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a daemon that trusts our key."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "app.yml").write_text(f"remote: {{public_key: {public_key(SIGNER)}}}\n")
    return tmp_path


def sample() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((SAMPLES / NAMES["v2"]).read_text())
    return document


def first(**changed: Any) -> dict[str, Any]:
    """Return the sample with its first entry changed and no other; what is None there is left out."""
    document = sample()
    entry = {name: value for name, value in {**document["entries"][0], **changed}.items() if value is not None}
    return {"source": document["source"], "entries": [entry]}


def signed(document: dict[str, Any]) -> str:
    """Return *document* signed whatever it says: some mistakes keep our own signing from it."""
    return json.dumps({**document, "signatures": [SIGNER.signature(canonical_bytes(document))]})


def signed_before_it_was_dated() -> str:
    """Return the sample as the other project's command signs it."""
    document = {name: value for name, value in sample().items() if not name.startswith("signature")}
    dates = {"signed_at": "2026-01-01T00:00:00Z", "expires_at": "2999-01-01T00:00:00Z"}
    return json.dumps({**json.loads(signed(document)), **dates})


REFUSED = {
    "signature 1 is not the base64 of 64 bytes": lambda: (SAMPLES / NAMES["v2"]).read_text(),
    "the signature does not cover expires_at and signed_at: they were added after signing": signed_before_it_was_dated,
    "entries[0].sha256: is missing, and there is a uri": lambda: signed(first(sha256=None)),
    "digest: ... SHA-256 is ...": lambda: signed(first(uri="beside.py")),
    "entries[0].uri leads to ...": lambda: signed(first()),
    "entries[0].version: expected text, found a decimal number": lambda: signed(
        first(uri=None, sha256=None, version=1.0)
    ),
    "entries[0].key: 'Cache' is not a name": lambda: signed(first(uri=None, sha256=None, key="Cache")),
    "anchors are not supported": lambda: "source: acme\nowner: &owner me\nentries: []\n",
    "duplicate key": lambda: "source: acme\nsource: acme\nentries: []\n",
}


def rows(start: str) -> list[list[str]]:
    """Return the rows of the table whose head begins with *start*, cell by cell."""
    lines = PAGE.prose.splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith(start)) + 2
    end = next(at for at in range(begin, len(lines)) if not lines[at].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end]]


def code(cell: str) -> list[str]:
    return cell.split("`")[1::2]


def test_table_of_refusals_is_the_one_that_is_tried() -> None:
    assert [words for cell, _ in rows("| it says |") for words in code(cell)] == list(REFUSED)


@pytest.mark.parametrize("words", REFUSED)
def test_refusal_is_in_these_words(place: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    (place / "beside.py").write_text("")
    (place / "manifest.yaml").write_text(REFUSED[words]())
    with pytest.raises(SystemExit) as ended:
        main(["remote-sync", "--dry-run", "--manifest", "manifest.yaml"])
    said = capsys.readouterr().err
    pattern = ".*".join(re.escape(part) for part in words.split("..."))
    assert (ended.value.code in (1, 5), bool(re.search(pattern, said))) == (True, True), said


# What is named exists


def settings_here() -> Iterator[str]:
    """Yield every name of a setting: of app.yml with its section, of a domain's file as it is."""
    for file, kind in FILES.items():
        for name, value in msgspec.structs.asdict(kind()).items():
            yield name
            if file == "app.yml" and isinstance(value, msgspec.Struct):
                yield from (f"{name}.{inner}" for inner in value.__struct_fields__)


def test_settings_named_for_this_project_exist() -> None:
    here = [words for _, cell in rows("| there | here |") for words in code(cell)]
    named = {words.partition(":")[0] for words in here if re.fullmatch(r"[a-z_]+(\.[a-z_]+)?(: \w+)?", words)}
    named = {name for name in named if not name.endswith(".yml")}
    assert len(named) > 12
    assert named - set(settings_here()) == set()


def commands_here() -> list[list[str]]:
    lines = PAGE.prose[PAGE.prose.index("## Commands") :].splitlines()
    return [shlex.split(words)[1:] for line in lines for words in code(line) if words.startswith("oneiric ")]


def test_commands_named_for_this_project_exist_with_their_options() -> None:
    for command in commands_here():
        known: click.Command = cli
        for word in command:
            if isinstance(known, click.Group):
                known = known.commands[word] if word in known.commands else lazily(known, word)
            elif word.startswith("-"):
                assert any(word in option.opts for option in known.params), f"{command}: {word}"
    assert len(commands_here()) > 15


def lazily(group: click.Group, word: str) -> click.Command:
    found = group.get_command(click.Context(group), word)
    assert found is not None, word
    return found


def test_names_of_the_probe_and_of_the_cleanup_are_those_that_are_called() -> None:
    from oneiric.lifecycle import factory

    (cleanup,) = (row[2] for row in rows("| | there | here |") if row[0] == "names of the cleanup")
    assert tuple(code(cleanup)) == factory._CLOSERS

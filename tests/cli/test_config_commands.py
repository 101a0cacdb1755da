"""``oneiric config``: check, show and schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from oneiric.core.config import FILES
from tests.cli.conftest import Typing
from tests.harness.daemon import ADAPTERS, Daemon, oneiric, project, running

WORD = "hunter2hunter2"
SECRETIVE = (
    ADAPTERS
    + f"""
provider_settings:
  redis: {{url: "redis://user:{WORD}@host:6379/0", password: "${{env:CACHE_PASSWORD}}"}}
  memory: {{label: "{WORD[::-1]}"}}
"""
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is the working directory."""
    directory = project(tmp_path / "p")
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = project(tmp_path_factory.mktemp("config") / "p", adapters=SECRETIVE)
    with running(directory, environ={"CACHE_PASSWORD": WORD}) as daemon:
        yield daemon


def rows(document: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    return {row["path"]: (row["value"], row["origin"]) for row in document["settings"]}


def test_valid_settings_are_called_valid(place: Path, typed: Typing) -> None:
    assert typed("config", "check") == (0, "settings: valid (adapters.yml)\n", "")


def test_missing_settings_are_valid(place: Path, typed: Typing) -> None:
    answer = typed("config", "check", "--settings", "nowhere")
    assert (answer.code, answer.out) == (0, "nowhere: valid (no file, so the defaults hold)\n")


def test_check_in_json_names_the_files_it_read(place: Path, typed: Typing) -> None:
    document = typed("config", "check", "--json").document
    assert document == {
        "schema": "oneiric.config-check/1",
        "valid": True,
        "settings": "settings",
        "files": ["adapters.yml"],
    }


def test_check_lists_every_mistake_with_its_place(place: Path, typed: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "settings" / "app.yml").write_text("lifecycle: {drain_timeout: soon}\nwatch: {debonce: 1}\n")
    (place / "settings" / "tasks.yml").write_text("selections: {a: b\n")
    monkeypatch.setenv("ONEIRIC_STACK_ORDER", "myapp")
    answer = typed("config", "check")
    *problems, hint = answer.err.splitlines()
    assert (answer.code, answer.out) == (4, "")
    assert hint == (
        "try: correct what is named, then check again; until then a running daemon keeps its last good settings"
    )
    places = [problem.removeprefix("error[config]: ").partition(": ")[0] for problem in problems]
    assert places == ["settings/app.yml:1:28", "settings/app.yml:2:9", "settings/tasks.yml:2:1", "ONEIRIC_STACK_ORDER"]


def test_check_names_a_public_key_that_cannot_be_read(place: Path, typed: Typing) -> None:
    (place / "settings" / "app.yml").write_text("remote: {public_key: keys/release.pub}\n")
    answer = typed("config", "check")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("error[config]: remote.public_key: 'keys/release.pub' is no file, ")


def test_failed_check_in_json_is_a_document_too(place: Path, typed: Typing) -> None:
    (place / "settings" / "app.yml").write_text("api: {http: 12}\n")
    error = typed("config", "check", "--json").document["error"]
    assert (error["code"], error["exit_code"]) == ("config", 4)
    assert error["message"].startswith("settings/app.yml:1:13: api.http: ")


def test_show_says_what_is_in_force(place: Path, typed: Typing) -> None:
    (place / "settings" / "app.yml").write_text("watch: {debounce: 2}\n")
    answer = typed("config", "show", "--json")
    found = rows(answer.document)
    assert (answer.code, answer.document["schema"], answer.document["live"]) == (0, "oneiric.config-show/1", False)
    assert found["watch.debounce"] == (2.0, "settings/app.yml:1:9")
    assert found["lifecycle.drain_timeout"] == (30.0, "default")


def test_show_names_where_each_was_set(place: Path, typed: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEIRIC_LOGGING__LEVEL", "debug")
    lines = [line.split() for line in typed("config", "show", "--origin", "--socket", "s.sock").out.splitlines()]
    assert lines[0] == ["SETTING", "FROM", "VALUE"]
    assert ["logging.level", "ONEIRIC_LOGGING__LEVEL", "debug"] in lines
    assert ["api.socket", "--socket", "s.sock"] in lines
    assert ["adapters.selections.cache", "settings/adapters.yml:2:14", "memory"] in lines


def test_show_without_origin_has_two_columns(place: Path, typed: Typing) -> None:
    lines = [line.split() for line in typed("config", "show").out.splitlines()]
    assert (lines[0], ["watch.debounce", "0.5"] in lines) == (["SETTING", "VALUE"], True)


@pytest.mark.parametrize("arguments", [(), ("--origin",), ("--json",)], ids=["plain", "origin", "json"])
@pytest.mark.parametrize("live", [True, False], ids=["live", "from disk"])
def test_show_masks_secrets(daemon: Daemon, tmp_path: Path, live: bool, arguments: tuple[str, ...]) -> None:
    directory = daemon.directory if live else project(tmp_path / "p", adapters=SECRETIVE)
    answer = oneiric(directory, "config", "show", *arguments, environ={"CACHE_PASSWORD": WORD})
    assert (answer.returncode, "no daemon runs" in answer.stderr) == (0, not live)
    assert "***" in answer.stdout
    assert "redis://***@host:6379/0" in answer.stdout
    assert WORD not in answer.stdout + answer.stderr


def test_show_asks_the_daemon_that_runs(daemon: Daemon) -> None:
    document = json.loads(oneiric(daemon.directory, "config", "show", "--json").stdout)
    assert (document["live"], rows(document)["api.http"]) == (True, ("127.0.0.1:0", "--http"))


@pytest.mark.parametrize("file", [None, *FILES])
def test_schema_is_a_json_schema(place: Path, typed: Typing, file: str | None) -> None:
    answer = typed("config", "schema", *([] if file is None else [file]))
    assert (answer.code, answer.err) == (0, "")
    Draft202012Validator.check_schema(answer.document)


def test_schema_accepts_good_settings_and_refuses_a_misspelt_key(place: Path, typed: Typing) -> None:
    schema = Draft202012Validator(typed("config", "schema", "adapters.yml").document)
    good = yaml.safe_load((place / "settings" / "adapters.yml").read_text())
    assert schema.is_valid(good)
    assert not schema.is_valid({**good, "selektions": {}})


def test_schema_in_json_is_wrapped_in_a_document(place: Path, typed: Typing) -> None:
    answer = typed("config", "schema", "app.yml", "--json").document
    assert (answer["schema"], answer["json_schema"]["title"]) == ("oneiric.config-schema/1", "settings/app.yml")


def test_schema_of_an_unknown_file_says_which_there_are(place: Path, typed: Typing) -> None:
    answer = typed("config", "schema", "adapter.yml")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"error[usage]: there is no settings file 'adapter.yml'\ntry: use one of: {', '.join(FILES)}\n"
    )

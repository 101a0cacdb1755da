"""Is it documented? Whatever the product has, the reference has an entry of it, with words; and its examples run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import jsonschema
import msgspec
import pytest

import oneiric
from oneiric import testing
from oneiric.api.routes import ROUTES
from oneiric.cli.main import EXIT_CODES, main
from oneiric.config.loader import load
from oneiric.config.show import json_schema as settings_schema
from oneiric.core.config import FILES, AppSettings, CandidateSettings, DomainSettings, SlotSettings
from oneiric.core.entry import FIELDS
from oneiric.core.keys import parse_key
from oneiric.core.manifest import canonical_bytes
from oneiric.core.manifest_schema import json_schema
from oneiric.core.trust import TrustPolicy, verify_manifest
from oneiric.monitoring.alerts import alerts
from oneiric.monitoring.profiles import PROD
from oneiric.observability.catalog import EVENTS, METRICS
from oneiric.runtime import vitals
from scripts.reference import manifest
from scripts.reference.cli import ASKED, NEEDED, Typed, commands, daemon_of, global_options
from scripts.reference.errors import every_error
from scripts.reference.pages import CONTENTS, DIRECTORY, pages
from scripts.reference.pages import main as write
from scripts.reference.settings import holds_from
from tests.harness.daemon import Daemon, project, running
from tests.harness.daemon import oneiric as type_command
from tests.harness.markdown import Page, read

ROOT = Path(__file__).parents[2]
PACKAGE = Path(oneiric.__file__).parent
WRITTEN = pages()
LEAVES = [one for one in commands() if not isinstance(one.command, click.Group)]


@cache
def page(name: str) -> Page:
    """Return a page of the reference as it is in the repository."""
    return read(ROOT / DIRECTORY / name)


@cache
def sections(name: str) -> dict[str, str]:
    """Return what stands below each heading of a page, up to the next one."""
    parts = re.split(r"^#+ (.+)$", page(name).prose, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of the tables in *text*, by the code in their first cell."""
    cells = [re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {name: row[1:] for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def first(text: str) -> str:
    """Return the first paragraph of *text*."""
    return text.strip().partition("\n\n")[0].partition(" Answers with")[0]


def is_told(words: str, name: str) -> bool:
    """Say whether *words* say more than *name* does."""
    told = re.sub(r"[^a-z ]", " ", words.replace(name, "").lower()).split()
    return len(told) > 1 and told != re.split(r"[^a-z]+", name.lower())


def paths(kind: type[msgspec.Struct], before: str = "") -> Iterator[str]:
    """Yield the dotted path of each setting in *kind*."""
    for field in msgspec.structs.fields(kind):
        if isinstance(field.default, msgspec.Struct):
            yield from paths(type(field.default), f"{before}{field.name}.")
        else:
            yield f"{before}{field.name}"


SETTINGS = [
    *paths(AppSettings),
    *paths(DomainSettings),
    *paths(CandidateSettings, "candidates[]."),
    *paths(SlotSettings, "slots.KEY."),
]


# The pages


@pytest.mark.parametrize("name", WRITTEN)
def test_page_in_the_repository_is_current(name: str) -> None:
    assert (ROOT / DIRECTORY / name).read_text() == WRITTEN[name], "run: make reference"


def test_program_writes_the_pages(tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).mkdir(parents=True)
    write(tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / DIRECTORY).iterdir()} == WRITTEN


def test_index_has_every_page_with_words() -> None:
    found = re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| (.+) \|$", page("index.md").prose, re.MULTILINE)
    assert {name for name, words in found if is_told(words, name)} == set(CONTENTS)
    assert {path.name for path in (ROOT / DIRECTORY).iterdir()} == {*CONTENTS, "index.md"}


# Commands


@pytest.mark.parametrize("one", list(commands()), ids=lambda one: one.name)
def test_command_has_a_section_with_words(one: Typed) -> None:
    assert is_told(first(sections("cli.md")[one.name]), one.name)


@pytest.mark.parametrize("one", LEAVES, ids=lambda one: one.name)
def test_command_has_its_usage(one: Typed) -> None:
    used = [block.text for block in page("cli.md").blocks if block.text.startswith(f"{one.name} [OPTIONS]")]
    assert len(used) == 1


@pytest.mark.parametrize("one", LEAVES, ids=lambda one: one.name)
def test_option_has_a_row_with_words(one: Typed) -> None:
    text = sections("cli.md")
    found = {**rows(text["Global options"]), **rows(text[one.name])}
    wanted = [name for option in one.command.params if isinstance(option, click.Option) for name in option.opts]
    assert [name for name in wanted if not is_told(found.get(name, [""])[-1], name)] == []


@pytest.mark.parametrize("one", LEAVES, ids=lambda one: one.name)
def test_argument_has_a_row_with_words(one: Typed) -> None:
    found = rows(sections("cli.md")[one.name].replace("\\|", "/"))
    arguments = [one for one in one.command.params if isinstance(one, click.Argument)]
    told = [name for name, cells in found.items() if cells[0] in ("required", "optional") and is_told(cells[1], name)]
    assert len(told) == len(arguments)


def test_exit_code_has_a_row_with_words() -> None:
    found = dict(re.findall(r"^\| (\d+) \| (.+) \|$", sections("cli.md")["Exit codes"], re.MULTILINE))
    assert found == {str(code): words for code, words in EXIT_CODES.items()}
    assert [words for words in found.values() if not is_told(words, "")] == []


REQUIRED = {"support-bundle": ("-o", "bundle.tar.gz")}


@pytest.mark.parametrize(
    "one", [one for one in LEAVES if daemon_of(one.command) in (NEEDED, ASKED)], ids=lambda one: one.name
)
def test_command_that_needs_the_daemon_is_one_that_exits_3_without(
    one: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project(tmp_path))
    slot = any(option.required for option in one.own_options)
    more = ("--domain", "adapter", "cache") if slot else REQUIRED.get(" ".join(one.words), ())
    with pytest.raises(SystemExit) as ended:
        main([*one.words, *more])
    assert (ended.value.code == 3) == (daemon_of(one.command) == NEEDED)


def test_command_that_does_not_ask_the_daemon_names_no_client() -> None:
    apart = {one.words[0] for one in LEAVES if daemon_of(one.command) not in (NEEDED, ASKED)}
    assert apart == {"cache", "config", "manifest", "drill", "orchestrate", "completion"}


# Settings and variables of the environment


@pytest.mark.parametrize("path", SETTINGS)
def test_setting_has_a_row_with_words_and_a_value(path: str) -> None:
    says, value, *_ = rows(page("settings.md").prose)[path]
    assert (is_told(says, path.rpartition(".")[2]), bool(value)) == (True, True)


@pytest.mark.parametrize("path", SETTINGS)
def test_setting_is_described_for_editors(path: str) -> None:
    *_, name = path.split(".")
    found = [one["properties"][name] for one in settings_schema()["$defs"].values() if name in one["properties"]]
    assert [one for one in found if "$ref" not in one and not is_told(one["description"], name)] == []


@pytest.mark.parametrize(
    ("section", "name", "holds"),
    [
        ("api", "http", "at a restart"),
        ("", "state_dir", "at a restart"),
        ("watch", "enabled", "at a restart"),
        ("watch", "debounce", ""),
        ("lifecycle", "drain_timeout", ""),
        ("remote", "require_signature", "weaker at a restart"),
        ("remote", "public_keys", "weaker at a restart"),
        ("remote", "tuf_root", "at a restart"),
        ("remote", "manifest_url", ""),
    ],
)
def test_setting_says_when_a_change_holds(section: str, name: str, holds: str) -> None:
    assert holds_from(section, name) == holds


def test_examples_of_settings_are_loaded(tmp_path: Path) -> None:
    blocks = {block.use: block.text for block in page("settings.md").blocks if block.language == "yaml"}
    assert set(blocks) == {f"settings/{name}" for name in FILES}
    for name, text in blocks.items():
        (tmp_path / Path(name).name).write_text(text)
    settings = load(tmp_path, environ={})
    assert {origin.partition(":")[0] for origin in settings.origins.values()} == {str(tmp_path / n) for n in FILES}


@pytest.mark.parametrize("path", [f"{section}.{name}" for section in ("remote", "api") for name in ("allowed_hosts",)])
def test_variable_sets_what_its_row_says(path: str) -> None:
    variables = {cells[0].strip("`"): name for name, cells in rows(sections("settings.md")["Variables"]).items()}
    assert load(Path("nowhere"), environ={variables[path]: "[]"}).origins[path] == variables[path]


def test_every_setting_of_a_file_has_a_variable() -> None:
    found = {cells[0].strip("`") for cells in rows(sections("settings.md")["Variables"]).values()}
    plain = {f"{file.removesuffix('.yml')}.{name}" for file in FILES for name in paths(DomainSettings)}
    assert found == {*paths(AppSettings), *(path for path in plain if not path.startswith("app."))}


def variables_read() -> tuple[set[str], set[str]]:
    """Return the variables of the environment that the package reads, and the modules that read others."""
    found, others = set(), set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            name = asked_of_environment(node)
            if isinstance(name, ast.Constant):
                found.add(str(name.value))
            elif isinstance(name, ast.Name) and isinstance(getattr(import_module(module), name.id, None), str):
                found.add(getattr(import_module(module), name.id))
            elif name is not None:
                others.add(module)
    return found, others


def asked_of_environment(node: ast.AST) -> ast.expr | None:
    """Return what *node* asks the environment for, if that is what it does."""
    if isinstance(node, ast.keyword) and node.arg == "complete_var":
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        holder, name = node.func.value, node.args[0]
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        holder, name = node.value, node.slice
    else:
        return None
    return name if ast.unparse(holder).endswith("environ") else None


def test_variable_that_is_read_has_a_row_with_words() -> None:
    read_, others = variables_read()
    assert others == {f"oneiric.{name}" for name in ("config.environment", "config.secrets", "runtime.vitals")}
    told = {**rows(sections("cli.md")["Environment"]), **rows(sections("settings.md")["Variables"])}
    wanted = read_ | set(vitals._PROXIES)
    assert {"PORT", "NO_COLOR", "NOTIFY_SOCKET"} <= wanted
    assert [name for name in wanted if name not in told or not told[name][0].strip()] == []


# Events, metrics, alerts, errors, routes, names


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("events.md", list(EVENTS)),
        ("metrics.md", list(METRICS)),
        ("alerts.md", [one.name + (f" ({dict(one.labels)['long']})" if one.labels else "") for one in alerts(PROD)]),
        ("errors.md", [kind.__name__ for kind in every_error()]),
        ("api.md", [f"{route.method} {route.path}" for route in ROUTES]),
        ("python.md", [*oneiric.__all__]),
    ],
    ids=["events", "metrics", "alerts", "errors", "routes", "names"],
)
def test_thing_has_a_section_with_words(name: str, wanted: list[str]) -> None:
    found = sections(name)
    assert [one for one in wanted if not is_told(first(found.get(one, "")), one)] == []


def test_error_has_its_codes() -> None:
    found = sections("errors.md")
    for kind in every_error():
        facts = f"Code `{kind.code}`, exit code {kind.exit_code}, HTTP status {kind.http_status}."
        assert facts in " ".join(found[kind.__name__].split())


def test_error_of_the_package_is_on_the_page() -> None:
    names = {kind.__name__ for kind in every_error()}
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert {name for name, above in bases.items() if above & names} | {"OneiricError"} == names


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_field_of_a_request_has_a_row_with_words(route: Any) -> None:
    found = rows(sections("api.md")[f"{route.method} {route.path}"])
    wanted = [field.name for kind in (route.query, route.body) if kind for field in msgspec.structs.fields(kind)]
    assert [name for name in wanted if not is_told(found[name][-1], name)] == []


@pytest.mark.parametrize("module", [oneiric, testing], ids=["oneiric", "oneiric.testing"])
def test_exported_name_has_a_row_with_words(module: ModuleType) -> None:
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    wanted = getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]
    found = rows(sections("python.md")[module.__name__])
    assert [name for name in wanted if not is_told(found.get(name, [""])[0], name)] == []


# Manifests


@pytest.mark.parametrize("name", [*json_schema()["properties"], *sorted(FIELDS)])
def test_field_of_a_manifest_has_a_row_with_words(name: str) -> None:
    cells = rows(sections("manifest.md")["Fields"] + sections("manifest.md")["Fields of an entry"])[name]
    assert (is_told(cells[0], name), bool(cells[1]), is_told(cells[-1], name)) == (True, True, True)


def example_of(info: str) -> str:
    """Return the only block of the page of manifests that has the words *info*."""
    (block,) = (block for block in page("manifest.md").blocks if block.info == info)
    return block.text


def test_example_of_a_manifest_is_accepted() -> None:
    content = example_of("json manifest").encode()
    key = parse_key(manifest._signer().key.raw.hex())
    verified = verify_manifest(
        content, policy=TrustPolicy(keys=(key,)), floor=None, now=datetime(2026, 3, 2, tzinfo=UTC), url=manifest._URL
    )
    assert verified.key_ids == (json.loads(content)["signatures"][0]["key_id"],)


def test_example_of_a_manifest_is_one_by_its_schema() -> None:
    schema = json.loads((ROOT / DIRECTORY / "manifest.schema.json").read_text())
    jsonschema.validate(json.loads(example_of("json manifest")), schema, jsonschema.Draft202012Validator)


def test_signed_bytes_are_what_the_page_computes_and_shows() -> None:
    names: dict[str, Any] = {}
    exec(example_of("python signed"), names)
    document = json.loads(example_of("json manifest"))
    shown = example_of("json canonical").strip().encode()
    assert names["signed_bytes"](document) == canonical_bytes(document) == shown


# The control API, asked


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that nothing else asks."""
    with running(project(tmp_path_factory.mktemp("reference") / "p")) as started:
        yield started


def typed(line: str, daemon: Daemon) -> str:
    """Type a command of a page in the daemon's directory; return its answer."""
    ran = subprocess.run(
        ["sh", "-c", line.removeprefix("$ ").replace("127.0.0.1:9464", daemon.http)],
        cwd=daemon.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return ran.stdout


def test_examples_of_the_api_answer_with_their_documents(daemon: Daemon) -> None:
    blocks = [block.text for block in page("api.md").blocks if "http://oneiric/v1/" in block.text]
    answers = {re.findall(r"/v1/[\w/]+", text)[0]: json.loads(typed(text, daemon))["schema"] for text in blocks}
    assert answers.pop("/v1/remote/sync") == "oneiric.error/1"  # this daemon has no manifest
    wanted = {route.path: msgspec.structs.fields(route.answer)[0].default for route in ROUTES}
    wanted |= {f"/v1/{verb}": f"oneiric.{verb}/1" for verb in ("pause", "resume", "drain")}
    del wanted["/v1/remote/sync"]
    assert answers == wanted


def test_description_that_a_daemon_serves_is_the_one_of_the_reference(daemon: Daemon) -> None:
    (line,) = (block.text for block in page("api.md").blocks if block.text.endswith("/openapi.json\n"))
    assert json.loads(typed(line, daemon)) == json.loads((ROOT / DIRECTORY / "openapi.json").read_text())


def test_examples_over_tcp_answer(daemon: Daemon) -> None:
    (block,) = (block for block in page("api.md").blocks if "9464" in block.text)
    health, ready, metrics = (typed(line, daemon) for line in block.statements)
    assert (health, ready, "oneiric_build_info" in metrics) == ("ok\n", "ready\n", True)


def test_commands_of_the_settings_page_succeed(tmp_path: Path) -> None:
    (block,) = (block for block in page("settings.md").blocks if block.language == "console")
    place = project(tmp_path)
    codes = [type_command(place, *line.split()[2:]).returncode for line in block.statements]
    assert codes == [0, 0, 0]


def test_global_options_are_those_of_the_product() -> None:
    found = rows(sections("cli.md")["Global options"])
    assert set(found) == {name for option in global_options() for name in option.opts}

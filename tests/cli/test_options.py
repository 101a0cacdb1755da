"""What every command accepts, and what it says to what it does not accept."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from oneiric.api.schemas import SlotBody
from oneiric.cli.change import NOTE_LENGTH
from oneiric.cli.main import COMMANDS, cli
from oneiric.cli.options import DOMAIN_NAMES, NAME
from oneiric.core.candidate import is_name
from oneiric.core.domain import DOMAINS
from tests.cli.conftest import Typing
from tests.harness.daemon import Daemon, oneiric

GREEN_READY = "\x1b[32mready\x1b[0m"


@pytest.fixture
def here(quiet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project without a daemon."""
    monkeypatch.chdir(quiet)
    return quiet


def paths(group: click.Group = cli, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Iterate over every command, groups included, as it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*before, name)
        if isinstance(command, click.Group):
            yield from paths(command, (*before, name))


@pytest.mark.parametrize("arguments", [("--json", "list"), ("list", "--json"), ("--json", "list", "--json")])
def test_json_is_accepted_before_and_after_the_command(here: Path, typed: Typing, arguments: tuple[str, ...]) -> None:
    answer = typed(*arguments)
    assert (answer.code, answer.document["schema"]) == (0, "oneiric.list/1")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("list", "list"),
        ("explain cache --domain adapter", "explain"),
        ("status", "status"),
        ("health", "health"),
        ("plugins", "plugins"),
        ("config check", "config-check"),
        ("config show", "config-show"),
        ("config schema", "config-schema"),
        ("completion bash", "completion"),
        ("swap cache --domain adapter", "error"),
    ],
)
def test_json_is_one_object_that_names_its_schema(here: Path, typed: Typing, line: str, name: str) -> None:
    assert typed(*line.split(), "--json").document["schema"] == f"oneiric.{name}/1"


@pytest.mark.parametrize(
    "arguments", [("--socket", "away.sock", "swap"), ("swap", "--socket", "away.sock")], ids=["before", "after"]
)
def test_socket_is_accepted_before_and_after_the_command(here: Path, typed: Typing, arguments: tuple[str, ...]) -> None:
    answer = typed(*arguments, "--domain", "adapter", "--key", "cache")
    assert answer.err.startswith("error[no-daemon]: the daemon at away.sock does not run")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_settings_are_accepted_before_and_after_the_command(
    here: Path, typed: Typing, tmp_path: Path, after: bool
) -> None:
    (tmp_path / "app.yml").write_text("plugins: {enabled: false}\n")
    option = ("--settings", str(tmp_path))
    answer = typed("list", *option) if after else typed(*option, "list")
    assert answer.out == "no candidate is registered; see: oneiric plugins\n"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_cache_dir_is_accepted_before_and_after_the_command(here: Path, typed: Typing, after: bool) -> None:
    option = ("--cache-dir", "elsewhere")
    answer = typed("config", "show", "--origin", *option) if after else typed(*option, "config", "show", "--origin")
    assert re.search(r"^cache_dir +--cache-dir +elsewhere$", answer.out, re.MULTILINE)


@pytest.mark.parametrize("arguments", [("config", "--json", "check"), ("config", "check", "--json")])
def test_options_are_accepted_between_a_group_and_its_command(
    here: Path, typed: Typing, arguments: tuple[str, ...]
) -> None:
    assert typed(*arguments).document["schema"] == "oneiric.config-check/1"


def test_verbose_says_whom_it_asks(here: Path, typed: Typing) -> None:
    assert typed("list", "-v").err.startswith("asking .oneiric_state/oneiric.sock\n")


@pytest.mark.parametrize("arguments", [("cache",), ("--key", "cache"), ("cache", "--key", "cache")])
def test_key_is_an_argument_or_an_option(here: Path, typed: Typing, arguments: tuple[str, ...]) -> None:
    answer = typed("explain", "--domain", "adapter", *arguments)
    assert (answer.code, answer.out.splitlines()[0]) == (0, "adapter/cache: memory (active)")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("explain", "cache", "--key", "kv", "--domain", "adapter"), "KEY is given twice: 'cache' and --key 'kv'"),
        (("explain", "--domain", "adapter"), "KEY is missing"),
        (("explain", "cache"), "Missing option '--domain'"),
        (("explain", "cache", "--domain", "adaptor"), "'adaptor' is not one of 'adapter', 'service'"),
        (("status", "--domain", "adapter", "--key", "Bad/Key"), "'Bad/Key' cannot be a name"),
        (("status", "a..b", "--domain", "adapter"), "'a..b' cannot be a name"),
        (("swap", "cache", "--domain", "adapter", "--provider", "../x"), "'../x' cannot be a name"),
        (("pause", "cache", "--domain", "adapter", "--note", "x" * 501), "501 characters, 500 are the most"),
        (("list", "cache"), "unexpected extra argument (cache)"),
        (("list", "--jsn"), "No such option '--jsn'"),
        (("sttus",), "there is no command 'sttus'; did you mean status?"),
        (("frobnicate",), "there is no command 'frobnicate'; one of: list, explain"),
        (("watch", "paus"), "there is no command 'paus'; did you mean pause?"),
        (("config", "x"), "there is no command 'x'; one of: check, schema, show"),
        ((), "Missing command"),
        (("watch",), "Missing command"),
        (("completion", "tcsh"), "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_usage_error_is_one_line_and_where_to_read_more(
    here: Path, typed: Typing, arguments: tuple[str, ...], says: str
) -> None:
    answer = typed(*arguments)
    first, second = answer.err.splitlines()
    assert (answer.code, answer.out) == (2, "")
    assert first.startswith("error[usage]: ")
    assert says in first
    assert re.fullmatch(r"try: oneiric( \w+)? --help", second)


@pytest.mark.parametrize("name", sorted({path[0] for path in paths() if len(path) > 1}))
def test_group_says_which_command_was_meant(here: Path, typed: Typing, name: str) -> None:
    assert typed(name).err == f"error[usage]: Missing command.\ntry: oneiric {name} --help\n"
    assert "there is no command 'x'; one of: " in typed(name, "x").err


def test_usage_error_in_json_is_a_document_too(here: Path, typed: Typing) -> None:
    answer = typed("sttus", "--json")
    assert (answer.code, answer.document["error"]["code"], answer.err[:14]) == (2, "usage", "error[usage]: ")


@pytest.mark.parametrize("arguments", [("--version",), ("list", "--version")])
def test_version_is_printed(typed: Typing, arguments: tuple[str, ...]) -> None:
    answer = typed(*arguments)
    assert (answer.code, re.fullmatch(r"oneiric \d+\.\d+\.\d+\n", answer.out) is not None) == (0, True)


def test_short_help_is_the_long_one(typed: Typing) -> None:
    assert typed("-h").out == typed("--help").out


def test_help_lists_every_command(typed: Typing) -> None:
    listed = [line.split()[0] for line in typed("--help").out.partition("Commands:")[2].splitlines() if line]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("path", list(paths()), ids=" ".join)
def test_help_of_a_command_describes_it_and_each_option(typed: Typing, path: tuple[str, ...]) -> None:
    answer = typed(*path, "--help")
    usage, _, rest = answer.out.partition("\n")
    assert (answer.code, usage.startswith(f"Usage: oneiric {' '.join(path)} ")) == (0, True)
    assert rest.strip().partition("Options:")[0].strip()
    undescribed = [line for line in rest.splitlines() if re.fullmatch(r"  -[^ ]+( [A-Z:]+)?", line)]
    assert undescribed == []


def test_domain_names_are_those_of_the_core() -> None:
    assert tuple(DOMAINS) == DOMAIN_NAMES


@pytest.mark.parametrize(
    "text", ["cache", "a", "0.x_y-z", "a" * 128, "a" * 129, "", "A", "-a", "a..b", "a/b", "ä", "a\n", "a.", "٣"]
)
def test_names_are_those_of_the_core(text: str) -> None:
    assert (re.fullmatch(NAME, text, re.ASCII) is not None) == is_name(text)


def test_note_length_is_what_the_api_takes() -> None:
    note = msgspec.json.schema(SlotBody)["$defs"]["SlotBody"]["properties"]["note"]
    assert note["maxLength"] == NOTE_LENGTH


def on_a_terminal(daemon: Daemon, *arguments: str, **environ: str) -> str:
    """Return what a command shows on a terminal."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "wb", buffering=0) as terminal:
        plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        subprocess.run(
            [sys.executable, "-m", "oneiric.cli", *arguments],
            cwd=daemon.directory,
            env={**plain, **environ},
            stdout=terminal,
            check=True,
        )
        return screen.read(65536).decode()


def test_state_is_coloured_on_a_terminal(shared: Daemon) -> None:
    assert GREEN_READY in on_a_terminal(shared, "list")


def test_no_color_option_is_obeyed(shared: Daemon) -> None:
    assert "\x1b" not in on_a_terminal(shared, "--no-color", "list")


def test_no_color_variable_is_obeyed(shared: Daemon) -> None:
    assert "\x1b" not in on_a_terminal(shared, "list", NO_COLOR="1")


def test_nothing_is_coloured_in_a_pipe(shared: Daemon) -> None:
    answer = oneiric(shared.directory, "list", environ={"NO_COLOR": ""})
    assert ("ready" in answer.stdout, "\x1b" in answer.stdout) == (True, False)


def test_json_is_never_coloured(shared: Daemon) -> None:
    assert "\x1b" not in on_a_terminal(shared, "list", "--json")

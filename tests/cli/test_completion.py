"""What a shell proposes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Typing
from tests.harness.daemon import Daemon, oneiric


def proposed(directory: Path, line: str, *, begun: str = "") -> list[str]:
    """Return what bash would propose for the word *begun* that follows *line*."""
    words = [*line.split(), begun]
    answer = oneiric(
        directory,
        environ={
            "_ONEIRIC_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    return [found.removeprefix("plain,") for found in answer.stdout.split()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_each_shell_is_printed(typed: Typing, shell: str) -> None:
    answer = typed("completion", shell)
    assert (answer.code, answer.err) == (0, "")
    assert f"_ONEIRIC_COMPLETE={shell}_complete" in answer.out


def test_script_in_json_is_the_same(typed: Typing) -> None:
    script = typed("completion", "fish").out
    assert typed("completion", "fish", "--json").document["script"] == script.removesuffix("\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_takes_its_script(typed: Typing) -> None:
    script = typed("completion", "bash").out
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "begun", "expected"),
    [
        ("oneiric status --domain adapter --key", "", ["cache", "kv", "status"]),
        ("oneiric explain --domain adapter", "k", ["kv"]),
        ("oneiric explain --domain service", "", ["status"]),
        (
            "oneiric swap --domain adapter --key cache --provider",
            "",
            ["blocking", "exploding", "lost", "memory", "redis", "sick"],
        ),
        ("oneiric swap cache --domain adapter --provider", "r", ["redis"]),
        ("oneiric swap kv --domain adapter --provider", "", ["sqlite"]),
        ("oneiric list --domain", "a", ["adapter", "action"]),
        ("oneiric watch", "", ["pause", "resume"]),
        ("oneiric", "st", ["status"]),
    ],
)
def test_proposals_are_what_the_daemon_has(shared: Daemon, line: str, begun: str, expected: list[str]) -> None:
    assert proposed(shared.directory, line, begun=begun) == expected


def test_proposals_come_from_the_socket_that_was_typed(shared: Daemon, quiet: Path) -> None:
    line = f"oneiric --verbose --socket {shared.client.path} explain --domain adapter"
    assert proposed(quiet, line, begun="c") == ["cache"]


@pytest.mark.parametrize(
    "line", ["oneiric status --domain adapter --key", "oneiric swap --domain adapter --key cache --provider"]
)
def test_nothing_is_proposed_without_a_daemon(quiet: Path, line: str) -> None:
    assert proposed(quiet, line) == []


def test_nothing_is_proposed_while_the_settings_are_broken(tmp_path: Path) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "app.yml").write_text("api: {socket: [\n")
    assert proposed(tmp_path, "oneiric status --domain adapter --key") == []


def test_completed_document_is_json(typed: Typing) -> None:
    assert json.loads(typed("completion", "zsh", "--json").out)["schema"] == "oneiric.completion/1"

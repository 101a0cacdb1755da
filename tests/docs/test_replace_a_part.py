"""The page for operators, typed from top to bottom at a daemon: what it quotes is what is printed."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.daemon import running
from tests.harness.markdown import read
from tests.harness.pages import Typed, answer, commands, unused, write

PAGE = read(Path(__file__).parents[2] / "docs" / "how-to" / "replace-a-part-safely.md")
NAMES = {"alice (uid 1000)": f"{pwd.getpwuid(os.getuid()).pw_name} (uid {os.getuid()})"}
WITHOUT_DAEMON = "error[no-daemon]"


class Answered(NamedTuple):
    """A command of the page, and its answer."""

    typed: Typed
    ran: subprocess.CompletedProcess[str]


class Followed(NamedTuple):
    """The page followed to its end: every answer, and the events that the daemon told."""

    answers: list[Answered]
    events: list[str]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """Follow the page. What it shows of a daemon that is not there is typed last."""
    place = tmp_path_factory.mktemp("replacing")
    first = next(at for at, block in enumerate(PAGE.blocks) if block.language == "console")
    for block in PAGE.blocks[:first]:
        write(block, place)
    later: list[Typed] = []
    answers: list[Answered] = []
    with running(place) as daemon:
        changes = 0
        for block in PAGE.blocks[first:]:
            if block.language != "console":
                write(block, place)
                changes += 1
                daemon.wait_event("config-changed", count=changes)
                continue
            for typed in commands(block):
                if WITHOUT_DAEMON in typed.quoted:
                    later.append(typed)
                else:
                    answers.append(Answered(typed, answer(typed, place, names=NAMES)))
        events = [event["event"] for event in daemon.events]
    answers += [Answered(typed, answer(typed, place, names=NAMES)) for typed in later]
    return Followed(answers, events)


def test_every_block_names_a_file_or_is_typed() -> None:
    assert unused(PAGE) == []


def test_commands_print_what_is_shown(followed: Followed) -> None:
    typed = [typed for block in PAGE.blocks if block.language == "console" for typed in commands(block)]
    assert sorted(one.typed.where for one in followed.answers) == sorted(one.where for one in typed)


def test_exit_code_is_1_for_the_answer_no_and_3_without_a_daemon(followed: Followed) -> None:
    plain = [(one, re.fullmatch(r"oneiric (\S+) [^|]*", one.typed.command)) for one in followed.answers]
    codes = Counter((found[1], one.ran.returncode) for one, found in plain if found is not None)
    assert {code: count for code, count in codes.items() if code[1]} == {
        ("swap", 1): 5,  # two that nobody offers, one of each kind of failure
        ("health", 1): 1,
        ("explain", 1): 1,
        ("drain", 1): 1,
        ("swap", 3): 1,
    }


def test_each_failure_is_told_as_an_event(followed: Followed) -> None:
    assert {"swap-rollback", "swap-failed", "instance-leaked", "candidate-quarantined", "swap-soaking"} <= set(
        followed.events
    )

"""What people, editors and mounts put in the place of a settings file: a problem with a place, never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oneiric.config.loader import load
from oneiric.config.reader import LIMIT_BYTES
from oneiric.core.candidate import NAME_RULE
from oneiric.core.config import FILES, DomainSettings
from oneiric.errors import ConfigError


def refusal(directory):
    with pytest.raises(ConfigError) as caught:
        load(directory, environ={})
    return caught.value.problems


KEY = {name: "lifecycle" if name == "app.yml" else "selections" for name in FILES}
LOOK = "look for a quote, bracket or colon that is missing, or a tab"
SMALLER = "settings are smaller than this"
SAVED = "text, saved as UTF-8"
QUOTED = "text, in quotes where YAML takes it for something else"
CONTENTS = {
    "malformed": (b"a: [\n", ":2:1", "not valid YAML", LOOK),
    "list": (b"- a\n", ":1:1", "expected a mapping, found a list", ""),
    "scalar": (b"\n\nhello\n", ":3:1", "expected a mapping, found text", ""),
    "binary": (bytes(range(256)), "", "is not UTF-8: byte 128 is 0x80", SAVED),
    "NUL": (b"a:\n b: \0", ":2:5", "holds the control character U+0000", "printable text"),
    "not UTF-8": ("a: größe".encode("latin-1"), "", "is not UTF-8: byte 5 is 0xf6", SAVED),
    "UTF-16": ("a: 1".encode("utf-16"), "", "is not UTF-8: byte 0", SAVED),
    "unknown key": (b"\nxKEY: {}\n", ":2:1", "unknown key 'xKEY'; did you mean 'KEY'?", "accepted: "),
    "duplicate key": (b"KEY: {}\n\nKEY: {}\n", ":3:1", "duplicate key 'KEY'", "it stands first at line 1:1"),
    "wrong type": (b"\nKEY: [1]\n", ":2:", "KEY: expected a mapping, found a list", ""),
    "two documents": (b"KEY: {}\n---\nKEY: {}\n", ":2:1", "a second document starts here", "one document"),
    "alias": (b"KEY: &a {}\nKEY2: *a\n", ":2:", "aliases are not supported", "quote text that begins with *"),
    "anchor": (b"KEY: &a {}\n", ":1:", "anchors are not supported", "quote text that begins with &"),
    "tag": (b"KEY: !!map {}\n", ":1:", "tags are not supported", "quote text that begins with !"),
    "merge key": (b"<<: {}\n", ":1:1", "merge keys (<<) are not supported", "write out what it would merge"),
    "number as a key": (b"5: {}\n", ":1:1", "the key is not text", QUOTED),
    "list as a key": (b"? [a]\n: b\n", ":1:3", "the key is not text", QUOTED),
    "tab": (b"KEY:\n\ta: 1\n", ":2:1", "not valid YAML", LOOK),
    "deep": (b"KEY: " + b"[" * 900, ":1:", "nested more than 32 levels deep", SMALLER),
    "wide": (b"KEY: [" + b"1," * 60_000 + b"]", ":1:", "more than 50,000 values", SMALLER),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("content", "place", "what", "remedy"), CONTENTS.values(), ids=CONTENTS)
def test_bad_content_is_named_with_its_place_and_a_remedy(directory, file, content, place, what, remedy):
    (directory / file).write_bytes(content.replace(b"KEY", KEY[file].encode()))

    found = refusal(directory)

    (problem,) = [problem for problem in found if problem.what.startswith(what.replace("KEY", KEY[file]))]
    assert problem.where.startswith(f"settings/{file}{place}")
    assert problem.accepted.startswith(remedy)


OFFER = "candidates: [{key: c, provider: p, factory: 'm:f', "
APP = [
    ("lifecycle: 5", "1:12: lifecycle: expected a mapping, found a number"),
    (
        "lifecycle:\n  drain_timeout: soon\n",
        "2:18: lifecycle.drain_timeout: expected seconds as a number, found text 'soon' (more than 0, at most 86400)",
    ),
    (
        "remote: {failure_threshold: 1.5}",
        "1:29: remote.failure_threshold: expected a whole number, found the number 1.5 (at least 1, at most 1000000)",
    ),
    ("watch: {debounce: -1}", "1:19: watch.debounce: expected seconds as a number, found the number -1 (more than 0,"),
    (
        "remote: {require_signature: flase}",
        "1:29: remote.require_signature: expected true or false, found text 'flase'",
    ),
    ("remote: {public_keys: abc}", "1:23: remote.public_keys: expected a list, found text (in [brackets], each text)"),
    (
        "remote: {public_keys: [a], signature_threshold: 2}",
        "1:28: signature_threshold 2 exceeds the number of keys, 1 (at most 1, or more in remote.public_keys)",
    ),
    (
        "logging: {level: warn}",
        "1:18: logging.level: expected one of debug, error, info, warning, found text 'warn' (did you mean 'warning'?)",
    ),
    ("cache_dir: 5", '1:12: cache_dir: expected text, found the number 5 (quote it: "5")'),
    ("cache_dir: ''", "1:12: cache_dir: is empty (a path)"),
    ("api: {http: '[::1'}", "1:13: api.http: '[::1' is not HOST:PORT (such as 127.0.0.1:9464 or [::1]:9464, a port"),
    ("api: {http: 'h:65536'}", "1:13: api.http: 'h:65536' is not HOST:PORT (such as"),
]
ADAPTERS = [
    ("selections: {cache: no}", '1:21: selections.cache: expected text, found the boolean no (quote it: "no")'),
    ("selections: {cache: }", "1:21: selections.cache: expected text, found nothing"),
    ("selections: {Cache: redis}", f"1:14: 'Cache' is not a name ({NAME_RULE})"),
    ("selections: {cache: Redis!}", f"1:21: selections.cache: 'Redis!' is not a name ({NAME_RULE})"),
    ("candidates: {}", "1:13: candidates: expected a list, found a mapping (in [brackets], each a mapping)"),
    ("candidates: [{key: c, provider: p}]", "1:14: candidates[0]: lacks the key 'factory' (text)"),
    (
        "candidates:\n- {key: c, provider: p, factory: m}",
        "2:34: candidates[0].factory: 'm' is not a factory's path (package.module:attribute)",
    ),
    (
        "candidates: [{key: c, provider: p, factory: 'm:f'},\n{key: c, provider: p, factory: 'm:g'}]",
        "2:1: candidates[1]: provider 'p' is offered for 'c' twice (first at settings/adapters.yml:1:14)",
    ),
    (f"{OFFER} version: one}}]", "1:62: candidates[0].version: 'one' is not a PEP 440 version (such as 1.2.0)"),
    (
        f"{OFFER} version: 1.10}}]",
        '1:62: candidates[0].version: expected text, found the number 1.10 (quote it: "1.10")',
    ),
    (
        f"{OFFER} version: 2024-01-31}}]",
        "1:62: candidates[0].version: expected text, found the date '2024-01-31' (quote it: \"2024-01-31\")",
    ),
    (
        f"{OFFER} python_version: three}}]",
        "1:69: candidates[0].python_version: 'three' is not a PEP 440 specifier (such as \">=3.12\")",
    ),
    (
        f"{OFFER} requires: ['redis=5']}}]",
        "1:64: candidates[0].requires[0]: 'redis=5' is not a PEP 508 requirement (such as \"redis>=5\")",
    ),
    (
        f"{OFFER} os_platform: [linus]}}]",
        "1:67: candidates[0].os_platform[0]: unknown platform 'linus'; did you mean 'linux'? (linux, darwin, windows)",
    ),
    (f"{OFFER} priority: high}}]", "1:63: candidates[0].priority: expected a whole number, found text 'high'"),
    ("capabilities: {c: [5]}", '1:20: capabilities.c[0]: expected text, found the number 5 (quote it: "5")'),
    ("provider_settings: {redis: 5}", "1:28: provider_settings.redis: expected a mapping, found a number"),
    (
        "provider_settings: {redis: {tls: yes}}",
        '1:34: provider_settings.redis.tls: yes may be a boolean or text (write true or "yes")',
    ),
    ("provider_settings: {a/b/c: {}}", f"1:21: 'a/b/c' is neither provider nor key/provider ({NAME_RULE})"),
]


@pytest.mark.parametrize(
    ("file", "text", "problem"), [("app", *row) for row in APP] + [("adapters", *row) for row in ADAPTERS]
)
def test_bad_value_is_named_with_its_place_and_a_remedy(problems, file, text, problem):
    (found,) = problems(**{file: text})

    assert str(found).startswith(f"settings/{file}.yml:{problem}")


HOSTILE = {
    "version": "1" * 10_000,
    "python_version": ">=" + "1" * 10_000,
    "requires": ["x; " + "(" * 9_000],
    "key": "k" * 10_000,
    "factory": "m" * 10_000,
    "os_platform": ["p" * 10_000],
}


@pytest.mark.parametrize("field", HOSTILE)
def test_value_that_would_overwhelm_its_reader_is_refused_in_few_words(problems, field):
    offer = {"key": "c", "provider": "p", "factory": "m:f", field: HOSTILE[field]}

    (problem,) = problems(adapters=json.dumps({"candidates": [offer]}))

    assert f"candidates[0].{field}" in problem.what
    assert len(str(problem)) < 300


@pytest.mark.parametrize("brackets", [1, 50, 290])
def test_requirement_in_brackets_is_refused_before_it_overwhelms_its_reader(problems, brackets):
    requirement = "x; " + "(" * brackets

    (problem,) = problems(
        adapters=json.dumps(
            {"candidates": [{"key": "c", "provider": "p", "factory": "m:f", "requires": [requirement]}]}
        )
    )

    assert "is not a PEP 508 requirement" in problem.what


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("size", [LIMIT_BYTES + 1, 50 << 20, 50 << 30])
def test_large_file_is_named_with_a_remedy(directory, file, size):
    (directory / file).touch()
    os.truncate(directory / file, size)

    (problem,) = refusal(directory)

    assert str(problem) == (
        f"settings/{file}: cannot be read: it is larger than 1,048,576 bytes "
        "(split it, or remove what does not belong there)"
    )


@pytest.mark.parametrize("file", FILES)
def test_directory_in_place_of_a_file_is_named_with_a_remedy(directory, file):
    (directory / file).mkdir()

    (problem,) = refusal(directory)

    assert str(problem) == (
        f"settings/{file}: cannot be read: it is a directory, not a file (put a readable file there, or remove it)"
    )


@pytest.mark.parametrize("file", FILES)
def test_pipe_in_place_of_a_file_is_named_without_waiting_for_a_writer(directory, file):
    os.mkfifo(directory / file)

    (problem,) = refusal(directory)

    assert str(problem).startswith(f"settings/{file}: cannot be read: it is a pipe")


@pytest.mark.parametrize("file", FILES)
def test_unreadable_file_is_named_with_a_remedy(shared_directory, unprivileged, file):
    (shared_directory / file).touch(0o000)

    with unprivileged():
        (problem,) = refusal(shared_directory)

    assert str(problem) == (
        f"{shared_directory}/{file}: cannot be read: Permission denied (make it readable for the user who runs oneiric)"
    )


def test_unreadable_directory_is_named_once_with_a_remedy(shared_directory, unprivileged):
    (shared_directory / "settings").mkdir(0o700)
    (shared_directory / "settings").chmod(0o000)

    with unprivileged():
        (problem,) = refusal(shared_directory / "settings")

    assert str(problem) == (
        f"{shared_directory}/settings: cannot be read: Permission denied "
        "(make it readable for the user who runs oneiric)"
    )


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("nowhere", "is a symbolic link that leads nowhere (repair or remove the symbolic link)"),
        ("FILE", "cannot be read: Too many levels of symbolic links (the symbolic links lead in a circle)"),
    ],
)
def test_broken_symbolic_link_is_named_with_a_remedy(directory, file, target, problem):
    (directory / file).symlink_to(target.replace("FILE", file))

    (found,) = refusal(directory)

    assert str(found) == f"settings/{file}: {problem}"


def test_settings_that_are_no_directory_are_named_once(tmp_path):
    (tmp_path / "settings").touch()

    (problem,) = refusal(tmp_path / "settings")

    assert str(problem) == (
        f"{tmp_path}/settings: is not a directory (a directory that holds app.yml, adapters.yml ...)"
    )


def test_settings_directory_that_is_a_broken_link_is_named(tmp_path):
    (tmp_path / "settings").symlink_to("nowhere")

    (problem,) = refusal(tmp_path / "settings")

    assert str(problem) == (
        f"{tmp_path}/settings: cannot be read: No such file or directory (repair or remove the symbolic link)"
    )


@pytest.mark.parametrize("similar", ["adapters.yaml", "adapter.yml"])
def test_file_with_a_similar_name_is_not_overlooked(directory, similar):
    (directory / similar).touch()

    (problem,) = refusal(directory)

    assert str(problem) == (
        f"settings/adapters.yml: does not exist, and {similar} is not read (rename it to adapters.yml)"
    )


def test_file_with_a_similar_name_is_ignored_beside_the_right_one(directory):
    for name in ("adapters.yml", "adapters.yaml", "adapter.yml", "adapters.yml~", "other.yml"):
        (directory / name).touch()

    assert load(directory, environ={}).domains["adapter"] == DomainSettings()


def test_every_problem_of_every_file_is_reported_at_once(problems):
    found = problems(app="a: 1\nb: 2\n", tasks="a: [", events="- x", environ={"ONEIRIC_API__HTPP": "x"})

    assert [problem.where for problem in found] == [
        "settings/app.yml:1:1",
        "settings/app.yml:2:1",
        "settings/tasks.yml:1:5",
        "settings/events.yml:1:1",
        "ONEIRIC_API__HTPP",
    ]


def test_problems_of_one_file_are_reported_from_top_to_bottom(problems):
    found = problems(app="watch: {x: 1}\ncache_dir: 5\ncache_dir: 6\nlifecycle: {y: 1}\n")

    assert [problem.where for problem in found] == [f"settings/app.yml:{at}" for at in ("1:9", "3:1", "3:12", "4:13")]


def test_very_many_problems_are_cut_short(problems):
    assert len(problems(app="".join(f"k{n}: 1\n" for n in range(1000)))) == 100


@pytest.mark.parametrize("secret", ["*hunter2", "&hunter2 x", "!hunter2", "[hunter2", "${hunter2", "{a: hunter2"])
def test_problem_does_not_repeat_a_password_that_needed_quotes(problems, secret):
    found = problems(adapters=f"provider_settings: {{redis: {{password: {secret}}}}}")

    assert not any("hunter2" in str(problem) for problem in found)


@given(
    st.binary() | st.text("ab:-?[]{},#&*!|>'\"%@`\n\t 0.~<=", max_size=200).map(str.encode) | st.text().map(str.encode)
)
@example(b"? ? ? ?")
@example(b"a: .e5")
@example(b"%YAML 9.9\n---\na: 1")
@example(b'a: "\\0"')
def test_arbitrary_bytes_raise_nothing_but_config_errors(content):
    with tempfile.TemporaryDirectory() as directory:
        for file in ("app.yml", "adapters.yml"):
            Path(directory, file).write_bytes(content)
        with contextlib.suppress(ConfigError):
            load(Path(directory), environ={})


STRICT = "remote: {require_signature: true, allow_plain_http: false, allowed_factories: [], max_age: 60}\n"


@given(st.integers(0, len(STRICT) - 1), st.sampled_from(["", *string.printable, "no", "~", "{}", "\0"]), st.booleans())
def test_one_wrong_key_stroke_never_weakens_trust(at, stroke, inserted):
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "app.yml").write_text(STRICT[:at] + stroke + STRICT[at + (not inserted) :])
        try:
            remote = load(Path(directory), environ={}).app.remote
        except ConfigError:
            return

    assert remote.require_signature
    assert not remote.allow_plain_http

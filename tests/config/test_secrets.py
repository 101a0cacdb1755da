"""Secrets: how settings refer to them, what is said when they are missing, and that no message tells them."""

from __future__ import annotations

import copy
import os
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.config.host import this_host
from oneiric.config.loader import policy
from oneiric.config.secrets import LIMIT_BYTES, MASK, Secret, masked, resolve_references, secret_values
from oneiric.core.candidate import Slot
from oneiric.errors import ConfigError

CANARY = "hunter2-canary"


def resolve(value, base, **environ):
    return resolve_references(value, environ=environ, base=base)


def refusals(value, base, **environ):
    with pytest.raises(ConfigError) as caught:
        resolve(value, base, **environ)
    assert CANARY not in caught.value.render()
    return [str(problem) for problem in caught.value.problems]


def test_variable_is_put_in_place_of_its_reference(tmp_path):
    assert resolve("${env:PASSWORD}", tmp_path, PASSWORD=CANARY) == CANARY


def test_file_is_put_in_place_of_its_reference(tmp_path):
    (tmp_path / "password").write_text(CANARY)

    assert resolve("${file:password}", tmp_path) == CANARY


def test_file_may_be_named_absolutely(tmp_path):
    (tmp_path / "password").write_text(CANARY)

    assert resolve(f"${{file:{tmp_path}/password}}", tmp_path / "elsewhere") == CANARY


def test_file_may_be_a_symbolic_link(tmp_path):
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "password").write_text(CANARY)
    (tmp_path / "password").symlink_to("..data/password")

    assert resolve("${file:password}", tmp_path) == CANARY


@pytest.mark.parametrize(
    ("content", "secret"), [("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), (" x ", " x "), ("", ""), ("ü", "ü")]
)
def test_file_loses_only_its_last_line_end(tmp_path, content, secret):
    (tmp_path / "password").write_bytes(content.encode())

    assert resolve("${file:password}", tmp_path) == secret


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("redis://u:${env:A}@h/${env:B}", "redis://u:1@h/2"),
        ("${env:A}${env:A}", "11"),
        ("$${env:A}", "${env:A}"),
        ("$${${env:A}}", "${1}"),
        ("$A $ {} %{env:A}", "$A $ {} %{env:A}"),
        ("$", "$"),
    ],
)
def test_reference_may_stand_within_text(tmp_path, text, result):
    assert resolve(text, tmp_path, A="1", B="2") == result


def test_secret_is_not_looked_into_for_further_references(tmp_path):
    assert resolve("${env:A}", tmp_path, A="${env:B}", B=CANARY) == "${env:B}"


def test_references_are_resolved_at_any_depth(tmp_path):
    declared = {"a": ["${env:A}", {"b": ("${env:A}", 5, None, True)}], "c": "plain"}

    assert resolve(declared, tmp_path, A="1") == {"a": ["1", {"b": ["1", 5, None, True]}], "c": "plain"}


def test_resolving_leaves_what_was_declared_as_it_is(tmp_path):
    declared = {"a": ["${env:A}"]}

    resolve(declared, tmp_path, A="1")

    assert declared == {"a": ["${env:A}"]}


def test_text_with_a_secret_in_it_is_secret_as_a_whole(tmp_path):
    resolved = resolve({"url": "redis://${env:A}@h", "host": "$${h}"}, tmp_path, A=CANARY)

    assert isinstance(resolved["url"], Secret)
    assert not isinstance(resolved["host"], Secret)


@pytest.mark.parametrize(
    "show",
    [repr, lambda secret: repr({"a": [secret]}), lambda secret: f"{secret!r}", "%r".__mod__, ascii],
    ids=["repr", "nested", "format", "percent", "ascii"],
)
def test_secret_is_not_shown_by_its_repr(show):
    assert CANARY not in show(Secret(CANARY))


@pytest.mark.parametrize(
    "duplicate",
    [lambda secret: pickle.loads(pickle.dumps(secret)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_copied_secret_stays_secret(duplicate):
    secret = duplicate(Secret("u:p", ("p",)))

    assert (str(secret), secret.parts, repr(secret)) == ("u:p", ("p",), f"'{MASK}'")


def test_secret_serves_as_the_text_it_is():
    assert Secret("x") == "x"
    assert type(str(Secret("x"))) is str


def test_secret_values_are_the_parts_and_the_whole(tmp_path):
    resolved = resolve({"url": "redis://${env:A}:${env:B}@h", "n": 5, "plain": "x"}, tmp_path, A="user", B="pass")

    assert list(secret_values(resolved)) == ["user", "pass", "redis://user:pass@h"]


def test_empty_secret_is_none_to_hide(tmp_path):
    assert list(secret_values(resolve({"password": "${env:A}"}, tmp_path, A=""))) == []


def test_missing_variable_is_named_with_a_remedy(tmp_path):
    assert refusals({"redis": {"password": "${env:PASSWORD}"}}, tmp_path, OTHER=CANARY) == [
        "redis.password: environment variable PASSWORD is not set; try: export PASSWORD=..."
    ]


def directory(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def latin(path):
    path.write_bytes(CANARY.encode() + b"\xf6")


def large(path):
    path.write_text(CANARY + "x" * LIMIT_BYTES)


def loop(path):
    path.symlink_to(path.name)


def dangling(path):
    path.symlink_to("nowhere")


def nothing(path):
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (nothing, "cannot be read: No such file or directory; try: ls -l 'pass word'"),
        (dangling, "cannot be read: No such file or directory; try: ls -l 'pass word'"),
        (loop, "cannot be read: Too many levels of symbolic links; try: ls -l 'pass word'"),
        (directory, "cannot be read: it is a directory, not a file; try: ls -l 'pass word'"),
        (pipe, "cannot be read: it is a pipe, a socket or a device, not a file; try: ls -l 'pass word'"),
        (large, "cannot be read: it is larger than 65,536 bytes; try: ls -l 'pass word'"),
        (latin, "is not UTF-8 text; try: file 'pass word'"),
    ],
)
def test_bad_secret_file_is_named_with_a_remedy(tmp_path, make, reason):
    make(tmp_path / "pass word")

    assert refusals({"a": ["${file:pass word}"]}, tmp_path) == [f"a[0]: file 'pass word' {reason}"]


def test_unreadable_secret_file_is_named_with_a_remedy(shared_directory, unprivileged):
    (shared_directory / "password").touch(0o000)

    with unprivileged():
        found = refusals("${file:password}", shared_directory)

    assert found == ["value: file password cannot be read: Permission denied; try: ls -l password"]


FORMS = "(${env:NAME}, ${file:path}, or $${ for a plain ${)"


@pytest.mark.parametrize(
    "text",
    [
        "${hunter2-canary}",
        "${env:}",
        "${env}",
        "${file:}",
        "${secret:hunter2-canary}",
        "a${",
        "${env:A",
        "$${a}${",
        "${ env:A}",
    ],
)
def test_malformed_reference_is_named_without_its_text(tmp_path, text):
    assert refusals({"a": text}, tmp_path, A=CANARY) == [f"a: a reference that cannot be read begins with ${{ {FORMS}"]


@pytest.mark.parametrize("name", ["1A", "A-B", "A B", "Ä", "A.B", "A\n"])
def test_name_that_no_variable_can_have_is_refused(tmp_path, name):
    assert refusals({"a": f"${{env:{name}}}"}, tmp_path) == [
        f"a: {name!r} is not the name of an environment variable {FORMS}"
    ]


def test_every_missing_secret_is_named_at_once(tmp_path):
    found = refusals({"a": "${env:A}${env:B}", "b": ["${file:c}"], "d": "${"}, tmp_path)

    assert [problem.split(": ")[0] for problem in found] == ["a", "a", "b[0]", "d"]


def test_hint_says_how_to_check(tmp_path):
    with pytest.raises(ConfigError) as caught:
        resolve("${env:A}", tmp_path)

    assert caught.value.render().endswith("try: provide what the settings refer to, then: oneiric config check")


def test_malformed_reference_in_a_file_is_named_with_its_place(problems):
    (problem,) = problems(adapters='provider_settings:\n  redis:\n    password: "x${PASSWORD}"\n')

    assert str(problem) == (
        "settings/adapters.yml:3:15: provider_settings.redis.password: "
        f"a reference that cannot be read begins with ${{ {FORMS}"
    )


def test_missing_secret_bars_its_provider_and_says_what_to_do(read):
    settings = read(adapters='provider_settings: {redis: {password: "${file:db/password}"}}')

    bar = policy(settings, host=this_host(), pins={}, environ={}).barred[Slot("adapter", "cache"), "redis"]

    assert bar.reason == (
        "provider_settings.redis.password: file db/password cannot be read: No such file or directory; "
        "try: ls -l db/password"
    )


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Passwd",
        "db_password",
        "passphrase",
        "pwd",
        "pass",
        "secret",
        "client_secret",
        "token",
        "access_token",
        "apiKey",
        "api-key",
        "api_key",
        "private_key",
        "access_key",
        "encryption_key",
        "credentials",
        "auth",
        "proxy_auth",
        "Authorization",
        "cookie",
    ],
)
@pytest.mark.parametrize("value", [CANARY, 12345, {"a": CANARY}, [CANARY]])
def test_value_under_a_revealing_name_is_masked(key, value):
    assert masked({"redis": [{key: value}]}) == {"redis": [{key: MASK}]}


@pytest.mark.parametrize(
    "key", ["author", "authority", "public_key", "bypass", "compass", "key", "cache_key", "monkey", "url"]
)
def test_value_under_a_harmless_name_is_shown(key):
    assert masked({key: "x"}) == {key: "x"}


def test_null_under_a_revealing_name_is_shown():
    assert masked({"password": None}) == {"password": None}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("${env:A}", MASK),
        ("redis://${file:/a}@h", MASK),
        ("$${plain}", "$${plain}"),
        (f"redis://u:{CANARY}@h:6379/0", "redis://***@h:6379/0"),
        (f"redis://{CANARY}@h", "redis://***@h"),
        (f"redis://u:p@{CANARY}@h", "redis://***@h"),
        (f"https://h/m?a=1&token={CANARY}#f", "https://h/m?***"),
        (f"https://h/m#{CANARY}", "https://h/m#***"),
        (f"host=h password={CANARY} port=1", "host=h password=*** port=1"),
        (f"Server=h;Password = {CANARY};Port=1", "Server=h;Password = ***;Port=1"),
        (f"Authorization: Bearer {CANARY}", "Authorization: ***"),
        (f"X-Api-Key:{CANARY}, Accept: */*", "X-Api-Key:***, Accept: */*"),
        ("https://h/m", "https://h/m"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("a@b", "a@b"),
        (5, 5),
        (True, True),
    ],
)
def test_value_that_looks_like_a_secret_is_masked(text, shown):
    assert masked({"value": text}) == {"value": shown}


def test_resolved_secret_is_masked(tmp_path):
    assert masked(resolve({"url": "a${env:A}b"}, tmp_path, A=CANARY)) == {"url": MASK}


@pytest.mark.parametrize("unit", ["://", "password", "://a?", "${", "://@"])
def test_long_text_is_masked_quickly(unit):
    started = time.process_time()

    masked(unit * (120_000 // len(unit)))

    assert time.process_time() - started < 5


@given(
    st.recursive(
        st.text("${}env:fileAB$ \n", max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
)
def test_arbitrary_references_are_resolved_or_refused(tmp_path_factory, value):
    try:
        resolved = resolve(value, tmp_path_factory.getbasetemp(), A=CANARY, B=CANARY)
    except ConfigError as error:
        resolved = error.render()

    assert CANARY not in repr(resolved)
    assert CANARY not in repr(masked(resolved))


# A password at every place of a settings file where one could land by mistake, whole or half quoted.
MISPLACED = [
    "provider_settings: {redis: CANARY}",
    "provider_settings: CANARY",
    "provider_settings: [CANARY]",
    "provider_settings: {redis: {password: CANARY}, redis: {}}",
    "provider_settings: {redis: {password: *CANARY}}",
    "provider_settings: {redis: {password: [CANARY}}",
    "provider_settings: {redis: {password: '${CANARY}'}}",
    "provider_settings: {redis: {password: '${env:CANARY'}}",
    "provider_settings: {redis: {password: !CANARY}}",
    "provider_settings: {redis: {password: 'CANARY}}",
    "provider_settings: {redis: {password: @CANARY}}",
    "provider_settings: {redis: {password: %CANARY}}",
    "provider_settings: {redis: {password: CANARY: x}}",
    'provider_settings: {redis: {password: "CANARY\\q"}}',
    'provider_settings: {redis: {password: "CANARY\\0"}}',
    "selections: {cache: 'redis://u:CANARY@h'}",
    "candidates: [{key: 'redis://u:CANARY@h', provider: 'x y', factory: 'http://u:CANARY@h'}]",
    "candidates: [{key: c, provider: p, factory: 'm:f', metadata: CANARY, requires: ['pip @ https://u:CANARY@h ;']}]",
    "pasword: CANARY",
]


@pytest.mark.parametrize("text", MISPLACED)
def test_problem_does_not_tell_a_misplaced_password(problems, text):
    found = problems(adapters=text.replace("CANARY", CANARY))

    assert not any(CANARY in str(problem) for problem in found)


def test_problem_with_a_number_in_place_of_a_section_does_not_tell_it(problems):
    found = problems(adapters="provider_settings: {redis: 73571, memory: {password: {73571}}}")

    assert not any("73571" in str(problem) for problem in found)


@pytest.mark.parametrize(
    "value", ["CANARY", "{redis: {password: [CANARY}}", "{redis: CANARY}", "{redis: {password: &CANARY x}}"]
)
def test_problem_with_a_variable_does_not_tell_a_password(problems, value):
    found = problems(environ={"ONEIRIC_ADAPTERS__PROVIDER_SETTINGS": value.replace("CANARY", CANARY)})

    assert not any(CANARY in str(problem) for problem in found)

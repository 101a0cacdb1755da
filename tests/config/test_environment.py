"""Settings from the environment and from flags, and that the environment can only add strictness."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.config.loader import load
from oneiric.core.config import ENV_SECTIONS, AppSettings, RemoteSettings
from oneiric.errors import ConfigError


@pytest.mark.parametrize(
    ("variable", "value", "section", "name", "expected"),
    [
        ("LIFECYCLE__DRAIN_TIMEOUT", "5", "lifecycle", "drain_timeout", 5.0),
        ("REMOTE__MAX_AGE", "60", "remote", "max_age", 60.0),
        ("PLUGINS__DISABLED", "[a, b]", "plugins", "disabled", ("a", "b")),
        ("PLUGINS__ENABLED", "false", "plugins", "enabled", False),
        ("WATCH__ENABLED", "no", "watch", "enabled", False),
        ("API__HTTP", "[::1]:80", "api", "http", "[::1]:80"),
        ("LOGGING__LEVEL", "debug", "logging", "level", "debug"),
        ("REMOTE__MANIFEST_URL", "https://h/m?a=1#x: y", "remote", "manifest_url", "https://h/m?a=1#x: y"),
        ("REMOTE__MANIFEST_URL", "123", "remote", "manifest_url", "123"),
    ],
)
def test_variable_sets_one_key_of_a_section(read, variable, value, section, name, expected):
    settings = read(environ={f"ONEIRIC_{variable}": value})

    assert getattr(getattr(settings.app, section), name) == expected
    assert settings.origins[f"{section}.{name}"] == f"ONEIRIC_{variable}"


@pytest.mark.parametrize("name", ["cache_dir", "state_dir"])
def test_plain_variable_sets_a_directory(read, name):
    settings = read(environ={f"ONEIRIC_{name.upper()}": "/srv/x"})

    assert getattr(settings.app, name) == "/srv/x"
    assert settings.origins[name] == f"ONEIRIC_{name.upper()}"


def test_domain_variable_is_merged_into_the_file_key_by_key(read):
    settings = read(
        adapters="selections: {cache: redis, queue: redis}",
        environ={"ONEIRIC_ADAPTERS__SELECTIONS": "{cache: memory}"},
    )

    assert settings.domains["adapter"].selections == {"cache": "memory", "queue": "redis"}
    assert settings.origins["adapters.selections.cache"] == "ONEIRIC_ADAPTERS__SELECTIONS"
    assert settings.origins["adapters.selections.queue"] == "settings/adapters.yml:1:28"


def test_domain_variable_replaces_a_list_whole(read):
    settings = read(
        adapters="candidates: [{key: a, provider: p, factory: 'm:a'}, {key: b, provider: p, factory: 'm:b'}]",
        environ={"ONEIRIC_ADAPTERS__CANDIDATES": "[{key: c, provider: p, factory: 'm:c'}]"},
    )

    assert [candidate.key for candidate in settings.domains["adapter"].candidates] == ["c"]
    assert settings.origins["adapters.candidates[0]"] == "ONEIRIC_ADAPTERS__CANDIDATES"
    assert "adapters.candidates[1]" not in settings.origins


FILE, VARIABLE, FLAG = "/from-file", "/from-environment", "/from-flag"


@pytest.mark.parametrize(
    ("file", "environ", "flag", "wins"),
    [
        (None, None, None, ".oneiric_state"),
        (FILE, None, None, FILE),
        (None, VARIABLE, None, VARIABLE),
        (None, None, FLAG, FLAG),
        (FILE, VARIABLE, None, VARIABLE),
        (FILE, None, FLAG, FLAG),
        (None, VARIABLE, FLAG, FLAG),
        (FILE, VARIABLE, FLAG, FLAG),
    ],
)
def test_order_is_flag_then_environment_then_file_then_default(read, file, environ, flag, wins):
    settings = read(
        app=f"state_dir: {file}" if file else "",
        environ={"ONEIRIC_STATE_DIR": environ} if environ else {},
        flags={"state_dir": flag},
    )

    assert settings.app.state_dir == wins


@pytest.mark.parametrize("section", ENV_SECTIONS)
def test_empty_variable_counts_as_not_set(read, section):
    assert read(environ={f"ONEIRIC_{section}__ANYTHING": "", "ONEIRIC_STATE_DIR": ""}).app == AppSettings()


@pytest.mark.parametrize(
    "variable", ["ONEIRIC_PORT", "ONEIRIC_API_SERVICE_HOST", "ONEIRIC_HOME", "XONEIRIC_API__HTTP", "oneiric_api__http"]
)
def test_variable_that_is_not_ours_is_ignored(read, variable):
    # Kubernetes gives every container ONEIRIC_PORT and the like when a service is called oneiric.
    assert read(environ={variable: "tcp://10.0.0.1:80"}).app == AppSettings()


LOOK = "look for a quote, bracket or colon that is missing, or a tab"
SHORTER = "a shorter path such as /run/oneiric.sock"
SECTIONS = f"accepted: {', '.join(ENV_SECTIONS)}"


@pytest.mark.parametrize(
    ("variable", "value", "what", "remedy"),
    [
        ("API__HTPP", "x", "unknown key 'htpp'; did you mean 'http'?", "accepted: socket, http, allowed_hosts"),
        ("APPI__HTTP", "x", "unknown section 'APPI'; did you mean 'API'?", SECTIONS),
        ("api__HTTP", "x", "unknown section 'api'; did you mean 'API'?", SECTIONS),
        ("X__Y", "x", "unknown section 'X'", SECTIONS),
        ("API__http", "x", "'http' is not in capitals", "ONEIRIC_API__HTTP"),
        (
            "API__HTTP",
            "80",
            "api.http: '80' is not HOST:PORT",
            "such as 127.0.0.1:9464 or [::1]:9464, a port at most 65535",
        ),
        ("API__SOCKET", "s" * 108, "api.socket: is 108 bytes long, and the kernel accepts 107", SHORTER),
        (
            "LIFECYCLE__DRAIN_TIMEOUT",
            "soon",
            "lifecycle.drain_timeout: expected seconds as a number, found text 'soon'",
            "more than 0, at most 86400",
        ),
        ("WATCH__ENABLED", "1", "watch.enabled: expected true or false, found the number 1", ""),
        ("TASKS__SELECTIONS", "{a: [", "not valid YAML: did not find expected node content while", LOOK),
        ("TASKS__SELECTIONS", "{a: x, a: y}", "duplicate key 'a'", "it stands first at line 1:2"),
        ("STATE_DIR", "/srv/\udcff", "is not UTF-8: byte 5 is 0xed", "text, saved as UTF-8"),
        ("STATE_DIR", "/srv/\x1b[2J", "holds the control character U+001B", "printable text"),
        ("STATE_DIR", " ", "state_dir: is empty", "a path"),
        ("STACK_ORDER", "a:x", "'a:x' is not name:level", "myapp:20,oneiric:10,default:0"),
        ("STACK_ORDER", "a:1,a:2", "'a' is named twice", "one level a stack"),
    ],
)
def test_bad_variable_is_named_with_a_remedy(problems, variable, value, what, remedy):
    (problem,) = problems(environ={f"ONEIRIC_{variable}": value})

    assert problem.where == f"ONEIRIC_{variable}"
    assert problem.what.startswith(what)
    assert problem.accepted == remedy


def test_every_bad_variable_is_named_at_once(problems):
    found = problems(
        environ={"ONEIRIC_API__X": "1", "ONEIRIC_STACK_ORDER": "a:x,b:y", "ONEIRIC_LOGGING__LEVEL": "loud"}
    )

    assert [problem.where for problem in found] == [
        "ONEIRIC_API__X",
        "ONEIRIC_LOGGING__LEVEL",
        "ONEIRIC_STACK_ORDER",
        "ONEIRIC_STACK_ORDER",
    ]


def test_bad_flag_is_named_as_it_is_typed(problems):
    (problem,) = problems(flags={"remote.refresh_interval": -1.0})

    assert str(problem) == (
        "--refresh-interval: remote.refresh_interval: expected seconds as a number, found the number -1.0 "
        "(more than 0, at most 86400)"
    )


def test_flag_that_was_not_given_changes_nothing(read):
    assert read(flags={"api.socket": None, "watch.enabled": None}).app == AppSettings()


STRICT = """
remote:
  public_keys: [a, b]
  signature_threshold: 2
  max_age: 60
  allowed_factories: [shop]
  allowed_hosts: [h.example]
"""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("REQUIRE_SIGNATURE", "false"),
        ("ALLOW_PLAIN_HTTP", "true"),
        ("SIGNATURE_THRESHOLD", "1"),
        ("MAX_AGE", "61"),
        ("MAX_AGE", "null"),
        ("PUBLIC_KEY", "c"),
        ("PUBLIC_KEYS", "[a, b, c]"),
        ("PUBLIC_KEYS", "[x, y]"),
        ("ALLOWED_FACTORIES", "[shop, os]"),
        ("ALLOWED_HOSTS", "[evil.example]"),
    ],
)
def test_environment_cannot_weaken_trust(problems, key, value):
    (problem,) = problems(app=STRICT, environ={f"ONEIRIC_REMOTE__{key}": value})

    assert str(problem) == (
        f"ONEIRIC_REMOTE__{key}: remote.{key.lower()}: the environment may make remote stricter, never more lenient "
        f"(set remote.{key.lower()} in settings/app.yml)"
    )


@pytest.mark.parametrize("key", ["PUBLIC_KEY", "PUBLIC_KEYS", "ALLOWED_HOSTS", "ALLOWED_FACTORIES"])
def test_environment_cannot_weaken_the_defaults(problems, key):
    (problem,) = problems(environ={f"ONEIRIC_REMOTE__{key}": "[x]"})

    assert "never more lenient" in problem.what


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("REQUIRE_SIGNATURE", "true", True),
        ("ALLOW_PLAIN_HTTP", "false", False),
        ("SIGNATURE_THRESHOLD", "2", 2),
        ("MAX_AGE", "30", 30.0),
        ("ALLOWED_FACTORIES", "[]", ()),
        ("ALLOWED_HOSTS", "null", ()),
        ("PUBLIC_KEYS", "[b, a]", ("b", "a")),
    ],
)
def test_environment_may_make_trust_stricter(read, key, value, expected):
    lenient = STRICT + "  require_signature: false\n  allow_plain_http: true\n"

    settings = read(app=lenient, environ={f"ONEIRIC_REMOTE__{key}": value})

    assert getattr(settings.app.remote, key.lower()) == expected


def test_environment_may_repeat_what_the_file_says(read):
    settings = read(
        app="remote: {require_signature: false, public_key: k}",
        environ={"ONEIRIC_REMOTE__REQUIRE_SIGNATURE": "false", "ONEIRIC_REMOTE__PUBLIC_KEY": "k"},
    )

    assert settings.app.remote == RemoteSettings(require_signature=False, public_key="k")


def test_weakening_is_named_beside_every_other_problem(problems):
    found = problems(app="watch: 1\nremote: {max_age: x}", environ={"ONEIRIC_REMOTE__REQUIRE_SIGNATURE": "false"})

    assert [problem.where for problem in found] == [
        "settings/app.yml:1:8",
        "settings/app.yml:2:19",
        "ONEIRIC_REMOTE__REQUIRE_SIGNATURE",
    ]


@pytest.mark.parametrize("key", ["MAX_AGE", "SIGNATURE_THRESHOLD", "ALLOWED_HOSTS"])
def test_value_that_would_replace_a_wrong_one_is_not_compared_with_it(problems, key):
    (problem,) = problems(
        app=f"remote: {{{key.lower()}: x}}", environ={f"ONEIRIC_REMOTE__{key}": "1" if key[0] != "A" else "[x]"}
    )

    assert problem.where.startswith("settings/app.yml:1:")


def test_flag_may_do_what_the_environment_may_not(read):
    assert read(flags={"remote.require_signature": False}).app.remote.require_signature is False


@given(st.dictionaries(st.text(string.ascii_uppercase + "_", max_size=12), st.text(max_size=30), max_size=5))
def test_arbitrary_variables_raise_nothing_but_config_errors(tmp_path_factory, variables):
    environ = {f"ONEIRIC_{name}": value for name, value in variables.items()}
    environ |= {f"ONEIRIC_REMOTE__{name}": value for name, value in variables.items()}
    with contextlib.suppress(ConfigError):
        assert load(tmp_path_factory.getbasetemp() / "absent", environ=environ).app.remote.require_signature


REMOTE_VALUES = st.sampled_from(
    [
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "5",
        "99999",
        "[]",
        "[a]",
        "[a, b]",
        "[x]",
        "a",
        "~",
        "{}",
        "''",
        "on",
        "off",
    ]
)


@given(st.dictionaries(st.sampled_from([name.upper() for name in RemoteSettings.__struct_fields__]), REMOTE_VALUES))
def test_no_variables_at_all_weaken_trust(tmp_path_factory, variables):
    directory = tmp_path_factory.getbasetemp() / "strict"
    directory.mkdir(exist_ok=True)
    (directory / "app.yml").write_text(STRICT)
    strict = load(directory, environ={}).app.remote

    try:
        found = load(
            directory, environ={f"ONEIRIC_REMOTE__{key}": value for key, value in variables.items()}
        ).app.remote
    except ConfigError:
        return

    assert found.require_signature
    assert not found.allow_plain_http
    assert found.signature_threshold >= strict.signature_threshold
    assert found.max_age is not None
    assert found.max_age <= 60
    assert set(found.public_keys) <= set(strict.public_keys)
    assert not found.public_key
    assert set(found.allowed_factories) <= set(strict.allowed_factories)
    assert set(found.allowed_hosts) <= set(strict.allowed_hosts)

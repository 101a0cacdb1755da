"""What ``config show`` and ``config schema`` are made of."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from oneiric.config.loader import load
from oneiric.config.show import effective, json_schema
from oneiric.core.config import FILES, AppSettings, Settings
from oneiric.errors import UsageError

EXAMPLE = Path(__file__).parents[2] / "examples" / "shop" / "settings"
CANARY = "hunter2-canary"


def shown(settings):
    return {row.path: (row.value, row.origin) for row in effective(settings)}


def test_effective_lists_every_setting_of_the_app():
    paths = [row.path for row in effective(Settings())]

    assert {path.partition(".")[0] for path in paths} == {*AppSettings.__struct_fields__, "stack_order"}
    assert "lifecycle.drain_timeout" in paths
    assert "cache_dir" in paths


def test_effective_lists_nothing_twice(read):
    paths = [row.path for row in effective(read(environ={"ONEIRIC_STATE_DIR": "x"}, app="state_dir: y"))]

    assert len(paths) == len(set(paths))


def test_effective_says_that_a_default_is_one():
    assert shown(Settings())["lifecycle.drain_timeout"] == (30.0, "default")


@pytest.mark.parametrize(
    ("path", "value", "origin"),
    [
        ("lifecycle.drain_timeout", 5.0, "settings/app.yml:1:13"),
        ("cache_dir", "/c", "ONEIRIC_CACHE_DIR"),
        ("state_dir", "/s", "--state-dir"),
        ("stack_order", "shop:5", "ONEIRIC_STACK_ORDER"),
        ("adapters.selections.cache", "redis", "settings/adapters.yml:2:3"),
        ("adapters.capabilities.cache", ["ttl"], "settings/adapters.yml:3:16"),
        (
            "adapters.candidates[0]",
            {"key": "cache", "provider": "redis", "factory": "m:f", "priority": 5},
            "settings/adapters.yml:5:3",
        ),
        ("adapters.provider_settings.redis.db", 1, "settings/adapters.yml:6:29"),
        ("adapters.provider_settings.redis.ttl", 2, "ONEIRIC_ADAPTERS__PROVIDER_SETTINGS"),
    ],
)
def test_effective_shows_value_and_origin(read, path, value, origin):
    settings = read(
        app="lifecycle: {drain_timeout: 5}",
        adapters="selections:\n  cache: redis\ncapabilities: {cache: [ttl]}\n"
        "candidates:\n- {key: cache, provider: redis, factory: 'm:f', priority: 5}\n"
        "provider_settings: {redis: {db: 1}}\n",
        environ={
            "ONEIRIC_CACHE_DIR": "/c",
            "ONEIRIC_STACK_ORDER": "shop:5",
            "ONEIRIC_ADAPTERS__PROVIDER_SETTINGS": "{redis: {ttl: 2}}",
        },
        flags={"state_dir": "/s"},
    )

    assert shown(settings)[path] == (value, origin)


def test_effective_names_a_key_with_control_characters_on_one_line(read):
    rows = effective(read(adapters='provider_settings: {redis: {"a\\n\\e[2J": 1}}'))

    (row,) = [row for row in rows if row.path.startswith("adapters.provider_settings")]
    assert row.path.isprintable()
    assert row.origin == "settings/adapters.yml:1:29"


def test_effective_masks_what_may_be_secret(read):
    settings = read(
        app=f"remote: {{manifest_url: 'https://u:{CANARY}@h/m?token={CANARY}'}}",
        adapters=f"""
provider_settings:
  redis: {{password: {CANARY}, url: 'redis://u:{CANARY}@h', nested: {{api_key: {CANARY}}}, list: [{{token: {CANARY}}}]}}
  memory: {{password: '${{env:PASSWORD}}', url: 'x${{file:/run/{CANARY}}}y'}}
candidates:
- {{key: cache, provider: redis, factory: 'm:f', metadata: {{password: {CANARY}, dsn: 'host=h password={CANARY}'}}}}
""",
    )

    rows = shown(settings)

    assert CANARY not in repr(rows)
    assert rows["remote.manifest_url"][0] == "https://***@h/m?***"
    assert rows["adapters.provider_settings.redis.password"][0] == "***"
    assert rows["adapters.provider_settings.memory.password"][0] == "***"


def test_effective_shows_a_selection_whose_slot_has_a_revealing_name(read):
    rows = shown(read(services="selections: {auth: ldap}\ncapabilities: {token: [refresh]}"))

    assert rows["services.selections.auth"][0] == "ldap"
    assert rows["services.capabilities.token"][0] == ["refresh"]


def test_effective_shows_where_public_keys_are(read):
    assert shown(read(app="remote: {public_key: keys/k.pub}"))["remote.public_key"][0] == "keys/k.pub"


def check(value, file=None):
    schema = json_schema(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("file", sorted(path.name for path in EXAMPLE.glob("*.yml")))
def test_schema_accepts_the_example(file):
    check(yaml.safe_load((EXAMPLE / file).read_text()) or {}, file)


def test_schema_of_all_files_accepts_the_example():
    check({path.name: yaml.safe_load(path.read_text()) or {} for path in EXAMPLE.glob("*.yml")})


def test_example_is_accepted_by_the_loader_too():
    assert load(EXAMPLE, environ={}).domains["service"].selections == {"front": "http"}


@pytest.mark.parametrize("file", FILES)
def test_schema_accepts_an_empty_file(file):
    check({}, file)


BAD = [
    ("app.yml", {"lifecylce": {}}),
    ("app.yml", {"lifecycle": {"drain_timeuot": 5}}),
    ("app.yml", {"lifecycle": {"drain_timeout": 0}}),
    ("app.yml", {"lifecycle": {"drain_timeout": "soon"}}),
    ("app.yml", {"remote": {"signature_threshold": 1.5}}),
    ("app.yml", {"remote": {"require_signature": "no"}}),
    ("app.yml", {"logging": {"level": "warn"}}),
    ("app.yml", {"cache_dir": 5}),
    *((file, {"selectoins": {}}) for file in FILES),
    ("adapters.yml", {"selections": {"cache": 5}}),
    ("adapters.yml", {"candidates": [{"key": "c", "provider": "p"}]}),
    ("adapters.yml", {"candidates": [{"key": "c", "provider": "p", "factory": "m:f", "prio": 1}]}),
    ("adapters.yml", {"provider_settings": {"redis": 5}}),
]


@pytest.mark.parametrize(("file", "value"), BAD)
def test_schema_refuses_what_the_loader_refuses(problems, file, value):
    assert problems(**{file.removesuffix(".yml"): yaml.safe_dump(value)})
    with pytest.raises(jsonschema.ValidationError):
        check(value, file)


def test_schema_of_all_files_refuses_an_unknown_file():
    with pytest.raises(jsonschema.ValidationError, match="adaptors"):
        check({"adaptors.yml": {}})


def test_schema_of_an_unknown_file_names_the_known_ones():
    with pytest.raises(UsageError) as caught:
        json_schema("adaptors.yml")

    assert caught.value.render() == (
        "error[usage]: there is no settings file 'adaptors.yml'\n"
        "try: use one of: app.yml, adapters.yml, services.yml, tasks.yml, events.yml, workflows.yml, actions.yml"
    )

"""``settings.md``: every setting, from the JSON Schema that ``oneiric config schema`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from oneiric.config.environment import PREFIX
from oneiric.config.show import json_schema
from oneiric.core.config import ENV_SECTIONS, AppSettings, RemoteSettings, keep_fixed, keep_trust
from oneiric.core.domain import DOMAINS
from scripts.reference.markdown import ORIGIN, code, default_of, prose, table, value_of

APP: Final = "app.yml"
DOMAIN_FILES: Final = tuple(domain.settings_file for domain in DOMAINS.values())

_HEAD: Final = f"""\
{ORIGIN}

# Settings

They are read from the settings directory (`--settings`, else `settings`): `app.yml`, and one file for each domain. A
file that is missing is fine; an unknown or duplicate key, or a value of another kind, is an error that names file, line
and column. Mappings are merged key by key, all else is replaced: a flag over a variable of the environment over a file
over the default.

```console
$ oneiric config check
$ oneiric config show --origin
$ oneiric config schema
```

The first lists every mistake, the second says what is in force and where it was set, the third prints the JSON Schema
for an editor. Durations are seconds, sizes bytes; relative paths start from the working directory. An invalid change
leaves the last good settings in force.

**While the daemon runs** a change holds at once, unless a last column says otherwise. What waits for a restart is
named by [`config-held`](events.md#config-held) in the log.
"""
_REMOTE: Final = """\
The environment may make these stricter, never more lenient; so may a change while the daemon runs.
"""
_DOMAINS: Final = """\
Each domain has one, all of the same keys; a change holds at once. A selection that is removed leaves its instance in
place until a restart, and other settings of a provider have a new instance built.
"""
_SECRETS: Final = """\
## Secrets

A text of `provider_settings` and `remote.token` may refer to a secret: `${env:NAME}` is a variable of the daemon's
environment, `${file:path}` the content of a file, without the line feed at its end; `$${` is a plain `${`. A provider
whose secret is missing is not eligible, and `explain` says so. What is secret reads `***` wherever it is shown. When a
new value is seen: [secrets and tokens](../runbooks/MAINTENANCE.md#secrets-and-tokens).
"""
_VARIABLES: Final = """\
## Variables

Each setting can be set by a variable of the environment, all in capitals. The value of a text setting is taken as it
is, any other is read as YAML: `ONEIRIC_REMOTE__PUBLIC_KEYS='[keys/2026.pub, keys/2027.pub]'`. An empty variable counts
as not set; an unknown section or key is an error. Those that are no setting stand
[beside the commands](cli.md#environment).
"""
_HEADINGS: Final = {"candidates[].": "One of the candidates", "slots.KEY.": "One of the slots"}
_LINKS: Final = {
    "CandidateSettings": "[candidates](#one-of-the-candidates)",
    "SlotSettings": "[slots](#one-of-the-slots)",
}
_VALUES: Final[Mapping[str, tuple[Any, ...]]] = {
    "boolean": (False, True),
    "integer": (1, 2),
    "number": (1.0, 2.0),
    "string": ("a", "c"),
    "array": (("a",), ("a", "b")),
    "null": (None,),
}
"""What a setting of a kind is changed to, and from, to see whether the change is held back."""

EXAMPLES: Final[Mapping[str, str]] = {
    "app.yml": """\
lifecycle: {activation_timeout: 10, drain_timeout: 60}
remote:
  manifest_url: https://oneiric.example.org/manifest.json
  public_key: keys/publisher.pub
  max_age: 86400
api: {http: "0.0.0.0:9464", allowed_hosts: [oneiric.internal]}
logging: {level: warning}
""",
    "adapters.yml": """\
selections: {cache: redis}
candidates:
  - {key: cache, provider: memory, factory: "shop.cache:MemoryCache"}
provider_settings:
  redis: {url: "redis://127.0.0.1:6379/0", password: "${env:REDIS_PASSWORD}"}
slots:
  cache: {soak: 60, failover: true}
""",
    "services.yml": """\
candidates:
  - {key: payment, provider: acme, factory: "shop.payment:Acme", priority: 10, requires: ["httpx>=0.27"]}
capabilities: {payment: [refunds]}
""",
    "tasks.yml": """\
candidates:
  - {key: report, provider: nightly, factory: "shop.tasks:Report", python_version: ">=3.12"}
""",
    "events.yml": """\
candidates:
  - {key: order-placed, provider: mail, factory: "shop.events:Mail", poolable: true}
""",
    "workflows.yml": """\
candidates:
  - {key: checkout, provider: plain, factory: "shop.workflows:Checkout", version: "2.1"}
slots:
  checkout: {before_swap: "shop.hooks:announce"}
""",
    "actions.yml": """\
candidates:
  - {key: resize, provider: gpu, factory: "shop.actions:Resize", os_platform: [linux], exclusive: true}
provider_settings:
  resize/gpu: {device: 0}
""",
}


class Setting(NamedTuple):
    """One setting: its name in its section, and what the schema says of it."""

    name: str
    schema: Mapping[str, Any]
    required: bool = False


def sections() -> Mapping[str, tuple[str, list[Setting]]]:
    """Return what each section of ``app.yml`` is for, and its settings; those in no section are under ""."""
    schema = json_schema(APP)
    definitions = schema["$defs"]
    found: dict[str, tuple[str, list[Setting]]] = {}
    single: list[Setting] = []
    for name, field in definitions["AppSettings"]["properties"].items():
        if "$ref" in field:
            section = definitions[field["$ref"].rpartition("/")[2]]
            found[name] = section["description"], _settings(section)
        else:
            single.append(Setting(name, field))
    return {**found, "": ("What belongs to no section.", single)}


def domain_sections() -> Mapping[str, tuple[str, list[Setting]]]:
    """Return the keys of a domain's file, and those of what stands in it, by where they stand."""
    definitions = json_schema(DOMAIN_FILES[0])["$defs"]
    places = {"": "DomainSettings", "candidates[].": "CandidateSettings", "slots.KEY.": "SlotSettings"}
    return {place: (definitions[name]["description"], _settings(definitions[name])) for place, name in places.items()}


def variables() -> Mapping[str, str]:
    """Return the variable of each setting, and the setting's path."""
    found = {}
    for section, (_, settings) in sections().items():
        for setting in settings:
            path = f"{section}.{setting.name}".lstrip(".")
            found[PREFIX + path.replace(".", "__").upper()] = path
    domains = {section: file for section, (file, name) in ENV_SECTIONS.items() if name is None}
    for section, file in domains.items():
        for setting in domain_sections()[""][1]:
            found[f"{PREFIX}{section}__{setting.name.upper()}"] = f"{file.removesuffix('.yml')}.{setting.name}"
    return found


def page() -> str:
    """Return the page."""
    parts = [_HEAD, "## app.yml\n", _example(APP)]
    for name, (says, settings) in sections().items():
        parts += [f"### {name or 'Directories'}\n", f"{prose(says)}\n", *([_REMOTE] if name == "remote" else [])]
        changes = [holds_from(name, one.name) for one in settings]
        parts += [_table(settings, f"{name}." if name else "", changes), ""]
    parts += ["## Files of the domains\n", _DOMAINS, *map(_example, DOMAIN_FILES)]
    for place, (says, settings) in domain_sections().items():
        parts += [f"### {_HEADINGS[place]}\n", f"{prose(says)}\n"] if place else []
        parts += [_table(settings, place), ""]
    rows = [(code(variable), code(path)) for variable, path in variables().items()]
    return "\n".join([*parts, _SECRETS, _VARIABLES, table(("variable", "sets"), rows), ""])


def holds_from(section: str, name: str) -> str:
    """Say when a change of a setting of ``app.yml`` holds: what the engine answers to one says it."""
    if section == "remote":
        return _trust_holds_from(name)
    app = AppSettings()
    part = getattr(app, section) if section else app
    changed = replace(part, **{name: f"not {getattr(part, name)}"})
    _, held = keep_fixed(app, replace(app, **{section: changed}) if section else changed)
    return "at a restart" if held else ""


def _trust_holds_from(name: str) -> str:
    base = RemoteSettings(public_key="a", public_keys=("b",), signature_threshold=2)
    schema = next(one.schema for one in sections()["remote"][1] if one.name == name)
    kinds = [one["type"] for one in schema.get("anyOf", [schema])]
    values = [value for kind in kinds for value in _VALUES[kind]]
    held = [
        name in keep_trust(replace(base, **{name: old}), replace(base, **{name: new}))[1]
        for old, new in permutations(values, 2)
    ]
    return "at a restart" if all(held) else "weaker at a restart" if any(held) else ""


def _settings(section: Mapping[str, Any]) -> list[Setting]:
    required = section.get("required", ())
    return [Setting(name, field, name in required) for name, field in section["properties"].items()]


def _table(settings: list[Setting], prefix: str, changes: Sequence[str] = ()) -> str:
    """Return the table of *settings*; *changes* says when a change of each holds; where none waits it is left out."""
    header, rows = ["setting", "says", "value", "default"], [_row(one, prefix) for one in settings]
    if any(changes):
        header.append("a change holds")
        rows = [(*row, holds) for row, holds in zip(rows, changes, strict=True)]
    return table(header, rows)


def _row(one: Setting, prefix: str) -> tuple[str, ...]:
    default = "required" if one.required else default_of(one.schema)
    return code(prefix + one.name), prose(one.schema["description"]), _value(one), default


def _value(one: Setting) -> str:
    """Say what *one* accepts, with its unit: a number is a duration, a size says that it is one."""
    words = value_of(one.schema, lambda name: _LINKS[name])
    if one.name.endswith("_bytes"):
        return words.replace("whole number", "bytes")
    return words if "whole" in words else words.replace("number", "seconds")


def _example(file: str) -> str:
    return f"```yaml settings/{file}\n{EXAMPLES[file]}```\n"

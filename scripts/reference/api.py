"""``api.md``: every route of the control API, from its OpenAPI description."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from oneiric.api.openapi import openapi
from oneiric.errors import OneiricError
from scripts.reference.errors import every_error
from scripts.reference.markdown import ORIGIN, Schema, code, default_of, paragraphs, prose, table, value_of

_HEAD: Final = f"""\
{ORIGIN}

# Control API

The daemon speaks HTTP on its control socket (`api.socket`), to its own user and to root. It is what every command asks:
the answers are what `--json` prints. The description for programs is [openapi.json](openapi.json); a daemon serves its
own at `/openapi.json`. Bodies are JSON, sent as `Content-Type: application/json`; an unknown field or parameter is an
error. Fields are added to answers, never renamed.

The examples are typed in the daemon's working directory.

```console
$ curl --silent --unix-socket .oneiric_state/oneiric.sock http://oneiric/openapi.json
```
"""
_ERRORS: Final = """\
## Errors

An answer other than 200 is an [ErrorDocument](#errordocument), with the code and the HTTP status of the
[error](errors.md). What is no request of this API is refused as `usage`: 404 where nothing is, 405 for another method,
408 and 413 for a body that is too slow or too long, 415 for one of another type.
"""
_PUBLIC: Final = """\
## What TCP serves

At `api.http` there are no verbs: `GET` of `/healthz` (200 while the process lives), `/readyz` (503 until it serves) and
`/metrics` (the [metrics](metrics.md) as text for Prometheus). A `Host` that is no IP address, `localhost` or name of
`api.allowed_hosts` is refused with 421.

```console
$ curl --silent http://127.0.0.1:9464/healthz
$ curl --silent http://127.0.0.1:9464/readyz
$ curl --silent http://127.0.0.1:9464/metrics
```
"""
_SLOT: Final = {"domain": "adapter", "key": "cache"}
# What the examples ask; what is not here is asked without parameters, or with an empty body.
_ASKED: Final[Mapping[str, Mapping[str, Any]]] = {
    "GET /v1/list": {"shadowed": "true"},
    "GET /v1/explain": _SLOT,
    "GET /v1/status": _SLOT,
    "GET /v1/metrics": {"group": "lifecycle"},
    "POST /v1/swap": {**_SLOT, "provider": "memory"},
    "POST /v1/unpin": _SLOT,
    "POST /v1/pause": {**_SLOT, "note": "new host"},
    "POST /v1/resume": _SLOT,
    "POST /v1/drain": {**_SLOT, "note": "new host"},
    "POST /v1/remote/sync": {"dry_run": True},
}


class Operation(NamedTuple):
    """One route as the description has it."""

    method: str
    path: str
    described: Schema

    @property
    def name(self) -> str:
        """The method and the path."""
        return f"{self.method} {self.path}"

    @property
    def answer(self) -> str:
        """The name of the document it answers with."""
        return _name_of(self.described["responses"]["200"])

    @property
    def body(self) -> str:
        """The name of the body it takes, "" for none."""
        return _name_of(self.described["requestBody"]) if "requestBody" in self.described else ""

    @property
    def example(self) -> str:
        """A command that asks it."""
        asked = _ASKED.get(self.name, {})
        words = ["curl", "--silent", "--unix-socket", ".oneiric_state/oneiric.sock"]
        url = f"http://oneiric{self.path}"
        if self.method == "GET":
            query = "&".join(f"{name}={value}" for name, value in asked.items())
            return shlex.join([*words, f"{url}?{query}" if query else url])
        return f"{shlex.join([*words, url])} \\\n    --json {shlex.quote(json.dumps(asked))}"


def operations() -> Iterator[Operation]:
    """Yield every route."""
    for path, methods in openapi()["paths"].items():
        for method, described in methods.items():
            yield Operation(method.upper(), path, described)


def page() -> str:
    """Return the page."""
    every = list(operations())
    schemas: Mapping[str, Schema] = openapi()["components"]["schemas"]
    rows = [
        (f"[{code(one.name)}](#{_anchor(one)})", one.described["summary"], f"[{one.answer}](#{one.answer.lower()})")
        for one in every
    ]
    bodies = {one.body for one in every}
    documents = [name for name in schemas if name not in bodies]
    parts = [_HEAD, "## Routes\n", table(("route", "does", "answer"), rows), ""]
    parts += [_section(one, schemas) for one in every]
    parts += [_ERRORS, table(("code", "status"), _statuses()), "", _PUBLIC, "## Documents\n"]
    return "\n".join([*parts, *(_document(name, schemas[name]) for name in documents)])


def _section(one: Operation, schemas: Mapping[str, Schema]) -> str:
    parts = [f"### {one.name}", f"{one.described['summary']}. Answers with [{one.answer}](#{one.answer.lower()})."]
    if "parameters" in one.described:
        rows = [_field(each["name"], each["schema"], required=each["required"]) for each in one.described["parameters"]]
        parts.append(table(("parameter", "value", "default", "says"), rows))
    if body := schemas.get(one.body):
        required = body.get("required", ())
        rows = [_field(name, each, required=name in required) for name, each in body["properties"].items()]
        parts.append(table(("field of the body", "value", "default", "says"), rows) if rows else "The body is `{}`.")
    return "\n\n".join([*parts, f"```console\n$ {one.example}\n```"]) + "\n"


def _document(name: str, schema: Schema) -> str:
    rows = [(code(field), value_of(each, _link), default_of(each)) for field, each in schema["properties"].items()]
    parts = [f"### {name}", *paragraphs(schema["description"]), table(("field", "value", "default"), rows)]
    return "\n\n".join(parts) + "\n"


def _field(name: str, schema: Schema, *, required: bool) -> tuple[str, str, str, str]:
    value = value_of(schema, _link).replace(" or null", "")
    return code(name), value, "required" if required else default_of(schema), prose(schema["description"])


def _statuses() -> list[tuple[str, str]]:
    found: dict[str, type[OneiricError]] = {}
    for kind in every_error():
        found.setdefault(kind.code, kind)
    return [
        (f"[{code(name)}](errors.md#{kind.__name__.lower()})", str(kind.http_status)) for name, kind in found.items()
    ]


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _name_of(content: Schema) -> str:
    return str(content["content"]["application/json"]["schema"]["$ref"]).rpartition("/")[2]


def _anchor(one: Operation) -> str:
    return one.name.lower().replace(" ", "-").replace("/", "")

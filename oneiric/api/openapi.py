"""The OpenAPI document, made from the route table."""

from __future__ import annotations

from typing import Any

import msgspec

from oneiric import __version__
from oneiric.api.routes import ROUTES, Route
from oneiric.api.schemas import ErrorDocument


def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of the control API."""
    answers = {route.answer for route in ROUTES} | {ErrorDocument}
    bodies = {route.body for route in ROUTES if route.body is not None}
    types = sorted(answers | bodies, key=lambda struct: struct.__name__)
    references, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas = dict(zip(types, references, strict=True))
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Oneiric control API",
            "version": __version__,
            "description": "Spoken on the daemon's Unix socket, to its own user and root.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.path.removeprefix("/v1/").replace("/", "-"),
        "summary": route.summary,
        "responses": {
            "200": _content("The answer", schemas[route.answer]),
            "default": _content("What went wrong and what to do next", schemas[ErrorDocument]),
        },
    }
    parameters = [
        {"name": field.name, "in": "query", "required": field.required, "schema": msgspec.json.schema(field.type)}
        for field in msgspec.structs.fields(route.query)
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[route.body]}},
        }
    return operation


def _content(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


if __name__ == "__main__":
    import json

    print(json.dumps(openapi(), indent=2))  # noqa: T201 - `make openapi` writes it to docs/reference

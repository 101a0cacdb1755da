"""Settings under construction: what files, environment and flags say, laid over one another."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect as shapes

from oneiric.config.environment import Layer, refuse_weakening
from oneiric.config.shape import conform, trails
from oneiric.config.source import Source, dotted
from oneiric.core.config import FILES, AppSettings, DomainSettings, Settings
from oneiric.core.domain import DOMAINS
from oneiric.errors import ConfigError, Problem

S = TypeVar("S", bound=msgspec.Struct)

APP_FILE: Final = "app.yml"


class Tree:
    """Values by file, the origin of each setting, and every problem so far."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {name: {} for name in FILES}
        self.origins: dict[str, str] = {}
        self.problems: list[Problem] = []

    def add(self, layer: Layer, *, may_weaken: bool = True) -> None:
        """Lay *layer* over what is there. Unless it *may_weaken* trust, a value that would is a problem."""
        file, value, source = layer
        if value is not None:
            kind = shapes.type_info(FILES[file])
            shaped = conform(value, kind, (), source)
            if file == APP_FILE and not may_weaken:
                refuse_weakening(shaped, self.values[APP_FILE], source)
            if isinstance(shaped, dict):
                self._merge(file, shaped, kind, source)
        self.problems += source.problems

    def _merge(self, file: str, shaped: dict[str, Any], kind: shapes.Type, source: Source) -> None:
        prefix = () if file == APP_FILE else (file.removesuffix(".yml"),)
        if "candidates" in shaped:
            listed = dotted((*prefix, "candidates")) + "["
            self.origins = {path: origin for path, origin in self.origins.items() if not path.startswith(listed)}
        self.values[file] = _merged(self.values[file], shaped)
        self.origins |= {dotted((*prefix, *trail)): source.origin(trail) for trail in trails(shaped, kind) if trail}

    def settings(self, stack_order: str) -> Settings:
        """Return the tree as a value; raises ConfigError when any layer had a problem."""
        app = AppSettings() if self.problems else _as(AppSettings, self.values[APP_FILE])
        self._refuse_unreachable_threshold(app)
        if self.problems:
            raise ConfigError(*self.problems)
        domains = {domain.name: _as(DomainSettings, self.values[domain.settings_file]) for domain in DOMAINS.values()}
        return Settings(
            app=app,
            domains=MappingProxyType(domains),
            stack_order=stack_order,
            origins=MappingProxyType(self.origins),
        )

    def _refuse_unreachable_threshold(self, app: AppSettings) -> None:
        keys = {key for key in (app.remote.public_key, *app.remote.public_keys) if key}
        if keys and app.remote.signature_threshold > len(keys):
            what = f"signature_threshold {app.remote.signature_threshold} exceeds the number of keys, {len(keys)}"
            where = self.origins["remote.signature_threshold"]
            self.problems.append(Problem(where, what, f"at most {len(keys)}, or more in remote.public_keys"))


def _as(kind: type[S], values: dict[str, Any]) -> S:
    """Return *values* as a *kind*; where there are none, without a costly look at every annotation."""
    return msgspec.convert(values, kind) if values else kind()


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    return below | {
        key: _merged(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }

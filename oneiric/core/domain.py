"""The six domains. What differs between them is in this table and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Domain(NamedTuple):
    """One kind of replaceable part."""

    name: str
    plural: str

    @property
    def group(self) -> str:
        """Entry-point group that offers candidates of this domain."""
        return f"oneiric.{self.plural}"

    @property
    def settings_file(self) -> str:
        """File under ``settings/`` that configures this domain."""
        return f"{self.plural}.yml"


DOMAINS: Final[Mapping[str, Domain]] = MappingProxyType(
    {
        name: Domain(name, plural)
        for name, plural in (
            ("adapter", "adapters"),
            ("service", "services"),
            ("task", "tasks"),
            ("event", "events"),
            ("workflow", "workflows"),
            ("action", "actions"),
        )
    }
)

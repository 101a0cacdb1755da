"""Slots, and the candidates that offer to fill them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import msgspec

from oneiric.core.domain import DOMAINS
from oneiric.errors import ConfigError, Problem, UsageError

T = TypeVar("T")

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)
_FACTORY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*", re.ASCII)

NAME_RULE: Final = "lower-case letters, digits, '.', '_' and '-', at most 128, without '..'"


def is_name(text: object) -> bool:
    """Say whether *text* may name a key, a provider or a stack."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None and ".." not in text


def is_factory_path(text: str) -> bool:
    """Say whether *text* reads ``package.module:attribute``."""
    return _FACTORY.fullmatch(text) is not None and ".." not in text


def is_version(text: object) -> bool:
    """Say whether *text* is a version by PEP 440."""
    return isinstance(text, str) and (text == "0" or _reads_as_version(text))


class Slot(tuple[str, str], Generic[T]):
    """The place one provider fills: a domain and a key, printed ``adapter/cache``.

    ``Slot[Cache]("adapter", "cache")`` is typed by what fills it. A slot is a tuple, so that looking one up costs what
    looking up a tuple costs. Raises UsageError for an unknown domain or a malformed key.
    """

    def __new__(cls, domain: str, key: str) -> Slot[T]:
        """Check the name."""
        if domain not in DOMAINS:
            raise UsageError(f"unknown domain {domain!r}", hint=f"use one of: {', '.join(DOMAINS)}")
        if not is_name(key):
            raise UsageError(f"{key!r} cannot be a key", hint=f"use {NAME_RULE}")
        return super().__new__(cls, (domain, key))

    def __getnewargs__(self) -> tuple[str, str]:
        return self.domain, self.key

    @property
    def domain(self) -> str:
        """One of the six domains."""
        return self[0]

    @property
    def key(self) -> str:
        """Name of the part within its domain."""
        return self[1]

    @property
    def protocol(self) -> type[Any] | None:
        """The type this slot was declared with (``Slot[Cache]``), or None; Any says nothing, so it counts as none."""
        declared = getattr(getattr(self, "__orig_class__", None), "__args__", (None,))[0]
        return declared if isinstance(declared, type) and declared is not Any else None

    def __str__(self) -> str:
        return f"{self[0]}/{self[1]}"

    def __repr__(self) -> str:
        return f"Slot({self[0]!r}, {self[1]!r})"


Factory = Callable[..., T | Awaitable[T]]


class Deferred(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A factory that is found only when an instance is about to be built, in a worker thread.

    Args:
        path: what it is called; another path is another factory.
        finder: returns the factory, called with *arguments*.

    The collector of cyclic garbage passes it by, for there are as many as candidates: *arguments* must not lead back.
    """

    path: str
    finder: Callable[..., Callable[..., Any]]
    arguments: tuple[Any, ...]

    def find(self) -> Callable[..., Any]:
        """Return the factory."""
        return self.finder(*self.arguments)

    def __repr__(self) -> str:
        return f"Deferred({self.path!r})"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A Candidate of whatever type, as a parameter.

    A type checker infers ``Candidate(slot=CACHE, factory=Wrong)``, written where an Offer is taken, from its slot, and
    so refuses it; where a ``Candidate[Any]`` is taken it would infer Any, and accept every factory.
    """


class Candidate(Offer, Generic[T], frozen=True, kw_only=True):
    """One provider's offer to fill a slot.

    Args:
        factory: builds the instance, called with the provider's settings as keyword arguments; or ``module:attribute``.
        stack: who offers it (a package, ``settings``, a manifest's source); ``ONEIRIC_STACK_ORDER`` ranks stacks.
        stack_level: the candidate's own level, used where the environment names none for its stack.
        version: PEP 440.
        capabilities: what the provider can do beyond its protocol.
        requires: PEP 508 requirements that must be installed; never installed by us.
        python_version: PEP 440 specifier such as ``>=3.12``.
        os_platform: ``linux``, ``darwin``, ``windows``; empty means any.
        exclusive: owns something that only one may have (a port, a lock): stopped before its successor is built.
        poolable: an instance that was swapped away may be used again instead of being closed.
        metadata: free text for people; ``hint`` is shown when the candidate is rejected.
        source: where the candidate came from; set on registration.

    Raises ConfigError when a field is malformed.
    """

    slot: Slot[T]
    provider: str
    factory: Callable[..., T | Awaitable[T]] | str | Deferred
    stack: str = "default"
    stack_level: int | None = None
    priority: int = 0
    version: str = "0"
    capabilities: frozenset[str] = frozenset()
    requires: tuple[str, ...] = ()
    python_version: str = ""
    os_platform: tuple[str, ...] = ()
    exclusive: bool = False
    poolable: bool = False
    metadata: Mapping[str, Any] = {}
    source: str = "code"

    def __post_init__(self) -> None:
        if not (
            type(self.slot) is Slot
            and is_name(self.provider)
            and is_name(self.stack)
            and _is_factory(self.factory)
            and type(self.priority) is int
            and (self.stack_level is None or type(self.stack_level) is int)
            and is_version(self.version)
            and not (self.exclusive and self.poolable)
            and _are_texts(self.capabilities, frozenset)
            and _are_texts(self.requires, tuple)
            and _are_texts(self.os_platform, tuple)
        ):
            self._refuse()

    def _refuse(self) -> None:
        """Say what is wrong; costly, for it words every complaint."""
        problems = [
            Problem(f"candidate {self.slot} {self.provider!r}", what, accepted)
            for holds, what, accepted in (
                (_is(self.slot, Slot), f"slot {self.slot!r} is not a Slot", 'Slot("adapter", "cache")'),
                (is_name(self.provider), f"provider {self.provider!r} is not a name", NAME_RULE),
                (is_name(self.stack), f"stack {self.stack!r} is not a name", NAME_RULE),
                (
                    _is_factory(self.factory),
                    f"factory {self.factory!r} is neither callable nor a path",
                    "package.module:attribute",
                ),
                (_is(self.priority, int), f"priority {self.priority!r} is not a whole number", "10"),
                (
                    self.stack_level is None or _is(self.stack_level, int),
                    f"stack_level {self.stack_level!r} is not a whole number",
                    "10",
                ),
                (is_version(self.version), f"version {self.version!r} is not PEP 440", "1.2.0"),
                (not (self.exclusive and self.poolable), "is both exclusive and poolable", "one of them"),
                (_are_texts(self.capabilities, frozenset), "capabilities are not texts", 'frozenset({"ttl"})'),
                (_are_texts(self.requires, tuple), "requires are not texts", '("redis>=5",)'),
                (_are_texts(self.os_platform, tuple), "os_platform are not texts", '("linux",)'),
            )
            if not holds
        ]
        if problems:
            raise ConfigError(*problems, hint="correct the candidate where it is declared")

    @property
    def factory_path(self) -> str:
        """The factory as text: ``module:attribute``."""
        if isinstance(self.factory, str):
            return self.factory
        if isinstance(self.factory, Deferred):
            return self.factory.path
        module = getattr(self.factory, "__module__", "?")
        return f"{module}:{getattr(self.factory, '__qualname__', type(self.factory).__qualname__)}"


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind)


def _is_factory(value: object) -> bool:
    return callable(value) or isinstance(value, Deferred) or (isinstance(value, str) and is_factory_path(value))


def _are_texts(value: object, kind: type) -> bool:
    return isinstance(value, kind) and (not value or all(isinstance(item, str) for item in value))  # type: ignore[attr-defined]


@lru_cache(maxsize=1024)  # a manifest of ten thousand has few
def _reads_as_version(text: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        Version(text)
    except InvalidVersion:
        return False
    return True

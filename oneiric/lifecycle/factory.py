"""From a candidate to an instance and back: import, build, probe, close."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from oneiric.core.candidate import Candidate, Deferred
from oneiric.errors import ActivationError
from oneiric.lifecycle.foreign import ForeignCalls, Late
from oneiric.lifecycle.imports import import_factory
from oneiric.observability.describe import describe, printed

# Tried in this order; the first one an instance has closes it.
_CLOSERS: Final = ("aclose", "cleanup", "close")


def arguments_for(
    factory: Callable[..., Any], settings: Mapping[str, Any], offers: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments to call *factory* with: its settings, and what it takes of *offers* by name.

    Raises TypeError naming every setting the factory does not take and every argument it needs and is not given.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built in C without a signature: it checks for itself
        return dict(settings)
    by_name = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    given = {name: offers[name] for name in offers if name in by_name} | dict(settings)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [] if takes_any else [name for name in given if name not in by_name]
    needed = [p.name for p in by_name.values() if p.default is p.empty and p.name not in given]
    needed += [p.name for p in parameters.values() if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
    complaints = [_unknown_argument(name, by_name) for name in unknown]
    complaints += [f"{name!r} is needed and not set" for name in needed]
    if complaints:
        raise TypeError("; ".join(complaints))
    return given


def _unknown_argument(name: str, known: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    accepted = f"did you mean {close[0]!r}?" if close else f"accepted: {', '.join(known) or 'none'}"
    return f"{name!r} is not a setting of the factory ({accepted})"


async def build(
    candidate: Candidate[Any],
    settings: Mapping[str, Any],
    *,
    offers: Mapping[str, Any],
    calls: ForeignCalls,
    timeout: float,
    late: Late,
) -> Any:
    """Import *candidate*'s factory, check its arguments and call it.

    Raises ActivationError: ``timeout`` when it took longer than *timeout* seconds, else ``factory``. What arrives after
    that goes to *late*.
    """
    where = f"{candidate.slot} {candidate.provider}"
    owner = (candidate.slot, candidate.provider)

    async def run() -> Any:
        factory = candidate.factory
        if isinstance(factory, Deferred):
            factory = await calls.call(factory.find, timeout=timeout, owner=owner)
        elif isinstance(factory, str):
            factory = await calls.call(import_factory, timeout=timeout, owner=owner, arguments={"path": factory})
        try:
            arguments = arguments_for(factory, settings, offers)
        except TypeError as error:
            raise ActivationError(
                f"{where}: provider_settings do not fit {candidate.factory_path}: {error}",
                hint=f"correct provider_settings of {candidate.provider}, then: oneiric config check",
            ) from None
        return await calls.call(factory, timeout=timeout, late=late, owner=owner, arguments=arguments)

    try:
        instance = await run()
    except ActivationError:
        raise
    except TimeoutError as error:
        reason = "timeout" if printed(error, str).startswith("no answer within") else "factory"
        raise ActivationError(_failure(where, candidate, error), reason=reason, hint=_hint(candidate)) from error
    except Exception as error:
        raise ActivationError(_failure(where, candidate, error), hint=_hint(candidate)) from error
    if instance is None:
        raise ActivationError(f"{where}: {candidate.factory_path} returned None", hint=_hint(candidate))
    return instance


def _failure(where: str, candidate: Candidate[Any], error: Exception) -> str:
    return f"{describe(error)} ({where}, factory {candidate.factory_path})"


def _hint(candidate: Candidate[Any]) -> str:
    slot = candidate.slot
    return (
        f"correct the cause, then: oneiric swap --domain {slot.domain} --key {slot.key} --provider {candidate.provider}"
    )


async def probe(instance: Any, *, calls: ForeignCalls, timeout: float, owner: object = None) -> str:
    """Ask *instance* whether it is healthy; return "" if so, else why not. Without a ``health`` method it is."""
    try:
        health = getattr(instance, "health", None)
        if health is None:
            return ""
        answer = await calls.call(health, timeout=timeout, owner=owner)
    except Exception as error:
        return describe(error)
    return "" if answer is True else f"health() returned {printed(answer)}, not True"


async def close(instance: Any, *, calls: ForeignCalls, timeout: float, owner: object = None) -> str:
    """Close *instance* by the first of ``aclose``, ``cleanup`` and ``close`` it has; return "" or what went wrong."""
    try:
        closer = next((found for name in _CLOSERS if callable(found := getattr(instance, name, None))), None)
        if closer is None:
            return ""
        await calls.call(closer, timeout=timeout, owner=owner)
    except Exception as error:
        return describe(error)
    return ""

"""A stand-in for whatever fills a slot, whose every method call takes a lease.

Each method is compiled with the signature its protocol declares, as ``dataclasses`` compiles ``__init__``: the call
costs a fifth of what a generic ``__getattr__`` with ``*args`` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from oneiric.core.candidate import Slot
from oneiric.errors import UsageError
from oneiric.lifecycle.live import LiveSlot

# Names of ours begin with `_oneiric_`: a method or a parameter may be called anything else.
_ASYNC: Final = """
async def {name}({signature}):
    while (_oneiric_held := _oneiric_live.serving) is None:
        await _oneiric_live.wait_serving()
    _oneiric_held.leases += 1
    _oneiric_live.granted += 1
    try:
        return await _oneiric_held.value.{name}({arguments})
    finally:
        _oneiric_held.leases -= 1
        if _oneiric_held.awaited:
            _oneiric_held.let_go()
"""
_STREAM: Final = """
async def {name}({signature}):
    while (_oneiric_held := _oneiric_live.serving) is None:
        await _oneiric_live.wait_serving()
    _oneiric_held.leases += 1
    _oneiric_live.granted += 1
    _oneiric_stream = None
    try:
        _oneiric_stream = _oneiric_held.value.{name}({arguments})
        async for _oneiric_item in _oneiric_stream:
            yield _oneiric_item
    finally:
        try:
            if hasattr(_oneiric_stream, "aclose"):  # given up half-way: its own clean-up runs under the lease too
                await _oneiric_stream.aclose()
        finally:
            _oneiric_held.leases -= 1
            if _oneiric_held.awaited:
                _oneiric_held.let_go()
"""


class Proxy:
    """Stands for the instance of one slot."""

    def __init__(self, slot: Slot[Any]) -> None:
        self.__slot = slot

    def __repr__(self) -> str:
        return f"<proxy of {self.__slot}>"


def proxy_for(live: LiveSlot, protocol: type[Any] | None) -> Any:
    """Return a proxy with the asynchronous methods that *protocol* declares.

    Raises UsageError for a slot declared without a type (``Slot[Cache](...)`` has one), and for a protocol with public
    synchronous methods: those cannot wait for an instance.
    """
    if protocol is None or protocol is object:
        raise UsageError(
            f"{live.slot} is not typed, so its methods are not known",
            hint=f'Slot[YourProtocol]("{live.slot.domain}", "{live.slot.key}") types it; or lease: runtime.use(slot)',
        )
    methods = {
        name: _compile(live, name, declared)
        for name, declared in inspect.getmembers(protocol, callable)
        if not name.startswith("_")
    }
    return type(f"{protocol.__name__}Proxy", (Proxy,), {"__slots__": ("_Proxy__slot",)} | methods)(live.slot)


def _compile(live: LiveSlot, name: str, declared: Callable[..., Any]) -> staticmethod[..., Any]:
    """Compile one method; a static one, so that a call need not pass the proxy along."""
    if inspect.isasyncgenfunction(declared):
        template = _STREAM
    elif inspect.iscoroutinefunction(declared):
        template = _ASYNC
    else:
        raise UsageError(
            f"{live.slot}: {name}() of its protocol is not async, and a proxy may have to wait for an instance",
            hint="declare it with async def, or lease the instance: runtime.use(slot)",
        )
    defaults: dict[str, Any] = {}
    signature: list[str] = []
    arguments: list[str] = []
    star = False
    parameters = list(inspect.signature(declared).parameters.values())[1:]
    positional_only = sum(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters)
    for parameter in parameters:
        star = _spell(parameter, signature, arguments, defaults, star=star)
    if positional_only:
        signature.insert(positional_only, "/")
    source = template.format(name=name, signature=", ".join(signature), arguments=", ".join(arguments))
    namespace: dict[str, Any] = {"_oneiric_live": live, **defaults}
    exec(compile(source, f"<proxy {live.slot}.{name}>", "exec"), namespace)  # noqa: S102 - names come from a signature
    compiled = namespace[name]
    compiled.__doc__ = declared.__doc__
    compiled.__qualname__ = getattr(declared, "__qualname__", name)
    return staticmethod(compiled)


def _spell(
    parameter: inspect.Parameter, signature: list[str], arguments: list[str], defaults: dict[str, Any], *, star: bool
) -> bool:
    """Add one parameter to the signature and the call; return whether keyword-only parameters have begun."""
    name, kind = parameter.name, parameter.kind
    if kind is parameter.VAR_POSITIONAL:
        signature.append(f"*{name}")
        arguments.append(f"*{name}")
        return True
    if kind is parameter.VAR_KEYWORD:
        signature.append(f"**{name}")
        arguments.append(f"**{name}")
        return star
    if kind is parameter.KEYWORD_ONLY and not star:
        signature.append("*")
        star = True
    default = ""
    if parameter.default is not parameter.empty:
        defaults[f"_oneiric_default_{name}"] = parameter.default
        default = f"=_oneiric_default_{name}"
    signature.append(f"{name}{default}")
    arguments.append(f"{name}={name}" if kind is parameter.KEYWORD_ONLY else name)
    return star

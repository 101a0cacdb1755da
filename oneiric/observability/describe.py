"""Errors as the one line that logs, statuses and alerts carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LIMIT: Final = 4096

# Names, not classes: libraries have their own TimeoutError and ConnectionError, and importing ssl to name one is dear.
_CATEGORIES: Final = (
    ("dns", ("gaierror",)),
    ("tls", ("SSLError",)),
    ("timeout", ("TimeoutError",)),
    ("connection", ("ConnectionError",)),
)


def describe(error: BaseException) -> str:
    """Return ``<category>: <Class>: <message>``; every ImportError reads ``ImportError(<Class>): <message>``."""
    ancestry = [ancestor.__name__ for ancestor in type(error).__mro__]
    name, message = type(error).__name__, printed(error, str)
    if "ImportError" in ancestry:
        text = f"ImportError({name}): {message}" if name != "ImportError" else f"ImportError: {message}"
    else:
        category = next((word for word, names in _CATEGORIES if not set(names).isdisjoint(ancestry)), "")
        text = f"{category}: {name}: {message}" if category else f"{name}: {message}"
    return shorten(text)


def printed(value: object, how: Callable[[object], str] = repr) -> str:
    """Return *value* as text, whatever its own ``__str__`` or ``__repr__`` does: it may be foreign code that raises."""
    try:
        return how(value)
    except Exception as error:
        return f"<{type(value).__name__} cannot be printed: {type(error).__name__}>"


def shorten(text: str) -> str:
    """Return *text* cut to what a log field may hold, in bytes of UTF-8, and without what UTF-8 cannot say.

    A file name that is no UTF-8 carries such characters into errors, where neither JSON nor SQLite takes them.
    """
    if text.isascii() and len(text) <= LIMIT:
        return text
    content = text.encode("utf-8", "replace")
    return content.decode() if len(content) <= LIMIT else content[: LIMIT - 12].decode("utf-8", "ignore") + "[... cut]"

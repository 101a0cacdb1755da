"""Where events go: JSON or text lines for the daemon, the standard library's logging for a program that embeds us."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TextIO

from oneiric.observability.catalog import EVENTS
from oneiric.observability.describe import shorten
from oneiric.observability.meters import Meters

Sink = Callable[[str, str, Mapping[str, Any]], None]  # level, event, fields
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MASK: Final = "***"


class Emit(Protocol):
    """Reports one event of the catalog with its fields."""

    def __call__(self, event: str, **fields: Any) -> None:
        """Report *event*."""


class Reporter:
    """Checks an event against the catalog, counts it, removes known secrets from it, and hands it to a sink."""

    def __init__(self, sink: Sink, meters: Meters | None = None) -> None:
        self._sink = sink
        self._meters = meters
        self._secrets: tuple[str, ...] = ()

    def __call__(self, event: str, **fields: Any) -> None:
        """Report *event*. Raises KeyError or ValueError for what the catalog does not list: a bug, never input."""
        declared = EVENTS[event]
        if missing := [name for name in declared.fields if name not in fields]:
            raise ValueError(f"event {event} lacks {', '.join(missing)}")
        if self._meters is not None:
            self._meters.count(event, fields)
        level = "warning" if fields.get("outcome") == "failed" and declared.level == "info" else declared.level
        try:
            self._sink(level, event, {name: self.scrub(value) for name, value in fields.items()})
        except Exception:  # a program's own sink; what is under way must not depend on it
            logging.getLogger("oneiric").exception("the sink raised on %s", event)

    def hide(self, secrets: Iterable[str]) -> None:
        """Replace each of *secrets* by ``***`` in all reported from now on; texts under 4 characters are kept."""
        known = {*self._secrets, *(secret for secret in secrets if len(secret) >= 4)}
        self._secrets = tuple(sorted(known, key=len, reverse=True))

    def scrub(self, value: Any) -> Any:
        """Return *value* as a flat scalar without secrets; text is bounded."""
        if value is None or isinstance(value, bool | int | float):
            return value
        text = str(value)
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return shorten(text)


def to_logging(level: str, event: str, fields: Mapping[str, Any]) -> None:
    """Write an event to the logger ``oneiric`` of the program that embeds us."""
    text = " ".join([event, *(f"{name}={escape(value)}" for name, value in fields.items() if value not in (None, ""))])
    logging.getLogger("oneiric").log(getattr(logging, level.upper()), "%s", text)


def to_stream(stream: TextIO, *, minimum: str, as_json: bool) -> Sink:
    """Return a sink that writes one line an event to *stream*: flat JSON, or text for a terminal."""
    import structlog

    def order(_logger: Any, _method: str, fields: Any) -> Any:
        fields.setdefault("logger", "oneiric")
        return {name: fields.pop(name) for name in ("timestamp", "level", "event", "logger")} | fields

    render: Any = structlog.processors.JSONRenderer(ensure_ascii=True) if as_json else _text_line
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            order,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
    )

    def write(level: str, event: str, fields: Mapping[str, Any]) -> None:
        getattr(logger, level)(event, **fields)

    return write


class LibraryHandler(logging.Handler):
    """Writes what libraries log through the standard library as our own lines, tracebacks in ``exception``."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(logging.WARNING)
        self._write = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        fields = {"logger": record.name, "message": shorten(record.getMessage()), "exception": shorten(trace)}
        self._write(level, "library-log", fields)


def escape(value: Any) -> str:
    """Return *value* as text that cannot start a line or move a terminal's cursor."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value))


def _text_line(_logger: Any, _method: str, fields: Mapping[str, Any]) -> str:
    known = ("timestamp", "level", "event", "logger")
    rest = " ".join(f"{name}={escape(value)}" for name, value in fields.items() if name not in known and value != "")
    return f"{fields['timestamp'][11:19]} {fields['level']:<7} {fields['event']:<20} {rest}"

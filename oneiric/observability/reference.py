"""The reference pages of events and metrics, written from the catalog.

``python -m oneiric.observability.reference`` writes them to ``docs/reference``, after ``python -m oneiric.monitoring``
wrote the rules that say which alerts read a metric.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, get_args

import yaml

from oneiric.observability.catalog import EVENTS, METRICS, OTHER, Event, Metric
from oneiric.observability.examples import example
from oneiric.observability.kinds import Group
from oneiric.observability.logs import Reporter, to_stream
from oneiric.observability.meters import KEYS, PROVIDERS, Meters, Sample

RULES: Final = "deployment/monitoring/prometheus/rules/oneiric.yml"

# Where an event is told about, by the first word of its name; the rest is the daemon's.
_CHAPTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Resolution": ("resolver", "candidate", "selection", "plugin"),
    "Lifecycle": ("swap", "instance", "health", "cleanup", "activity"),
    "Settings": ("config", "watch"),
    "Remote delivery": ("remote", "signature", "digest", "circuit"),
    "Daemon": (),
}
_GROUPS: Final[Mapping[Group, str]] = {
    "resolution": "Resolution",
    "lifecycle": "Lifecycle",
    "remote": "Remote delivery",
    "settings": "Settings",
    "process": "The process",
}
_STAMP: Final = "2026-03-01T12:00:00.250000Z"
_ORIGIN: Final = "<!-- Written by `make monitoring` from oneiric/observability/catalog.py. -->"

_EVENTS_HEAD: Final = f"""\
{_ORIGIN}

# Events

The daemon writes each event as one flat JSON object on one line of stdout. Every line has `timestamp` (RFC 3339, UTC,
`Z`), `level`, `event` and `logger`; then come the event's own fields, all of them, each a text, a number, a truth or
null. A field with nothing to say is an empty text, never absent, so that a query prints it on every line. An event may
have further fields (`resolver-decision` says how many like it were `suppressed`); those listed here are always there.

- Durations end in `_ms` and are numbers. `error` is one line: a lower-case category where one applies (`timeout`,
  `connection`, `dns`, `tls`, `http`, `signature`, `digest`, `manifest`), the class and the message. A missing module
  reads `ImportError(ModuleNotFoundError): ...`. Tracebacks are in `exception`.
- An event of level `info` whose `outcome` is `failed` is a `warning`.
- URLs have no login, query or fragment; secrets read `***`; control characters are escaped; a field holds at most
  4 KiB.
- `logging.level` sets the least level that is written, `logging.format: text` writes for a terminal. A program that
  embeds Oneiric finds the events in the standard library's logger `oneiric`.
"""

_METRICS_HEAD: Final = f"""\
{_ORIGIN}

# Metrics

The daemon serves them as text for Prometheus at `/metrics` of `api.http`, as a table for people through
`oneiric metrics`, and sends them by OTLP over HTTP where `metrics.otlp_endpoint` says so. At `/metrics` stand the
usual `process_*` too.

**What reads 0.** A counter that first appears at 1 looks, to `rate()` and `increase()`, as if nothing had happened. So
counters are there at 0 before anything is counted: those whose labels have closed sets of values from the start of the
daemon, those with keys and providers from the registration of the candidate. Each metric below says which. A restart
begins at 0 again.

**The accounting.** Every attempt to put an instance in place adds 1 to `oneiric_lifecycle_swap_total`, under exactly
one outcome. It adds 1 to `oneiric_lifecycle_cleanup_total` when its new instance did not stay (also when none was ever
built), or when the old instance that it replaced was closed; a deactivation adds 1; a disposal that fails adds to
`oneiric_lifecycle_cleanup_failures_total` instead. So, at every quiet moment, by domain:

```text
swap_total - cleanup_total = active_instances + leaked
```

`success`: the new instance serves. `rollback`: the new instance was built and did not pass, the old one still serves.
`failed`: nothing was built, or nothing serves.

**Bounds.** Labels hold names that were registered or configured, never a URL, an artifact, a digest or an error.
`key` tells {KEYS} keys of a domain apart and `provider` {PROVIDERS} providers of a key; what is beyond them, or is
not known, reads `{OTHER}`. All other labels have the closed sets of values given here. To look (`list`, `explain`,
`metrics`) moves no counter.
"""

_OPEN: Final[Mapping[str, str]] = {
    "key": f"registered or configured keys, at most {KEYS} a domain; the rest `{OTHER}`",
    "provider": f"registered providers, at most {PROVIDERS} a key; the rest `{OTHER}`",
    "version": "the version that runs",
}


def events_page() -> str:
    """Return the page of events."""
    chapters: dict[str, list[Event]] = {chapter: [] for chapter in _CHAPTERS}
    for event in EVENTS.values():
        chapters[_chapter(event.name)].append(event)
    parts = [_EVENTS_HEAD]
    for chapter, events in chapters.items():
        rows = [f"| [`{one.name}`](#{one.name}) | {one.level} | {one.tells} |" for one in events]
        parts += [f"## {chapter}\n", "| event | level | tells |\n| --- | --- | --- |", *rows, ""]
        parts += [_event(event) for event in events]
    return "\n".join(parts)


def metrics_page(alerts: Mapping[str, tuple[str, ...]]) -> str:
    """Return the page of metrics; *alerts* are those that read each."""
    parts = [_METRICS_HEAD]
    for group in get_args(Group):
        metrics = [metric for metric in METRICS.values() if metric.group == group]
        rows = [f"| [`{one.name}`](#{one.name}) | {one.kind} | {one.tells} |" for one in metrics]
        parts += [f"## {_GROUPS[group]}\n", "| metric | type | tells |\n| --- | --- | --- |", *rows, ""]
        parts += [_metric(metric, alerts.get(metric.name, ())) for metric in metrics]
    return "\n".join(parts)


def line(event: Event) -> str:
    """Return a line of *event* as the daemon writes it."""
    stream = io.StringIO()
    Reporter(to_stream(stream, minimum="debug", as_json=True))(event.name, **example(event.name, event.fields))
    return re.sub(r'(?<="timestamp": ")[^"]+', _STAMP, stream.getvalue().strip())


def _chapter(event: str) -> str:
    first = event.partition("-")[0]
    return next((chapter for chapter, words in _CHAPTERS.items() if first in words), "Daemon")


def _event(event: Event) -> str:
    fields = ", ".join(f"`{field}`" for field in event.fields)
    counted = ", ".join(f"[`{name}`](metrics.md#{name})" for name in _counted(event))
    facts = [f"### {event.name}\n", f"Level `{event.level}`: {event.tells}.\n", f"Fields: {fields}.\n"]
    if counted:
        facts.append(f"Counted in {counted}.\n")
    return "\n".join([*facts, f"```json\n{line(event)}\n```\n"])


def _metric(metric: Metric, alerts: tuple[str, ...]) -> str:
    facts = [f"### {metric.name}\n", f"A {metric.kind}: {metric.tells}.\n"]
    if metric.labels:
        rows = [f"| `{name}` | {_values(name, values)} |" for name, values in metric.labels.items()]
        facts.append("\n".join(["| label | values |\n| --- | --- |", *rows, ""]))
    if metric.buckets:
        facts.append(f"Buckets, upper bounds: {', '.join(f'{bound:g}' for bound in metric.buckets)}, +Inf.\n")
    if metric.kind != "gauge":
        facts.append(f"Reads 0 {_since(metric)}.\n")
    events = ", ".join(f"[`{e.name}`](events.md#{e.name})" for e in EVENTS.values() if metric.name in _counted(e))
    if events:
        facts.append(f"Counts {events}.\n")
    if alerts:
        facts.append(f"Read by {', '.join(f'[`{name}`](alerts.md#{name.lower()})' for name in alerts)}.\n")
    return "\n".join(facts)


def _values(label: str, values: tuple[str, ...] | None) -> str:
    return ", ".join(f"`{value}`" for value in values) if values is not None else _OPEN.get(label, "open")


def _counted(event: Event) -> tuple[str, ...]:
    """Return the metrics that *event* moves."""
    meters = Meters()
    before = _sums(meters)
    fields = example(event.name, event.fields)
    for other in (True, False):  # some events count by one of their truths
        told = {name: other if isinstance(value, bool) else value for name, value in fields.items()}
        meters.count(event.name, told)
    after = _sums(meters)
    return tuple(name for name in METRICS if after[name] != before[name])


def _sums(meters: Meters) -> Counter[str]:
    sums: Counter[str] = Counter()
    for reading in meters.read():
        sums[reading.metric] += int(reading.value if isinstance(reading, Sample) else sum(reading.counts))
    return sums


def _since(metric: Metric) -> str:
    """Return from when on a counter or a histogram is there."""
    if None not in metric.labels.values():
        return "from the start"
    meters = Meters()
    meters.admit("adapter", "cache", "redis")
    named = {reading.metric for reading in meters.read() if "cache" in reading.labels}
    if metric.name in named:
        return "from the registration of a candidate"
    return f"from the start for `{OTHER}`; a key's series begins when it is first counted"


def readers(rules: str) -> Mapping[str, tuple[str, ...]]:
    """Return the alerts of a Prometheus rule file that read each metric, be it through a recording rule."""
    found = [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    recorded = {rule["record"]: rule["expr"] for rule in found if "record" in rule}
    alerts: dict[str, dict[str, None]] = {}
    for rule in found:
        for name in _names(rule["expr"], recorded) if "alert" in rule else ():
            alerts.setdefault(name, {})[rule["alert"]] = None
    return {name: tuple(told) for name, told in alerts.items()}


def _names(expression: str, recorded: Mapping[str, str]) -> set[str]:
    """Return the metrics that *expression* reads."""
    names: set[str] = set()
    for word in re.findall(r"[a-zA-Z_:][\w:]*", expression):
        if word in recorded:
            names |= _names(recorded[word], recorded)
        names.add(word if word in METRICS else re.sub("_(bucket|sum|count)$", "", word))
    return names & METRICS.keys()


def pages(rules: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each page and its text; *rules* is the rule file of the alerts."""
    yield "events.md", events_page()
    yield "metrics.md", metrics_page(readers(rules))


def main(root: Path) -> None:
    """Write the pages of the repository at *root*."""
    for name, text in pages((root / RULES).read_text()):
        (root / "docs" / "reference" / name).write_text(text)


if __name__ == "__main__":
    main(Path())

"""PromQL and LogQL as the dashboards ask it; names and labels come from the catalog.

What the catalog says decides the filters: a metric or event with a domain obeys the dashboard's ``$domain``.
"""

from __future__ import annotations

from typing import Final

from oneiric.observability.catalog import EVENTS, METRICS

HERE: Final = 'instance=~"$instance"'
DOMAIN: Final = 'domain=~"$domain"'


def of(metric: str, **labels: str) -> str:
    """Return the selector of *metric* with *labels*, in what the dashboard's variables choose."""
    chosen = [f'{label}="{value}"' for label, value in labels.items()]
    if "domain" in METRICS[metric.removesuffix("_bucket")].labels:
        chosen.append(DOMAIN)
    return f"{metric}{{{', '.join([*chosen, HERE])}}}"


def process(metric: str) -> str:
    """Return the selector of one of the ``process_*`` metrics, by the rest of its name."""
    return f'process_{metric}{{job="oneiric", {HERE}}}'


def now(metric: str, by: str = "", **labels: str) -> str:
    """Return the sum of a gauge, or of a counter since the start."""
    return _sum(by, of(metric, **labels))


def per_second(metric: str, by: str = "", **labels: str) -> str:
    """Return how often *metric* counts, in each second."""
    return _sum(by, f"rate({of(metric, **labels)}[$__rate_interval])")


def counted(metric: str, by: str = "", **labels: str) -> str:
    """Return how often *metric* counted before each point of the graph: for what happens too seldom for a rate."""
    return _sum(by, f"increase({of(metric, **labels)}[$__rate_interval])")


def worst(query: str) -> str:
    """Return the ten largest series of *query*, without those where nothing happened."""
    return f"topk(10, {query} > 0)"


def appeared(metric: str, by: str, **labels: str) -> str:
    """Return what :func:`counted` does, also for a counter whose series begin at their first event, not at 0."""
    total = of(metric, **labels)
    after, before = _sum(by, total), _sum(by, f"{total} offset $__rate_interval")
    return f"clamp_min({after} - ({before} or {after}), 0)"


def in_view(metric: str, by: str = "", **labels: str) -> str:
    """Return how often *metric* counted in the whole time on display."""
    return _sum(by, f"increase({of(metric, **labels)}[$__range])")


def quantile(share: float, metric: str, by: str = "", over: str = "$__rate_interval") -> str:
    """Return the value of the histogram *metric* that the *share* of its observations stay below; nothing when idle."""
    group = f"le, {by}" if by else "le"
    buckets = _sum(group, f"rate({of(metric + '_bucket')}[{over}])")
    return f"histogram_quantile({share}, {buckets}) >= 0"


def lines(*events: str, where: str = "", say: str = "") -> str:
    """Return the log lines of *events*, or all, that meet *where*; *say* is a template of their fields."""
    stages = ['{app="oneiric"}', "json"]
    if events:
        stages.append(f'event="{events[0]}"' if len(events) == 1 else f'event=~"{"|".join(events)}"')
        if all("domain" in EVENTS[event].fields for event in events):
            stages.append(DOMAIN)
    stages += [where] * bool(where) + [f'line_format "{say}"'] * bool(say)
    return " | ".join(stages)


def _sum(by: str, what: str) -> str:
    return f"sum by ({by}) ({what})" if by else f"sum({what})"

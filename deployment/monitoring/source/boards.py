"""Dashboards: rows of panels, what they choose from, what they mark, and the line that tops each of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grafana_foundation_sdk.builders import dashboard, loki
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from panels import ANY, LOGS_SOURCE, METRICS_SOURCE, ON, Panel, links, stat
from queries import HERE, lines, now

from oneiric.core.domain import DOMAINS

Line = tuple[Panel, ...]
"""Panels beside each other; they share the width, so there are 1, 2, 3, 4, 6 or 8 of them."""


def board(
    uid: str, title: str, tells: str, *, see: str, rows: Iterable[tuple[str, tuple[Line, ...]]]
) -> models.Dashboard:
    """Return a dashboard of *rows*, each a title and lines of panels; *see* is where its panels send a reader."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(tells)
        .tags(["oneiric"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .links([*links(see, title="Runbook"), _others()])
        .variables(_variables())
        .annotations(_annotations())
    )
    number = 0
    for heading, content in rows:
        built.with_row(dashboard.Row(heading).id(number := number + 1))
        for line in content:
            for panel in line:
                if not panel.build().links:
                    panel.links(links(see))
                built.with_panel(panel.id(number := number + 1).span(24 // len(line)))
    return built.build()


def overview(*more: Panel) -> Line:
    """Return the line that tops every dashboard: whether anything is measured, what alerts, and *more*."""
    return (
        stat(
            "Daemons up",
            "Daemons that Prometheus reaches. At 0 nothing else here means anything: it is down, or not scraped.",
            f'sum(up{{job="oneiric", {HERE}}})',
            steps=ON,
            empty="not scraped",
            decimals=0,
        ),
        stat(
            "Alerts firing",
            "Critical alerts and warnings that fire now, of all instances. Each names its runbook and what clears it.",
            'count(ALERTS{alertname=~"Oneiric.*", alertstate="firing", severity=~"critical|warning"}) or vector(0)',
            steps=ANY,
            decimals=0,
        ),
        stat(
            "What the doctor finds",
            "Runbook and scenario, such as 3D; 0- is outside of them. `oneiric doctor` says what to type.",
            f"{now('oneiric_doctor_findings', 'runbook, scenario')} > 0",
            steps=ANY,
            legend="{{runbook}}{{scenario}}",
            text=kinds.BigValueTextMode.NAME,
            empty="nothing",
        ),
        *more,
    )


def _others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Oneiric").type(models.DashboardLinkType.DASHBOARDS).tags(["oneiric"])
    return link.keep_time(True).include_vars(True)


def _variables() -> list[Any]:
    return [
        dashboard.DatasourceVariable("datasource").label("Metrics").type("prometheus"),
        dashboard.DatasourceVariable("loki").label("Logs").type("loki"),
        dashboard.QueryVariable("instance")
        .label("Instance")
        .datasource(METRICS_SOURCE)
        .query('label_values(up{job="oneiric"}, instance)')
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(_everything()),
        dashboard.CustomVariable("domain")
        .label("Domain")
        .values(",".join(DOMAINS))
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(_everything()),
    ]


def _everything() -> models.VariableOption:
    return models.VariableOption(text="All", value="$__all", selected=True)


def _annotations() -> list[dashboard.AnnotationQuery]:
    swapped = lines(
        "swap-complete", "swap-failed", "swap-rollback", say="{{.event}} {{.domain}}/{{.key}} {{.provider}}"
    )
    changed = lines("config-changed", say="{{.event}} {{.file}}")
    return [_annotation("Swaps", "purple", swapped), _annotation("Settings changes", "orange", changed)]


def _annotation(name: str, colour: str, query: str) -> dashboard.AnnotationQuery:
    target = loki.Dataquery().datasource(LOGS_SOURCE).expr(query).query_type("range").ref_id("A")
    asked = dashboard.AnnotationQuery().name(name).datasource(LOGS_SOURCE).enable(True).icon_color(colour)
    return asked.expr(query).target(target).title_format(name)

"""Panels in few words, on top of grafana-foundation-sdk, whose builders check no types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from grafana_foundation_sdk.builders import common, dashboard, loki, prometheus
from grafana_foundation_sdk.builders import logs as logs_panel
from grafana_foundation_sdk.builders import stat as stat_panel
from grafana_foundation_sdk.builders import statetimeline as timeline_panel
from grafana_foundation_sdk.builders import timeseries as timeseries_panel
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models

from oneiric.monitoring.alerts import INCIDENTS

Panel = stat_panel.Panel | timeseries_panel.Panel | timeline_panel.Panel | logs_panel.Panel
Series = tuple[str, str]
"""A query, and the legend of what it finds."""
Steps = tuple[tuple[float | None, str], ...]
"""Colours, each from a value upwards."""

METRICS_SOURCE: Final = kinds.DataSourceRef(type_val="prometheus", uid="${datasource}")
LOGS_SOURCE: Final = kinds.DataSourceRef(type_val="loki", uid="${loki}")

PLAIN: Final[Steps] = ((None, "blue"),)
ANY: Final[Steps] = ((None, "green"), (0.5, "red"))
"""Red from one on: increase() extrapolates, so one may read a little less."""
ON: Final[Steps] = ((None, "red"), (1, "green"))
"""Green for 1."""

SMALL, LARGE = 4, 8


def at_least(wrong: float, right: float) -> Steps:
    """Return colours for what is wrong below *wrong* and right from *right* on."""
    return ((None, "red"), (wrong, "yellow"), (right, "green"))


def at_most(right: float, wrong: float) -> Steps:
    """Return colours for what is right below *right* and wrong from *wrong* on."""
    return ((None, "green"), (right, "yellow"), (wrong, "red"))


def stat(
    title: str,
    tells: str,
    query: str,
    *,
    unit: str = "short",
    steps: Steps = PLAIN,
    legend: str = "",
    names: Mapping[str, str] | None = None,
    empty: str = "no data",
    decimals: int | None = None,
    text: kinds.BigValueTextMode = kinds.BigValueTextMode.AUTO,
    see: str = "",
) -> Panel:
    """Return one number as it is now. *names* are words for values, *see* is an anchor of the runbook."""
    panel = (
        stat_panel.Panel()
        .title(title)
        .description(tells)
        .height(SMALL)
        .datasource(METRICS_SOURCE)
        .with_target(_asked(query, legend or title, "A").instant())
        .unit(unit)
        .thresholds(_thresholds(steps))
        .mappings(_mappings(names or {}))
        .no_value(empty)
        .text_mode(text)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .color_mode(kinds.BigValueColorMode.BACKGROUND)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .links(links(see))
    )
    return panel if decimals is None else panel.decimals(decimals)


def timeseries(
    title: str,
    tells: str,
    *series: Series,
    unit: str = "short",
    steps: Steps = (),
    bars: bool = False,
    least: float | None = 0,
    most: float | None = None,
    see: str = "",
) -> Panel:
    """Return what changes over time. *steps* are lines, *bars* for counts, *least* and *most* end the axis."""
    panel = (
        timeseries_panel.Panel()
        .title(title)
        .description(tells)
        .height(LARGE)
        .datasource(METRICS_SOURCE)
        .targets([_asked(query, legend, ref).range() for ref, (query, legend) in _lettered(series)])
        .unit(unit)
        .no_value("nothing in this time")
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .draw_style(kinds.GraphDrawStyle.BARS if bars else kinds.GraphDrawStyle.LINE)
        .fill_opacity(60 if bars else 10)
        .show_points(kinds.VisibilityMode.NEVER if bars else kinds.VisibilityMode.AUTO)
        .stacking(
            common.StackingConfig().group("A").mode(kinds.StackingMode.NORMAL if bars else kinds.StackingMode.NONE)
        )
        .links(links(see))
    )
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if bars:
        panel.interval("1m")  # wide enough that what happened once is not drawn four times
    if steps:
        lines_drawn = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(_thresholds(steps)).thresholds_style(lines_drawn)
    return panel


def timeline(title: str, tells: str, *series: Series, steps: Steps, names: Mapping[str, str], see: str = "") -> Panel:
    """Return a band for each series that shows which of the named states it was in, and when."""
    return (
        timeline_panel.Panel()
        .title(title)
        .description(tells)
        .height(LARGE)
        .datasource(METRICS_SOURCE)
        .targets([_asked(query, legend, ref).range() for ref, (query, legend) in _lettered(series)])
        .unit("none")
        .thresholds(_thresholds(steps))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .mappings(_mappings(names))
        .no_value("nothing in this time")
        .merge_values(True)
        .show_value(kinds.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
        )
        .links(links(see))
    )


def logs(title: str, tells: str, query: str, *, see: str = "") -> Panel:
    """Return the log lines that *query* finds, the newest first."""
    return (
        logs_panel.Panel()
        .title(title)
        .description(tells)
        .height(LARGE)
        .datasource(LOGS_SOURCE)
        .with_target(loki.Dataquery().datasource(LOGS_SOURCE).expr(query).query_type("range").ref_id("A"))
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .prettify_log_message(False)
        .dedup_strategy(kinds.LogsDedupStrategy.NONE)
        .sort_order(kinds.LogsSortOrder.DESCENDING)
        .links(links(see))
    )


def _asked(query: str, legend: str, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(METRICS_SOURCE).expr(query).legend_format(legend).ref_id(ref)


def _lettered(series: tuple[Series, ...]) -> Iterable[tuple[str, Series]]:
    return zip("ABCDEFGH", series, strict=False)


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
    )


def _mappings(names: Mapping[str, str]) -> list[Any]:
    if not names:
        return []
    return [models.ValueMap({value: models.ValueMappingResult(text=name) for value, name in names.items()})]


def links(anchor: str, title: str = "What to do: the runbook") -> list[dashboard.DashboardLink]:
    """Return the link to an anchor of the runbook, or none for none."""
    if not anchor:
        return []
    link = dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK)
    return [link.url(f"{INCIDENTS}#{anchor}").icon("doc").target_blank(True)]

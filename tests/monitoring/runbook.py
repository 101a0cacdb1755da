"""The LogQL of the runbook by line, of the dashboards, of the documents and of the alerts."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
SPEC: Final = ROOT.parent / "shared" / "spec" / "INCIDENT_RESPONSE.md"
DASHBOARDS: Final = ROOT / "deployment" / "monitoring"

QUERIES: Final = {
    183: '{app="oneiric"} | json | event="resolver-decision" | outcome="failed"',
    186: '{app="oneiric"} | json | event="resolver-decision" | outcome="failed" | line_format "{{.domain}}/{{.key}}"',
    294: '{app="oneiric"} | json | event="health-check-failed"',
    338: '{app="oneiric"} | json | event="resolver-decision" | outcome="success"',
    415: '{app="oneiric"} | json | event="swap-failed"',
    418: '{app="oneiric"} | json | event="swap-rollback"',
    421: '{app="oneiric"} | json | event="swap-failed" | line_format "{{.domain}}/{{.key}}: {{.error}}"',
    431: '{app="oneiric"} | json | event=~"swap-(complete|failed|rollback)"'
    ' | line_format "{{.timestamp}}: {{.event}} {{.domain}}/{{.key}}"',
    450: '{app="oneiric"} | json | event="health-check-failed" | line_format "{{.provider}}: {{.error}}"',
    485: '{app="oneiric"} | json | event="swap-failed" | error=~".*ImportError.*"',
    512: '{app="oneiric"} | json | event="swap-complete" | duration_ms > 10000',
    537: '{app="oneiric"} | json | event="cleanup-failed"',
    638: '{app="oneiric"} | json | event="remote-sync-error"',
    641: '{app="oneiric"} | json | event="remote-sync-error" | error=~".*timeout.*|.*connection.*"',
    644: '{app="oneiric"} | json | event="signature-verification-failed"',
    713: '{app="oneiric"} | json | event="signature-verification-failed"',
    748: '{app="oneiric"} | json | event="digest-check-failed"',
    772: '{app="oneiric"} | json | circuit_breaker="open"',
    854: '{app="oneiric"} | json | event="digest-check-failed"'
    ' | line_format "{{.artifact}}: {{.expected_digest}} != {{.actual_digest}}"',
    920: '{app="oneiric"} | json | event="digest-check-success" | artifact="<artifact>"',
    966: '{app="oneiric"} | json | event="signature-verification-failed"',
    990: '{app="oneiric"} | json | event="digest-check-success"',
    1092: '{app="oneiric"} | json | event="instance-activated" | line_format "{{.domain}}/{{.key}}: {{.provider}}"',
    1107: '{app="oneiric"} | json | event=~"cleanup-(started|complete|failed)"',
    1189: '{app="oneiric"} | json | event="config-changed" | line_format "{{.timestamp}}: {{.file}}"',
}
"""The queries of the runbook, by the line on which each stands."""

PROMQL: Final = {
    173: 'sum(rate(oneiric_resolution_total{outcome="failed"}[5m])) by (domain, key)',
    176: "(1 - oneiric:resolution_success_rate_global:5m) * 100",
    334: "oneiric:resolution_success_rate_global:5m",
    405: 'sum(rate(oneiric_lifecycle_swap_total{outcome="failed"}[5m])) by (domain, key, provider)',
    408: 'rate(oneiric_lifecycle_swap_total{outcome="rollback"}[5m])',
    509: "histogram_quantile(0.95, rate(oneiric_lifecycle_swap_duration_ms_bucket[5m]))",
    550: "oneiric:system_active_instances_total:5m",
    557: "oneiric:lifecycle_swap_success_rate:5m",
    795: "oneiric:remote_sync_success_rate:5m",
    986: 'rate(oneiric_remote_digest_checks_total{outcome="failed"}[5m])',
    1062: "oneiric:system_active_instances_total:5m",
    1065: "sum(oneiric_lifecycle_active_instances) by (domain)",
    1068: "oneiric:system_memory_usage_estimate_bytes:5m / (1024^3)",
    1096: "sum(oneiric_lifecycle_swap_total) - sum(oneiric_lifecycle_cleanup_total)",
    1114: "oneiric:system_active_instances_total:5m",
    1182: "rate(oneiric_lifecycle_swap_total[5m])",
    1185: "sum(rate(oneiric_lifecycle_swap_total[5m])) by (domain, key)",
    1205: "oneiric:system_active_instances_total:5m",
}
"""The PromQL of the runbook, by the line on which each stands; the curl lines without curl."""


def queries_in(text: str) -> dict[int, str]:
    """Return the LogQL in the fenced blocks of a Markdown document, by line: all in ``logql``, selectors elsewhere."""
    found, language = dict[int, str](), ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if fence := re.match(r"```(\w*)", stripped):
            language = "" if language else fence[1] or "text"
        elif (language == "logql" and stripped and not stripped.startswith("#")) or (
            language and stripped.startswith("{app=")
        ):
            found[number] = stripped
    return found


def other_queries() -> dict[str, str]:
    """Return the LogQL of ours, each by where it stands, with values in place of Grafana's variables."""
    found = dict[str, str]()
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(DASHBOARDS.rglob("*.md"))]:
        found |= {f"{page.relative_to(ROOT)}:{line}": query for line, query in queries_in(page.read_text()).items()}
    for file in sorted(DASHBOARDS.rglob("*.json")):
        for number, query in enumerate(_expressions(json.loads(file.read_text()))):
            found[f"{file.relative_to(ROOT)}#{number}"] = filled_in(query)
    for file in sorted((ROOT / "oneiric" / "monitoring").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("{app="):
                found[f"{file.relative_to(ROOT)}:{node.lineno}"] = filled_in(node.value)
    return found


def filled_in(query: str) -> str:
    """Return *query* as Grafana sends it: a time for what stands for one, everything for other variables."""
    query = re.sub(r"\[\$(__\w+|\{__\w+\})\]", "[5m]", query)
    return re.sub(r"\$(\w+|\{\w+\})", ".*", query)


def _expressions(part: Any) -> Iterator[str]:
    """Yield the queries in a dashboard that are meant for Loki."""
    if isinstance(part, dict):
        source = part.get("datasource")
        if "expr" in part and isinstance(source, dict) and source.get("type") == "loki":
            yield part["expr"]
        part = list(part.values())
    if isinstance(part, list):
        for piece in part:
            yield from _expressions(piece)

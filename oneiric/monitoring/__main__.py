"""``python -m oneiric.monitoring``: write the monitoring files and the page about the alerts."""

from __future__ import annotations

import argparse
from pathlib import Path

from oneiric.monitoring.configuration import alertmanager, prometheus
from oneiric.monitoring.page import page
from oneiric.monitoring.profiles import DRILL, PROD
from oneiric.monitoring.rules import GRAFANA, rules, rules_object


def files(*, runbooks: str = "", grafana: str = GRAFANA) -> dict[str, str]:
    """Return every generated file by its path below the repository."""
    monitoring = "deployment/monitoring"
    operator = "deployment/k8s/components/prometheus-operator"
    return {
        f"{monitoring}/prometheus/prometheus.yml": prometheus(PROD, rule_files=["rules/oneiric.yml"]),
        f"{monitoring}/prometheus/rules/oneiric.yml": rules(PROD, runbooks=runbooks, grafana=grafana),
        f"{monitoring}/prometheus/rules/oneiric.drill.yml": rules(DRILL, runbooks=runbooks, grafana=grafana),
        f"{monitoring}/alertmanager/alertmanager.yml": alertmanager(PROD),
        "deployment/docker/prometheus.yml": prometheus(
            PROD,
            rule_files=["rules/oneiric.yml"],
            targets=["oneiric:9464"],
            alertmanagers=["alertmanager:9093"],
        ),
        f"{operator}/rules.yaml": rules_object(PROD, runbooks=runbooks, grafana=grafana),
        "docs/reference/alerts.md": page(PROD),
    }


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(prog="python -m oneiric.monitoring", description=main.__doc__)
    parser.add_argument("--runbooks", default="", help="put before the runbooks' paths, such as an URL ending in /")
    parser.add_argument("--grafana", default=GRAFANA, help="where Grafana is (%(default)s)")
    parser.add_argument("directory", nargs="?", type=Path, default=Path(), help="the repository (here)")
    options = parser.parse_args()
    for name, content in files(runbooks=options.runbooks, grafana=options.grafana).items():
        path = options.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()

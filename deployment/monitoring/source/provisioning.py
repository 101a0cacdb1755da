"""What tells Grafana where the dashboards are, and where metrics and logs come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

DASHBOARDS: Final[Mapping[str, Any]] = {
    "apiVersion": 1,
    "providers": [
        {
            "name": "oneiric",
            "folder": "Oneiric",
            "type": "file",
            "disableDeletion": True,
            "allowUiUpdates": False,
            "updateIntervalSeconds": 30,
            "options": {"path": "/var/lib/grafana/dashboards/oneiric"},
        }
    ],
}

DATASOURCES: Final[Mapping[str, Any]] = {
    "apiVersion": 1,
    "datasources": [
        {
            "name": "Prometheus",
            "uid": "prometheus",
            "type": "prometheus",
            "access": "proxy",
            "url": "http://prometheus:9090",
            "isDefault": True,
            "editable": False,
            "jsonData": {"timeInterval": "15s", "httpMethod": "POST"},
        },
        {
            "name": "Loki",
            "uid": "loki",
            "type": "loki",
            "access": "proxy",
            "url": "http://loki:3100",
            "editable": False,
            "jsonData": {"maxLines": 1000},
        },
    ],
}
"""``timeInterval`` is how often Prometheus scrapes; ``$__rate_interval`` is at least four times that."""

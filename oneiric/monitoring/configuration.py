"""Configurations of Prometheus and Alertmanager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from oneiric.monitoring.profiles import Profile
from oneiric.monitoring.rules import HEADER

RECEIVERS: Final = ("page", "security", "slack-critical", "slack-warning", "slack-info", "deadman")
_PRIORITIES: Final = {"P0": "page", "P1": "slack-critical", "P2": "slack-warning", "P3": "slack-info"}
"""As the runbook has it; alerts without a priority go by their severity."""
_SECRETS: Final = "/etc/alertmanager/secrets"
_DEADMAN: Final = "http://deadman:8080/oneiric"
"""Who notices that the watchdog no longer calls; a service outside of this cluster."""


def prometheus(
    profile: Profile,
    *,
    rule_files: Sequence[str],
    targets: Sequence[str] = ("127.0.0.1:9464",),
    alertmanagers: Sequence[str] = ("127.0.0.1:9093",),
) -> str:
    """Return ``prometheus.yml``: scrape *targets* as job ``oneiric``, evaluate *rule_files*, tell *alertmanagers*."""
    document = {
        "global": {
            "scrape_interval": profile.interval,
            "scrape_timeout": "10s" if profile.interval == "15s" else profile.interval,
            "evaluation_interval": profile.interval,
        },
        "rule_files": list(rule_files),
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        "scrape_configs": [{"job_name": "oneiric", "static_configs": [{"targets": list(targets)}]}],
    }
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=1000)


def alertmanager(profile: Profile, *, webhook: str = "") -> str:
    """Return ``alertmanager.yml``: routes by component, priority and severity.

    Args:
        webhook: where every receiver posts to, each under its name, in place of pagers and chat rooms.
    """
    receivers = [{"name": name, **_receiver(name, webhook)} for name in RECEIVERS]
    document = {
        **({} if webhook else {"global": {"smtp_smarthost": "localhost:25", "smtp_from": "oneiric@example.com"}}),
        "route": {
            "receiver": "slack-warning",
            "group_by": ["alertname", "domain", "key", "source"],
            "group_wait": profile.group_wait,
            "group_interval": profile.group_interval,
            "repeat_interval": profile.repeat_interval,
            "routes": [
                {"matchers": ['alertname="Watchdog"'], "receiver": "deadman", "repeat_interval": "1m"},
                {"matchers": ['component="security"'], "receiver": "security", "continue": True},
                *({"matchers": [f'priority="{name}"'], "receiver": to} for name, to in _PRIORITIES.items()),
                {"matchers": ['severity="critical"'], "receiver": "slack-critical"},
                {"matchers": ['severity=~"info|none"'], "receiver": "slack-info"},
            ],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="OneiricDown"'],
                "target_matchers": ['alertname=~"Oneiric.+"', 'alertname!="OneiricDown"', 'component!="security"'],
            },
            {
                "source_matchers": ['alertname="OneiricActiveInstancesExtremelyHigh"'],
                "target_matchers": ['alertname="OneiricActiveInstancesHigh"'],
            },
        ],
        "receivers": receivers,
    }
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=1000)


def _receiver(name: str, webhook: str) -> Mapping[str, Any]:
    """Return what a receiver does; secrets are read from files, so that none is in this one."""
    if webhook:
        return {"webhook_configs": [{"url": f"{webhook}/{name}", "send_resolved": True}]}
    if name in ("page", "security"):
        description = "{{ .CommonAnnotations.summary }}"
        return {
            "pagerduty_configs": [
                {"routing_key_file": f"{_SECRETS}/pagerduty-{name}", "send_resolved": True, "description": description}
            ]
        }
    if name == "deadman":
        authorization = {"credentials_file": f"{_SECRETS}/deadman-token"}
        http = {"authorization": authorization}
        return {"webhook_configs": [{"url": _DEADMAN, "send_resolved": False, "http_config": http}]}
    text = "{{ range .Alerts }}{{ .Annotations.summary }}: {{ .Annotations.description }}\n"
    text += "clears when {{ .Annotations.clears_when }}\n{{ .Annotations.runbook_url }}\n{{ end }}"
    channel = f"#oneiric-{name.partition('-')[2]}"
    slack = {"api_url_file": f"{_SECRETS}/slack-url", "channel": channel, "send_resolved": True, "text": text}
    mail = {"to": "platform-team@example.com", "require_tls": False, "send_resolved": True}
    return {"slack_configs": [slack], **({"email_configs": [mail]} if name == "slack-critical" else {})}

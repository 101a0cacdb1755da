"""The configurations of Prometheus and Alertmanager: the programs accept them, and everybody is told who should be."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneiric.monitoring.alerts import alerts
from oneiric.monitoring.configuration import RECEIVERS, alertmanager, prometheus
from oneiric.monitoring.profiles import DRILL, PROD, Profile
from oneiric.monitoring.rules import rules
from tests.adapters.redis_server import require_program
from tests.harness.promtool import INSTALL

MONITORING = Path(__file__).parents[2] / "deployment" / "monitoring"
WEBHOOK = "http://127.0.0.1:9/hook"
INSTALL_MANAGER = "apt-get install -y --no-install-recommends prometheus-alertmanager"
EVERY = {f"{alert.name}{dict(alert.labels).get('long', '')}": alert for alert in alerts(PROD)}
RECEIVED = {
    "OneiricResolutionFailureRateHigh": "page",
    "OneiricLifecycleSwapFailureRateHigh": "page",
    "OneiricRemoteSyncConsecutiveFailures": "slack-critical",
    "OneiricDigestVerificationFailed": "security,page",
    "OneiricActiveInstancesExtremelyHigh": "page",
    "OneiricSignatureVerificationFailed": "security,page",
    "OneiricDown": "page",
    "Watchdog": "deadman",
    "OneiricRestarted": "slack-info",
    "OneiricEventLoopLag": "slack-warning",
    "OneiricMemoryGrowing": "slack-warning",
    "OneiricConfigInvalid": "slack-critical",
    "OneiricLowCandidateCount": "slack-warning",
    "OneiricHealthCheckFailures": "slack-warning",
    "OneiricRollbackRateHigh": "slack-warning",
    "OneiricSwapDurationHigh": "slack-critical",
    "OneiricInstanceLeak": "slack-warning",
    "OneiricRapidSwapping": "slack-warning",
    "OneiricActiveInstancesHigh": "slack-warning",
    "OneiricCircuitBreakerOpen": "slack-warning",
    "OneiricRemoteSyncStale": "slack-warning",
    "OneiricManifestExpiring": "slack-warning",
    "OneiricResolutionErrorBudgetBurn1h": "page",
    "OneiricResolutionErrorBudgetBurn6h": "slack-critical",
    "OneiricResolutionErrorBudgetBurn1d": "slack-warning",
    "OneiricResolutionErrorBudgetBurn3d": "slack-info",
}


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    install = INSTALL if program == "promtool" else INSTALL_MANAGER
    command = [require_program(program, install), *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def told(**labels: str) -> str:
    """Return who receives an alert with these labels."""
    file = f"--config.file={MONITORING / 'alertmanager' / 'alertmanager.yml'}"
    done = run("amtool", "config", "routes", "test", file, *(f"{name}={value}" for name, value in labels.items()))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Prometheus


def test_prometheus_accepts_its_configuration() -> None:
    done = run("promtool", "check", "config", str(MONITORING / "prometheus" / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_that_of_drills(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules(DRILL))
    (tmp_path / "prometheus.yml").write_text(prometheus(DRILL, rule_files=["rules.yml"], targets=["127.0.0.1:9"]))
    done = run("promtool", "check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_where_the_daemon_listens_by_default() -> None:
    document = yaml.safe_load(prometheus(PROD, rule_files=[]))
    assert document["scrape_configs"] == [{"job_name": "oneiric", "static_configs": [{"targets": ["127.0.0.1:9464"]}]}]


@pytest.mark.parametrize("profile", [PROD, DRILL], ids=lambda profile: profile.name)
def test_window_holds_enough_scrapes(profile: Profile) -> None:
    assert seconds(profile.window) >= 4 * seconds(profile.interval)


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[duration[-1]]


# Alertmanager


@pytest.mark.parametrize("profile", [PROD, DRILL], ids=lambda profile: profile.name)
@pytest.mark.parametrize("webhook", ["", WEBHOOK], ids=["people", "webhooks"])
def test_alertmanager_accepts_its_configuration(profile: Profile, webhook: str, tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(alertmanager(profile, webhook=webhook))
    done = run("amtool", "check-config", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", EVERY)
def test_alert_is_told_to_whom_it_concerns(name: str) -> None:
    alert = EVERY[name]
    labels = {"severity": alert.severity, "priority": alert.priority, "component": alert.component}
    assert told(alertname=alert.name, **labels) == RECEIVED[name]


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "slack-critical"), ("warning", "slack-warning"), ("info", "slack-info")]
)
def test_alert_without_priority_goes_by_its_severity(severity: str, receiver: str) -> None:
    assert told(alertname="OfSomebodyElse", severity=severity) == receiver


def test_mail_follows_the_critical_channel() -> None:
    configured = yaml.safe_load(alertmanager(PROD))["receivers"]
    assert [receiver["name"] for receiver in configured if "email_configs" in receiver] == ["slack-critical"]


def test_unknown_alert_is_told_to_somebody() -> None:
    assert told(alertname="SomethingElse") == "slack-warning"


def test_every_receiver_is_told_of_something() -> None:
    assert set(",".join(RECEIVED.values()).split(",")) == set(RECEIVERS)


def inhibited(source: str, **target: str) -> bool:
    """Say whether an alert silences one with the labels *target*, as Alertmanager decides it."""
    rules = yaml.safe_load(alertmanager(PROD))["inhibit_rules"]
    return any(
        _matches(rule["source_matchers"], {"alertname": source}) and _matches(rule["target_matchers"], target)
        for rule in rules
    )


def _matches(matchers: list[str], labels: dict[str, str]) -> bool:
    return all(_match(matcher, labels) for matcher in matchers)


def _match(matcher: str, labels: dict[str, str]) -> bool:
    parsed = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher)
    assert parsed is not None, matcher
    name, operator, value = parsed.groups()
    pattern = value if "~" in operator else re.escape(value)
    return (re.fullmatch(pattern, labels.get(name, "")) is not None) is not operator.startswith("!")


@pytest.mark.parametrize("name", EVERY)
def test_daemon_that_is_down_silences_symptoms_but_no_security_alert(name: str) -> None:
    alert = EVERY[name]
    silenced = inhibited("OneiricDown", alertname=alert.name, component=alert.component)
    assert silenced is not (alert.component == "security" or alert.name in {"OneiricDown", "Watchdog"})


def test_higher_number_of_instances_silences_the_lower_one() -> None:
    assert inhibited("OneiricActiveInstancesExtremelyHigh", alertname="OneiricActiveInstancesHigh")
    assert not inhibited("OneiricActiveInstancesHigh", alertname="OneiricActiveInstancesExtremelyHigh")


# Secrets


def test_secrets_are_read_from_files() -> None:
    text = alertmanager(PROD)
    assert re.findall(r"(?:routing_key|service_key|api_url|credentials|password|token)(?!_file): *\S", text) == []
    assert text.count("_file: /etc/alertmanager/secrets/") == 6


def test_drills_tell_only_the_webhook() -> None:
    configured: list[dict[str, Any]] = yaml.safe_load(alertmanager(DRILL, webhook=WEBHOOK))["receivers"]
    assert [list(receiver) for receiver in configured] == [["name", "webhook_configs"]] * len(RECEIVERS)
    assert {receiver["webhook_configs"][0]["url"] for receiver in configured} == {f"{WEBHOOK}/{n}" for n in RECEIVERS}

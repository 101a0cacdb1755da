"""How the pods are scraped, and the rules that ask for what was."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.adapters.redis_server import require_program
from tests.deployment.objects import K8S, container, get
from tests.deployment.pod import ROOT
from tests.harness.promtool import INSTALL

MONITORING = ROOT / "deployment" / "monitoring"

# The parts of the operator's definitions (monitoring.coreos.com/v1) that we use.
_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_DURATION = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?)$",
}


def _exactly(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    properties = {**required, **optional}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


OPERATOR = {
    "ServiceMonitor": _exactly(
        {
            "selector": _exactly({"matchLabels": _TEXTS}),
            "endpoints": {
                "type": "array",
                "items": _exactly({"port": _TEXT}, path=_TEXT, interval=_DURATION, scrapeTimeout=_DURATION),
            },
        },
        jobLabel=_TEXT,
    ),
    "PrometheusRule": _exactly(
        {
            "groups": {
                "type": "array",
                "items": _exactly(
                    {
                        "name": _TEXT,
                        "rules": {
                            "type": "array",
                            "items": _exactly(
                                {"expr": _TEXT},
                                record=_TEXT,
                                alert=_TEXT,
                                labels=_TEXTS,
                                annotations=_TEXTS,
                                **{"for": _DURATION},
                            ),
                        },
                    },
                    interval=_DURATION,
                ),
            }
        }
    ),
}


@pytest.mark.parametrize("kind", OPERATOR)
def test_operator_object_has_the_fields_of_its_definition(kind: str) -> None:
    jsonschema.validate(get("overlays/production", kind)["spec"], OPERATOR[kind])


def test_operator_and_prometheus_have_the_same_rules() -> None:
    rules = yaml.safe_load((MONITORING / "prometheus/rules/oneiric.yml").read_text())
    assert get("overlays/production", "PrometheusRule")["spec"] == rules


def test_service_monitor_scrapes_the_service_as_the_job_of_the_rules() -> None:
    scraped = get("overlays/production", "ServiceMonitor")["spec"]
    service = get("overlays/production", "Service")
    wanted = yaml.safe_load((MONITORING / "prometheus/prometheus.yml").read_text())
    (endpoint,) = scraped["endpoints"]
    assert scraped["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][scraped["jobLabel"]] == wanted["scrape_configs"][0]["job_name"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["interval"] == wanted["global"]["scrape_interval"]
    assert endpoint["scrapeTimeout"] == wanted["global"]["scrape_timeout"]


def test_annotations_name_the_port_and_the_path() -> None:
    annotations = get("overlays/development", "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(container("base")["ports"][0]["containerPort"])
    assert annotations["prometheus.io/path"] == "/metrics"


def _discovered(directory: Path, **changed: str) -> list[dict[str, str]]:
    """Return the labels under which Prometheus scrapes a pod that has the overlay's labels and annotations.

    The pod is told to it by a file: not every build of Prometheus can ask Kubernetes.
    """
    job = yaml.safe_load((K8S / "components/scrape-annotations/prometheus-job.yml").read_text())
    template = get("overlays/development", "Deployment")["spec"]["template"]
    labels = {
        "__address__": "10.0.0.7:9464",
        "__meta_kubernetes_namespace": "oneiric",
        "__meta_kubernetes_pod_name": "oneiric-1",
        "__meta_kubernetes_pod_ip": "10.0.0.7",
        "__meta_kubernetes_pod_container_port_name": container("overlays/development")["ports"][0]["name"],
        **{f"__meta_kubernetes_pod_label_{name}": value for name, value in template["metadata"]["labels"].items()},
        **{
            f"__meta_kubernetes_pod_annotation_{re.sub(r'[^a-z]', '_', name)}": value
            for name, value in template["metadata"]["annotations"].items()
        },
        **changed,
    }
    targets = [{"targets": [labels.pop("__address__")], "labels": labels}]
    (only,) = job["scrape_configs"]
    assert only.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["oneiric"]}}]
    only["static_configs"] = targets
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(job))
    command = [require_program("promtool", INSTALL), "check", "service-discovery", "--timeout=1s", str(file), "oneiric"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [found["labels"] for found in json.loads(done.stdout) if found["labels"]]


def test_job_finds_the_annotated_pod_under_the_name_that_the_rules_ask_for(tmp_path: Path) -> None:
    (found,) = _discovered(tmp_path)
    assert (found["job"], found["__address__"], found["__metrics_path__"]) == ("oneiric", "10.0.0.7:9464", "/metrics")


@pytest.mark.parametrize(
    "changed",
    [
        {"__meta_kubernetes_pod_label_app": "other"},
        {"__meta_kubernetes_pod_annotation_prometheus_io_scrape": "false"},
        {"__meta_kubernetes_pod_container_port_name": "other"},
    ],
)
def test_job_leaves_other_pods_and_ports_alone(changed: dict[str, str], tmp_path: Path) -> None:
    assert _discovered(tmp_path, **changed) == []

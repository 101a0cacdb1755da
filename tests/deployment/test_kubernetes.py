"""The Kubernetes objects: valid, restricted, consistent, and what the daemon and the runbooks expect."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import kubernetes_validate
import pytest

from oneiric import __version__
from oneiric.api.server import public_app
from oneiric.runtime import daemon as daemon_module
from tests.deployment.kustomize import Object, identity, merge
from tests.deployment.objects import (
    BLOCKS,
    CORE,
    OBJECTS,
    RENDERED,
    RUNBOOKS,
    WHERE,
    block,
    container,
    get,
    pod,
    quantity,
    settings,
    size,
)
from tests.deployment.pod import ROOT

# What is rendered


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.37"])
@pytest.mark.parametrize("found", CORE)
def test_object_is_valid(found: Object, version: str) -> None:
    kubernetes_validate.validate(found, version, strict=True)


def test_validation_is_not_blind() -> None:
    wrong = deepcopy(get("base", "Deployment"))
    wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 60
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


# Names and labels


@pytest.mark.parametrize("found", OBJECTS)
def test_object_is_in_the_namespace_and_has_the_label(found: Object) -> None:
    namespace = found["metadata"]["name" if found["kind"] == "Namespace" else "namespace"]
    assert (namespace, found["metadata"]["labels"]["app"]) == ("oneiric", "oneiric")


def _selectors(where: str) -> Iterator[dict[str, str]]:
    yield get(where, "Deployment")["spec"]["selector"]["matchLabels"]
    yield get(where, "Service")["spec"]["selector"]
    yield get(where, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    yield get(where, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]


@WHERE
def test_every_selector_finds_the_pod(where: str) -> None:
    labels = get(where, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert all(selector and selector.items() <= labels.items() for selector in _selectors(where))


@WHERE
def test_references_lead_to_objects(where: str) -> None:
    spec = pod(where)
    there = {identity(found) for found in RENDERED[where]}
    wanted = {("ServiceAccount", spec["serviceAccountName"])}
    for volume in spec["volumes"]:
        if "configMap" in volume:
            wanted.add(("ConfigMap", volume["configMap"]["name"]))
        if "persistentVolumeClaim" in volume:
            wanted.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    assert wanted <= there


@WHERE
def test_what_refers_to_the_secret_does_without_it(where: str) -> None:
    volume = next(volume["secret"] for volume in pod(where)["volumes"] if "secret" in volume)
    variables = [entry["valueFrom"]["secretKeyRef"] for entry in container(where)["env"] if "valueFrom" in entry]
    assert {(volume["secretName"], volume["optional"])} | {(v["name"], v["optional"]) for v in variables} == {
        ("oneiric", True)
    }


def test_image_has_this_version() -> None:
    assert container("base")["image"] == f"oneiric:{__version__}"


# What the runbooks type


def _kubectl() -> list[str]:
    lines = [line for runbook in RUNBOOKS for line in runbook.read_text().splitlines()]
    return sorted({line for line in lines if line.startswith("kubectl ")})


def test_runbooks_type_kubectl() -> None:
    assert {line.split()[1] for line in _kubectl()} == {"get", "patch", "top"}


@pytest.mark.parametrize("line", _kubectl())
def test_command_of_a_runbook_finds_its_object(line: str) -> None:
    words = shlex.split(line.partition("|")[0])
    given = {option: words[words.index(option) + 1] for option in ("-n", "-l", "-p") if option in words}
    deployment = get("overlays/production", "Deployment")
    assert given.get("-n", "oneiric") == deployment["metadata"]["namespace"]
    if "-l" in given:
        key, _, value = given["-l"].partition("=")
        assert deployment["spec"]["template"]["metadata"]["labels"][key] == value
    if words[1] == "patch":
        assert words[2:4] == [deployment["kind"].lower(), deployment["metadata"]["name"]]
        patched = merge(deployment, json.loads(given["-p"]))
        (found,) = patched["spec"]["template"]["spec"]["containers"]
        kubernetes_validate.validate(patched, "1.31", strict=True)
        assert quantity(found["resources"]["limits"]["memory"]) >= quantity(found["resources"]["requests"]["memory"])


# What the page says


def test_commands_of_the_page_name_what_is_there() -> None:
    commands = [line for block in BLOCKS for line in block.splitlines() if line.startswith("kubectl ")]
    assert len(commands) == 4
    for words in map(shlex.split, commands):
        assert [word for word in words if word.startswith("deployment/") and not (ROOT / word).is_dir()] in (
            [],
            [f"deployment/{get('base', 'Deployment')['metadata']['name']}"],
        )
        assert "-k" in words or words[words.index("-n") + 1] == "oneiric"


def test_policy_on_the_page_is_valid_and_for_our_pods() -> None:
    policy = block("apiVersion: networking")
    kubernetes_validate.validate(policy, "1.31", strict=True)
    assert policy["spec"]["podSelector"] == get("base", "NetworkPolicy")["spec"]["podSelector"]


# Memory


@WHERE
def test_memory_limit_is_what_the_doctor_says(where: str) -> None:
    instances = get(where, "Deployment")["spec"]["template"]["metadata"]["annotations"]["oneiric/instances"]
    assert quantity(container(where)["resources"]["limits"]["memory"]) == size(instances)["limit_bytes"]


@WHERE
def test_command_of_the_doctor_changes_nothing_where_the_limit_is_right(where: str) -> None:
    deployment = get(where, "Deployment")
    instances = deployment["spec"]["template"]["metadata"]["annotations"]["oneiric/instances"]
    patch = json.loads(shlex.split(size(instances)["commands"]["kubernetes"])[-1])
    assert merge(deployment, patch) == deployment


@WHERE
def test_memory_is_reserved_as_far_as_it_is_allowed(where: str) -> None:
    resources = container(where)["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


# Security


def violations(spec: Object) -> set[str]:
    """Return what the Pod Security Standard "restricted", and a read-only root, find wrong with a pod."""
    (found,) = spec["containers"]
    shared, own = spec.get("securityContext", {}), found.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    wrong = {
        "runAsNonRoot": own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True,
        "runAsUser": own.get("runAsUser", shared.get("runAsUser")) in (None, 0),
        "seccompProfile": own.get("seccompProfile", shared.get("seccompProfile")) != {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
        "privileged": own.get("privileged", False),
        "capabilities": capabilities.get("drop") != ["ALL"] or bool(capabilities.get("add")),
        "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is not True,
        "host": any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers")),
        "hostPort": any("hostPort" in port for port in found["ports"]),
        "volumes": any(
            set(volume) - {"name"} - {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
            for volume in spec["volumes"]
        ),
        "token": spec.get("automountServiceAccountToken") is not False,
        "initContainers": "initContainers" in spec,
    }
    return {name for name, is_wrong in wrong.items() if is_wrong}


@WHERE
def test_pod_is_restricted(where: str) -> None:
    assert violations(pod(where)) == set()


@pytest.mark.parametrize(
    ("patch", "named"),
    [
        ({"hostNetwork": True}, "host"),
        ({"securityContext": {"seccompProfile": None}}, "seccompProfile"),
        ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"volumes": [{"name": "cache", "hostPath": {"path": "/"}}]}, "volumes"),
        (
            {"containers": [{"name": "oneiric", "securityContext": {"readOnlyRootFilesystem": None}}]},
            "readOnlyRootFilesystem",
        ),
        ({"containers": [{"name": "oneiric", "securityContext": {"capabilities": {"add": "x"}}}]}, "capabilities"),
    ],
)
def test_judgement_of_pods_is_not_blind(patch: Object, named: str) -> None:
    assert violations(merge(pod("base"), patch)) == {named}


def test_namespace_enforces_the_restricted_standard() -> None:
    assert get("base", "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_are_reached_by_the_scraper_alone() -> None:
    spec = get("overlays/production", "NetworkPolicy")["spec"]
    (rule,) = spec["ingress"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert rule == {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "ports": [{"port": container("base")["ports"][0]["containerPort"], "protocol": "TCP"}],
    }


def test_pods_reach_names_and_https_alone() -> None:
    rules = get("overlays/production", "NetworkPolicy")["spec"]["egress"]
    reached = {(port["port"], port["protocol"]) for rule in rules for port in rule["ports"]}
    assert reached == {(53, "UDP"), (53, "TCP"), (443, "TCP")}


# The life of a pod


@WHERE
def test_pod_has_longer_to_end_than_the_daemon_takes(where: str, tmp_path: Path) -> None:
    lifecycle = settings(where, tmp_path).app.lifecycle
    longest = lifecycle.drain_timeout + lifecycle.cleanup_timeout + daemon_module._GRACE
    assert pod(where)["terminationGracePeriodSeconds"] > longest


@WHERE
def test_start_may_take_longer_than_an_activation(where: str, tmp_path: Path) -> None:
    probe = container(where)["startupProbe"]
    assert (
        probe["periodSeconds"] * probe["failureThreshold"]
        > 5 * settings(where, tmp_path).app.lifecycle.activation_timeout
    )


@WHERE
def test_state_directory_has_one_daemon_at_a_time(where: str) -> None:
    spec = get(where, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@WHERE
def test_node_of_the_only_pod_can_be_drained(where: str) -> None:
    spec = get(where, "PodDisruptionBudget")["spec"]
    assert "minAvailable" not in spec
    assert spec["maxUnavailable"] >= get(where, "Deployment")["spec"]["replicas"]


@WHERE
def test_probes_ask_for_paths_that_are_served_on_the_port(where: str) -> None:
    served = {route.path for route in public_app(None, frozenset()).routes}  # type: ignore[arg-type, attr-defined]
    found = container(where)
    probes = [found[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {probe["path"] for probe in probes} <= served
    assert {probe["port"] for probe in probes} == {port["name"] for port in found["ports"]}
    assert found["command"][-1] == f"0.0.0.0:{found['ports'][0]['containerPort']}"


# Settings and places


@WHERE
def test_settings_are_valid(where: str, tmp_path: Path) -> None:
    assert settings(where, tmp_path).app.api.http.startswith("0.0.0.0:")


@WHERE
def test_service_may_be_asked_by_its_names(where: str, tmp_path: Path) -> None:
    name = get(where, "Service")["metadata"]["name"]
    domains = ("", ".oneiric", ".oneiric.svc", ".oneiric.svc.cluster.local")
    assert set(settings(where, tmp_path).app.api.allowed_hosts) == {f"{name}{domain}" for domain in domains}


@WHERE
def test_settings_are_a_directory_that_is_swapped_as_a_whole(where: str) -> None:
    found = container(where)
    (mount,) = (mount for mount in found["volumeMounts"] if mount["name"] == "settings")
    assert mount == {"name": "settings", "mountPath": f"{found['workingDir']}/settings", "readOnly": True}


@WHERE
def test_change_of_the_settings_makes_no_new_pod(where: str) -> None:
    (volume,) = (volume for volume in pod(where)["volumes"] if volume["name"] == "settings")
    assert volume["configMap"] == {"name": "oneiric-settings"}


@WHERE
def test_what_the_daemon_writes_lies_below_its_volumes(where: str, tmp_path: Path) -> None:
    app = settings(where, tmp_path).app
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container(where)["volumeMounts"]}
    assert Path(app.state_dir).parent == mounts["state"]
    assert Path(app.cache_dir).parent == mounts["cache"]
    assert Path(app.api.socket).parent == mounts["run"]


def test_state_outlives_the_pod_in_production() -> None:
    (volume,) = (volume for volume in pod("overlays/production")["volumes"] if volume["name"] == "state")
    assert "persistentVolumeClaim" in volume


def test_group_of_the_volume_is_not_set_anew_at_each_start() -> None:
    assert pod("base")["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"

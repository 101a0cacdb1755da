"""Runbooks 3 and 4: every cause is found by its own code, and no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from msgspec.structs import replace

from oneiric.doctor.delivery import RULES, examine
from oneiric.doctor.examine import examine as all_rules
from oneiric.doctor.finding import Finding
from oneiric.doctor.network import proxy_for
from oneiric.doctor.vitals import RemoteVital, Vitals
from tests.doctor.commands import untypeable
from tests.doctor.reasons import reasons
from tests.doctor.remotes import (
    ANY_VITALS,
    ERRORS,
    STRANGE,
    TRUSTED,
    URL,
    WHEEL,
    at,
    disk,
    failing,
    happened,
    process,
    remote,
    vitals,
    wrong,
)

PROXY = "HTTPS_PROXY=http://proxy.example:3128"
NO_PLACE = f"dns: {URL}: the proxy proxy.example:3128: name or service not known; no connection"
NO_WAY = f"connection: {URL}: the proxy proxy.example:3128: connection refused"
NO_WORD = f"timeout: {URL}: nothing heard from the proxy proxy.example:3128 for 30 s"
TUF = f"tuf+{URL}"
ARTIFACT = "https://cdn.example/shop-1.0-py3-none-any.whl"
OTHER = "ba9876543210-desk-2.0-py3-none-any.whl"


def found(source: RemoteVital | None, **changed: Any) -> list[Finding]:
    return list(examine(vitals(remote=source, **changed)))


def codes(source: RemoteVital | None, **changed: Any) -> list[str]:
    return [finding.code for finding in found(source, **changed)]


def first(source: RemoteVital, **changed: Any) -> Finding:
    return found(source, **changed)[0]


# All is well


@pytest.mark.parametrize(
    "well",
    [
        vitals(),
        vitals(remote=None),
        vitals(remote=remote(last_sync_at=None, last_success_at=None), process=process(started_at=at(-5))),
        vitals(remote=remote(last_sync_at=at(-90_000)), process=None),
        vitals(remote=remote(last_sync_at=at(-90_000), refreshed=False)),
        vitals(remote=remote(last_sync_at=at(-900))),
        vitals(remote=remote(last_sync_at=at(-900), refresh_interval=86_400)),
        vitals(remote=remote(expires_at=None, accepted_at=None)),
        vitals(remote=remote(accepted_at=at(-60), expires_at=at(3540))),
        vitals(remote=remote(last_error=ERRORS["dns"], last_reason="dns")),
        vitals(remote=remote(proxies=(PROXY,))),
        vitals(recent=(happened("digest-check-success", artifact=WHEEL),)),
        vitals(recent=(happened("signature-verification-failed", -500, key_id=STRANGE),)),
        vitals(recent=(happened("remote-sync-warning", error="the manifest never expires"),)),
    ],
    ids=[
        *("idle", "no remote", "just started", "no daemon", "not refreshed", "between rounds", "daily", "no expiry"),
        *("short-lived", "somebody typed a wrong URL", "behind a proxy", "artifacts", "cured", "warned"),
    ],
)
def test_healthy_delivery_is_silent(well: Vitals) -> None:
    assert list(examine(well)) == []


# Every reason


@pytest.mark.parametrize("reason", sorted(reasons()))
def test_every_reason_in_the_source_has_a_rule(reason: str) -> None:
    assert reason in RULES
    assert codes(failing(reason)) not in ([], ["remote"])


def test_reasons_are_found_in_the_source() -> None:
    assert {"timeout", "signature", "rollback", "expired", "native", "uri", "disk", "state", "entry"} <= reasons()


def test_unknown_reason_is_told_as_it_is() -> None:
    (finding,) = found(failing("novel", "novel: something new"))
    assert (finding.code, finding.title) == ("remote", "synchronisations fail: novel")


def test_reason_is_read_from_the_error_where_none_was_kept() -> None:
    assert codes(failing("", ERRORS["tls"])) == ["3A"]


VERDICTS: dict[str, tuple[RemoteVital, str, str]] = {
    "dns": (failing("dns"), "3A", "dns"),
    "connection refused": (failing("connection"), "3A", "connection refused"),
    "connection reset": (failing("connection", f"connection: {URL}: connection reset by peer"), "3A", "connection"),
    "timeout": (failing("timeout"), "3A", "timeout"),
    "deadline": (failing("timeout", f"timeout: {URL}: not complete within 30 s"), "3A", "timeout"),
    "tls": (failing("tls"), "3A", "tls"),
    "http status": (failing("http"), "3A", "http status"),
    "http nonsense": (failing("http", f"http: {URL}: the answer is malformed"), "3A", "http"),
    "redirect": (failing("redirect", f"redirect: {URL}: leads to https://b.example/"), "3A", "redirect"),
    "proxy dns": (failing("dns", NO_PLACE, proxies=(PROXY,)), "3A", "proxy"),
    "proxy refused": (failing("connection", NO_WAY, proxies=(PROXY,)), "3A", "proxy"),
    "proxy is silent": (failing("timeout", NO_WORD, proxies=(PROXY,)), "3A", "proxy"),
    "proxy says no": (failing("connection", f"connection: {URL}: the proxy p answered 403 no"), "3A", "proxy"),
    "proxy wants a password": (failing("http", f"http: 407 Proxy Authentication from {URL}"), "3A", "proxy"),
    "proxy variable": (
        failing("connection", "connection: a proxy variable of the environment cannot be used"),
        *("3A", "proxy"),
    ),
    "host dns behind a proxy": (failing("dns", proxies=(PROXY,)), "3A", "dns"),
    "host refuses behind a proxy": (failing("connection", proxies=(PROXY,)), "3A", "connection refused"),
    "key rotation": (failing("signature", claimed_keys=(STRANGE,)), "3B", "key rotation"),
    "unsigned": (failing("unsigned", claimed_keys=()), "3B", "unsigned"),
    "no key": (failing("no-key", trusted_keys=()), "3B", "no key configured"),
    "too few": (failing("threshold"), "3B", "too few signatures"),
    "no key id": (failing("signature", claimed_keys=("",)), "3B", "unknown key"),
    "tuf root": (failing("signature", url=TUF, claimed_keys=()), "3B", "tuf root"),
    "unreadable key": (failing("config", "remote.public_key: is not an Ed25519 public key"), "3B", "key unreadable"),
    "tampering": (failing("signature"), "4C", "signature"),
    "tampering by one of two": (failing("signature", claimed_keys=(STRANGE, TRUSTED)), "4C", "signature"),
    "rollback": (failing("rollback"), "4C", "rollback attack"),
    "unversioned": (failing("unversioned"), "4C", "rollback attack"),
    "equivocation": (failing("equivocation"), "4C", "equivocation"),
    "mixed metadata": (
        failing("digest", "digest: TrustError: the TUF metadata: hash", url=TUF),
        "4C",
        "mixed metadata",
    ),
    "fetched digest": (failing("digest", evidence=(wrong(origin="fetched"),)), "3C", ""),
    "digest without evidence": (failing("digest"), "3C", ""),
    "same artifact every round": (
        failing("digest", evidence=(wrong(origin="fetched", seconds=-90), wrong(origin="fetched"))),
        *("3C", ""),
    ),
    "cached digest": (remote(evidence=(wrong(),)), "4A", ""),
    "many cached": (remote(evidence=(wrong(), wrong(OTHER))), "4B", ""),
    "many of both": (failing("digest", evidence=(wrong(), wrong(OTHER, "fetched"))), "4B", ""),
    "syntax": (failing("malformed", "manifest: ManifestError: line 3: not valid YAML"), "manifest", "syntax"),
    "schema": (failing("entry"), "manifest", "schema"),
    "too large": (failing("size", f"size: {URL}: larger than the 9 bytes allowed"), "manifest", "size"),
    "wheel": (
        failing("malformed", "manifest: ManifestError: artifact a.whl: it is not a wheel"),
        "manifest",
        "artifact",
    ),
    "host not allowed": (failing("uri"), "manifest", "not allowed"),
    "file": (failing("file", "file: /srv/m.json: no such file", url="/srv/m.json"), "manifest", "file"),
    "no room": (failing("size", "size: 9 bytes are needed in .oneiric_cache, 3 are free"), "disk", "synchronisation"),
    "disk": (failing("disk", "OSError: [Errno 28] No space left on device"), "disk", "synchronisation"),
    "directory": (failing("config", "the directory .oneiric_cache cannot be used: x"), "disk", "directory"),
    "token": (failing("config", "remote.token: FILE is not set"), "remote-settings", ""),
    "ledger": (failing("state", "remote.json cannot be read", consecutive_failures=0), "ledger", ""),
    "bug": (failing("internal", "ValueError: oops"), "internal", ""),
    "expired": (failing("expired", expires_at=at(-60)), "manifest-expiry", "expired"),
    "future": (failing("future"), "manifest-expiry", "clock"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_cause_is_found_by_its_own_code_and_no_other(name: str) -> None:
    source, code, variant = VERDICTS[name]
    assert [(finding.code, finding.variant) for finding in found(source)] == [(code, variant)]


@pytest.mark.parametrize("name", VERDICTS)
def test_no_other_rule_finds_anything_beside_it(name: str) -> None:
    source, code, _ = VERDICTS[name]
    assert [finding.code for finding in all_rules(vitals(remote=source))] == [code]


@pytest.mark.parametrize("name", VERDICTS)
def test_finding_says_what_was_seen_what_to_type_and_what_ends_it(name: str) -> None:
    finding = first(VERDICTS[name][0])
    assert [bool(part) for part in (finding.title, finding.evidence, finding.commands, finding.confirm)] == [True] * 4


@pytest.mark.parametrize("name", VERDICTS)
def test_commands_can_be_typed(name: str) -> None:
    assert untypeable(first(VERDICTS[name][0]).commands) == []


@pytest.mark.parametrize("name", VERDICTS)
def test_commands_can_be_typed_whatever_the_names(name: str) -> None:
    hostile = {"url": "https://h/a b';x\"", "cache_dir": "/my cache", "state_dir": "it's"}
    source = VERDICTS[name][0]
    moved = replace(source, url=hostile.pop("url"))
    assert untypeable(command for one in found(moved, **hostile) for command in one.commands) == []


# Gravity and evidence


@pytest.mark.parametrize(("failures", "priority"), [(1, "P2"), (2, "P2"), (3, "P1"), (12, "P1")])
def test_failures_are_graver_from_the_threshold_on(failures: int, priority: str) -> None:
    assert first(failing("dns", consecutive_failures=failures)).priority == priority


@pytest.mark.parametrize("name", ["key rotation", "unsigned", "tampering", "rollback", "fetched digest", "many cached"])
def test_security_is_gravest_from_the_first_failure_on(name: str) -> None:
    source = VERDICTS[name][0]
    assert first(replace(source, consecutive_failures=1)).priority == "P0"


def test_evidence_shows_numbers_times_and_the_error() -> None:
    shown = first(failing("dns")).evidence
    assert shown[0] == f"3 failed synchronisations in a row, the last at 2026-03-04T14:01:51Z: {ERRORS['dns']}"
    assert shown[1] == "last success: 2026-03-04T13:47:11Z (15 min ago)"


def test_key_rotation_names_both_keys() -> None:
    finding = first(failing("signature", claimed_keys=(STRANGE,)))
    assert f"names {STRANGE}; the settings trust {TRUSTED}" in finding.evidence[2]
    assert any(command.startswith("# settings/app.yml: ") and STRANGE in command for command in finding.commands)


def test_settings_are_named_as_the_operator_has_them() -> None:
    commands = first(failing("dns"), settings="/etc/oneiric/").commands
    assert any(command.startswith("# /etc/oneiric/app.yml: ") for command in commands)


def test_corrupt_artifact_has_the_disk_looked_at() -> None:
    commands = " ".join(first(remote(evidence=(wrong(),))).commands)
    assert [word in commands for word in ("df -h", "dmesg", "smartctl")] == [True] * 3


def test_attack_has_evidence_kept_before_anything_is_stopped_or_removed() -> None:
    commands = first(remote(evidence=(wrong(), wrong(OTHER)))).commands
    places = [next(i for i, c in enumerate(commands) if word in c) for word in ("tar czf", " stop ", "rm -rf")]
    assert places == sorted(places)


# Causes and what follows


def test_open_breaker_follows_from_its_cause() -> None:
    findings = found(failing("connection", breaker="open", breaker_wait=42, reachable="connection: refused"))
    assert [(one.code, one.caused_by) for one in findings] == [("3A", ""), ("3D", "3A")]


@pytest.mark.parametrize("name", ["key rotation", "tampering", "fetched digest", "syntax", "expired", "timeout"])
def test_open_breaker_follows_from_whatever_the_cause_is(name: str) -> None:
    source, code, _ = VERDICTS[name]
    findings = found(replace(source, breaker="open"))
    assert [(one.code, one.caused_by) for one in findings] == [(code, ""), ("3D", code)]


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        (URL, (PROXY,), "http://proxy.example:3128"),
        (URL, ("all_proxy=proxy.example:3128",), "http://proxy.example:3128"),
        (URL, ("HTTP_PROXY=http://proxy.example:3128",), ""),
        (URL, (PROXY, "NO_PROXY=.example,10.0.0.0/8"), ""),
        ("https://10.1.2.3/m.json", (PROXY, "NO_PROXY=10.0.0.0/8"), ""),
        ("https://127.0.0.1:8443/m.json", (PROXY,), ""),
    ],
    ids=["its scheme", "all", "the other scheme", "not this host", "not this network", "not this machine"],
)
def test_proxy_is_the_one_that_the_variables_name(url: str, variables: tuple[str, ...], proxy: str) -> None:
    assert proxy_for(failing("connection", url=url, proxies=variables)) == proxy


@pytest.mark.parametrize("reason", ["connection", "dns"])
def test_breaker_comes_first_when_the_host_can_be_reached_again(reason: str) -> None:
    findings = found(failing(reason, breaker="open", breaker_wait=42.4, reachable=""))
    assert [(one.code, one.caused_by) for one in findings] == [("3D", "")]
    assert "42 s left" in findings[0].evidence[0]
    assert findings[0].commands[0] == "oneiric remote-sync --force"


@pytest.mark.parametrize("name", ["tls", "http status", "timeout", "connection reset", "proxy refused"])
def test_breaker_follows_where_a_connection_proves_nothing(name: str) -> None:
    source, code, _ = VERDICTS[name]
    assert codes(replace(source, breaker="open", reachable="")) == [code, "3D"]


def test_closed_breaker_of_a_host_that_is_back_is_no_finding() -> None:
    assert codes(failing("connection", consecutive_failures=1, reachable="")) == ["3A"]


def test_host_of_an_artifact_is_not_known_to_be_back_when_that_of_the_manifest_is() -> None:
    error = f"connection: {ARTIFACT}: connection refused"
    findings = found(failing("connection", error, breaker="open", reachable=""))
    assert [(one.code, one.caused_by) for one in findings] == [("3A", ""), ("3D", "3A")]


def test_host_of_an_artifact_is_named_where_it_is_the_trouble() -> None:
    finding = first(failing("dns", f"dns: {ARTIFACT}: cdn.example: name or service not known"))
    assert (finding.title, finding.subject) == ("the name of an artifact's host does not resolve", ARTIFACT)
    assert finding.commands[:2] == ("nslookup cdn.example", f"curl -v {ARTIFACT}")


def test_open_breaker_needs_force() -> None:
    assert first(failing("dns", breaker="open")).commands[-1] == "oneiric remote-sync --force"


def test_full_disk_is_told_of_by_itself() -> None:
    source = failing("disk", breaker="open")
    assert [(one.code, one.caused_by) for one in found(source, disks=(disk(free_bytes=0),))] == [("3D", "disk")]


def test_manifest_that_expired_because_none_arrives_follows_from_that() -> None:
    findings = found(failing("tls", expires_at=at(-60)))
    assert [(one.code, one.caused_by) for one in findings] == [("3A", ""), ("manifest-expiry", "3A")]


def test_corrupt_cache_and_a_dead_network_are_two_findings() -> None:
    assert codes(failing("dns", evidence=(wrong(),))) == ["4A", "3A"]


# What comes of itself


@pytest.mark.parametrize(("seconds", "variant"), [(-1, "expired"), (3600, "soon")])
def test_manifest_that_expires_is_told_of(seconds: float, variant: str) -> None:
    (finding,) = found(remote(expires_at=at(seconds)))
    assert (finding.code, finding.variant) == ("manifest-expiry", variant)


def test_expired_manifest_that_is_published_is_told_from_the_one_in_force() -> None:
    assert first(failing("expired")).title == "the published manifest has expired"
    assert first(remote(expires_at=at(-1))).title == "the manifest in force has expired"


def test_refresh_that_does_not_run_is_told_of() -> None:
    crash = happened("task-failed", -500, task="remote", error="ValueError: oops")
    (finding,) = found(remote(last_sync_at=at(-1500), refresh_interval=300), recent=(crash,))
    assert (finding.code, "oops" in finding.evidence[-1]) == ("remote-stale", True)


def test_place_that_does_not_serve_is_told_of_although_a_mirror_does() -> None:
    refused = happened("signature-verification-failed", -21, source="remote", key_id=STRANGE)
    warned = happened("remote-sync-warning", -20, error=f"{URL} did not serve: signature: 1 signature, and none is one")
    (finding,) = found(remote(), recent=(refused, warned))
    assert (finding.code, finding.variant, finding.priority) == ("3B", "key rotation", "P0")


def test_unknown_key_is_asked_about_before_anything_else() -> None:
    asked, attack, *rest = first(VERDICTS["key rotation"][0]).commands
    assert asked == f"# ask the publisher in another way than the manifest came by: is {STRANGE} a key of yours?"
    assert attack == "# until the answer is yes take it for an attack: tell the security team, and change no key"
    assert rest.index("# adding an unknown key trusts whoever signed: what a thief signs would run here") == 2
    added = f"add {STRANGE}, as the publisher hands it to you, to remote.public_keys"
    assert rest[3] == f"# settings/app.yml: only after that answer, {added}"


def test_place_that_serves_again_is_told_of_no_more() -> None:
    warned = happened("remote-sync-warning", -320, error=f"{URL} did not serve: {ERRORS['timeout']}")
    assert codes(remote(), recent=(warned,)) == []


def test_artifact_that_was_replaced_is_told_of_while_the_alert_fires() -> None:
    checks = ("digest-check-failed", "digest-check-success")
    digests = {"artifact": WHEEL, "expected_digest": "a" * 64, "actual_digest": "b" * 64}
    healed = tuple(happened(event, -20 + i, **digests) for i, event in enumerate(checks))
    (finding,) = found(remote(), recent=healed)
    assert (finding.code, finding.priority, finding.subject) == ("digest-healed", "P3", WHEEL)


def test_artifact_that_was_replaced_long_ago_is_silent() -> None:
    checks = ("digest-check-failed", "digest-check-success")
    healed = tuple(happened(event, -400 + i, artifact=WHEEL) for i, event in enumerate(checks))
    assert codes(remote(), recent=healed) == []


# Whatever comes


@given(ANY_VITALS)
def test_any_vitals_are_examined_without_an_error(some: Vitals) -> None:
    for finding in examine(some):
        assert finding.evidence
        assert finding.commands
        assert finding.confirm

"""Runbooks 3 and 4: manifests that cannot be fetched or trusted, artifacts that are not what they should be."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from oneiric.core.words import plural
from oneiric.drills.drill import Check, Drill, Monitor, answer, app, busy, command, logged, query
from oneiric.drills.publisher import Publisher, new_signer
from oneiric.drills.sandbox import DrillFailedError, Sandbox

_FAILURES: Final = "max(oneiric_remote_sync_consecutive_failures)"
_WRONG: Final = 'sum(oneiric_remote_digest_checks_total{outcome="failed"})'
_SLOT: Final = "adapter/one"
_WELL = (
    query("oneiric:remote_sync_success_rate:5m", where=lambda value: value > 0.99, claim="over 0.99"),
    answer("remote-status", where=lambda d: d["consecutive_failures"] == 0, claim="no failure since the last success"),
    command("list", "--domain", "adapter", shows=("published",), exits=0),
)
_SYNC_FAILED = logged("remote-sync-error")


def _of(sandbox: Sandbox) -> Publisher:
    if sandbox.publisher is None:
        raise DrillFailedError("this drill has no publisher")
    return sandbox.publisher


def _settings(sandbox: Sandbox, *, reset_timeout: float = 1.0) -> None:
    publisher = _of(sandbox)
    remote = {
        "manifest_url": publisher.url,
        "public_key": publisher.public_key,
        "refresh_interval": 0.5,
        "timeout": 2,
        "failure_threshold": 3,
        "reset_timeout": reset_timeout,
        "allow_plain_http": True,
    }
    app(sandbox, remote=remote)


def _project(sandbox: Sandbox) -> None:
    sandbox.publish("one", "two", "three")
    _settings(sandbox)
    busy(sandbox, _SLOT)


def _patient(sandbox: Sandbox) -> None:
    sandbox.publish("one", "two", "three")
    _settings(sandbox, reset_timeout=600)
    busy(sandbox, _SLOT)


def _outage(sandbox: Sandbox) -> None:
    _of(sandbox).stop()


def _end_of_outage(sandbox: Sandbox) -> None:
    _of(sandbox).start()


def _rotate_key(sandbox: Sandbox) -> None:
    publisher = _of(sandbox)
    publisher.signer = new_signer()
    publisher.publish_again()


def _trust_new_key(sandbox: Sandbox) -> None:
    _settings(sandbox)
    sandbox.restart()


def _wrong_upload(sandbox: Sandbox) -> None:
    """Publish a manifest whose artifact is not the one that was uploaded."""
    publisher = _of(sandbox)
    publisher.publish("one", "two", "three")
    path = publisher.artifact("one")
    path.write_bytes(path.read_bytes().replace(b"Version", b"VERSION"))


def _right_upload(sandbox: Sandbox) -> None:
    path = _of(sandbox).artifact("one")
    path.write_bytes(path.read_bytes().replace(b"VERSION", b"Version"))
    time.sleep(1.5)  # the breaker
    sandbox.oneiric("remote-sync", "--manifest", _of(sandbox).url, "--force", expect=0)


def _open_breaker(sandbox: Sandbox) -> None:
    """Fail three times, so that the breaker opens, then end the outage: only the breaker is left."""
    publisher = _of(sandbox)
    publisher.stop()
    sandbox.wait(lambda: bool(sandbox.log("circuit-breaker-changed", state="open")), "the breaker to open", timeout=30)
    publisher.start()


def _sync_past_breaker(sandbox: Sandbox) -> None:
    sandbox.oneiric("remote-sync", "--manifest", _of(sandbox).url, "--force", expect=0)


def _cached(sandbox: Sandbox) -> list[Path]:
    return sorted((sandbox.directory / ".oneiric_cache" / "artifacts").iterdir())


def _rot(path: Path) -> None:
    """Flip one bit, as a failing disk does."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _rot_one(sandbox: Sandbox) -> None:
    _of(sandbox).stop()  # so that it cannot heal before anybody looks
    _rot(_cached(sandbox)[0])
    sandbox.restart()


def _rot_all(sandbox: Sandbox) -> None:
    _of(sandbox).stop()
    for path in _cached(sandbox):
        _rot(path)
    sandbox.restart()


def _fetch_again(sandbox: Sandbox) -> None:
    _of(sandbox).start()
    sandbox.oneiric("remote-sync", "--manifest", _of(sandbox).url, "--force", expect=0)


def _tamper(sandbox: Sandbox) -> None:
    _of(sandbox).change(source="somebody-else")


def _publish_again(sandbox: Sandbox) -> None:
    _of(sandbox).publish_again()


def _evidence(sandbox: Sandbox, _monitor: Monitor) -> str:
    kept = list((sandbox.directory / ".oneiric_cache" / "quarantine").iterdir())
    if not kept:
        raise DrillFailedError("no evidence was kept in .oneiric_cache/quarantine")
    return f"{plural(len(kept), 'file')} kept as evidence"


_EVIDENCE = Check("ls -la .oneiric_cache/quarantine/", _evidence)
_DIGESTS = (
    query(_WRONG, where=lambda value: value > 0, claim="digest checks failed"),
    logged("digest-check-failed"),
    _EVIDENCE,
)
_DIGESTS_WELL = (
    query('rate(oneiric_remote_digest_checks_total{outcome="failed"}[10s])', where=lambda value: value == 0, claim="0"),
    logged("digest-check-success"),
    command("cache", "verify", exits=0),
)

DRILLS: Final = (
    Drill(
        code="3A",
        title="the manifest's host refuses connections",
        alert="OneiricRemoteSyncConsecutiveFailures",
        plot=_FAILURES,
        prepare=_project,
        inject=_outage,
        diagnosis=(
            command("remote-status", shows=("connection refused",), exits=0),
            _SYNC_FAILED,
            Check(
                '{app="oneiric"} | json | event="remote-sync-error" | error=~".*timeout.*|.*connection.*"',
                lambda sandbox, _monitor: next(
                    line["error"] for line in sandbox.log("remote-sync-error") if "connection" in line["error"]
                ),
            ),
        ),
        resolve=_end_of_outage,
        verification=_WELL,
    ),
    Drill(
        code="3B",
        title="the publisher signs with a new key",
        alert="OneiricSignatureVerificationFailed",
        plot='sum(oneiric_remote_signature_checks_total{outcome="failed"})',
        prepare=_project,
        inject=_rotate_key,
        diagnosis=(logged("signature-verification-failed"), _SYNC_FAILED),
        resolve=_trust_new_key,
        verification=_WELL,
    ),
    Drill(
        code="3C",
        title="the artifact on the publisher's host is not the one in its manifest",
        alert="OneiricDigestVerificationFailed",
        plot=_WRONG,
        prepare=_project,
        inject=_wrong_upload,
        diagnosis=_DIGESTS,
        resolve=_right_upload,
        verification=(*_DIGESTS_WELL, *_WELL),
    ),
    Drill(
        code="3D",
        title="the outage is over, but the circuit breaker still waits",
        alert="OneiricCircuitBreakerOpen",
        plot="max(oneiric_remote_circuit_breaker_open)",
        prepare=_patient,
        inject=_open_breaker,
        diagnosis=(
            command("remote-status", shows=("open",), exits=0),
            logged("remote-sync-error", '{app="oneiric"} | json | circuit_breaker="open"', circuit_breaker="open"),
        ),
        resolve=_sync_past_breaker,
        verification=_WELL,
    ),
    Drill(
        code="4A",
        title="one cached artifact rots on the disk",
        alert="OneiricDigestVerificationFailed",
        plot=_WRONG,
        prepare=_project,
        inject=_rot_one,
        diagnosis=_DIGESTS,
        resolve=_fetch_again,
        verification=(*_DIGESTS_WELL, *_WELL),
    ),
    Drill(
        code="4B",
        title="every cached artifact was changed",
        alert="OneiricDigestVerificationFailed",
        plot=_WRONG,
        prepare=_project,
        inject=_rot_all,
        diagnosis=_DIGESTS,
        resolve=_fetch_again,
        verification=(*_DIGESTS_WELL, *_WELL),
    ),
    Drill(
        code="4C",
        title="somebody between the publisher and us changes the manifest",
        alert="OneiricSignatureVerificationFailed",
        plot='sum(oneiric_remote_signature_checks_total{outcome="failed"})',
        prepare=_project,
        inject=_tamper,
        diagnosis=(logged("signature-verification-failed"), _SYNC_FAILED),
        resolve=_publish_again,
        verification=_WELL,
    ),
)

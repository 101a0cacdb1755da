"""Runbook 3, scenario B and runbook 4, scenario C: the manifest is not signed as it must be, or was tampered with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from oneiric.doctor.finding import Priority
from oneiric.doctor.vitals import RemoteVital, Vitals
from oneiric.doctor.wording import app_file, host_of, port_of, quoted

REASONS: Final = frozenset(
    {
        *("signature", "unsigned", "threshold", "algorithm", "timestamps", "no-key"),
        *("rollback", "unversioned", "equivocation"),
    }
)
"""The reasons of failed synchronisations that these scenarios cover."""


class Verdict(NamedTuple):
    """Which scenario it is; ``priority`` is None where the number of failures decides."""

    code: str
    variant: str
    title: str
    priority: Priority | None = "P0"


_OLDER: Final = "an older manifest than was accepted before is served"
_VERDICTS: Final = {
    "rollback": Verdict("4C", "rollback attack", _OLDER),
    "unversioned": Verdict("4C", "rollback attack", f"{_OLDER}, or one without a version"),
    "equivocation": Verdict("4C", "equivocation", "the version accepted before is served with other contents"),
    "metadata": Verdict("4C", "mixed metadata", "the repository serves other files than its signed metadata names"),
    "no-key": Verdict("3B", "no key configured", "no public key is configured, so no manifest is accepted", None),
    "unsigned": Verdict("3B", "unsigned", "the manifest is not signed"),
    "threshold": Verdict("3B", "too few signatures", "fewer trusted keys have signed the manifest than must sign"),
    "algorithm": Verdict("3B", "algorithm", "the manifest is signed with another algorithm than Ed25519"),
    "timestamps": Verdict("3B", "timestamps", "the manifest was dated after it was signed", None),
}


def verdict(remote: RemoteVital, reason: str) -> Verdict:
    """Return what a refusal for *reason* means."""
    return _VERDICTS.get(reason) or _unfit(remote)


def _unfit(remote: RemoteVital) -> Verdict:
    """Return what it means that no signature is one of a trusted key over these bytes."""
    if remote.url.startswith("tuf+"):
        return Verdict("3B", "tuf root", "the repository's metadata is not signed as the pinned root demands")
    claimed, trusted = set(remote.claimed_keys) - {""}, set(remote.trusted_keys)
    if claimed & trusted:
        return Verdict("4C", "signature", "the signature of a trusted key does not fit the manifest's bytes")
    if claimed:
        return Verdict("3B", "key rotation", "the manifest is signed with keys that are not trusted here")
    return Verdict(
        "3B", "unknown key", "no signature is one of a trusted key, and the manifest does not say whose it is"
    )


def evidence(remote: RemoteVital, found: Verdict) -> Iterator[str]:
    """Yield whose signatures were found and whose are trusted, and what was accepted before."""
    if found.variant in ("key rotation", "signature", "unknown key"):
        claimed = ", ".join(filter(None, remote.claimed_keys)) or "no key id"
        yield f"the refused manifest names {claimed}; the settings trust {', '.join(remote.trusted_keys) or 'none'}"
    if found.variant in ("rollback attack", "equivocation") and remote.manifest_version is not None:
        yield f"in force is version {remote.manifest_version}, and it stays"


def commands(vitals: Vitals, remote: RemoteVital, found: Verdict, sync: str) -> Iterator[str]:
    """Yield what to type, in the runbook's order; *sync* is the command to end with."""
    if found.code == "4C":
        yield from _incident(vitals, remote, found, sync)
        return
    file = app_file(vitals)
    if found.variant == "key rotation":
        yield from _strange_key(file, remote)
        yield sync
        return
    yield "oneiric remote-status"
    if found.variant == "tuf root":
        yield f"# {file}: compare remote.tuf_root with the root.json that the publisher gives you in another way"
        yield "# until they agree take it for an attack: tell the security team"
    elif found.variant == "no key configured":
        yield f"# {file}: set remote.public_key to the key that the publisher gives you in another way"
        yield "oneiric config check"
    else:
        yield "# until the publisher explains it take it for an attack: tell the security team"
        yield f"# the publisher: {_signing(found.variant)}"
    yield sync


def _strange_key(file: str, remote: RemoteVital) -> Iterator[str]:
    claimed = ", ".join(filter(None, remote.claimed_keys))
    yield f"# ask the publisher in another way than the manifest came by: is {claimed} a key of yours?"
    yield "# until the answer is yes take it for an attack: tell the security team, and change no key"
    yield "oneiric remote-status"
    yield f"oneiric config show | grep {quoted('remote.public_key')}"
    yield "# adding an unknown key trusts whoever signed: what a thief signs would run here"
    yield f"# {file}: only after that answer, add {claimed}, as the publisher hands it to you, to remote.public_keys"


def _signing(variant: str) -> str:
    if variant == "too few signatures":
        return "oneiric manifest sign --append, with another of the trusted keys"
    if variant == "timestamps":
        return "sign with oneiric manifest sign, which covers its own timestamps"
    return "sign it again with one of the trusted keys: oneiric manifest sign"


def _incident(vitals: Vitals, remote: RemoteVital, found: Verdict, sync: str) -> Iterator[str]:
    url, cache = quoted(remote.url.removeprefix("tuf+")), quoted(vitals.cache_dir)
    host = host_of(remote.url)
    yield "# do not proceed, and do not switch signatures off; what is in force keeps serving"
    yield "# tell the security team: a P0 incident"
    yield f"cp -r {cache} /tmp/evidence-$(date +%Y%m%d-%H%M%S)"
    if host:
        yield f"curl -sS -o /tmp/manifest-fresh {url}"
    else:
        yield f"cp {url} /tmp/manifest-fresh"
    yield f"diff {cache}/manifest.yaml /tmp/manifest-fresh"
    if host and not remote.url.removeprefix("tuf+").startswith("http:"):
        name = quoted(host)
        yield f"openssl s_client -connect {name}:{port_of(remote.url)} -servername {name} </dev/null"
    yield "# the network path: proxy, firewall, CDN or mirror between here and the publisher; ask what was published"
    if found.variant != "signature":
        yield "# if the publisher did it: oneiric manifest sign, with a higher --manifest-version"
    yield sync


def confirm(found: Verdict) -> Iterator[str]:
    """Yield what will show that the signatures are right again."""
    if found.code == "4C":
        yield 'log: no event="signature-verification-failed" and no event="remote-sync-error" any more'
    elif found.priority is not None:
        yield 'PromQL: increase(oneiric_remote_signature_checks_total{outcome="failed"}[5m]) == 0'

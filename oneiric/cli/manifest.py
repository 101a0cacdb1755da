"""``oneiric manifest``: the publisher's side. Keys, signatures, and manifests packed for consumers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from oneiric.cli.options import Group, Options, global_options
from oneiric.cli.output import note, print_answer, print_document, safe, warn
from oneiric.core.words import plural
from oneiric.errors import ConfigError, ManifestError, UsageError

if TYPE_CHECKING:
    from oneiric.core.keys import TrustedKey
    from oneiric.core.manifest import Manifest

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST_DAYS: Final = 3650
_ANYWHERE: Final = "https://manifest.invalid/manifest.json"  # where it will be published is not known yet

_file = click.Path(path_type=Path)
_input = click.option("-i", "--input", "source", type=_file, required=True, help="The manifest, YAML or JSON.")


@click.group(cls=Group, no_args_is_help=False)
@global_options
def manifest(_options: Options) -> None:
    """Sign, verify and pack manifests, as their publisher."""


def _duration(_context: click.Context, _parameter: click.Parameter, value: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", value, re.ASCII)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_DAYS * _UNITS["d"]:
        raise click.BadParameter(f"{value!r} is no length of time; use 30d, 12h or 90m, at most {_LONGEST_DAYS}d")
    return timedelta(seconds=seconds)


def _version(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None or value == "auto":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,15}", value, re.ASCII) or int(value) >= 1 << 53:
        raise click.BadParameter(f"{value!r} is no version; use auto, or a whole number from 1 to 2**53 - 1")
    return int(value)


@manifest.command()
@global_options
@click.option("--private-key", "private", type=_file, required=True, help="Where to write the private key.")
@click.option("--public-key", "public", type=_file, required=True, help="Where to write the public key.")
@click.option("--force", is_flag=True, help="Replace keys that are there; what they signed cannot be added to.")
def keygen(options: Options, *, private: Path, public: Path, force: bool) -> None:
    """Make a pair of keys: one to sign with, and one for consumers to set as remote.public_key."""
    from base64 import b64encode

    from oneiric.remote.signing import generate_keys, write_keys

    pair = generate_keys()
    write_keys(pair, private, public, force=force)
    answer = {
        "schema": "oneiric.manifest-keygen/1",
        "key_id": pair.key.id,
        "private_key": str(private),
        "public_key": str(public),
        "public_key_base64": b64encode(pair.key.raw).decode(),
    }
    print_document(answer, options, _keygen_text)


def _keygen_text(answer: dict[str, Any]) -> str:
    return (
        f"key {answer['key_id']}: sign with {safe(answer['private_key'])}, which only you can read; "
        f"publish {safe(answer['public_key'])}\n"
        f"consumers set in app.yml: remote: {{public_key: {answer['public_key_base64']}}}"
    )


@manifest.command()
@global_options
@_input
@click.option("-o", "--output", "target", type=_file, help="The signed manifest; by default the input is replaced.")
@click.option("--private-key", "private", type=_file, required=True, help="The key to sign with: PEM, raw or hex.")
@click.option("--key-id", default="", metavar="ID", help="What to call the key; by default its own id.")
@click.option("--expires-in", default="30d", callback=_duration, metavar="TIME", help="30d (default), 12h, 90m.")
@click.option(
    "--manifest-version", "number", callback=_version, metavar="N|auto", help="auto (default): after the last one."
)
@click.option("--append", is_flag=True, help="Add a signature to those there are; change nothing else.")
def sign(
    options: Options,
    *,
    source: Path,
    target: Path | None,
    private: Path,
    key_id: str,
    expires_in: timedelta,
    number: int | None,
    append: bool,
) -> None:
    """Date, number and sign a manifest. The output is YAML if its name says so, without comments; else packed JSON."""
    from datetime import UTC, datetime

    from oneiric.core.manifest import parse_manifest
    from oneiric.remote.signing import add_signature, next_version, read_signer, render, write_file
    from oneiric.remote.signing import sign as sign_document

    if append:
        _refuse_changes(number)
    _warn_if_shared(private, options)
    signer, document, target = read_signer(private), _document(source), target or source
    with _within(source):
        if append:
            signed = add_signature(document, signer, key_id=key_id)
        else:
            published = _document(target) if target != source and target.exists() and number is None else {}
            signed = sign_document(
                document,
                signer,
                now=datetime.now(UTC),
                expires_in=expires_in,
                manifest_version=number or next_version(document, published),
                key_id=key_id,
            )
        write_file(target, render(signed, target))
    result = parse_manifest(signed)
    answer = {
        "schema": "oneiric.manifest-sign/1",
        "output": str(target),
        "key_id": signer.key.id,
        **_facts(result),
        "signatures": len(result.signatures),
    }
    print_document(answer, options, _sign_text)


def _entries(answer: dict[str, Any]) -> str:
    return plural(answer["entries"], "entry", "entries")


def _sign_text(answer: dict[str, Any]) -> str:
    return (
        f"{safe(answer['output'])}: version {answer['manifest_version']}, {_entries(answer)}, "
        f"signed by {answer['key_id']}, expires {answer['expires_at']}, signatures: {answer['signatures']}"
    )


def _refuse_changes(number: int | None) -> None:
    context = click.get_current_context()
    given = context.get_parameter_source("expires_in") is click.core.ParameterSource.COMMANDLINE
    if given or number is not None:
        raise click.UsageError(
            "--append changes nothing that is signed already: no --expires-in, no --manifest-version"
        )


def _warn_if_shared(private: Path, options: Options) -> None:
    if private.stat().st_mode & 0o077:
        note(f"warning: {private} can be read by others than its owner; chmod 600 {private}", options)


@manifest.command()
@global_options
@_input
@click.option(
    "--public-key", "public", multiple=True, required=True, metavar="F|KEY", help="A key, or a file of one; repeatable."
)
@click.option("--threshold", type=click.IntRange(min=1), default=1, help="How many of the keys must have signed.")
def verify(options: Options, *, source: Path, public: tuple[str, ...], threshold: int) -> None:
    """Say whether consumers with these keys would accept a manifest; exits 5 and names the check that fails."""
    from datetime import UTC, datetime

    from oneiric.core.manifest import parse_manifest
    from oneiric.core.trust import TrustPolicy, verify_manifest
    from oneiric.remote.signing import LIMIT_BYTES, read_file

    keys = tuple({key.id: key for key in map(_public_key, public)}.values())
    if threshold > len(keys):
        raise click.UsageError(f"--threshold {threshold} exceeds the number of distinct keys, {len(keys)}")
    content = read_file(source)
    with _within(source):
        modules, hosts = _needs(parse_manifest(_read(content)))
        policy = TrustPolicy(
            keys=keys,
            threshold=threshold,
            allowed_factories=modules,
            allowed_hosts=hosts,
            max_manifest_bytes=LIMIT_BYTES,
        )
        verified = verify_manifest(content, policy=policy, floor=None, now=datetime.now(UTC), url=_ANYWHERE)
    answer = {
        "schema": "oneiric.manifest-verify/1",
        "valid": True,
        "input": str(source),
        **_facts(verified.manifest),
        "digest": verified.digest,
        "key_ids": list(verified.key_ids),
        "needs": {"allowed_factories": list(modules), "allowed_hosts": list(hosts)},
        "warnings": list(verified.warnings),
    }
    print_document(answer, options, _verify_text)
    warn(answer["warnings"], options)


def _verify_text(answer: dict[str, Any]) -> str:
    text = (
        f"{safe(answer['input'])}: valid: version {answer['manifest_version']}, {_entries(answer)}, "
        f"signed by {', '.join(answer['key_ids'])}, expires {answer['expires_at']}"
    )
    needs = [
        f"\nconsumers need remote.{name}: {json.dumps(values)}" for name, values in answer["needs"].items() if values
    ]
    return text + "".join(needs)


def _needs(found: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the modules and the hosts that a consumer must allow for *found* to be acceptable at all."""
    from urllib.parse import urlsplit

    modules = {entry.factory.partition(":")[0] for entry in found.entries if entry.uri is None}
    hosts = set()
    for uri in {entry.uri for entry in found.entries if entry.uri is not None}:
        with suppress(ValueError):  # verification says what is wrong with it
            hosts.add(urlsplit(uri).hostname or "")
    return tuple(sorted(modules)), tuple(sorted(hosts - {""}))


@manifest.command()
@global_options
@_input
@click.option("-o", "--output", "target", type=_file, required=True, help="The packed manifest.")
def pack(options: Options, *, source: Path, target: Path) -> None:
    """Write a manifest as canonical JSON, which is read fastest. Its signatures hold: they cover what it says."""
    from oneiric.core.keys import decode_base64
    from oneiric.core.manifest import parse_manifest
    from oneiric.remote.signing import pack as packed
    from oneiric.remote.signing import write_file

    document = _document(source)
    with _within(source):
        found = parse_manifest(document)
    content = packed(document)
    write_file(target, content)
    usable = all(len(decode_base64(one.signature) or b"") == 64 for one in found.signatures)
    answer = {
        "schema": "oneiric.manifest-pack/1",
        "output": str(target),
        "bytes": len(content),
        **_facts(found),
        "signatures": len(found.signatures),
        "sign_again": not (usable and found.signatures),
    }
    print_document(answer, options, _pack_text)


def _pack_text(answer: dict[str, Any]) -> str:
    output = safe(answer["output"])
    text = f"{output}: {_entries(answer)}, {plural(answer['bytes'], 'byte')}"
    if not answer["sign_again"]:
        return f"{text}; signatures: {answer['signatures']}, which hold as before, for they cover what it says"
    what = "its signature cannot be one of Ed25519" if answer["signatures"] else "it is not signed"
    return f"{text}; {what}: oneiric manifest sign -i {output} --private-key F"


@manifest.command()
@global_options
def schema(options: Options) -> None:
    """Print the JSON Schema of manifests, for an editor or another tool to check against."""
    from oneiric.core.manifest_schema import json_schema

    described = json_schema()
    answer = {"schema": "oneiric.manifest-schema/1", "json_schema": described}
    print_answer(json.dumps(answer) if options.json else json.dumps(described, indent=2), options)


@contextmanager
def _within(path: Path) -> Iterator[None]:
    """Put the name of the file, and of the check that failed, before what is wrong with a manifest."""
    try:
        yield
    except ManifestError as error:
        what = f"{path}: {error.reason}: {error.message}"
        raise type(error)(what, reason=error.reason, hint=error.hint) from error


def _document(path: Path) -> dict[str, Any]:
    from oneiric.remote.signing import read_file

    with _within(path):
        return _read(read_file(path))


def _read(content: bytes) -> dict[str, Any]:
    from oneiric.core.document import read_document

    return read_document(content)


def _facts(found: Manifest) -> dict[str, Any]:
    return {
        "source": found.source,
        "manifest_version": found.manifest_version,
        "signed_at": found.signed_at.isoformat() if found.signed_at else None,
        "expires_at": found.expires_at.isoformat() if found.expires_at else None,
        "entries": len(found.entries),
    }


def _public_key(text: str) -> TrustedKey:
    from oneiric.core.keys import parse_key
    from oneiric.remote.signing import read_file

    path = Path(text)
    is_file = len(text) < 4096 and "\n" not in text and path.is_file()
    try:
        return parse_key(read_file(path, 1 << 16).decode("ascii", "replace") if is_file else text)
    except ConfigError as error:
        what = error.problems[0].what
        name = str(path) if is_file else "--public-key"
        raise UsageError(f"{name}: {what}" + ("" if is_file else ", nor the name of a file")) from None

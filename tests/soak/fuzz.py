"""Coverage-guided fuzzing of all that reads hostile bytes, with atheris (libFuzzer): ``pip install atheris``.

    python -m tests.soak.fuzz TARGET [libFuzzer options, such as -max_total_time=900]

Only our own errors may leave a target, no input may take more than a second, and memory stays within 512 MiB.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import atheris

with atheris.instrument_imports(include=["oneiric"]):
    from oneiric.config.reader import decode, parse
    from oneiric.config.source import Source
    from oneiric.core.document import read_document
    from oneiric.core.manifest import parse_manifest
    from oneiric.core.trust import TrustPolicy, verify_manifest
    from oneiric.errors import ManifestError
    from oneiric.remote.wheel import read_artifact

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
UNSIGNED: Final = TrustPolicy(require_signature=False, allowed_factories=("shop",))
SEEDS: Final = {
    "document": b'{"source": "acme", "entries": [{"a": [1, 2.5, null, true]}]}',
    "manifest": b"source: acme\nentries:\n- {domain: adapter, key: k, provider: p, factory: 'shop:x'}\n",
    "trust": b'{"entries":[{"domain":"adapter","factory":"shop:x","key":"k","provider":"p"}],"source":"acme"}',
    "settings": b"selections: {cache: redis}\n",
    "wheel": b"PK\x05\x06" + bytes(18),
}


def _document(data: bytes) -> None:
    read_document(data)


def _manifest(data: bytes) -> None:
    parse_manifest(read_document(data))


def _trust(data: bytes) -> None:
    verify_manifest(data, policy=UNSIGNED, floor=None, now=NOW, url="https://manifests.example/m.json")


def _settings(data: bytes) -> None:
    source = Source("settings/app.yml")
    text = decode(data, source)
    if text is not None:
        parse(text, source)


def _wheel(data: bytes) -> None:
    read_artifact("x-1-py3-none-any.whl", data)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "document": _document,
    "manifest": _manifest,
    "trust": _trust,
    "settings": _settings,
    "wheel": _wheel,
}


def main() -> None:
    """Fuzz the target that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.soak.fuzz {{{','.join(TARGETS)}}} [libFuzzer options]")
    name = sys.argv.pop(1)
    target = TARGETS[name]

    def once(data: bytes) -> None:
        try:
            target(data)
        except ManifestError:  # TrustError among them: what is wrong with it was said
            return

    atheris.Setup([sys.argv[0], "-timeout=1", "-rss_limit_mb=512", "-max_len=65536", *sys.argv[1:]], once)
    once(SEEDS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()

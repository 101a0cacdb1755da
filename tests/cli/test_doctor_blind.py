"""The doctor is told nothing: real deliveries go wrong in a real way, and it must name the scenario."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from examples.publisher.press import new_key
from examples.publisher.serve import Publisher, fail, replace, tamper
from tests.cli.conftest import Typing
from tests.harness.daemon import project
from tests.harness.delivery import Upstream, serving

MANIFEST, NEWER = "/manifest.json", "/upstream-2.0-py3-none-any.whl"
OTHER = {"domain": "adapter", "key": "other", "provider": "remote", "factory": "other:Other"}


class Place:
    """A project that was synchronised with version 1, in the working directory, and who delivers to it."""

    def __init__(self, directory: Path, published: ExitStack) -> None:
        self.upstream = Upstream(directory / "up")
        self.first = self.publish()
        self.published = published
        self.publisher: Publisher = published.enter_context(serving(self.upstream))
        self.directory = project(directory / "p")
        self.configure()

    def publish(self, version: str = "1.0", **more: Any) -> bytes:
        other = self.upstream.pack("other", version, {"other.py": "class Other:\n    pass\n"}, **OTHER)
        return self.upstream.publish(self.upstream.entry(version), other, **more)

    def configure(self, url: str | None = None, **remote: Any) -> None:
        text = self.upstream.settings(url or self.publisher.url, **remote)
        (self.directory / "settings" / "app.yml").write_text(text)

    def rewrite(self, change: Callable[[dict[str, Any]], object]) -> None:
        manifest = json.loads(self.upstream.manifest.read_bytes())
        change(manifest)
        self.upstream.manifest.write_text(json.dumps(manifest))

    def corrupt(self, count: int) -> None:
        for artifact in sorted((self.directory / ".oneiric_cache" / "artifacts").iterdir())[:count]:
            artifact.write_bytes(b"not what it was")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Typing) -> Iterator[Place]:
    with ExitStack() as published:
        made = Place(tmp_path, published)
        monkeypatch.chdir(made.directory)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        assert typed("remote-sync").code == 0
        yield made


def diagnosis(typed: Typing) -> list[tuple[str, str, str]]:
    findings = typed("doctor", "--json").document["findings"]
    return [(one["code"], one["variant"], one["caused_by"]) for one in findings]


def rotate(place: Place) -> None:
    place.publish("2.0", signer=new_key())


def tamper_with(place: Place) -> None:
    place.rewrite(lambda manifest: manifest["entries"][0].update(priority=99))


def unsign(place: Place) -> None:
    place.rewrite(lambda manifest: [manifest.pop(name, None) for name in ("signature", "signatures")])


def misspell(place: Place) -> None:
    place.upstream.manifest.write_text("{not json")


def expire(place: Place) -> None:
    place.upstream.expire()


def swap_wheel(place: Place) -> None:
    place.publisher.faults[NEWER] = tamper
    place.publish("2.0")


def swap_wheels(place: Place) -> None:
    place.publisher.faults[NEWER] = replace(b"neither")
    place.publish("2.0")
    place.corrupt(2)


def break_server(place: Place) -> None:
    place.publisher.faults[MANIFEST] = fail(404)


def leave(place: Place) -> None:
    place.published.close()


def forget_key(place: Place) -> None:
    place.configure(public_key=None)


def use_plain_http(place: Place) -> None:
    place.configure("http://manifests.example/m.json")


FAULTS: dict[str, tuple[Callable[[Place], None], str, str]] = {
    "key rotation": (rotate, "3B", "key rotation"),
    "tampering": (tamper_with, "4C", "signature"),
    "unsigned": (unsign, "3B", "unsigned"),
    "no key": (forget_key, "3B", "no key configured"),
    "syntax": (misspell, "manifest", "syntax"),
    "not allowed": (use_plain_http, "manifest", "not allowed"),
    "expired": (expire, "manifest-expiry", "expired"),
    "digest": (swap_wheel, "3C", ""),
    "404": (break_server, "3A", "http status"),
    "gone": (leave, "3A", "connection refused"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_real_fault_is_named(place: Place, typed: Typing, name: str) -> None:
    fault, code, variant = FAULTS[name]
    fault(place)
    assert typed("remote-sync").code != 0
    assert diagnosis(typed) == [(code, variant, "")]


def test_older_manifest_is_a_rollback_attack(place: Place, typed: Typing) -> None:
    place.publish("2.0")
    assert typed("remote-sync").code == 0
    place.upstream.manifest.write_bytes(place.first)
    assert typed("remote-sync").code == 5
    assert diagnosis(typed) == [("4C", "rollback attack", "")]


@pytest.mark.parametrize(("count", "code"), [(1, "4A"), (2, "4B")])
def test_corrupt_artifacts_in_the_cache_are_counted(place: Place, typed: Typing, count: int, code: str) -> None:
    place.corrupt(count)
    assert [one[0] for one in diagnosis(typed)] == [code]


def test_wrong_artifacts_here_and_there_may_be_an_attack(place: Place, typed: Typing) -> None:
    swap_wheels(place)
    assert typed("remote-sync").code == 5
    assert [one[0] for one in diagnosis(typed)] == ["4B"]


def test_delivery_that_was_cured_is_silent(place: Place, typed: Typing) -> None:
    break_server(place)
    assert typed("remote-sync").code == 1
    place.publisher.faults.clear()
    assert typed("remote-sync").code == 0
    assert diagnosis(typed) == []

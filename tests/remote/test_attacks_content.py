"""Attacks by what a manifest says, however well it is signed: factories, names, addresses, more than one reading."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from oneiric.errors import ManifestError, TrustError
from tests.harness.verifying import accept, changed, refused
from tests.remote.publisher import ALICE, covered, document, entry, packed, signed

# 12 Arbitrary factory


def bare(factory: str) -> dict[str, Any]:
    """Return a signed manifest of an entry without an artifact."""
    return signed(document(entry(factory=factory, uri=None, sha256=None, length=None)))


ALLOWED = changed(allowed_factories=("shop.adapters", "oneiric"))


@pytest.mark.parametrize("factory", ["os:system", "shop.cache:Redis", "oneiric.adapters.memory:MemoryCache"])
def test_factory_outside_an_artifact_is_refused_unless_allowed(factory: str) -> None:
    assert refused(bare(factory)) == "factory"


@pytest.mark.parametrize("factory", ["shop.adapters:Cache", "shop.adapters.redis:Cache", "oneiric.adapters.memory:M"])
def test_factory_at_or_below_an_allowed_module_is_accepted(factory: str) -> None:
    assert accept(bare(factory), ALLOWED)


@pytest.mark.parametrize(
    "factory", ["shop.adapters_evil:Cache", "shop:Cache", "shop.adaptersx.y:Cache", "xshop.adapters:C"]
)
def test_factory_that_only_begins_like_an_allowed_module_is_refused(factory: str) -> None:
    assert refused(bare(factory), ALLOWED) == "factory"


@pytest.mark.parametrize("factory", ["oneiric.cli:main", "oneiric.cli.main:main"])
def test_factory_that_would_end_the_process_is_refused_whatever_is_allowed(factory: str) -> None:
    assert refused(bare(factory), ALLOWED) == "factory"


def test_factory_is_not_allowed_by_an_empty_name() -> None:
    assert refused(bare("os:system"), changed(allowed_factories=("",))) == "factory"


def test_factory_inside_its_artifact_needs_no_permission() -> None:
    assert accept(signed(document(entry(factory="anything.at_all:Factory"))))


# 13 Regular expressions that stop at a line feed


@pytest.mark.parametrize(
    "change",
    [{"key": "cache\n"}, {"key": "."}, {"provider": "redis\n"}, {"domain": "adapter\n"}, {"factory": "m:f\n"}],
    ids=lambda change: ",".join(change),
)
def test_name_with_a_line_feed_is_refused(change: dict[str, Any]) -> None:
    assert refused(signed(document(entry(**change)))) == "entry"


# 14, 16, 18 Addresses


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/x.whl",
        "http://manifests.example.com/x.whl",
        "//evil.example/x.whl",
        "https://manifests.example.com:444/x.whl",
        "https://bob:hunter2@manifests.example.com/x.whl",
        "https://manifests.example.com.evil.example/x.whl",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1/x.whl",
        "file:///etc/passwd",
        "file:///oneiric/x.whl",
        "data:,x",
    ],
)
def test_artifact_from_elsewhere_is_refused(uri: str) -> None:
    assert refused(signed(document(entry(uri=uri)))) == "uri"


@pytest.mark.parametrize(
    "uri",
    [
        "http://cdn.example.com/x.whl",
        "ftp://cdn.example.com/x.whl",
        "https://bob:hunter2@cdn.example.com/x.whl",
        "https://169.254.169.254/x.whl",
        "https://[::ffff:169.254.169.254]/x.whl",
        "https://[fe80::1]/x.whl",
        "https://2852039166/x.whl",
    ],
)
def test_artifact_from_where_nobody_may_go_is_refused_although_its_host_is_allowed(uri: str) -> None:
    hosts = (
        "cdn.example.com",
        "169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::ffff:169.254.169.254",
        "fe80::1",
        "2852039166",
    )
    policy = changed(allowed_hosts=hosts)
    assert accept(signed(document(entry(uri="https://cdn.example.com/x.whl"))), policy)
    assert refused(signed(document(entry(uri=uri))), policy) == "uri"


def test_refusal_of_an_address_repeats_nothing_secret_from_it() -> None:
    with pytest.raises(TrustError) as caught:
        accept(signed(document(entry(uri="https://bob:hunter2@evil.example/x?token=hunter2#hunter2"))))
    assert "hunter2" not in caught.value.render()


@pytest.mark.parametrize("uri", ["/etc/passwd", "../x.whl", "a/%2e%2e/%2e%2e/x.whl", "file:///etc/passwd"])
def test_artifact_of_a_local_manifest_may_not_lie_elsewhere(uri: str) -> None:
    assert accept(signed(document()), url="/srv/manifests/m.json")
    assert refused(signed(document(entry(uri=uri))), url="/srv/manifests/m.json") == "uri"


# 19, 20, 21 What has more than one reading


@pytest.mark.parametrize(
    "found",
    [
        b'{"entries":[],"entries":[],"signatures":[]}',
        b'{"entries":[],"source":"a","source":"a"}',
        b"entries: []\nentries: []\n",
        b"entries: []\nsource: &a x\nother: *a\n",
        b"entries: []\n---\nentries: []\n",
        b'{"entries":[],"x":NaN}',
    ],
)
def test_document_with_more_than_one_reading_is_refused_before_its_signature_is_looked_at(found: bytes) -> None:
    assert refused(found) == "malformed"


def test_duplicate_key_that_a_trusted_key_signed_is_refused() -> None:
    raw = packed(document())
    twice = raw.replace(b'"key":"cache-1"', b'"key":"other","key":"cache-1"')
    assert twice != raw
    with pytest.raises(ManifestError, match="duplicate key 'key'"):
        accept(with_signature(twice, twice))


def test_duplicate_key_beside_what_a_trusted_key_signed_is_refused() -> None:
    raw = packed(document())
    assert accept(with_signature(raw, raw))
    assert refused(with_signature(raw, raw).replace(b'"source":', b'"source":"other","source":')) == "malformed"


def with_signature(content: bytes, covers: bytes) -> bytes:
    """Return the packed *content* with Alice's signature over *covers*."""
    text = base64.b64encode(ALICE.sign(covers))
    return b'{"signatures":["' + text + b'"],' + content[1:]


@pytest.mark.parametrize(
    "respelled",
    [
        lambda found: covered(found) + b"\n",
        lambda found: json.dumps(found, sort_keys=True).encode(),
        lambda found: json.dumps(dict(reversed(found.items())), separators=(",", ":")).encode(),
    ],
    ids=["a line feed", "spaces", "another order"],
)
def test_signature_over_other_bytes_that_would_read_the_same_is_refused(respelled: Any) -> None:
    content = respelled(document())
    assert refused(with_signature(content, content)) == "signature"

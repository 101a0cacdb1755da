"""Public keys, as people write them."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from oneiric.core.keys import TrustedKey, decode_base64, key_of, parse_key, verifies
from oneiric.errors import ConfigError

PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key()
RAW = PUBLIC.public_bytes_raw()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PRIME = 2**255 - 19
D = -121665 * pow(121666, -1, PRIME) % PRIME


@pytest.mark.parametrize(
    "text",
    [base64.b64encode(RAW).decode(), RAW.hex(), RAW.hex().upper(), PEM, f"  {RAW.hex()}\n", f"\n{PEM}\n"],
    ids=["base64", "hex", "HEX", "PEM", "spaces", "PEM and lines"],
)
def test_key_reads_the_same_however_it_is_written(text: str) -> None:
    assert parse_key(text) == TrustedKey(hashlib.sha256(RAW).hexdigest()[:16], RAW)


def pem(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an Ed25519 public key"),
        ("nonsense", "is not an Ed25519 public key"),
        ("é" * 44, "is not an Ed25519 public key"),
        (RAW.hex()[:-1], "is not an Ed25519 public key"),
        (base64.b64encode(RAW[:-1]).decode(), "is not an Ed25519 public key"),
        (base64.b64encode(RAW + b"x").decode(), "is not an Ed25519 public key"),
        (base64.b64encode(RAW).decode().rstrip("="), "is not an Ed25519 public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "is not a PEM public key"),
        (pem(ec.derive_private_key(7, ec.SECP256R1()).public_key()), "is a key of another kind than Ed25519"),
        ("00" * 32, "is a key whose signatures anybody can make up"),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "is a key whose signatures anybody can make up"),
    ],
)
def test_text_that_is_no_key_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_key(text, where="remote.public_key")
    assert str(caught.value).startswith(f"remote.public_key: {words}")


def test_private_key_in_place_of_a_public_one_is_refused_and_not_repeated() -> None:
    text = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(ConfigError, match="is a private key") as caught:
        parse_key(text)
    assert text.splitlines()[1] not in caught.value.render()


def add(left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    """Add two points of the curve, as its definition has it."""
    (x1, y1), (x2, y2) = left, right
    twist = D * x1 * x2 * y1 * y2 % PRIME
    x = (x1 * y2 + x2 * y1) * pow(1 + twist, -1, PRIME)
    y = (y1 * y2 + x1 * x2) * pow(1 - twist, -1, PRIME)
    return x % PRIME, y % PRIME


def torsion() -> list[tuple[int, int]]:
    """Return the eight points of small order, found by the curve's equation from one of order eight."""
    y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    square = (y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    x = x if x * x % PRIME == square else x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    assert x * x % PRIME == square
    points = [(0, 1)]
    while len(points) < 8:
        points.append(add(points[-1], (x, y)))
    assert add(points[-1], (x, y)) == (0, 1)
    return points


@pytest.mark.parametrize("point", torsion(), ids=range(8))
def test_key_of_small_order_is_refused_however_it_is_encoded(point: tuple[int, int]) -> None:
    x, y = point
    spellings = {number | sign << 255 for number in (y, y + PRIME) if number < 2**255 for sign in (0, 1, x & 1)}
    for spelling in spellings:
        with pytest.raises(ConfigError, match="anybody can make up"):
            parse_key(spelling.to_bytes(32, "little").hex())


def test_signature_of_the_key_over_these_bytes_verifies() -> None:
    assert verifies(key_of(RAW), PRIVATE.sign(b"these"), b"these")


@pytest.mark.parametrize(
    ("signature", "signed"),
    [
        (PRIVATE.sign(b"these"), b"those"),
        (PRIVATE.sign(b"these")[:-1], b"these"),
        (b"", b"these"),
        (bytes(64), b"these"),
    ],
)
def test_other_signature_does_not_verify(signature: bytes, signed: bytes) -> None:
    assert not verifies(key_of(RAW), signature, signed)


@given(st.binary(max_size=70))
def test_base64_decodes_to_what_was_encoded(raw: bytes) -> None:
    assert decode_base64(base64.b64encode(raw).decode()) == raw


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QR==", "Q Q==", "QQ==\n", "QQ==QQ==", "_-8=", "é===", "Q"])
def test_base64_that_is_not_the_only_spelling_is_refused(text: str) -> None:
    assert decode_base64(text) is None


@given(st.text(max_size=80))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    with suppress(ConfigError):
        assert len(parse_key(text).raw) == 32

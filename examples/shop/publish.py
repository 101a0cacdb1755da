"""The publisher of the shop's member prices: packs them into a wheel, signs a manifest that names it, serves both.

    python publish.py [--percent 25]    publish the next version; the open shop swaps to it within seconds
    python publish.py --serve           publish the first version and serve until stdin ends: ``start.py`` runs this

A real publisher keeps its private key elsewhere. Here all of it is in ``.shop/``, made anew at each start.
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SHOP = Path(__file__).resolve().parent
sys.path.append(str(SHOP.parents[1]))

from examples.publisher.press import build_wheel, publish  # noqa: E402 - found from here on
from examples.publisher.serve import Publisher  # noqa: E402
from oneiric.remote.signing import generate_keys, next_version, read_signer, write_file, write_keys  # noqa: E402

PLACE = SHOP / ".shop"
SERVED = PLACE / "served"
PRIVATE_KEY = PLACE / "publisher.pem"
PUBLIC_KEY = PLACE / "publisher.pub"
AUTHORITY = PLACE / "authority.pem"
MEMBER = SHOP / "upstream" / "shop_member" / "__init__.py"
TERMS = '"""What members are promised."""\n\nVERSION = "{version}"\nPERCENT = {percent}\n'
ENTRY = {"domain": "service", "key": "pricing", "provider": "member", "factory": "shop_member:Member", "priority": 20}


def main() -> int:
    """Publish, and serve if that is asked for."""
    parser = argparse.ArgumentParser(description="Publish the next version of the shop's member prices.")
    parser.add_argument("--percent", type=int, default=10, choices=range(1, 100), metavar="1-99", help="off the label")
    parser.add_argument("--serve", action="store_true", help="make keys, publish, and serve until stdin ends")
    options = parser.parse_args()
    if not options.serve:
        if not PRIVATE_KEY.exists():
            parser.exit(1, "error: the shop was never open here\ntry: make run\n")
        print(f"published member {publish_member(options.percent)}: {options.percent} % off")
        return 0
    SERVED.mkdir(parents=True)
    write_keys(generate_keys(), PRIVATE_KEY, PUBLIC_KEY, force=False)
    publish_member(options.percent)
    with LocalPublisher(SERVED) as publisher:
        print(publisher.url, flush=True)
        sys.stdin.read()
    return 0


def publish_member(percent: int) -> str:
    """Publish the next version of the member prices, and return it."""
    manifest = SERVED / "manifest.json"
    number = next_version(*([json.loads(manifest.read_bytes())] if manifest.exists() else []))
    version = f"{number}.0"
    files = {
        "shop_member/__init__.py": MEMBER.read_text(),
        "shop_member/terms.py": TERMS.format(version=version, percent=percent),
    }
    wheel = build_wheel(SERVED, "shop-member", version, files)
    entry = {**ENTRY, "version": version, "wheel": wheel, "metadata": {"percent": percent}}
    publish(SERVED, entry, signer=read_signer(PRIVATE_KEY), source="shop-upstream", version=number)
    return version


class LocalPublisher(Publisher):
    """A publisher whose certificate needs nothing but what Oneiric itself needs."""

    def _certify(self) -> ssl.SSLContext:
        authority, authority_key = _certificate("The shop's authority")
        own, own_key = _certificate("127.0.0.1", authority, authority_key)
        self.authority = authority.public_bytes(Encoding.PEM)
        write_file(AUTHORITY, self.authority)
        chain = PLACE / "certificate.pem"
        chain.touch(mode=0o600)
        private = own_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_file(chain, private + own.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context


def _certificate(
    name: str, issuer: x509.Certificate | None = None, issuer_key: ec.EllipticCurvePrivateKey | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate for this machine by *issuer*, or that of an authority of its own, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing = issuer_key or key
    now = datetime.now(UTC)
    is_authority = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .add_extension(_key_usage(signs_certificates=is_authority), critical=True)
    )
    if not is_authority:
        names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(signing, SHA256()), key


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


if __name__ == "__main__":
    sys.exit(main())

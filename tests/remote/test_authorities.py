"""The machine's certificate authorities: read once, and again when there may be others."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from oneiric.errors import FetchError
from oneiric.remote.authorities import Authorities


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one authority, which ``SSL_CERT_FILE`` names."""
    path = tmp_path / "authorities.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def believed(context: ssl.SSLContext) -> set[str]:
    return {str(certificate["serialNumber"]) for certificate in context.get_ca_certs()}


def test_authorities_are_read_once(file: Path) -> None:
    authorities = Authorities()
    assert authorities() is authorities()


def test_authority_that_was_exchanged_is_no_longer_believed(file: Path) -> None:
    authorities = Authorities()
    before = believed(authorities())
    fresh = file.with_name("fresh")
    fresh.write_bytes(trustme.CA().cert_pem.bytes())
    fresh.replace(file)
    after = believed(authorities())
    assert (len(before), len(after), before & after) == (1, 1, set())


def test_variable_that_names_other_authorities_is_heeded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authorities = Authorities()
    before = believed(authorities())
    monkeypatch.setenv("SSL_CERT_FILE", str(file.with_name("other.pem")))
    file.with_name("other.pem").write_bytes(trustme.CA().cert_pem.bytes())
    assert believed(authorities()) & before == set()


def test_authorities_that_are_gone_are_an_error_and_nobody_is_believed_instead(file: Path) -> None:
    authorities = Authorities()
    authorities()
    file.unlink()
    with pytest.raises(FetchError, match="tls: the certificate authorities cannot be read: ") as caught:
        authorities()
    assert (caught.value.reason, caught.value.hint) == ("tls", "check SSL_CERT_FILE and SSL_CERT_DIR")


def test_file_without_authorities_is_an_error(file: Path) -> None:
    file.write_text("nothing")
    with pytest.raises(FetchError, match="tls: "):
        Authorities()()

"""Where artifacts may come from."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.core.origin import Origins, is_local, is_loopback, join

URL = "https://manifests.example.com/oneiric/manifest.json"
HOSTS = ("cdn.example.com", "cdn.example.org:8443", "[2001:db8::1]", "10.0.0.7", "169.254.169.254", "[fe80::1]")


def why(uri: str, url: str = URL, *, hosts: tuple[str, ...] = HOSTS, plain: bool = False) -> str | None:
    return Origins(url, allowed_hosts=hosts, allow_plain_http=plain).refusal(uri)


@pytest.mark.parametrize(
    ("uri", "leads_to"),
    [
        ("x.whl", "https://manifests.example.com/oneiric/x.whl"),
        ("a/b-1.0+cpu.whl", "https://manifests.example.com/oneiric/a/b-1.0+cpu.whl"),
        ("./x.whl", "https://manifests.example.com/oneiric/x.whl"),
        ("../x.whl", "https://manifests.example.com/x.whl"),
        ("/x.whl?v=1", "https://manifests.example.com/x.whl?v=1"),
        ("//manifests.example.com/x.whl", "https://manifests.example.com/x.whl"),
        ("https://manifests.example.com/x.whl", "https://manifests.example.com/x.whl"),
        ("https://MANIFESTS.example.com:443/x.whl", "https://MANIFESTS.example.com:443/x.whl"),
        ("https://cdn.example.com/x.whl", "https://cdn.example.com/x.whl"),
        ("https://cdn.example.com:8443/x.whl", "https://cdn.example.com:8443/x.whl"),
        ("https://cdn.example.org:8443/x.whl", "https://cdn.example.org:8443/x.whl"),
        ("https://[2001:db8::1]/x.whl", "https://[2001:db8::1]/x.whl"),
        ("https://[2001:DB8:0::1]/x.whl", "https://[2001:DB8:0::1]/x.whl"),
        ("https://10.0.0.7/x.whl", "https://10.0.0.7/x.whl"),
    ],
)
def test_artifact_may_come_from_the_manifests_origin_and_from_allowed_hosts(uri: str, leads_to: str) -> None:
    assert (why(uri), join(URL, uri)) == (None, leads_to)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://evil.example/x", "leads to evil.example, which is neither"),
        ("https://manifests.example.com:444/x", "which is neither"),
        ("https://manifests.example.com./x", "which is neither"),
        ("https://xcdn.example.com/x", "which is neither"),
        ("https://cdn.example.com.evil.example/x", "which is neither"),
        ("https://cdn.example.org/x", "which is neither"),
        ("https://10.0.0.8/x", "which is neither"),
        ("http://manifests.example.com/x", "is plain http to another machine"),
        ("http://cdn.example.com/x", "is plain http to another machine"),
        ("https://user@manifests.example.com/x", "holds a user or a password"),
        ("https://u:p@cdn.example.com/x", "holds a user or a password"),
        ("https://@cdn.example.com/x", "holds a user or a password"),
        ("https://cdn.example.com@evil.example/x", "holds a user or a password"),
        ("https://169.254.169.254/x", "leads to a link-local address"),
        ("https://[fe80::1]/x", "leads to a link-local address"),
        ("https://[fe80::1%25eth0]/x", "neither"),
        ("https://[::ffff:169.254.169.254]/x", "leads to a link-local address"),
        ("https://[64:ff9b::a9fe:a9fe]/x", "leads to a link-local address"),
        ("https://[2002:a9fe:a9fe::]/x", "leads to a link-local address"),
        ("https://2852039166/x", "neither a name nor an address"),
        ("https://0xa9fea9fe/x", "neither a name nor an address"),
        ("https://169.254.43518/x", "neither a name nor an address"),
        ("https://0251.0376.0251.0376/x", "neither a name nor an address"),
        ("https://127.1/x", "neither a name nor an address"),
        ("https://10.0.0.7./x", "neither a name nor an address"),
        ("https://a..b/x", "neither a name nor an address"),
        ("https://cdn.example.com%2f.evil.example/x", "neither a name nor an address"),
        ("https:///x", "neither relative nor an https URL"),
        ("https:x", "neither"),
        ("https://", "neither relative nor an https URL"),
        ("https://cdn.example.com:99999/x", "neither relative nor an https URL"),
        ("https://cdn.example.com:x/x", "neither relative nor an https URL"),
        ("https://[::1/x", "neither relative nor an https URL"),
        ("//[::1/x", "is malformed"),
        ("https://cdn.example.com\\@evil.example/x", "holds a character that must be percent-encoded"),
        ("https://cdn.example.com\t/x", "holds a character that must be percent-encoded"),
        (" https://cdn.example.com/x", "holds a character that must be percent-encoded"),
        ("https://cdn.exämple.com/x", "holds a character that must be percent-encoded"),
        ("x\n", "holds a character that must be percent-encoded"),
        ("x\0", "holds a character that must be percent-encoded"),
        ("ftp://cdn.example.com/x", "neither relative nor an https URL"),
        ("javascript:x", "neither relative nor an https URL"),
        ("c:x", "neither relative nor an https URL"),
        ("file:///etc/passwd", "names a file of this machine"),
        ("FILE:/etc/passwd", "names a file of this machine"),
    ],
)
def test_artifact_may_come_from_nowhere_else(uri: str, words: str) -> None:
    assert words in (why(uri) or "accepted")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "localhost."])
def test_plain_http_may_stay_on_this_machine(host: str) -> None:
    assert why("x.whl", f"http://{host}:8000/m.json") is None
    assert why(f"http://{host}:8000/x.whl", f"http://{host}:8000/m.json", hosts=()) is None
    assert why(f"http://{host}:8001/x.whl", f"http://{host}:8000/m.json", hosts=()) is not None


@pytest.mark.parametrize("uri", ["x.whl", "http://manifests.example.com/x.whl"])
def test_plain_http_to_another_machine_must_be_allowed(uri: str) -> None:
    url = "http://manifests.example.com/m.json"
    assert why(uri, url) == "is plain http to another machine"
    assert why(uri, url, plain=True) is None


@pytest.mark.parametrize("url", ["https://[::1/m.json", "ftp://manifests.example.com/m.json", "https://:99/m.json"])
def test_manifest_from_nowhere_has_no_origin_to_share(url: str) -> None:
    assert why("x.whl", url, hosts=()) is not None


def test_relative_address_is_refused_where_the_manifests_own_is() -> None:
    assert why("x.whl", "https://169.254.169.254/m.json") == "leads to a link-local address"
    assert why("x.whl", "https://u:p@manifests.example.com/m.json") == "holds a user or a password"


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("/srv/m/manifest.json", "x.whl"),
        ("/srv/m/manifest.json", "a/x.whl"),
        ("/srv/m/manifest.json", "/srv/m/x.whl"),
        ("/srv/m/manifest.json", "file:///srv/m/x.whl"),
        ("/srv/w?ird:#1/manifest.json", "x.whl"),
        ("/srv/100%/manifest.json", "a/x.whl"),
        ("manifests/m.json", "x.whl"),
        ("m.json", "x.whl"),
        ("/m.json", "x.whl"),
        ("file:///srv/m/manifest.json", "a/x.whl"),
        ("file:///srv/m/manifest.json", "file://localhost/srv/m/x.whl"),
        ("/srv/m/manifest.json", "https://cdn.example.com/x.whl"),
    ],
)
def test_artifact_of_a_local_manifest_lies_below_its_directory(url: str, uri: str) -> None:
    assert why(uri, url) is None


@pytest.mark.parametrize("url", ["/srv/m/manifest.json", "file:///srv/m/manifest.json", "m/manifest.json"])
@pytest.mark.parametrize(
    "uri",
    [
        "../x.whl",
        "a/../../x.whl",
        "%2e%2e/x.whl",
        "a/%2E%2E/%2e%2e/x.whl",
        "a%2f..%2f..%2fx.whl",
        "x%00.whl",
        "/etc/passwd",
        "/srv/mm/x.whl",
        "/srv/m",
        "//evil.example/srv/m/x.whl",
        "file://evil.example/srv/m/x.whl",
        "file:///etc/passwd",
        "https://evil.example/x.whl",
    ],
)
def test_artifact_of_a_local_manifest_may_lie_nowhere_else(url: str, uri: str) -> None:
    assert why(uri, url) is not None


@given(st.text("abc./:@?#%[]\\ \n0123456789x-", max_size=24))
def test_accepted_address_leads_to_the_manifests_origin_or_an_allowed_host(uri: str) -> None:
    if why(uri) is not None:
        return
    parts = urlsplit(join(URL, uri))
    assert (parts.scheme, parts.netloc.rpartition("@")[0]) == ("https", "")
    assert parts.hostname in {"manifests.example.com", "cdn.example.com"}


@given(st.text(max_size=30), st.sampled_from([URL, "/srv/m.json", "file:///srv/m.json", "http://[::1]/m"]))
def test_any_text_is_an_address_or_refused(uri: str, url: str) -> None:
    assert isinstance(why(uri, url), str | None)


@pytest.mark.parametrize("url", ["/a", "a/b", "./a:b", "file:///a", "FILE:/a", ""])
def test_local_is_a_path_or_a_file(url: str) -> None:
    assert is_local(url)


@pytest.mark.parametrize("url", ["https://a", "HTTP://a", "a:b", "//a/b"])
def test_local_is_nothing_else(url: str) -> None:
    assert not is_local(url)


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "10.0.0.1", "128.0.0.1", "::2", "127.1"])
def test_loopback_is_this_machine_alone(host: str) -> None:
    assert not is_loopback(host)

"""``docs/how-to/run-behind-a-proxy.md``: through a proxy that records what it was asked, and behind an nginx."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from examples.publisher.press import publish
from oneiric.doctor.network import proxy_for
from oneiric.doctor.vitals import RemoteVital
from oneiric.remote.transport import open_client
from tests.harness.daemon import Daemon, oneiric, running, wait_until
from tests.harness.delivery import Upstream
from tests.harness.markdown import read
from tests.harness.servers import (
    NGINX,
    Answer,
    Authority,
    Connection,
    Server,
    believes_nobody,
    proxy,
    response,
    serving,
)
from tests.harness.walk import Walk

PAGE = read(Path(__file__).parents[2] / "docs" / "how-to" / "run-behind-a-proxy.md")
USER, PASSWORD = "oneiric", "SeKr3t@"
WRITTEN = "SeKr3t%40"
MANIFEST = "https://manifests.test/oneiric/manifest.json"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
OUTBOUND = (
    "Give the daemon the variables",
    "Trust a proxy that opens TLS",
    "When it does not work",
)


@pytest.fixture(scope="module", autouse=True)
def nothing_set() -> Iterator[None]:
    """No variable of the machine that runs the tests says how to connect."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        yield


# Outbound


def files_of(directory: Path) -> Answer:
    """Serve the files below *directory*."""

    def answer(connection: Connection) -> None:
        file = directory / connection.request.target.lstrip("/")
        connection.send(response(200, file.read_bytes()) if file.is_file() else response(404))

    return answer


def guarded(inner: Answer) -> Answer:
    """Be the proxy *inner* to whoever knows the password."""
    word = b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def answer(connection: Connection) -> None:
        if connection.request.headers.get("proxy-authorization") == f"Basic {word}":
            inner(connection)
        else:
            connection.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    return answer


class Network(NamedTuple):
    """A daemon's directory from which only a proxy leads to the publisher, and the page about it."""

    directory: Path
    proxy: Server
    publisher: Server
    walk: Walk

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.target}" for request in self.proxy.requests]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    place = tmp_path_factory.mktemp("outbound")
    directory, upstream, authority = place / "daemon", Upstream(place / "www" / "oneiric"), Authority()
    publish(upstream.directory, upstream.entry(), signer=upstream.signer, source="acme")
    (directory / "settings").mkdir(parents=True)
    (directory / "settings" / "app.yml").write_text(upstream.settings(MANIFEST))
    (directory / "proxy-authority.pem").write_bytes(authority.ca.cert_pem.bytes())
    (place / "system.pem").write_bytes(Authority().ca.cert_pem.bytes())
    with (
        serving(files_of(place / "www"), tls=authority.server("manifests.test")) as publisher,
        serving(guarded(proxy(manifests=publisher.port))) as server,
    ):
        names = {
            "proxy.example.com:3128": f"127.0.0.1:{server.port}",
            "proxy.example.com": "127.0.0.1",
            "manifests.example.com": "manifests.test",
            "/etc/ssl/certs/ca-certificates.crt": str(place / "system.pem"),
        }
        walk = Walk(PAGE, {"daemon": directory}, names=names)
        yield Network(directory, server, publisher, walk)


@pytest.fixture(scope="module")
def configured(network: Network) -> Network:
    """The same when the page has been followed. Its first command is typed where the authorities are known already."""
    believed = {"SSL_CERT_FILE": str(network.directory / "proxy-authority.pem")}
    Walk(PAGE, network.walk.rooms, names=network.walk.names, environ=believed).take(OUTBOUND[0])
    for heading in OUTBOUND[1:]:
        network.walk.take(heading)
    network.proxy.requests.clear()
    return network


def environment(network: Network) -> dict[str, str]:
    """Return what the page's file says, as systemd and docker read it."""
    lines = (network.directory / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_daemon_fetches_all_through_the_proxy(configured: Network) -> None:
    shutil.rmtree(configured.directory / ".oneiric_cache")
    with running(configured.directory, environ=environment(configured)) as daemon:
        daemon.wait_event("remote-sync-complete", fetched=1)
    assert set(configured.asked) == {"CONNECT manifests.test:443"}


def test_password_of_the_proxy_is_nowhere(configured: Network) -> None:
    good = environment(configured)
    wrong = {**good, "HTTPS_PROXY": good["HTTPS_PROXY"].replace(USER, "nobody")}
    with running(configured.directory, "-v", environ={**wrong, "ONEIRIC_LOGGING__LEVEL": "debug"}) as daemon:
        daemon.wait_event("remote-sync-error", reason="connection")
        said = [daemon.cli(*command).stdout for command in (["remote-status"], ["doctor"], ["config", "show"])]
    assert f"HTTPS_PROXY=http://127.0.0.1:{configured.proxy.port}" in said[1]
    assert [text for text in (*said, daemon.output) if WRITTEN in text or PASSWORD in text] == []


def test_daemon_goes_by_its_own_environment_and_not_by_the_shell(configured: Network) -> None:
    with running(configured.directory, environ=environment(configured)) as daemon:
        wait_until(lambda: daemon.client.get("/v1/remote")["successes"], "it has synchronised")
        typed = oneiric(configured.directory, "remote-sync", environ={"HTTPS_PROXY": "http://127.0.0.1:1"})
    assert typed.returncode == 0, typed.stderr


def test_authorities_are_read_again_when_their_file_is_replaced(configured: Network) -> None:
    file = configured.directory / "authorities.pem"
    good = file.read_bytes()
    with running(configured.directory, environ=environment(configured)) as daemon:
        wait_until(lambda: daemon.client.get("/v1/remote")["last_error"] == "", "it has synchronised")
        file.write_bytes((configured.directory.parent / "system.pem").read_bytes())
        refused = daemon.cli("remote-sync")
        file.write_bytes(good)
        taken = daemon.cli("remote-sync")
    assert "tls: https://manifests.test/oneiric/manifest.json: unable to get local issuer certificate" in refused.stderr
    assert (refused.returncode, taken.returncode) == (1, 0)


def test_authorities_that_are_not_there_are_named(configured: Network) -> None:
    typed = oneiric(configured.directory, "remote-sync", environ={"SSL_CERT_FILE": "nowhere.pem"})
    assert "tls: the certificate authorities cannot be read" in typed.stderr


@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
def test_variable_names_the_proxy(configured: Network, variable: str) -> None:
    good = environment(configured)
    given = {variable: good["HTTPS_PROXY"], "SSL_CERT_FILE": good["SSL_CERT_FILE"]}
    configured.proxy.requests.clear()
    typed = oneiric(configured.directory, "remote-sync", "--dry-run", environ=given)
    assert (typed.returncode, configured.asked[:1]) == (0, ["CONNECT manifests.test:443"])


def test_proxy_may_be_reached_by_tls_itself(configured: Network) -> None:
    authority = Authority()
    port = configured.publisher.port
    believed = configured.directory / "both.pem"
    first = (configured.directory / "proxy-authority.pem").read_bytes()
    believed.write_bytes(first + authority.ca.cert_pem.bytes())
    with serving(proxy(manifests=port), tls=authority.server("127.0.0.1")) as server:
        given = {"HTTPS_PROXY": server.url(""), "SSL_CERT_FILE": str(believed)}
        typed = oneiric(configured.directory, "remote-sync", "--dry-run", environ=given)
    assert (typed.returncode, server.requests[0].target) == (0, "manifests.test:443")


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the table that has *heading*, cell by cell."""
    lines = PAGE.prose.splitlines()
    start = lines.index(heading) + 2
    end = next(at for at in range(start, len(lines)) if not lines[at].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]


def code(cell: str) -> list[str]:
    """Return what is written as code in a cell."""
    return cell.split("`")[1::2]


EXEMPT = [
    (code(entry)[0], host, is_direct)
    for entry, direct, proxied in rows("| entry | is asked directly | goes through the proxy |")
    for hosts, is_direct in ((direct, True), (proxied, False))
    for host in code(hosts)
]


@pytest.mark.parametrize(("entry", "host", "is_direct"), EXEMPT)
@pytest.mark.anyio
async def test_no_proxy_is_heeded_as_the_table_says(
    monkeypatch: pytest.MonkeyPatch, entry: str, host: str, is_direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", entry)
    url = f"https://{f'[{host}]' if ':' in host else host}/manifest.json"
    async with open_client(idle_timeout=1, ssl_context=believes_nobody()) as client:
        way: Any = client._transport_for_url(httpx2.URL(url))
        assert (way is client._transport) is is_direct


@pytest.mark.parametrize(("entry", "host", "is_direct"), EXEMPT)
def test_doctor_knows_which_way_is_taken(entry: str, host: str, is_direct: bool) -> None:
    url = f"https://{f'[{host}]' if ':' in host else host}/manifest.json"
    vital = RemoteVital(url=url, proxies=("HTTPS_PROXY=http://127.0.0.1:1", f"NO_PROXY={entry}"))
    assert (proxy_for(vital) == "") is is_direct


# Inbound


class Front(NamedTuple):
    """An nginx with the page's file, and where it listens."""

    place: Path
    port: int
    walk: Walk

    def get(self, path: str, *, source: str = "127.0.0.1", method: str = "GET") -> tuple[int, str]:
        """Ask nginx as another machine would; return status and body."""
        context = ssl.create_default_context(cafile=self.place / "tls" / "authority.pem")
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context, source_address=(source, 0))
        try:
            connection.request(method, path, headers={"Host": "status.example.com"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


MAIN = """
{user}
daemon off;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  {upstream}
  include conf.d/*.conf;
}}
"""


@contextmanager
def fronting(place: Path, daemon: str, change: Callable[[str], str] = str, upstream: str = "") -> Iterator[Front]:
    """Run nginx with what *change* makes of the page's file before the daemon at that ``host:port``."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        reason = f"nginx is not installed; try: {NGINX}"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") else pytest.skip(reason)
    authority = Authority()
    certificate = authority.ca.issue_cert("status.example.com", "127.0.0.1")
    (place / "tls").mkdir(parents=True)
    certificate.cert_chain_pems[0].write_to_path(place / "tls" / "chain.pem")
    certificate.private_key_pem.write_to_path(place / "tls" / "key.pem")
    authority.ca.cert_pem.write_to_path(place / "tls" / "authority.pem")
    user = "user root;" if os.geteuid() == 0 else ""
    (place / "nginx.conf").write_text(MAIN.format(user=user, upstream=upstream.replace("127.0.0.1:9464", daemon)))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # nginx takes it over: no port is lost to a race
        port = listener.getsockname()[1]
        names = {
            "https://status.example.com:8443": (
                f"--resolve status.example.com:{port}:127.0.0.1 https://status.example.com:{port}"
            ),
            "listen 8443": f"listen 127.0.0.1:{port}",
            "127.0.0.1:9464": daemon,
            "10.20.0.5": "127.0.0.3",
        }
        walk = Walk(PAGE, {"nginx": place}, names=names)
        (block,) = (block for block in PAGE.blocks if block.language == "nginx")
        walk.do(block._replace(text=change(block.text)))
        process = subprocess.Popen(
            [program, "-e", "stderr", "-p", str(place), "-c", "nginx.conf"],
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield Front(place, port, walk)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("inbound")
    (place / "settings").mkdir()
    with running(place) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def front(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with fronting(tmp_path_factory.mktemp("front") / "nginx", daemon.http) as front:
        yield front


def test_daemon_answers_through_nginx_as_the_page_says(front: Front) -> None:
    for block in front.walk.section("Inbound: nginx before the daemon"):
        if block.language == "console":
            front.walk.do(block)


@pytest.mark.parametrize(
    ("path", "starts"), [("/healthz", "ok"), ("/readyz", "ready"), ("/metrics", "# HELP oneiric_")]
)
def test_prometheus_may_ask_for_all_three(front: Front, path: str, starts: str) -> None:
    status, body = front.get(path, source="127.0.0.3")
    assert (status, body.startswith(starts)) == (200, True)


@pytest.mark.parametrize("path", ["/v1/swap", "/openapi.json", "/healthz/", "/metrics/..;/v1/status", "/"])
def test_no_fourth_path_is_passed_on(front: Front, path: str) -> None:
    assert front.get(path, source="127.0.0.3", method="POST")[0] == 404


def test_nothing_but_a_get_is_answered(front: Front) -> None:
    assert front.get("/healthz", method="POST")[0] == 405


def test_daemon_that_is_gone_is_answered_502(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        gone = f"127.0.0.1:{nobody.getsockname()[1]}"
    with fronting(tmp_path / "nginx", gone) as front:
        assert front.get("/readyz")[0] == 502


def as_template(text: str) -> str:
    return text.replace("proxy_pass", "proxy_set_header Host $host; proxy_pass")


def as_upstream(text: str) -> str:
    return text.replace("http://127.0.0.1:9464", "http://oneiric")


UPSTREAM = "upstream oneiric { server 127.0.0.1:9464; }"


@pytest.mark.parametrize(("change", "upstream"), [(as_template, ""), (as_upstream, UPSTREAM)])
def test_name_that_is_not_listed_is_answered_421(
    daemon: Daemon, tmp_path: Path, change: Callable[[str], str], upstream: str
) -> None:
    with fronting(tmp_path / "nginx", daemon.http, change, upstream) as front:
        status, body = front.get("/readyz")
    assert (status, "listed in api.allowed_hosts" in body) == (421, True)


def test_name_that_is_listed_is_answered(tmp_path: Path) -> None:
    (block,) = (block for block in PAGE.blocks if block.use == "daemon/settings/app.yml")
    Walk(PAGE, {"daemon": tmp_path}).do(block)
    with running(tmp_path) as daemon, fronting(tmp_path / "nginx", daemon.http, as_template) as front:
        assert front.get("/readyz") == (200, "ready\n")

"""``PORT``, by which a platform that runs containers says where it wants HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from oneiric.errors import ConfigError
from tests.harness.daemon import running


def test_port_moves_http_to_every_address(read):
    settings = read(environ={"PORT": "8080"})

    assert (settings.app.api.http, settings.origins["api.http"]) == ("0.0.0.0:8080", "PORT")


def test_empty_port_counts_as_not_set(read):
    assert read(environ={"PORT": ""}).app.api.http == "127.0.0.1:9464"


@pytest.mark.parametrize(
    "said",
    [
        {"app": "api: {http: '127.0.0.1:1'}"},
        {"environ": {"PORT": "8080", "ONEIRIC_API__HTTP": "127.0.0.1:1"}},
        {"flags": {"api.http": "127.0.0.1:1"}},
    ],
)
def test_whatever_else_names_the_address_beats_port(read, said):
    settings = read(**{"environ": {"PORT": "8080"}, **said})

    assert settings.app.api.http == "127.0.0.1:1"


@pytest.mark.parametrize("port", ["http", "65536", "-1", "@host:80"])
def test_port_that_is_none_is_refused_by_name(read, port):
    with pytest.raises(ConfigError, match=r"^PORT: api\.http: "):
        read(environ={"PORT": port})


def test_flag_of_a_running_daemon_beats_port(tmp_path: Path) -> None:
    with running(tmp_path, environ={"PORT": "1"}) as daemon:
        assert daemon.http.startswith("127.0.0.1:")

"""Finding the daemon's socket, also while the settings are broken."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.config.control import control_socket
from oneiric.core.config import ApiSettings

DEFAULT = ApiSettings().socket
VARIABLE = {"ONEIRIC_API__SOCKET": "from-environment"}


@pytest.fixture
def find(directory):
    """Write ``app.yml`` and find the socket."""

    def find(content=None, environ=None, flag=None):
        if content is not None:
            (directory / "app.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return control_socket(directory, environ or {}, flag)

    return find


@pytest.mark.parametrize(
    ("content", "environ", "flag", "found"),
    [
        (None, {}, None, DEFAULT),
        ("api: {socket: from-file}", {}, None, "from-file"),
        ("api: {socket: from-file}", VARIABLE, None, "from-environment"),
        ("api: {socket: from-file}", VARIABLE, "from-flag", "from-flag"),
        ("api: {socket: from-file}", {"ONEIRIC_API__SOCKET": ""}, None, "from-file"),
    ],
)
def test_socket_is_found_in_the_order_of_all_settings(find, content, environ, flag, found):
    assert find(content, environ, flag) == found


@pytest.mark.parametrize(
    "content",
    [
        "api: {socket: from-file}\nunknown: 1\n",
        "api: {socket: from-file}\nlifecycle: soon\n",
        "api: {socket: from-file, http: 5}\napi2: &a 1",
    ],
)
def test_socket_is_found_beside_other_mistakes(find, content):
    assert find(content) == "from-file"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "logging: {level: debug}",
        "api: {socket: 5}",
        "api: {socket: }",
        "api: socket",
        "api: [socket]",
        "- socket",
        "socket: x",
        "api: {socket: [",
        b"api: {socket: \xff}",
        b"api: {socket: \0}",
        "socket" * 1_000_000,
    ],
)
def test_socket_is_the_default_when_the_file_does_not_tell(find, content):
    assert find(content) == DEFAULT


def test_socket_is_the_default_when_the_file_is_a_directory(directory):
    (directory / "app.yml").mkdir()

    assert control_socket(directory, {}, None) == DEFAULT


def test_socket_is_the_default_when_the_directory_has_an_impossible_name(tmp_path):
    assert control_socket(tmp_path / "a\0b", {}, None) == DEFAULT


@given(st.binary(max_size=100))
def test_no_content_makes_finding_the_socket_fail(tmp_path_factory, content):
    directory = tmp_path_factory.getbasetemp()
    (directory / "app.yml").write_bytes(b"socket" + content)

    assert control_socket(directory, {}, None)


@pytest.mark.parametrize(("content", "imported"), [("logging: {level: debug}", "False"), ("api: {socket: s}", "True")])
def test_yaml_is_imported_only_when_the_file_speaks_of_a_socket(directory, content, imported):
    (directory / "app.yml").write_text(content)
    code = (
        "import sys; from pathlib import Path; from oneiric.config.control import control_socket;"
        "control_socket(Path('settings'), {}, None); print('yaml' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == imported

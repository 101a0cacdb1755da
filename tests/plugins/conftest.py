"""What the tests of plugins share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.installed import install_example


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the example plugin is installed in."""
    return install_example(tmp_path_factory.mktemp("example-plugin"))

"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

from oneiric.testing import Events, Workshop

settings.register_profile("dev", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def anyio_backend() -> object:
    """Asynchronous tests run on asyncio, as the daemon does; a directory may choose the virtual clock instead."""
    return "asyncio"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short name, in place of pytest's: a Unix socket's address has room for 107 bytes."""
    with TemporaryDirectory(prefix="oneiric-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture
def events() -> Events:
    """A sink that remembers."""
    return Events()


@pytest.fixture
def workshop() -> Workshop:
    """A maker of candidates that keeps what was built."""
    return Workshop()

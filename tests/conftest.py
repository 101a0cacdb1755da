"""What every test may ask for."""

from __future__ import annotations

import os

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
def events() -> Events:
    """A sink that remembers."""
    return Events()


@pytest.fixture
def workshop() -> Workshop:
    """A maker of candidates that keeps what was built."""
    return Workshop()

"""What a daemon reads only when it starts is kept while it runs, and named."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from oneiric.core.config import ApiSettings, AppSettings, LoggingSettings, WatchSettings, keep_fixed

RUNNING = AppSettings()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"api": ApiSettings(http="127.0.0.1:1")}, "api"),
        ({"logging": LoggingSettings(level="debug")}, "logging"),
        ({"watch": WatchSettings(enabled=False)}, "watch.enabled"),
        ({"cache_dir": "elsewhere"}, "cache_dir"),
        ({"state_dir": "elsewhere"}, "state_dir"),
    ],
)
def test_change_that_needs_a_restart_is_held_and_named(change: dict[str, Any], name: str) -> None:
    assert keep_fixed(RUNNING, replace(RUNNING, **change)) == (RUNNING, (name,))


def test_change_beside_one_that_is_held_is_taken_over() -> None:
    proposed = replace(RUNNING, watch=WatchSettings(enabled=False, debounce=2.0))
    assert keep_fixed(RUNNING, proposed) == (replace(RUNNING, watch=WatchSettings(debounce=2.0)), ("watch.enabled",))


def test_change_that_needs_no_restart_is_not_held() -> None:
    proposed = replace(RUNNING, watch=WatchSettings(debounce=2.0))
    assert keep_fixed(RUNNING, proposed) == (proposed, ())

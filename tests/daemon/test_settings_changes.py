"""Settings that change under a running daemon, the ways people and machines change them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.daemon import ADAPTERS, project, running

CHANGED = ADAPTERS.replace("cache: memory", "cache: redis")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return project(tmp_path / "p", app="watch: {debounce: 0.1}\n")


def write_in_place(file: Path) -> None:
    file.write_text(CHANGED)


def save_atomically(file: Path) -> None:
    new = file.with_name("adapters.yml.tmp")
    new.write_text(CHANGED)
    new.replace(file)


def save_like_vim(file: Path) -> None:
    file.rename(file.with_name("adapters.yml~"))
    file.write_text(CHANGED)
    file.with_name("adapters.yml~").unlink()


def edit_with_sed(file: Path) -> None:
    subprocess.run(["sed", "-i", "s/cache: memory/cache: redis/", str(file)], check=True)


def recreate_directory(file: Path) -> None:
    away = file.parent.with_name("away")
    file.parent.rename(away)
    shutil.copytree(away, file.parent)
    file.write_text(CHANGED)


@pytest.mark.parametrize("change", [write_in_place, save_atomically, save_like_vim, edit_with_sed, recreate_directory])
def test_change_is_applied_however_it_is_saved(place: Path, change: Callable[[Path], None]) -> None:
    with running(place) as daemon:
        change(place / "settings" / "adapters.yml")
        event = daemon.wait_event("swap-complete")
    assert (event["provider"], event["previous_provider"]) == ("redis", "memory")


def test_second_atomic_save_is_applied_too(place: Path) -> None:
    file = place / "settings" / "adapters.yml"
    with running(place) as daemon:
        save_atomically(file)
        daemon.wait_event("swap-complete", provider="redis")
        new = file.with_name("x")
        new.write_text(ADAPTERS)
        new.replace(file)
        daemon.wait_event("swap-complete", provider="memory")


def test_configmap_swap_is_applied(tmp_path: Path) -> None:
    place = project(tmp_path / "p", app="watch: {debounce: 0.1}\n")
    settings = place / "settings"
    for number, text in ((1, ADAPTERS), (2, CHANGED)):
        version = settings / f"..version_{number}"
        version.mkdir()
        (version / "adapters.yml").write_text(text)
        shutil.copy(settings / "app.yml", version / "app.yml")
    for name in ("adapters.yml", "app.yml"):
        (settings / name).unlink()
        (settings / name).symlink_to(f"..data/{name}")
    (settings / "..data").symlink_to("..version_1")
    with running(place) as daemon:
        (settings / "..data_tmp").symlink_to("..version_2")
        os.replace(settings / "..data_tmp", settings / "..data")
        daemon.wait_event("swap-complete", provider="redis")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("selections: {cache: redis", "settings/adapters.yml:"),
        ("selections: {cache: redis}\nselections: {cache: memory}\n", "duplicate"),
        ("selectons: {cache: redis}\n", "selections"),
        ("- a list\n", "settings/adapters.yml:1:1"),
        ("\x00\x01", "settings/adapters.yml"),
    ],
    ids=["syntax", "duplicate key", "unknown key", "list", "binary"],
)
def test_bad_change_is_reported_and_changes_nothing(place: Path, text: str, says: str) -> None:
    file = place / "settings" / "adapters.yml"
    with running(place) as daemon:
        file.write_text(text)
        event = daemon.wait_event("config-rejected")
        row = daemon.slot("adapter", "cache")
        degraded = daemon.client.get("/v1/status")["daemon"]["degraded"]
        file.write_text(CHANGED)
        daemon.wait_event("swap-complete", provider="redis")
        mended = daemon.client.get("/v1/status")["daemon"]["degraded"]
    assert says in event["error"]
    assert (row["provider"], row["swaps"]["success"]) == ("memory", 1)
    assert says in degraded
    assert mended == ""


def test_removed_file_keeps_the_last_good_settings(place: Path) -> None:
    with running(place) as daemon:
        (place / "settings" / "adapters.yml").unlink()
        event = daemon.wait_event("config-rejected")
        row = daemon.slot("adapter", "cache")
    assert "was removed" in event["error"]
    assert row["provider"] == "memory"


def test_changed_provider_settings_rebuild_the_instance(place: Path) -> None:
    with running(place) as daemon:
        text = ADAPTERS + 'provider_settings: {memory: {label: "bigger"}}\n'
        (place / "settings" / "adapters.yml").write_text(text)
        event = daemon.wait_event("swap-complete")
    assert (event["provider"], event["previous_provider"]) == ("memory", "memory")


def test_pin_outranks_a_changed_selection(place: Path) -> None:
    with running(place) as daemon:
        daemon.client.post("/v1/swap", {"domain": "adapter", "key": "cache", "provider": "memory"})
        (place / "settings" / "adapters.yml").write_text(CHANGED)
        daemon.wait_event("config-changed")
        assert daemon.slot("adapter", "cache")["provider"] == "memory"


def test_paused_watch_applies_the_change_at_resume(place: Path) -> None:
    with running(place) as daemon:
        assert daemon.cli("watch", "pause").returncode == 0
        (place / "settings" / "adapters.yml").write_text(CHANGED)
        assert daemon.slot("adapter", "cache")["provider"] == "memory"
        assert daemon.cli("watch", "resume").returncode == 0
        daemon.wait_event("swap-complete", provider="redis")


def test_reload_never_weakens_trust(place: Path) -> None:
    with running(place) as daemon:
        (place / "settings" / "app.yml").write_text("watch: {debounce: 0.1}\nremote: {require_signature: false}\n")
        event = daemon.wait_event("config-held")
        rows = daemon.client.get("/v1/config")["settings"]
    assert event["setting"] == "remote.require_signature"
    assert next(row["value"] for row in rows if row["path"] == "remote.require_signature") is True

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from oneiric.config.host import this_host
from oneiric.config.loader import load, local_candidates, policy
from oneiric.core.candidate import Slot
from oneiric.core.config import FILES, AppSettings, DomainSettings, LifecycleSettings, LoggingSettings, WatchSettings
from oneiric.core.registry import Registry
from oneiric.core.resolution import Bar, Host, Selection, resolve

CACHE = Slot[object]("adapter", "cache")
QUEUE = Slot[object]("adapter", "queue")


def test_load_without_a_directory_gives_the_defaults(tmp_path):
    assert load(tmp_path / "absent", environ={}).app == AppSettings()


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "\ufeff", "lifecycle:\n", "null\n", "{}"])
def test_load_of_a_file_that_says_nothing_gives_the_defaults(read, text):
    assert read(app=text).app == AppSettings()


@pytest.mark.parametrize("file", FILES)
def test_load_of_an_empty_file_gives_the_defaults(directory, file):
    (directory / file).touch()

    assert load(directory, environ={}).domains["adapter"] == DomainSettings()


def test_load_reads_every_section(read):
    settings = read(
        app="lifecycle: {drain_timeout: 5}\nwatch: {enabled: no}\nlogging: {level: debug}\ncache_dir: /var/cache\n",
        tasks="selections: {mail: smtp}\n",
    )

    assert settings.app.lifecycle == LifecycleSettings(drain_timeout=5.0)
    assert settings.app.watch.enabled is False
    assert settings.app.logging.level == "debug"
    assert settings.app.cache_dir == "/var/cache"
    assert settings.domains["task"].selections == {"mail": "smtp"}


def test_load_accepts_a_whole_number_of_seconds(read):
    assert isinstance(read(app="watch: {debounce: 2}").app.watch.debounce, float)


def test_load_follows_a_symbolic_link_to_a_file(directory, read):
    (directory / "..data").mkdir()
    (directory / "..data" / "app.yml").write_text("state_dir: /srv")
    (directory / "app.yml").symlink_to("..data/app.yml")

    assert read().app.state_dir == "/srv"


def test_load_accepts_windows_line_ends_and_a_byte_order_mark(directory):
    (directory / "app.yml").write_bytes(b"\xef\xbb\xbflifecycle:\r\n  drain_timeout: 5\r\n")

    assert load(directory, environ={}).app.lifecycle.drain_timeout == 5


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("lifecycle.drain_timeout", "settings/app.yml:3:5"),
        ("state_dir", "--state-dir"),
        ("adapters.selections.cache", "settings/adapters.yml:2:3"),
        ("adapters.candidates[0]", "settings/adapters.yml:4:5"),
        ("adapters.provider_settings.redis.url", "settings/adapters.yml:5:31"),
        ("api.http", "ONEIRIC_API__HTTP"),
        ("api.socket", "--socket"),
        ("remote.manifest_url", "--manifest"),
    ],
)
def test_origins_say_where_a_setting_was_made(read, path, origin):
    settings = read(
        app="# ours\nlifecycle:\n    drain_timeout: 5\n",
        adapters="selections:\n  cache: redis\ncandidates:\n  - {key: cache, provider: redis, factory: 'a:B'}\n"
        "provider_settings: {redis: {  url: x}}\n",
        environ={"ONEIRIC_API__HTTP": "localhost:80"},
        flags={"api.socket": "/run/o.sock", "state_dir": Path("/srv"), "remote.manifest_url": "https://h/m"},
    )

    assert settings.origins[path] == origin


def test_origins_leave_defaults_out(read):
    assert "lifecycle.drain_timeout" not in read().origins


def test_local_candidates_come_from_their_file(read):
    settings = read(adapters="candidates: [{key: cache, provider: memory, factory: 'shop.cache:Memory', priority: 10}]")

    (candidate,) = local_candidates(settings)

    assert (candidate.slot, candidate.provider, candidate.priority) == (CACHE, "memory", 10)
    assert (candidate.source, candidate.stack) == ("settings/adapters.yml", "settings")


def test_policy_selection_names_its_place(read):
    made = policy(read(adapters="selections:\n  cache: redis\n"), host=Host(), pins={}, environ={})

    assert made.selections[CACHE] == Selection("redis", "settings", "settings/adapters.yml:2:3")


def test_policy_prefers_a_pin_to_a_selection(read):
    pin = Selection("memory", "pin")

    made = policy(read(adapters="selections: {cache: redis}"), host=Host(), pins={CACHE: pin}, environ={})

    assert made.selections[CACHE] == pin


def test_policy_takes_the_stack_order_from_the_settings(read):
    made = policy(read(environ={"ONEIRIC_STACK_ORDER": "shop:20"}), host=Host(), pins={}, environ={})

    assert made.stack_order.levels == {"shop": 20}


def test_policy_demands_the_capabilities_of_the_settings(read):
    made = policy(read(adapters="capabilities: {cache: [ttl]}"), host=Host(), pins={}, environ={})

    assert made.capabilities[CACHE] == {"ttl"}


SECRETIVE = """
provider_settings:
  redis: {password: "${env:REDIS_PASSWORD}"}
  queue/redis: {password: none}
"""


def test_policy_bars_a_provider_whose_secret_is_missing(read):
    made = policy(read(adapters=SECRETIVE), host=Host(), pins={}, environ={})

    assert made.barred[CACHE, "redis"] == Bar(
        "provider_settings.redis.password: environment variable REDIS_PASSWORD is not set; "
        "try: export REDIS_PASSWORD=..."
    )


@pytest.mark.parametrize(
    ("slot", "provider", "environ"),
    [(CACHE, "redis", {"REDIS_PASSWORD": "x"}), (QUEUE, "redis", {}), (CACHE, "memory", {})],
    ids=["secret present", "own settings", "other provider"],
)
def test_policy_does_not_bar_a_provider_without_need(read, slot, provider, environ):
    made = policy(read(adapters=SECRETIVE), host=Host(), pins={}, environ=environ)

    assert made.barred.get((slot, provider)) is None


def test_policy_keeps_the_bars_of_its_caller(read):
    bar = Bar("quarantined", "unhealthy")

    made = policy(read(adapters=SECRETIVE), host=Host(), pins={}, environ={}, barred={(QUEUE, "redis"): bar})

    assert made.barred[QUEUE, "redis"] is bar


def test_policy_bars_refuse_to_be_listed(read):
    made = policy(read(), host=Host(), pins={}, environ={})

    with pytest.raises(TypeError, match="barred="):
        dict(made.barred)


def test_resolve_explains_a_missing_secret(read):
    settings = read(adapters=SECRETIVE + "candidates: [{key: cache, provider: redis, factory: 'a:B'}]")
    registry = Registry().with_source("settings/adapters.yml", local_candidates(settings))

    resolution = resolve(registry, policy(settings, host=Host(), pins={}, environ={}), CACHE)

    assert resolution.failure == "config"
    assert "export REDIS_PASSWORD" in resolution.summary


def test_this_host_knows_what_is_installed():
    assert this_host().installed("PyYAML") is not None


def test_this_host_knows_what_is_not_installed():
    assert this_host().installed("no-such-distribution") is None


def test_this_host_names_platform_and_python():
    host = this_host()

    assert host.os_platform in ("linux", "darwin", "windows")
    assert host.python_version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_loader_import_stays_cheap():
    code = (
        "import sys; from pathlib import Path; from oneiric.config.loader import load;"
        "load(Path('absent'), environ={});"
        "print(*{'asyncio', 'anyio', 'watchfiles', 'yaml', 'packaging'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


SECONDS = st.floats(min_value=0.001, max_value=86_400)
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
# PyYAML writes the text 1e5 without quotes, and U+0085 as a break of the line that it reads as a space.
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8", exclude_characters="0123456789\x85"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.builds(
        AppSettings,
        lifecycle=st.builds(LifecycleSettings, drain_timeout=SECONDS, max_swaps_per_minute=st.integers(1, 1_000_000)),
        watch=st.builds(WatchSettings, enabled=st.booleans(), debounce=SECONDS),
        logging=st.builds(LoggingSettings, level=st.sampled_from(["debug", "info"])),
    ),
    st.dictionaries(NAMES, NAMES, max_size=5),
    st.dictionaries(NAMES, st.dictionaries(NAMES, DATA, max_size=3), max_size=3),
)
def test_load_returns_what_was_written(app, selections, provider_settings):
    # A NUL, and the sign of a reference, are refused on purpose.
    plain = msgspec.json.decode(msgspec.json.encode(provider_settings).replace(b"\\u0000", b"").replace(b"${", b""))
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "app.yml").write_text(yaml.safe_dump(msgspec.to_builtins(app)))
        written = {"selections": selections, "provider_settings": plain}
        Path(directory, "adapters.yml").write_text(yaml.safe_dump(written, allow_unicode=True), "utf-8")

        settings = load(Path(directory), environ={})

    assert settings.app == app
    assert settings.domains["adapter"] == DomainSettings(selections=selections, provider_settings=plain)


def test_load_accepts_an_age_of_manifests_beyond_a_day(read):
    assert read(app="remote: {max_age: 2592000}").app.remote.max_age == 2_592_000

"""Plugins are found in real ``dist-info`` directories; one that cannot be used is a row, never a crash."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oneiric.core.config import PluginsSettings
from oneiric.plugins.discovery import EntryPoint, Plugin, discover, entry_points, registered, unmatched

HEAD = "from oneiric import Candidate, Slot\ncache = Slot('adapter', 'cache')\n"
ONE = HEAD + "one = Candidate(slot=cache, provider='one', factory='m:f')\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path, as ``site-packages`` is; modules imported from it are forgotten afterwards."""
    directory = tmp_path / "site"
    directory.mkdir()
    monkeypatch.syspath_prepend(directory)
    before = set(sys.modules)
    yield directory
    for name in set(sys.modules) - before:
        del sys.modules[name]


def install(site: Path, name: str, points: str | bytes, version: str = "1.0", **modules: str) -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    content = points if isinstance(points, bytes) else points.encode()
    (info / "entry_points.txt").write_bytes(content)
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)


def found(site: Path, **settings: object) -> tuple[Plugin, ...]:
    return discover(PluginsSettings(**settings), path=[str(site)])  # type: ignore[arg-type]


def providers(plugin: Plugin) -> list[str]:
    return [candidate.provider for candidate in plugin.candidates]


# What a plugin may offer

OFFERS = {
    "one": ("one = Candidate(slot=cache, provider='p0', factory='m:f')\n", 1),
    "tuple": ("one = tuple(Candidate(slot=cache, provider=f'p{n}', factory='m:f') for n in range(2))\n", 2),
    "generator": ("one = (Candidate(slot=cache, provider=f'p{n}', factory='m:f') for n in range(2))\n", 2),
    "empty": ("one = []\n", 0),
    "callable for one": ("def one():\n    return Candidate(slot=cache, provider='p0', factory='m:f')\n", 1),
    "callable for several": (
        "def one():\n    return [Candidate(slot=cache, provider=f'p{n}', factory='m:f') for n in range(3)]\n", 3,
    ),
    "generator function": ("def one():\n    yield Candidate(slot=cache, provider='p0', factory='m:f')\n", 1),
}  # fmt: skip


@pytest.mark.parametrize(("source", "count"), OFFERS.values(), ids=OFFERS)
def test_plugin_offers_its_candidates(source: str, count: int, site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\n", offers=HEAD + source)
    (plugin,) = found(site)
    assert (plugin.error, providers(plugin)) == ("", [f"p{n}" for n in range(count)])


def test_plugin_is_named_by_its_distribution_and_version(site: Path) -> None:
    install(site, "My_Shop", "[oneiric.adapters]\nmain = offers:one\n", "2.1", offers=ONE)
    (plugin,) = found(site)
    assert plugin.entry_point == EntryPoint("oneiric.adapters", "main", "offers:one", "my-shop", "2.1")


def test_plugin_value_may_name_extras_and_dotted_attributes(site: Path) -> None:
    nested = ONE + "class Box:\n    inner = one\n"
    install(site, "shop", "[oneiric.adapters]\nmain = offers:Box.inner [redis]\n", offers=nested)
    assert providers(found(site)[0]) == ["one"]


def test_plugins_are_sorted_whatever_the_order_of_files(site: Path) -> None:
    install(site, "b", "[oneiric.adapters]\nz = offers:one\na = offers:one\n", offers=ONE)
    install(site, "a", "[oneiric.adapters]\nm = offers:one\n")
    assert [str(plugin.entry_point) for plugin in found(site)] == ["b:a", "a:m", "b:z"]


def test_entry_points_of_other_groups_are_left_alone(site: Path) -> None:
    install(site, "shop", "[console_scripts]\nboom = boom:boom\n[oneiric.adaptersx]\nb = boom:boom\n", boom="1/0")
    assert found(site) == ()


def test_comments_and_blank_lines_are_skipped(site: Path) -> None:
    text = "# [oneiric.adapters]\n\n[oneiric.adapters]\n; a = b:c\n# d = e:f\nmain = offers:one\n"
    install(site, "shop", text, offers=ONE)
    assert [plugin.entry_point.name for plugin in found(site)] == ["main"]


# What goes wrong

BROKEN = {
    "raises at import": ("raise ValueError('broken')", "ValueError: broken"),
    "exits at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "interrupts at import": ("raise KeyboardInterrupt", "KeyboardInterrupt: "),
    "raises what is no Exception": ("class E(BaseException): ...\nraise E('odd')", "E: odd"),
    "does not compile": ("def", "SyntaxError: "),
    "imports what is not there": ("import nothing_here", "ImportError(ModuleNotFoundError): No module named"),
    "has no such attribute": ("x = 1", "ImportError: module 'offers' has no 'one'"),
    "offers a number": ("one = 42", "TypeError: offers:one is of type int, not a Candidate or an iterable of them"),
    "offers text": ("one = 'text'", "TypeError: offers:one is of type str, not a Candidate"),
    "offers bytes": ("one = b'text'", "TypeError: offers:one is of type bytes, not a Candidate"),
    "offers nothing": ("one = None", "TypeError: offers:one is of type NoneType, not a Candidate"),
    "offers other things": ("one = [1]", "TypeError: offers:one offers what is of type int, not a Candidate"),
    "is called and raises": ("def one():\n    raise KeyError('k')", "KeyError: 'k'"),
    "is called and exits": ("def one():\n    raise SystemExit", "SystemExit: "),
    "is called with nothing and wants more": ("def one(x): ...", "TypeError: one() missing 1 required"),
    "iterates and raises": ("def one():\n    yield 1/0", "ZeroDivisionError: division by zero"),
    "never stops offering": (
        HEAD + "def one():\n    while True:\n        yield Candidate(slot=cache, provider='p', factory='m:f')",
        "TypeError: offers:one offers more than 10,000 candidates",
    ),
    "offers for another group": (
        HEAD + "one = Candidate(slot=Slot('task', 'resize'), provider='p', factory='m:f')",
        "TypeError: offers:one is in group oneiric.adapters but offers task/resize",
    ),
    "offers a malformed candidate": (
        HEAD + "one = Candidate(slot=cache, provider='P', factory='m:f')", "provider 'P' is not a name",
    ),
    "raises what cannot be printed": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E: <E cannot be printed: ValueError>",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("source", "error"), BROKEN.values(), ids=BROKEN)
def test_broken_plugin_is_a_row_with_its_error(source: str, error: str, site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\n", offers=source)
    (plugin,) = found(site)
    assert (error in plugin.error, plugin.candidates) == (True, ())


@pytest.mark.parametrize(("source", "error"), BROKEN.values(), ids=BROKEN)
def test_broken_plugin_leaves_the_others(source: str, error: str, site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\n", offers=source)
    install(site, "good", "[oneiric.adapters]\ngood = good:one\n", good=ONE)
    assert [providers(plugin) for plugin in found(site) if not plugin.error] == [["one"]]


HANGING = {
    "at import": "import threading\nthreading.Event().wait()",
    "when called": "import threading\ndef one():\n    threading.Event().wait()",
    "between two candidates": "import threading\ndef one():\n    yield from ()\n    threading.Event().wait()",
}


@pytest.mark.parametrize("source", HANGING.values(), ids=HANGING)
def test_plugin_that_hangs_is_given_up_and_leaves_the_others(source: str, site: Path) -> None:
    install(site, "hanging", "[oneiric.adapters]\na = hangs:one\n", hangs=source)
    install(site, "shop", "[oneiric.adapters]\nb = offers:one\n", offers=ONE)
    hanging, shop = discover(PluginsSettings(), path=[str(site)], timeout=0.2)
    assert hanging.error == "timeout: TimeoutError: no answer within 0.2 s"
    assert providers(shop) == ["one"]


def test_plugin_with_duplicate_candidates_becomes_an_error_and_registers_nothing(site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:two\n", offers=ONE + "two = [one, one]\n")
    registry, (plugin,) = registered(found(site))
    assert ("twice" in plugin.error, dict(registry.sources)) == (True, {})


def test_duplicate_candidates_of_one_plugin_are_told_in_one_line(site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:three\n", offers=ONE + "three = [one, one, one]\n")
    _, (plugin,) = registered(found(site))
    problem = "plugin oneiric.adapters:shop:main: offers provider 'one' for adapter/cache twice"
    assert plugin.error == f"{problem}; {problem}"


def test_mistakes_of_one_candidate_are_told_in_one_line(site: Path) -> None:
    source = f"{HEAD}one = Candidate(slot=cache, provider='P', factory='m')\n"
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\n", offers=source)
    (plugin,) = found(site)
    assert ("; " in plugin.error, "\n" in plugin.error) == (True, False)


def test_same_provider_from_two_plugins_is_two_sources(site: Path) -> None:
    install(site, "a", "[oneiric.adapters]\nmain = offers:one\n", offers=ONE)
    install(site, "b", "[oneiric.adapters]\nmain = offers:one\n")
    registry, plugins = registered(found(site))
    assert sorted(registry.sources) == ["plugin oneiric.adapters:a:main", "plugin oneiric.adapters:b:main"]
    assert not any(plugin.error for plugin in plugins)


VALUES = ["", ":", "offers:", ":one", "offers", "offers..x:one", "offers:one:two", "../offers:one", "9:9", "[x]"]


@pytest.mark.parametrize("value", VALUES)
def test_malformed_value_is_an_error_or_no_plugin(value: str, site: Path) -> None:
    install(site, "shop", f"[oneiric.adapters]\nmain = {value}\n", offers=ONE)
    assert all(plugin.error and not plugin.candidates for plugin in found(site))


JUNK = {
    "empty": b"",
    "binary": bytes(range(256)) * 10,
    "latin-1": "[oneiric.adapters]\nmäin = offers:one\n".encode("latin-1"),
    "nul": b"[oneiric.adapters]\nmain = off\x00ers:one\n",
    "no group": b"main = offers:one\n",
    "unclosed group": b"[oneiric.adapters\nmain = offers:one\n",
    "empty group": b"[]\nmain = offers:one\n",
    "no equals sign": b"[oneiric.adapters]\nmain offers:one\n",
    "only an equals sign": b"[oneiric.adapters]\n=\n",
    "very long": b"[oneiric.adapters]\nmain = " + b"x" * 100_000,
    "byte order mark": b"\xef\xbb\xbf[oneiric.adapters]\nmain = offers:one\n",
    "carriage returns": b"[oneiric.adapters]\rmain = nowhere:one\r",
}


@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK)
def test_junk_for_entry_points_never_crashes(content: bytes, site: Path) -> None:
    install(site, "junk", content)
    install(site, "good", "[oneiric.adapters]\ngood = good:one\n", good=ONE)
    assert ["one"] in [providers(plugin) for plugin in found(site)]


def test_dist_info_without_entry_points_is_skipped(site: Path) -> None:
    (site / "empty-1.dist-info").mkdir()
    assert found(site) == ()


def test_dist_info_that_is_a_file_is_skipped(site: Path) -> None:
    (site / "file-1.dist-info").write_text("")
    assert found(site) == ()


def test_entry_points_that_are_a_directory_are_skipped(site: Path) -> None:
    (site / "odd-1.dist-info" / "entry_points.txt").mkdir(parents=True)
    assert found(site) == ()


# Switched off


@pytest.mark.parametrize("name", ["main", "shop", "shop:main"])
def test_disabled_plugin_is_a_row_and_is_not_imported(name: str, site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = never_imported:one\n", never_imported="raise SystemExit")
    (plugin,) = found(site, disabled=(name,))
    assert (plugin.disabled, plugin.error, plugin.candidates) == (True, "", ())


def test_disabling_one_entry_point_leaves_the_others(site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\nother = offers:one\n", offers=ONE)
    assert [plugin.disabled for plugin in found(site, disabled=("shop:main",))] == [True, False]


@pytest.mark.parametrize("name", ["main", "shop", "shop:main"])
def test_name_that_disables_something_is_matched(name: str, site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\n", offers=ONE)
    assert unmatched(PluginsSettings(disabled=(name,)), found(site, disabled=(name,))) == ()


def test_names_that_disable_nothing_are_told_in_their_order(site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\n", offers=ONE)
    settings = PluginsSettings(disabled=("shpo", "main", "shop:man", "shpo"))
    assert unmatched(settings, found(site)) == ("shpo", "shop:man")


def test_names_disable_nothing_in_vain_where_plugins_are_switched_off() -> None:
    assert unmatched(PluginsSettings(enabled=False, disabled=("shop",)), ()) == ()


def test_plugins_switched_off_are_not_looked_for(site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\n", offers=ONE)
    assert found(site, enabled=False) == ()


# The path


def test_distribution_that_is_first_on_the_path_counts(tmp_path: Path) -> None:
    for name, version in (("first", "2.0"), ("second", "1.0")):
        install(tmp_path / name, "shop", "[oneiric.adapters]\nmain = offers:one\n", version)
    points = list(entry_points([str(tmp_path / "first"), str(tmp_path / "second")]))
    assert [point.version for point in points] == ["2.0"]


@pytest.mark.parametrize("spelling", ["my_shop", "My_Shop", "my.shop", "MY__SHOP"])
def test_distribution_is_the_same_however_it_is_spelt(spelling: str, tmp_path: Path) -> None:
    install(tmp_path / "first", "my_shop", "[oneiric.adapters]\nmain = offers:one\n", "2.0")
    install(tmp_path / "second", spelling, "[oneiric.adapters]\nmain = offers:one\n", "1.0")
    points = list(entry_points([str(tmp_path / "first"), str(tmp_path / "second")]))
    assert [(point.distribution, point.version) for point in points] == [("my-shop", "2.0")]


def test_distribution_in_a_zip_file_is_found(tmp_path: Path) -> None:
    archive = tmp_path / "shop.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("shop-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
        file.writestr("shop-1.0.dist-info/entry_points.txt", "[oneiric.tasks]\nmain = offers:one\n")
    assert [str(point) for point in entry_points([str(archive)])] == ["shop:main"]


ZIPPED_JUNK = {
    "no name": {"METADATA": b"", "entry_points.txt": b"[oneiric.tasks]\nmain = offers:one\n"},
    "no metadata": {"entry_points.txt": b"[oneiric.tasks]\nmain = offers:one\n"},
    "no entry points": {"METADATA": b"Name: shop\nVersion: 1.0\n"},
    "binary entry points": {"METADATA": b"Name: shop\nVersion: 1.0\n", "entry_points.txt": bytes(range(256))},
    "binary metadata": {"METADATA": bytes(range(256)), "entry_points.txt": b"[oneiric.tasks]\nmain = offers:one\n"},
}


@pytest.mark.parametrize("files", ZIPPED_JUNK.values(), ids=ZIPPED_JUNK)
def test_junk_in_a_zip_file_never_crashes(files: dict[str, bytes], tmp_path: Path, site: Path) -> None:
    archive = tmp_path / "shop.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in files.items():
            file.writestr(f"shop-1.0.dist-info/{name}", content)
    install(site, "good", "[oneiric.adapters]\ngood = good:one\n", good=ONE)
    plugins = discover(PluginsSettings(), path=[str(archive), str(site)])
    assert ["one"] in [providers(plugin) for plugin in plugins]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_bytes(b"PK\x03\x04junk")])
def test_path_entry_that_cannot_be_read_is_skipped(make: Callable[[Path], None], tmp_path: Path) -> None:
    entry = tmp_path / "entry.zip"
    make(entry)
    assert list(entry_points([str(entry)])) == []


def test_plain_directories_are_read_without_the_metadata_library(site: Path) -> None:
    install(site, "shop", "[oneiric.adapters]\nmain = offers:one\n", offers=ONE)
    program = (
        "import sys; from oneiric.plugins.discovery import entry_points;"
        f"found = list(entry_points([{str(site)!r}, {str(site / 'missing')!r}]));"
        "print(len(found), sorted(name for name in sys.modules if 'importlib.metadata' in name))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout == "1 []\n"

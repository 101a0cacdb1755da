"""Nothing is looked at before the digest matched, and only what a module of the artifact defines is handed out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.errors import ManifestError, TrustError
from oneiric.remote.artifact import Artifact, DigestError
from oneiric.remote.spaces import SPACES
from tests.remote.wheels import NAME, artifact, digest, opened, wheel

SENTINEL = "_oneiric_test_sentinel"
TRIPWIRE = wheel({"shop/__init__.py": f"import sys\nsys.{SENTINEL} = True\ndef check():\n    return 'ran'"})
OTHER = "0" * 64


@pytest.fixture(autouse=True)
def _no_sentinel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, SENTINEL, raising=False)


def test_other_digest_is_refused_with_both_digests() -> None:
    with pytest.raises(DigestError) as refused:
        Artifact.open(NAME, TRIPWIRE, sha256=OTHER)

    error = refused.value
    assert (error.reason, error.expected, error.actual, error.exit_code) == ("digest", OTHER, digest(TRIPWIRE), 5)


def test_digest_error_says_what_where_and_what_next() -> None:
    with pytest.raises(TrustError) as refused:
        Artifact.open(NAME, TRIPWIRE, sha256=OTHER)

    assert (NAME in refused.value.message, refused.value.hint.startswith("oneiric remote-sync")) == (True, True)


def test_name_cannot_forge_lines_in_an_error() -> None:
    with pytest.raises(DigestError) as refused:
        Artifact.open("a\nerror: \x1b[2J" + "b" * 500, TRIPWIRE, sha256=OTHER)

    assert (refused.value.message.isprintable(), len(refused.value.message) < 400) == (True, True)


@given(position=st.integers(0, len(TRIPWIRE) - 1), bit=st.integers(0, 7))
def test_any_changed_bit_is_refused(position: int, bit: int) -> None:
    changed = bytearray(TRIPWIRE)
    changed[position] ^= 1 << bit

    with pytest.raises(DigestError):
        Artifact.open(NAME, bytes(changed), sha256=digest(TRIPWIRE), length=len(TRIPWIRE))


@pytest.mark.parametrize("content", [b"", b"not a zip file", TRIPWIRE[:-1], TRIPWIRE + b"\0"])
def test_digest_is_checked_before_anything_else_looks(content: bytes) -> None:
    with pytest.raises(DigestError):
        Artifact.open("no artifact's name", content, sha256=digest(TRIPWIRE))


def test_other_length_is_refused() -> None:
    with pytest.raises(TrustError) as refused:
        Artifact.open(NAME, TRIPWIRE, sha256=digest(TRIPWIRE), length=len(TRIPWIRE) + 1)

    assert refused.value.reason == "length"


@pytest.mark.parametrize("sha256", ["", "abc", f"{OTHER}\n", f" {OTHER}", "g" * 64, "../" + "0" * 61])
def test_digest_that_is_none_is_refused(sha256: str) -> None:
    with pytest.raises(ManifestError, match="64 hexadecimal digits"):
        Artifact.open(NAME, TRIPWIRE, sha256=sha256)


def test_digest_in_capitals_is_the_same() -> None:
    found = Artifact.open(NAME, TRIPWIRE, sha256=digest(TRIPWIRE).upper())

    assert found.load("shop:check")() == "ran"
    found.release()


def test_opening_runs_nothing() -> None:
    opened(TRIPWIRE).release()

    assert not hasattr(sys, SENTINEL)


def test_loading_runs_only_the_modules_asked_for() -> None:
    trap = {"shop/other.py": f"import sys\nsys.{SENTINEL} = True", "other.py": f"import sys\nsys.{SENTINEL} = True"}
    with artifact({**trap, "shop/__init__.py": "", "shop/cache.py": "def check():\n    return 1"}) as found:
        found.load("shop.cache:check")

        assert not hasattr(sys, SENTINEL)


def test_refused_content_runs_nothing() -> None:
    with pytest.raises(DigestError):
        Artifact.open(NAME, TRIPWIRE, sha256=OTHER)

    assert not hasattr(sys, SENTINEL)


def test_buffer_changed_after_opening_changes_nothing() -> None:
    good = b"def check():\n    return 'good'\n"
    buffer = bytearray(good)
    found = Artifact.open("shop.py", buffer, sha256=digest(good))  # type: ignore[arg-type]

    buffer[:] = good.replace(b"good", b"evil")

    assert found.load("shop:check")() == "good"
    found.release()


def test_file_swapped_after_opening_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(
        wheel(
            {
                "shop/__init__.py": "def check():\n    from shop.late import x\n    return x",
                "shop/late.py": "x = 'good'",
            }
        )
    )
    found = opened(path.read_bytes())

    path.write_bytes(wheel({"shop/__init__.py": "def check():\n    return 'evil'", "shop/late.py": "x = 'evil'"}))
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("def check():\n    return 'evil'")
    (tmp_path / "shop" / "late.py").write_text("x = 'evil'")

    assert found.load("shop:check")() == "good"
    found.release()


def test_pipe_in_place_of_the_file_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / NAME)  # opening it would wait for a writer that never comes
    seen: list[object] = []

    def load() -> None:
        found = opened(TRIPWIRE)
        seen.append(found.load("shop:check")())
        found.release()

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(10)

    assert seen == ["ran"]


def test_bytes_that_collide_in_the_private_name_are_refused() -> None:
    found = opened(TRIPWIRE)
    with pytest.raises(TrustError, match="begin alike"):
        SPACES.open(NAME, f"sha256_{digest(TRIPWIRE)[:16]}", OTHER, dict)
    found.release()


CODE = """
    import os
    import os as shop_os
    from os.path import join
    from functools import partial
    class Cache:
        number = 7
        path = os.path
        def __init__(self): ...
        @classmethod
        def from_url(cls): return cls()
    def build(): ...
    ready = Cache()
    number = 7
    halfway = partial(build)
    Alias = Cache
"""


@pytest.mark.parametrize("attribute", ["Cache", "build", "ready", "Alias", "Cache.from_url", "ready.from_url"])
def test_factory_defined_in_its_module_is_loaded(attribute: str) -> None:
    with artifact({"shop/__init__.py": "", "shop/cache.py": CODE}) as found:
        assert found.load(f"shop.cache:{attribute}") is not None


@pytest.mark.parametrize(
    "factory",
    [
        "os:system",
        "sys:exit",
        "oneiric.cli.main:main",
        "packaging.version:Version",
        "shop.cache:os",
        "shop.cache:shop_os",
        "shop.cache:os.system",
        "shop.cache:join",
        "shop.cache:number",
        "shop.cache:halfway",
        "shop.cache:Cache.path",
        "shop.cache:Cache.path.join",
        "shop.cache:Cache.__class__",
        "shop.cache:Cache.__init__.__globals__",
        "shop.cache:Cache.__mro__",
        "shop.cache:__builtins__",
        "shop.cache:__loader__",
        "shop.cache:__spec__",
        "shop:cache",
        "shop:Cache",
        "shop.nothing:Cache",
        "data:x",
        "shop.cache:Cache\n",
        "shop.cache\n:Cache",
        " shop.cache:Cache",
        "shop.cache:Cache()",
        "shop.cache:",
        ":Cache",
        "shop.cache",
        "shop.cache.Cache",
        "shop..cache:Cache",
        ".shop.cache:Cache",
        "shop/cache:Cache",
        "shop.cache:Cache:from_url",
        "shop.cache:C\N{CYRILLIC SMALL LETTER A}che",
        "",
    ],
)
def test_factory_outside_its_module_is_refused(factory: str) -> None:
    files = {"shop/__init__.py": "from shop.cache import Cache", "shop/cache.py": CODE, "data/x.txt": "x"}
    with artifact(files) as found, pytest.raises(TrustError) as refused:
        found.load(factory)

    assert (refused.value.reason, refused.value.hint != "") == ("factory", True)


def test_private_name_is_refused_as_a_factory() -> None:
    with artifact({"shop.py": "def check():\n    pass"}) as found, pytest.raises(TrustError):
        found.load(f"{found.load('shop:check').__module__}:check")


def test_module_of_another_artifact_is_refused() -> None:
    with artifact({"one.py": "def check():\n    pass"}), artifact({"two.py": ""}) as two, pytest.raises(TrustError):
        two.load("one:check")


def test_missing_attribute_is_an_import_error() -> None:
    with artifact({"shop.py": ""}) as found, pytest.raises(ImportError, match=r"'shop' of artifact .* has no 'Cache'"):
        found.load("shop:Cache")


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "RuntimeError"])
def test_error_of_the_module_is_not_disguised(kind: str) -> None:
    with artifact({"shop.py": f"raise {kind}('mine')"}) as found, pytest.raises(BaseException, match="mine") as raised:
        found.load("shop:check")

    assert raised.type.__name__ == kind


@pytest.fixture(scope="module")
def real_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made by a build backend."""
    project = tmp_path_factory.mktemp("project")
    (project / "shop" / "data").mkdir(parents=True)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "shop"\nversion = "1.0+local.1"\n'
    )
    (project / "shop" / "__init__.py").write_text("from shop.cache import Cache\n__all__ = ['Cache']\n")
    (project / "shop" / "cache.py").write_text(
        "from importlib.resources import files\n\n\nclass Cache:\n    def greeting(self) -> str:\n"
        "        return files('shop').joinpath('data/greeting.txt').read_text('utf-8')\n"
    )
    (project / "shop" / "data" / "greeting.txt").write_text("hello")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(project), str(project)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (found,) = project.glob("*.whl")
    return found


def test_wheel_of_a_build_backend_is_imported(real_wheel: Path) -> None:
    found = opened(real_wheel.read_bytes(), real_wheel.name)

    assert found.load("shop.cache:Cache")().greeting() == "hello"
    found.release()

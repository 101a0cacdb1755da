"""Ordinary Python in an artifact works as if it were installed, and the host does not notice."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import pickle
import sys
import threading
import traceback
import typing
from typing import Any

import packaging
import pytest

from tests.remote.wheels import artifact, opened


def result(files: dict[str, str | bytes], call: str = "shop:check") -> Any:
    """Return what calling *call* in an artifact with *files* returns."""
    with artifact(files) as loaded:
        return loaded.load(call)()


@pytest.mark.parametrize(
    "statement",
    [
        "from .sub import x",
        "from . import sub; x = sub.x",
        "from shop.sub import x",
        "from shop import sub; x = sub.x",
        "import shop.sub; x = shop.sub.x",
        "import shop.sub as s; x = s.x",
        "import shop.deep.er; x = shop.deep.er.x",
        "from .deep import er; x = er.x",
        "from shop.deep.er import *",
        "x = __import__('shop.sub').sub.x",
        "x = __import__('shop.sub', fromlist=['x']).x",
        "import importlib; x = importlib.import_module('shop.sub').x",
        "import importlib; x = importlib.import_module('.sub', 'shop').x",
        "import importlib; x = importlib.import_module('.sub', __package__).x",
        "import importlib; x = importlib.import_module(name='.sub', package='shop').x",
        "import importlib; x = importlib.import_module(__name__ + '.sub').x",
        "from importlib import import_module; x = import_module('shop.sub').x",
        "import importlib.util; x = importlib.util.find_spec('shop.sub').loader is not None and 7",
        "from importlib import util; x = util.find_spec('shop.sub').loader is not None and 7",
        "import pkgutil; x = pkgutil.resolve_name('shop.sub:x')",
        "scope = {}; exec('from shop.sub import x', scope); x = scope['x']",
        "x = eval('__import__(\"shop.sub\").sub.x')",
    ],
)
@pytest.mark.parametrize("place", ["at import", "in a function", "in a thread"])
def test_import_of_an_own_module_finds_it(statement: str, place: str) -> None:
    if place != "at import" and "import *" in statement:
        statement = statement.replace("*", "x")
    later = f"def find():\n    {statement}\n    return x\n"
    sources = {
        "at import": f"{statement}\ndef check():\n    return x\n",
        "in a function": f"{later}def check():\n    return find()\n",
        "in a thread": f"{later}def check():\n"
        "    from concurrent.futures import ThreadPoolExecutor\n"
        "    with ThreadPoolExecutor(1) as pool:\n"
        "        return pool.submit(find).result()\n",
    }
    files = {"shop/__init__.py": sources[place], "shop/sub.py": "x = 7", "shop/deep/__init__.py": ""}

    assert result({**files, "shop/deep/er.py": "__all__ = ['x']\nx = 7\ny = 8"}) == 7


def test_versions_of_one_module_serve_side_by_side() -> None:
    files = {"shop/__init__.py": "def check():\n    from shop.version import number\n    return number"}
    with (
        artifact({**files, "shop/version.py": "number = 1"}) as one,
        artifact({**files, "shop/version.py": "number = 2"}) as two,
    ):
        assert [each.load("shop:check")() for each in (one, two, one)] == [1, 2, 1]


def test_package_of_an_installed_name_wins_inside() -> None:
    files = {"packaging/__init__.py": "", "packaging/version.py": "def check():\n    return 'mine'"}
    own = "import packaging.version\nfrom packaging.version import check\nassert packaging.version.check is check"

    assert result({**files, "shop/__init__.py": f"{own}\n_check = check\ndef check():\n    return _check()"}) == "mine"


def test_package_of_an_installed_name_leaves_the_host_alone() -> None:
    with artifact({"packaging/__init__.py": "mine = 1\ndef check():\n    return mine"}) as loaded:
        loaded.load("packaging:check")()

        assert (importlib.import_module("packaging") is packaging, hasattr(packaging, "mine")) == (True, False)


def test_missing_own_submodule_is_not_taken_from_the_host() -> None:
    files = {"packaging/__init__.py": "def check():\n    import packaging.version"}

    with pytest.raises(ModuleNotFoundError, match=r"packaging\.version"):
        result(files, "packaging:check")


def test_own_module_of_a_standard_name_wins_inside() -> None:
    assert result({"json.py": "mine = 1", "shop.py": "def check():\n    import json\n    return json.mine"}) == 1


def test_host_packages_are_found() -> None:
    assert result(
        {"shop.py": "from packaging.version import Version\ndef check():\n    return Version"}
    ).__module__ == ("packaging.version")


def test_missing_host_package_raises_an_import_error_that_names_it() -> None:
    source = """
        try:
            import no_such_package.inner
        except ImportError as error:
            found = type(error), error.name, str(error)
        def check():
            return found
    """

    assert result({"shop.py": source}) == (ModuleNotFoundError, "no_such_package", "No module named 'no_such_package'")


def test_type_checking_imports_are_not_made() -> None:
    source = """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from no_such_package import Thing
        def check(thing: Thing | None = None):
            return thing
    """

    assert result({"shop.py": source}) is None


def test_circular_imports_work() -> None:
    files = {
        "shop/__init__.py": "import shop.one as one\ndef check():\n    return one.two.find()",
        "shop/one.py": "import shop.two as two\nx = 7",
        "shop/two.py": "import shop.one as one\nfrom shop import one as again\ndef find():\n    return one.x, again.x",
    }

    assert result(files) == (7, 7)


def test_namespace_package_inside_the_wheel_works() -> None:
    files = {"shop/inner/one.py": "from shop.inner import two\nimport shop.inner.two\ndef check():\n    return two.x"}

    assert result({**files, "shop/inner/two.py": "x = 7"}, "shop.inner.one:check") == 7


def test_namespace_package_leaves_the_rest_of_the_name_to_the_host() -> None:
    source = "from packaging.version import Version\ndef check():\n    return Version.__module__"

    assert result({"packaging/mine/one.py": source}, "packaging.mine.one:check") == "packaging.version"


def test_directory_of_data_does_not_hide_an_installed_package() -> None:
    files = {
        "packaging/notes.txt": "no code",
        "shop.py": "import packaging\ndef check():\n    return packaging.__file__",
    }

    assert result(files) == packaging.__file__


def test_relative_import_cannot_leave_the_top_level_package() -> None:
    files = {"shop/__init__.py": "def check():\n    from .. import other", "other.py": ""}

    with pytest.raises(ImportError, match="beyond top-level package"):
        result(files)


@pytest.mark.parametrize("order", [1, -1])
def test_package_wins_over_a_module_of_its_name(order: int) -> None:
    files = {"shop.py": "def check():\n    return 1", "shop/__init__.py": "def check():\n    return 2"}

    assert result(dict(list(files.items())[::order])) == 2


def test_module_is_compiled_as_it_is_written() -> None:
    assert result({"shop.py": "def check(x: int = 1):\n    return check.__annotations__"}) == {"x": int}


def test_star_import_takes_submodules_named_in_all() -> None:
    files = {
        "shop/__init__.py": "from .pack import *\ndef check():\n    return sub.x",
        "shop/pack/__init__.py": "__all__ = ['sub']",
        "shop/pack/sub.py": "x = 7",
    }

    assert result(files) == 7


def test_failed_import_leaves_no_module_behind() -> None:
    before = set(sys.modules)
    with artifact({"shop.py": "1 / 0\ndef check():\n    pass"}) as loaded:
        for _attempt in range(2):
            with pytest.raises(ZeroDivisionError):
                loaded.load("shop:check")

        assert not [name for name in set(sys.modules) - before if name.endswith(".shop")]


def test_bytecode_in_a_wheel_is_not_used() -> None:
    files: dict[str, str | bytes] = {
        "shop/__init__.py": "def check():\n    import shop.hidden",
        "shop/hidden.pyc": b"x",
    }

    with pytest.raises(ModuleNotFoundError):
        result(files)


def test_source_in_another_encoding_is_read_as_it_declares() -> None:
    source = "# coding: latin-1\ndef check():\n    return 'caf\xe9'".encode("latin-1")

    assert result({"shop.py": source}) == "caf\xe9"


def test_single_file_is_one_module() -> None:
    found = opened(b"import shop\ndef check():\n    return shop.__name__.rpartition('.')[2]", "shop.py")

    assert found.load("shop:check")() == "shop"
    found.release()


def test_main_guard_is_not_entered() -> None:
    assert result({"shop.py": "ran = __name__ == '__main__'\ndef check():\n    return ran"}) is False


def test_dataclass_with_postponed_annotations_knows_class_variables() -> None:
    source = """
        from __future__ import annotations
        import dataclasses
        import typing
        from typing import ClassVar
        @dataclasses.dataclass(slots=True)
        class Cache:
            url: str
            count: ClassVar[int] = 0
            other: typing.ClassVar[int] = 0
        def check():
            return [field.name for field in dataclasses.fields(Cache("x"))]
    """

    assert result({"shop.py": source}) == ["url"]


def test_type_hints_are_resolved() -> None:
    source = """
        from __future__ import annotations
        class Cache:
            twin: Cache | None
            def get(self, other: Cache) -> list[Cache]: ...
    """
    with artifact({"shop.py": source}) as loaded:
        cache = loaded.load("shop:Cache")

        assert (typing.get_type_hints(cache), typing.get_type_hints(cache.get)) == (
            {"twin": cache | None},
            {"other": cache, "return": list[cache]},
        )


def test_enum_named_tuple_and_subclass_hooks_work() -> None:
    source = """
        import enum
        from typing import NamedTuple
        class Colour(enum.Enum):
            RED = enum.auto()
        class Point(NamedTuple):
            x: int
        class Base:
            known = []
            def __init_subclass__(cls, **options):
                super().__init_subclass__(**options)
                Base.known.append(cls.__name__)
        class Child(Base):
            pass
        def check():
            return Colour["RED"] is Colour(1), Point(3)._asdict(), Base.known
    """

    assert result({"shop.py": source}) == (True, {"x": 3}, ["Child"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_instances_survive_pickling_while_loaded(protocol: int) -> None:
    source = "class Outer:\n    class Cache:\n        def __init__(self):\n            self.x = 7\n"
    with artifact({"shop/__init__.py": "", "shop/cache.py": source}) as loaded:
        kind = loaded.load("shop.cache:Outer").Cache

        again = pickle.loads(pickle.dumps(kind(), protocol))

        assert (type(again), again.x) == (kind, 7)


def test_coroutines_import_and_run() -> None:
    source = """
        import asyncio
        async def check():
            async with asyncio.timeout(5):
                from shop.inner import numbers
                return [n async for n in numbers()]
    """
    inner = "async def numbers():\n    for n in range(3):\n        yield n"
    with artifact({"shop/__init__.py": source, "shop/inner.py": inner}) as loaded:
        assert asyncio.run(loaded.load("shop:check")()) == [0, 1, 2]


def test_logger_is_named_like_the_module() -> None:
    source = "import logging\nlog = logging.getLogger(__name__)\ndef check():\n    return log.name, __name__"

    name, module = result({"shop.py": source})

    assert name == module


def test_traceback_shows_the_source() -> None:
    with artifact({"shop/__init__.py": "def check():\n    raise ValueError('no')  # this very line"}) as loaded:
        with pytest.raises(ValueError, match="no") as raised:
            loaded.load("shop:check")()

        assert "# this very line" in "".join(traceback.format_exception(raised.value))


def test_traceback_shows_the_source_of_its_own_version() -> None:
    with (
        artifact({"shop.py": "def check():\n    1 / 0  # one"}) as one,
        artifact({"shop.py": "def check():\n    1 / 0  # two"}) as two,
    ):
        for each, comment in ((one, "# one"), (two, "# two")):
            with pytest.raises(ZeroDivisionError) as raised:
                each.load("shop:check")()

            assert comment in "".join(traceback.format_exception(raised.value))


def test_inspect_returns_the_source_of_functions_and_classes() -> None:
    function, kind = "def check():\n    return 1\n", "class Cache:\n    x = 1\n"
    with artifact({"shop.py": f"{function}\n{kind}"}) as loaded:
        assert (inspect.getsource(loaded.load("shop:check")), inspect.getsource(loaded.load("shop:Cache"))) == (
            function,
            kind,
        )


DATA: dict[str, str | bytes] = {
    "shop/sub/__init__.py": "",
    "shop/data/words.txt": "caf\xe9".encode(),
    "shop/sub/a.bin": b"\0",
}


@pytest.mark.parametrize(
    "expression",
    [
        "resources.files(__package__).joinpath('data/words.txt').read_text('utf-8')",
        "resources.files(__package__).joinpath('data', 'words.txt').read_text(encoding='utf-8')",
        "(resources.files('shop') / 'data' / 'words.txt').read_bytes().decode()",
        "resources.files('shop.data').joinpath('words.txt').open(encoding='utf-8').read()",
        "resources.files(sys.modules[__name__]).joinpath('data/words.txt').open('rb').read().decode()",
        "pkgutil.get_data(__package__, 'data/words.txt').decode()",
        "pkgutil.get_data('shop', 'data/words.txt').decode()",
    ],
)
def test_data_files_are_read(expression: str) -> None:
    source = f"import pkgutil, sys\nfrom importlib import resources\ndef check():\n    return {expression}"

    assert result({**DATA, "shop/__init__.py": source}) == "caf\xe9"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="importlib.resources.files() needs an argument before 3.12")
def test_data_files_are_found_without_naming_the_package() -> None:
    source = (
        "from importlib import resources\ndef check():\n    return resources.files().joinpath('a.bin').read_bytes()"
    )

    assert result({**DATA, "shop/sub/code.py": source}, "shop.sub.code:check") == b"\0"


def test_data_files_are_listed() -> None:
    source = """
        from importlib.resources import files
        def check():
            here = files(__package__)
            return [(each.name, each.is_dir(), each.is_file()) for each in here.iterdir()]
    """

    found = result({**DATA, "shop/__init__.py": source})

    assert found == [("__init__.py", False, True), ("data", True, False), ("sub", True, False)]


def test_data_file_becomes_a_real_file_on_request() -> None:
    source = """
        from importlib.resources import as_file, files
        def check():
            with as_file(files(__package__) / "data/words.txt") as path:
                return path.read_text("utf-8")
    """

    assert result({**DATA, "shop/__init__.py": source}) == "caf\xe9"


@pytest.mark.parametrize("path", ["nothing.txt", "../shop/__init__.py", "data"])
def test_missing_data_file_says_so(path: str) -> None:
    source = f"from importlib.resources import files\ndef check():\n    return files(__package__).joinpath({path!r})"
    found = result({**DATA, "shop/__init__.py": source})

    with pytest.raises(FileNotFoundError, match="no file"):
        found.read_bytes()


def test_data_file_cannot_be_written() -> None:
    source = "from importlib.resources import files\ndef check():\n    return files(__package__) / 'data/words.txt'"
    found = result({**DATA, "shop/__init__.py": source})

    with pytest.raises(ValueError, match="mode 'w'"):
        found.open("w")


def test_host_functions_do_not_see_the_artifact() -> None:
    with artifact({"shop_of_the_artifact.py": "def check():\n    pass"}) as loaded:
        loaded.load("shop_of_the_artifact:check")

        assert importlib.util.find_spec("shop_of_the_artifact") is None


def test_lazy_import_by_many_threads_runs_the_module_once() -> None:
    files = {
        "shop/__init__.py": "runs = []\ndef check():\n    from shop.slow import x\n    return x, list(runs)",
        "shop/slow.py": "import shop\nshop.runs.append(1)\nx = 7",
    }
    with artifact(files) as loaded:
        check, start, seen = loaded.load("shop:check"), threading.Barrier(8), []

        def ask() -> None:
            start.wait(10)
            seen.append(check())

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

        assert seen == [(7, [1])] * 8

"""A released artifact leaves nothing behind, and pulls nothing from under those who still use it."""

from __future__ import annotations

import gc
import inspect
import linecache
import logging
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from oneiric.remote.modules import ROOT
from tests.remote.wheels import artifact, opened, wheel

# Everything that the standard library might remember of a module.
RICH = """
    from __future__ import annotations
    import abc, asyncio, dataclasses, enum, functools, importlib, importlib.resources
    import inspect, linecache, logging, pickle, traceback, typing
    import shop.other as other
    from typing import Generic, NamedTuple, Optional, TypeVar, Union
    log = logging.getLogger(__name__)
    logging.getLogger(__name__ + ".child").addHandler(logging.NullHandler())
    T = TypeVar("T")
    class Colour(enum.Flag):
        RED = enum.auto()
    @dataclasses.dataclass
    class Cache(Generic[T]):
        twin: Optional[Cache] = None
        @functools.lru_cache
        def get(self): return other.x
        @functools.cached_property
        def value(self): return 7
    class Point(NamedTuple):
        x: int
    class Base(abc.ABC):
        @abc.abstractmethod
        def run(self): ...
    class Child(Base):
        def run(self): return 1
    Base.register(Point)
    Alias = Union[Optional[Child], Cache[int], list[Cache]]
    def check():
        cache = Cache()
        isinstance(cache, Base), isinstance(Child(), Base)
        typing.get_type_hints(Cache)
        pickle.loads(pickle.dumps(Cache()))
        inspect.getsource(Cache), inspect.getmodule(check.__code__), inspect.signature(Cache), inspect.stack()
        importlib.resources.files(__package__).joinpath("other.py").read_text("utf-8")
        importlib.import_module("shop.other")
        asyncio.run(Child_async())
        try:
            1 / 0
        except ZeroDivisionError:
            traceback.format_exc()
        return cache
    async def Child_async():
        return Colour.RED
"""
FILES: dict[str, str | bytes] = {"shop/__init__.py": RICH, "shop/other.py": "x = 7"}


OTHERS: set[str] = set()  # what other tests in this process still hold open


@pytest.fixture(autouse=True)
def _leave_others_alone() -> None:
    gc.collect()
    OTHERS.clear()
    OTHERS.update(remembered())


def modules() -> list[str]:
    """Return the names of all modules of artifacts that the host knows."""
    mine = (name for name in sys.modules if name == ROOT or name.startswith(f"{ROOT}."))
    return [name for name in mine if name not in OTHERS]


def remembered() -> list[str]:
    """Return what the standard library remembers of any artifact."""
    inspected = vars(inspect)
    found = [
        *modules(),
        *(str(finder) for finder in sys.meta_path if type(finder).__module__.startswith("oneiric.")),
        *(file for file in linecache.cache if file.startswith("<shop")),
        *(name for name in logging.root.manager.loggerDict if name.startswith(f"{ROOT}.")),
        *(logger.name for logger in getattr(logging.root.manager.loggerDict.get(ROOT), "loggerMap", ())),
        *(name for name in inspected["modulesbyfile"].values() if name.startswith(ROOT)),
        *(name for name in inspected["_filesbymodname"] if name.startswith(ROOT)),
    ]
    return [name for name in found if name not in OTHERS]


def test_released_artifact_leaves_nothing_behind() -> None:
    found = opened(wheel(FILES))
    found.load("shop:check")()
    assert remembered()

    found.release()

    assert remembered() == []


def test_released_artifact_leaves_nothing_behind_while_another_is_open() -> None:
    with artifact({"other.py": "def check():\n    pass"}) as other:
        other.load("other:check")
        found = opened(wheel(FILES))
        found.load("shop:check")()
        key = found.load("shop:check").__module__.split(".")[1]

        found.release()

        assert [name for name in [*remembered(), *vars(sys.modules[ROOT])] if key in name or "<shop" in name] == []


def test_artifacts_that_were_never_loaded_leave_nothing_behind() -> None:
    one, two = opened(wheel({"one.py": ""})), opened(wheel({"two.py": ""}))

    one.release()
    two.release()

    assert remembered() == []


def test_released_artifact_lets_go_of_its_bytes() -> None:
    found = opened(wheel({"shop.py": "def check():\n    return __spec__.loader, __file__"}))
    loader, path = found.load("shop:check")()
    assert loader.get_data(path)

    found.release()

    with pytest.raises(FileNotFoundError):
        loader.get_data(path)


def test_modules_are_collected_after_the_last_object_is_gone() -> None:
    found = opened(wheel(FILES))
    cache = found.load("shop:check")()
    watched = [weakref.ref(sys.modules[name]) for name in modules() if "shop" in name]

    found.release()
    del cache
    gc.collect()

    assert (len(watched), [module() for module in watched]) == (2, [None, None])


def test_artifact_is_collected_although_a_traceback_was_shown_after_release() -> None:
    found = opened(wheel({"shop.py": "def check():\n    1 / 0"}))
    check = found.load("shop:check")
    space = weakref.ref(check.__globals__["__spec__"].loader)
    found.release()
    with pytest.raises(ZeroDivisionError) as raised:
        check()
    traceback.format_exception(raised.value)

    del check, raised
    gc.collect()

    assert space() is None


def test_released_object_goes_on_working() -> None:
    found = opened(
        wheel({"shop/__init__.py": "from .other import x\ndef check():\n    return x", "shop/other.py": "x = 7"})
    )
    check = found.load("shop:check")

    found.release()
    gc.collect()

    assert check() == 7


def test_released_object_still_imports_from_the_host() -> None:
    found = opened(
        wheel({"shop.py": "def check():\n    from packaging.version import Version\n    return Version('1')"})
    )
    check = found.load("shop:check")

    found.release()

    assert str(check()) == "1"


@pytest.mark.parametrize("statement", ["from shop import other", "from . import other", "import shop.other"])
def test_released_object_imports_nothing_more_of_its_own(statement: str) -> None:
    found = opened(wheel({"shop/__init__.py": f"def check():\n    {statement}", "shop/other.py": ""}))
    check = found.load("shop:check")

    found.release()

    with pytest.raises(ImportError, match=r"artifact shop-1\.0-py3-none-any\.whl was released"):
        check()


def test_released_code_does_not_import_from_a_new_opening_of_its_artifact() -> None:
    content = wheel({"shop/__init__.py": "def check():\n    import shop.other", "shop/other.py": ""})
    first = opened(content)
    old = first.load("shop:check")
    first.release()
    second = opened(content)

    with pytest.raises(ImportError, match="was released"):
        old()
    second.release()


def test_released_artifact_loads_nothing() -> None:
    found = opened(wheel({"shop.py": "def check():\n    pass"}))
    found.release()

    with pytest.raises(ImportError, match="was released"):
        found.load("shop:check")


def test_release_again_does_nothing() -> None:
    content = wheel({"shop.py": "def check():\n    return 1"})
    one, two = opened(content), opened(content)

    one.release()
    one.release()

    assert two.load("shop:check")() == 1
    two.release()


def test_release_by_many_threads_counts_once() -> None:
    content = wheel({"shop.py": "def check():\n    return 1"})
    one, two = opened(content), opened(content)

    together(one.release, times=8)

    assert two.load("shop:check")() == 1
    two.release()
    assert modules() == []


def test_same_digest_shares_its_modules() -> None:
    content = wheel({"shop.py": "class Cache: ..."})
    one, two = opened(content), opened(content)

    assert one.load("shop:Cache") is two.load("shop:Cache")
    one.release()
    two.release()


def test_single_modules_with_equal_bytes_and_different_names_do_not_mix() -> None:
    content = b"def check():\n    return __name__.rpartition('.')[2]"
    one, two = opened(content, "one.py"), opened(content, "two.py")

    assert (one.load("one:check")(), two.load("two:check")()) == ("one", "two")
    one.release()
    two.release()


def test_artifact_opened_again_is_imported_again() -> None:
    content = wheel({"shop.py": "class Cache: ..."})
    first = opened(content)
    old = first.load("shop:Cache")
    first.release()
    second = opened(content)

    assert second.load("shop:Cache") is not old
    second.release()


def test_other_artifact_is_not_touched_by_a_release() -> None:
    with artifact({"shop.py": "def check():\n    import shop\n    return shop.x\nx = 1"}) as kept:
        with artifact({"shop.py": "def check():\n    pass\nx = 2"}) as released:
            released.load("shop:check")

        assert kept.load("shop:check")() == 1


def test_release_during_an_import_unloads_after_it() -> None:
    slow = """
        import sys
        entered, go = sys._oneiric_gates
        entered.set()
        go.wait(10)
        from . import late
        def check():
            return late.x
    """
    found = opened(wheel({"shop/__init__.py": slow, "shop/late.py": "x = 7"}))
    entered, go, seen = threading.Event(), threading.Event(), []
    sys._oneiric_gates = entered, go  # type: ignore[attr-defined]
    loading = threading.Thread(target=lambda: seen.append(found.load("shop:check")()))
    loading.start()
    assert entered.wait(10)

    found.release()
    during = modules()
    go.set()
    loading.join(10)
    del sys._oneiric_gates  # type: ignore[attr-defined]

    assert (bool(during), seen, modules()) == (True, [7], [])


def test_finalizer_may_import_and_release() -> None:
    source = """
        class Cache:
            def __init__(self, artifact, seen):
                self.artifact, self.seen, self.me = artifact, seen, self
            def __del__(self):
                try:
                    import shop.other
                except ImportError as error:
                    self.seen.append(str(error))
                self.artifact.release()
    """
    found = opened(wheel({"shop/__init__.py": source, "shop/other.py": ""}))
    seen: list[str] = []
    found.load("shop:Cache")(found, seen)

    found.release()
    gc.collect()

    assert (len(seen), modules()) == (1, [])


def test_opening_loading_and_releasing_by_many_threads_never_fails() -> None:
    source = """
        def check():
            from shop.late import x
            import shop.other
            return x + shop.other.x
    """
    files = {"shop/__init__.py": source}
    contents = [wheel({**files, "shop/late.py": f"x = {n}", "shop/other.py": "x = 10"}) for n in range(2)]
    wrong: list[object] = []

    def use() -> None:
        try:
            for n in [0, 1] * 25:
                found = opened(contents[n])
                answer = found.load("shop:check")()
                found.release()
                if answer != n + 10:
                    wrong.append(answer)
        except BaseException as error:
            wrong.append(error)
            raise

    together(use, times=4)

    assert (wrong, modules()) == ([], [])


def test_hundred_versions_leave_no_module_in_memory() -> None:
    watched: list[weakref.ref[Any]] = []
    for n in range(100):
        found = opened(wheel({**FILES, "shop/number.py": f"x = {n}"}))
        found.load("shop:check")()
        watched.append(weakref.ref(sys.modules[found.load("shop:Cache").__module__]))
        found.release()
    gc.collect()

    assert [each for each in watched if each() is not None] == []


def together(act: Callable[[], object], *, times: int) -> None:
    """Call *act* in several threads that start at once."""
    start = threading.Barrier(times)

    def run() -> None:
        start.wait(10)
        act()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_failed_opening_holds_nothing() -> None:
    with pytest.raises(Exception, match="not a wheel"):
        opened(b"no wheel")

    assert remembered() == []

"""What it costs to import what a manifest delivers: a wheel from the cache, verified and compiled each time.

Held against the same modules from a directory: compiled anew, which is the same work without verifying, and from what
the interpreter compiled before, which is what a package that pip installed costs.
"""

from __future__ import annotations

import compileall
import gc
import hashlib
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.measure import Budget, Claim, Row, Sample, measure
from examples.publisher.press import build_wheel
from oneiric.remote.artifact import Artifact
from oneiric.remote.cache import Cache

PACKAGE: Final = "oneiric_benchmarks_delivered"
FACTORY: Final = f"{PACKAGE}.parts:Part"
FUNCTION: Final = """
def work_{number}(value: int, *, times: int = {number}) -> int:
    \"\"\"Do what a function of a module does.\"\"\"
    if value < 0:
        raise ValueError(f"{{value}} is less than nothing")
    return sum(each * times for each in range(value) if each % 2)
"""
FUNCTIONS: Final = 10


async def importing(budget: Budget) -> list[Row]:
    """A factory of a wheel in the cache, cold and when the wheel is in use already, against an import."""
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    with TemporaryDirectory(prefix="oneiric-benchmarks-") as text:
        for size in budget.sizes(1, 10, 100):
            directory = Path(text, str(size))
            wheel = _prepared(directory, size)
            cold, warm, compiled, anew, hashed = (
                f"{what}, N={size:,}"
                for what in ("cold", "warm", "import, compiled before", "import, compiled anew", "SHA-256 of the wheel")
            )
            cache, name = Cache(directory / "cache"), wheel.name
            content = wheel.read_bytes()
            cache.write_artifact(name, content)
            digest = hashlib.sha256(content).hexdigest()
            contenders |= {
                cold: _cold(cache, name, digest),
                warm: _warm(cache, name, digest),
                compiled: _imports(directory / "compiled", is_compiled=True),
                anew: _imports(directory / "anew", is_compiled=False),
                hashed: _timed(partial(hashlib.sha256, content)),
            }
            claims += [
                Claim("import an artifact, cold", size, cold, anew),
                Claim("import an artifact, cold", size, cold, compiled),
                Claim("import an artifact, warm", size, warm, hashed),
            ]
        return await measure(contenders, claims, budget)


def _prepared(directory: Path, modules: int) -> Path:
    """Write a package of so many modules twice as files and once as a wheel; return the wheel."""
    names = [f"part_{number}" for number in range(1, modules)]
    imports = "".join(f"from {PACKAGE} import {name}\n" for name in names)
    body = "".join(FUNCTION.format(number=number) for number in range(FUNCTIONS))
    files = {
        f"{PACKAGE}/__init__.py": "",
        f"{PACKAGE}/parts.py": f"{imports}{body}\nclass Part:\n    pass\n",
        **{f"{PACKAGE}/{name}.py": body for name in names},
    }
    for place in ("compiled", "anew"):
        for file, text in files.items():
            (directory / place / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / place / file).write_text(text)
    return build_wheel(directory, PACKAGE, "1.0", files)


def _cold(cache: Cache, name: str, digest: str) -> Sample:
    def work() -> Artifact:
        artifact = _opened(cache, name, digest)
        artifact.load(FACTORY)
        return artifact

    return _timed(work, after=Artifact.release)


def _warm(cache: Cache, name: str, digest: str) -> Sample:
    async def sample() -> Sequence[float]:
        first = _opened(cache, name, digest)
        first.load(FACTORY)
        try:
            return await _cold(cache, name, digest)()
        finally:
            first.release()

    return sample


def _opened(cache: Cache, name: str, digest: str) -> Artifact:
    content = cache.read_artifact(name, 1 << 30)
    assert content is not None
    return Artifact.open(name, content, sha256=digest)


def _imports(place: Path, *, is_compiled: bool) -> Sample:
    """Return what imports the package from *place*, as if for the first time."""

    def work() -> Any:
        return importlib.import_module(FACTORY.partition(":")[0]).Part

    timed = _timed(work)
    if is_compiled:
        compileall.compile_dir(place, quiet=1)

    async def sample() -> Sequence[float]:
        spared, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        sys.path.insert(0, str(place))
        importlib.invalidate_caches()
        try:
            return await timed()
        finally:
            _forget()
            sys.path.remove(str(place))
            sys.dont_write_bytecode = spared

    return sample


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def _timed(work: Callable[[], Any], *, after: Callable[[Any], object] = lambda _: None) -> Sample:
    async def sample() -> Sequence[float]:
        gc.collect()
        begin = perf_counter()
        made = work()
        taken = perf_counter() - begin
        after(made)
        return [taken]

    return sample

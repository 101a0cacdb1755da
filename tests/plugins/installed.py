"""The example plugin as a user gets it: built into a wheel, installed by pip, used by other processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


def install_example(work: Path) -> Path:
    """Build the plugin's wheel under *work* and install it, without a network; return the directory it is in."""
    source = shutil.copytree(PLUGIN, work / "source", ignore=shutil.ignore_patterns("__pycache__"))
    _run("build", "--wheel", "--no-isolation", "--outdir", str(work), str(source))
    (wheel,) = work.glob("*.whl")
    _run("pip", "--isolated", "install", "--no-deps", "--no-index", "--target", str(work / "site"), str(wheel))
    return work / "site"


def python(site: Path, directory: Path, program: str) -> str:
    """Run *program* in *directory* with *site* on the path; return what it printed."""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(site)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _run(module: str, *arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr

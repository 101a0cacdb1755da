"""``python -m scripts.reference`` writes the pages to ``docs/reference`` of the working directory."""

from __future__ import annotations

from pathlib import Path

from scripts.reference.pages import main

main(Path())

"""Write the Grafana dashboards and what provisions them; the same source writes the same bytes.

python deployment/monitoring/source/dashboards.py [--runbooks URL/] [--output DIR]
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from lifecycle import lifecycle
from performance import performance
from provisioning import DASHBOARDS, DATASOURCES
from remote import remote
from resolution import resolution

from oneiric.monitoring.alerts import INCIDENTS

GRAFANA: Final = Path(__file__).resolve().parents[1] / "grafana"
NOTE: Final = "# Written by deployment/monitoring/source/dashboards.py; change it there.\n"


def files(*, runbooks: str = "") -> Mapping[str, str]:
    """Return the text of every file, by its path below ``grafana/``.

    Args:
        runbooks: what to put before the runbook's path: where the repository's files can be read.
    """
    boards = (resolution(), lifecycle(), remote(), performance())
    written = {f"dashboards/{board.uid}.json": _json(board) for board in boards}
    return {
        **{name: text.replace(f'"{INCIDENTS}#', f'"{runbooks}{INCIDENTS}#') for name, text in written.items()},
        **{
            f"provisioning/{name}/oneiric.yml": NOTE + yaml.safe_dump(content, sort_keys=False)
            for name, content in (("dashboards", DASHBOARDS), ("datasources", DATASOURCES))
        },
    }


def _json(board: Dashboard) -> str:
    """Return *board* as JSON, without the SDK's constant that hides every link in a menu."""
    return re.sub(r'\n *"placement": "inControlsMenu",', "", JSONEncoder(sort_keys=True, indent=2).encode(board)) + "\n"


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description="Write the Grafana dashboards and what provisions them.")
    parser.add_argument("--output", type=Path, default=GRAFANA, help="the directory (%(default)s)")
    parser.add_argument("--runbooks", default="", help="put before the runbook's path, such as an URL ending in /")
    options = parser.parse_args()
    for name, text in files(runbooks=options.runbooks).items():
        path = options.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()

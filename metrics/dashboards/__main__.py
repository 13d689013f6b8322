"""Write all dashboards: `python -m metrics.dashboards FOLDER`. Other JSON files in the folder are removed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard

from metrics.dashboards.ai_legs import ai_legs
from metrics.dashboards.assemble import as_text
from metrics.dashboards.calls import calls
from metrics.dashboards.cost import cost
from metrics.dashboards.endpoints import endpoints
from metrics.dashboards.fleet import fleet
from metrics.dashboards.latency import latency
from metrics.dashboards.one_call import one_call
from metrics.dashboards.recording import recording_and_store
from metrics.dashboards.turns import turns

#: Builder of each dashboard, by file name.
DASHBOARDS: Final[dict[str, Callable[[], dashboard.Dashboard]]] = {
    "fleet": fleet,
    "latency": latency,
    "turns": turns,
    "calls": calls,
    "recording": recording_and_store,
    "ai": ai_legs,
    "cost": cost,
    "endpoints": endpoints,
    "call": one_call,
}


def write(folder: Path) -> None:
    """Write each dashboard to `<name>.json`, and remove all other JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        if old.stem not in DASHBOARDS:
            old.unlink()
    for name, build in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(as_text(build()), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

"""Panels of the generated dashboards, with their queries as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
#: Approximate number of points of a curve.
POINTS = 120


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard file."""

    board: str
    json: dict[str, Any]

    @property
    def name(self) -> str:
        """Name for a test's id and a picture's file."""
        words = "".join(sign if sign.isalnum() else " " for sign in self.json["title"].lower()).split()
        return f"{self.board}-{self.json['id']:02}-{'-'.join(words)}"

    @property
    def is_sql(self) -> bool:
        return self.json["datasource"]["type"] == "mysql"

    @property
    def queries(self) -> list[dict[str, Any]]:
        queries: list[dict[str, Any]] = self.json["targets"]
        return queries


def boards() -> dict[str, dict[str, Any]]:
    """Return every dashboard file, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels() -> Iterator[Panel]:
    """Yield every panel with queries."""
    for name, board in boards().items():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield Panel(name, panel)


def promql(expression: str, *, range_s: float, rate_s: float) -> str:
    """Return an expression with Grafana's variables filled in, for all gateways."""
    filled = expression.replace("$__rate_interval", f"{rate_s:.0f}s").replace("$__range", f"{range_s:.0f}s")
    filled = filled.replace("$instance", ".*")
    assert "$" not in filled, filled
    return filled


def sql(statement: str, *, since: float, until: float, call_sid: str) -> str:
    """Return a statement with Grafana's macros filled in, as its MySQL data source does."""
    filled = statement.replace("${call_sid:sqlstring}", f"'{call_sid}'")
    before, macro, after = filled.partition("$__timeFilter(")
    if macro:
        column, _, rest = after.partition(")")
        filled = f"{before}{column} BETWEEN FROM_UNIXTIME({since:.0f}) AND FROM_UNIXTIME({until + 1:.0f}){rest}"
    assert "$" not in filled.replace("'$.", ""), filled  # but for paths in JSON
    return filled

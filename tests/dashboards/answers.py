"""Results of every panel's queries on a scene, for the tests and the pictures."""

from __future__ import annotations

import math
from typing import Any

from tests.dashboards.panels import POINTS, Panel, panels, promql, sql
from tests.dashboards.scene import Scene

#: Grafana's `$__rate_interval` is four scrapes; these come once a second.
_RATE_S = 5


def collect(scene: Scene) -> list[dict[str, Any]]:
    """Return each panel's JSON with `answers`, one per query, as the renderer reads them."""
    columns, found = scene.sql("SELECT call_sid FROM call_quality ORDER BY bargeins DESC, frames_sent DESC LIMIT 1")
    assert found, f"no call has {columns}"
    call_sid = str(found[0][0])
    return [
        {"board": panel.board, "name": panel.name, "panel": panel.json, "answers": _answers(scene, panel, call_sid)}
        for panel in panels()
    ]


def _answers(scene: Scene, panel: Panel, call_sid: str) -> list[dict[str, Any]]:
    range_s = math.ceil(scene.until - scene.since)
    step_s = max(1, math.ceil(range_s / POINTS))
    found = []
    for query in panel.queries:
        if panel.is_sql:
            statement = sql(query["rawSql"], since=scene.since, until=scene.until, call_sid=call_sid)
            columns, rows = scene.sql(statement)
            found.append({"columns": columns, "rows": rows})
            continue
        expression = promql(query["expr"], range_s=range_s, rate_s=max(_RATE_S, step_s))
        if query["instant"]:
            series = [{"metric": one["metric"], "values": [one["value"]]} for one in scene.prometheus.at(expression, scene.until)]
        else:
            series = scene.prometheus.over(expression, scene.since, scene.until, step_s)
        found.append({"legend": query.get("legendFormat", ""), "series": series})
    return found

"""Assemble a dashboard from rows of panels: its variables, its links to the others, its panel ids.

Ids are given in the order of the panels, so a link to one panel is valid as long as the order is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import bargauge, dashboard, heatmap, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from metrics.dashboards.panels import PROMETHEUS
from metrics.declare import CALLS

TAG: Final = "submilli"
AnyPanel = timeseries.Panel | stat.Panel | bargauge.Panel | heatmap.Panel | table.Panel
#: A row's title and its panels.
Row = tuple[str, Sequence[AnyPanel]]


def metrics_dashboard(name: str, title: str, description: str, rows: Sequence[Row], *, last: str = "1h") -> dashboard.Dashboard:
    """Build a dashboard of metrics. `name` is part of its address and must not change; `last` is its time range."""
    built = _empty(name, title, description, last)
    built.with_variable(dashboard.DatasourceVariable("prometheus").label("Prometheus").type("prometheus"))
    gateways = dashboard.QueryVariable("instance").label("Gateway").datasource(PROMETHEUS).multi(True).include_all(True)
    gateways.query(f"label_values({CALLS.name}, instance)").all_value(".*").current(
        models.VariableOption(True, ["All"], ["$__all"])
    )
    gateways.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    return _with_rows(built.with_variable(gateways), rows)


def call_dashboard(name: str, title: str, description: str, rows: Sequence[Row], *, last: str = "24h") -> dashboard.Dashboard:
    """Build a dashboard of the store's rows of one call, chosen in `$call_sid`."""
    built = _empty(name, title, description, last)
    built.with_variable(dashboard.DatasourceVariable("mysql").label("Store").type("mysql"))
    built.with_variable(dashboard.TextBoxVariable("call_sid").label("Call SID").default_value(""))
    return _with_rows(built, rows)


def as_text(built: dashboard.Dashboard) -> str:
    """Return the content of the dashboard's file: deterministic, with keys in the SDK's order."""
    whole = built.build()
    for number, panel in enumerate(whole.panels or [], 1):
        panel.id_val = number
    return json.dumps(whole, cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"


def _empty(name: str, title: str, description: str, last: str) -> dashboard.Dashboard:
    built = dashboard.Dashboard(f"Submilli: {title}").uid(f"submilli-{name}").description(description).tags([TAG])
    built.refresh("30s").time(f"now-{last}", "now").timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    others = dashboard.DashboardLink("Submilli").type(models.DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(False)
    return built.link(others.keep_time(True).include_vars(True))


def _with_rows(built: dashboard.Dashboard, rows: Sequence[Row]) -> dashboard.Dashboard:
    for title, panels in rows:
        built.with_row(dashboard.Row(title))
        for panel in panels:
            built.with_panel(panel)
    return built

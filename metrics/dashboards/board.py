"""A dashboard out of rows of panels: its variables, its links to the others, its numbering.

Decides what all dashboards have in common. Ids are given in the order of the panels, so that a link to one panel stays as long as
the order does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge, dashboard, heatmap, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from metrics.dashboards.panels import PROMETHEUS
from metrics.declare import CALLS

TAG: Final = "submilli"
AnyPanel = timeseries.Panel | stat.Panel | bargauge.Panel | heatmap.Panel | table.Panel
Row = tuple[str, Sequence[AnyPanel]]


def board(name: str, title: str, description: str, rows: Sequence[Row], *, last: str = "1h") -> dashboard.Dashboard:
    """A dashboard of metrics. `name` is part of its address, which stays; `last`: how far it looks back."""
    built = _plain(name, title, description, last)
    built.with_variable(dashboard.DatasourceVariable("prometheus").label("Prometheus").type("prometheus"))
    gateways = dashboard.QueryVariable("instance").label("Gateway").datasource(PROMETHEUS).multi(True).include_all(True)
    gateways.query(f"label_values({CALLS.name}, instance)").all_value(".*").current(
        models.VariableOption(True, ["All"], ["$__all"])
    )
    gateways.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    return _filled(built.with_variable(gateways), rows)


def call_board(name: str, title: str, description: str, rows: Sequence[Row], *, last: str = "24h") -> dashboard.Dashboard:
    """A dashboard of the store's rows of one call, chosen in `$call_sid`."""
    built = _plain(name, title, description, last)
    built.with_variable(dashboard.DatasourceVariable("mysql").label("Store").type("mysql"))
    built.with_variable(dashboard.TextBoxVariable("call_sid").label("Call SID").default_value(""))
    return _filled(built, rows)


def as_text(built: dashboard.Dashboard) -> str:
    """The file's content: the same for the same dashboard, keys in the SDK's order."""
    return json.dumps(finished(built), cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"


def finished(built: dashboard.Dashboard) -> models.Dashboard:
    """The dashboard with every panel numbered."""
    whole = built.build()
    for number, panel in enumerate(whole.panels or [], 1):
        panel.id_val = number
    return whole


def as_json(built: dashboard.Dashboard) -> Any:
    """The dashboard as Grafana reads it."""
    return json.loads(as_text(built))


def _plain(name: str, title: str, description: str, last: str) -> dashboard.Dashboard:
    built = dashboard.Dashboard(f"Submilli: {title}").uid(f"submilli-{name}").description(description).tags([TAG])
    built.refresh("30s").time(f"now-{last}", "now").timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR)
    others = dashboard.DashboardLink("Submilli").type(models.DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(False)
    return built.link(others.keep_time(True).include_vars(True))


def _filled(built: dashboard.Dashboard, rows: Sequence[Row]) -> dashboard.Dashboard:
    for title, panels in rows:
        built.with_row(dashboard.Row(title))
        for panel in panels:
            built.with_panel(panel)
    return built

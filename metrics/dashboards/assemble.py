"""Assemble a dashboard from rows of panels: its variables, its links to the others, its panel ids.

Ids are given in the order of the panels, so a link to one panel is valid as long as the order is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders import bargauge, dashboard, heatmap, stat, table, timeseries
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from metrics.dashboards.panels import CHOSEN, PROMETHEUS
from metrics.declare import CALLS, DRAINED, RELOAD_TIME, START_TIME

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
    for annotation in _marks():
        built.annotation(annotation)
    return _with_rows(built.with_variable(gateways), rows)


class _Mark(cog.Builder[models.AnnotationQuery], models.AnnotationQuery):
    """Marks in all curves, from Prometheus. The SDK lacks the keys of this data source.

    Source: `PrometheusAnnotationSupport` of Grafana's Prometheus data source.
    """

    def __init__(self, name: str, colour: str, query: str, *, is_time: bool) -> None:
        """`is_time`: the query's values are times in milliseconds; otherwise each span of values from 1 is marked."""
        super().__init__(name, PROMETHEUS, icon_color=colour, expr=query)
        self._is_time = is_time

    def build(self) -> models.AnnotationQuery:
        return self

    def to_json(self) -> dict[str, object]:
        title = f"{self.name}: {{{{instance}}}}"
        return {**super().to_json(), "useValueForTime": self._is_time, "titleFormat": title, "textFormat": "", "tagKeys": ""}


def _marks() -> list[_Mark]:
    """Return the marks of reloads, restarts and drains. A reload starts control too, and is marked once."""
    start, reload = (f"max by (instance) ({family.name}{{{CHOSEN}}})" for family in (START_TIME, RELOAD_TIME))
    return [
        _Mark("Reload", "blue", f"1000 * ({reload} > 0)", is_time=True),
        _Mark("Restart", "red", f"1000 * ({start} unless on (instance) abs({start} - {reload}) < 60)", is_time=True),
        _Mark("Drained", "orange", f"max by (instance) ({DRAINED.name}{{{CHOSEN}}})", is_time=False),
    ]


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

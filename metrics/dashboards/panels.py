"""Kinds of panel with a common look, and PromQL expressions for histograms.

Prometheus queries use the data source `$prometheus` and the gateways selected in `$instance`; SQL queries use `$mysql`. Each
panel's description explains how to read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from metrics.declare import ConfiguredHistogram, Histogram

PROMETHEUS: Final = models.DataSourceRef(type_val="prometheus", uid="${prometheus}")
MYSQL: Final = models.DataSourceRef(type_val="mysql", uid="${mysql}")
#: The gateways selected in the dashboard: part of every selector.
CHOSEN: Final = 'instance=~"$instance"'
GREEN: Final = "green"
YELLOW: Final = "#EAB839"
RED: Final = "red"

#: Grafana's matcher of a series that is zero at all times, and where it is hidden: its line lies on the axis.
_ALL_ZERO: Final = {"op": "gte", "reducer": "allIsZero", "value": 0}
_FROM_LEGEND: Final = {"legend": True, "tooltip": True, "viz": False}
#: A cell whose text has the colour of its threshold.
_COLOURED: Final = {"type": "color-text"}

#: Grafana's unit of a number with all its digits, in groups of three.
_COUNT: Final = "locale"
#: Each value with the colour used from there; the first has no value.
Steps = Sequence[tuple[float | None, str]]
#: An expression, and the legend of its result.
Query = tuple[str, str]
Panel = TypeVar("Panel", timeseries.Panel, stat.Panel, bargauge.Panel, heatmap.Panel, table.Panel)


class SqlQuery(cog.Builder[variants.Dataquery], variants.Dataquery):
    """Query to Grafana's MySQL data source, for which the SDK has no type. Source: grafana.com/docs, "MySQL query editor"."""

    def __init__(self, sql: str, ref_id: str) -> None:
        self._sql, self._ref_id = " ".join(sql.split()), ref_id

    def build(self) -> variants.Dataquery:
        return self

    def to_json(self) -> dict[str, object]:
        return {
            "refId": self._ref_id,
            "datasource": MYSQL,
            "editorMode": "code",
            "format": "table",
            "rawQuery": True,
            "rawSql": self._sql,
        }


def quantile(
    q: float, histogram: Histogram | ConfiguredHistogram, by: str = "", *, only: str = "", window: str = "$__rate_interval"
) -> str:
    """Return PromQL for a histogram's quantile over all selected gateways.

    `by`: a label to keep. `only`: a further condition on labels.
    """
    labels = f"le, {by}" if by else "le"
    chosen = f"{CHOSEN}, {only}" if only else CHOSEN
    return f"histogram_quantile({q}, sum by ({labels}) (rate({histogram.name}_bucket{{{chosen}}}[{window}])))"


def within(histogram: Histogram, edge: float, by: str = "", window: str = "$__rate_interval") -> str:
    """Return PromQL for the share of observations up to a bucket's edge."""
    if edge not in histogram.bounds:
        raise ValueError(f"{histogram.name} has no bucket edge at {edge}")
    level = f"sum by ({by})" if by else "sum"
    below = f'{level} (increase({histogram.name}_bucket{{{CHOSEN}, le="{edge}"}}[{window}]))'
    return f"{below} / {level} (increase({histogram.name}_count{{{CHOSEN}}}[{window}]))"


def curves(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    span: int = 12,
    height: int = 9,
    line_at: float | None = None,
    log: bool = False,
    stacked: bool = False,
    low: float | None = 0.0,
    high: float | None = None,
    decimals: int | None = None,
) -> timeseries.Panel:
    """Build curves over time. `line_at` draws a red line at the limit of a promise.

    Curves that are zero all the time have no row in the legend and in the tooltip.
    """
    panel = timeseries.Panel().legend(_legend()).tooltip(_all_values()).line_width(1)
    panel.fill_opacity(30 if stacked else 0 if log else 8).show_points(looks.VisibilityMode.NEVER).span_nulls(False)
    panel.color_scheme(_palette())
    panel.with_override(models.MatcherConfig("byValue", _ALL_ZERO), [models.DynamicConfigValue("custom.hideFrom", _FROM_LEGEND)])
    if decimals is not None:
        panel.decimals(decimals)
    if unit == "short":
        panel.axis_soft_max(1)  # draws all-zero data at the bottom instead of on a scale up to 100
    if log:
        panel.scale_distribution(common.ScaleDistributionConfig().type(looks.ScaleDistribution.LOG).log(10))
        low = None
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    if line_at is not None:
        panel.thresholds(_thresholds([(None, "transparent"), (line_at, RED)]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.LINE))
    return _asked(_framed(panel, title, description, span, height).unit(unit), queries)


def number(
    title: str, description: str, query: str, *, unit: str, steps: Steps, span: int = 4, decimals: int | None = None
) -> stat.Panel:
    """Build one number, coloured by thresholds. A count has no decimals."""
    if unit == "short":
        unit, decimals = _COUNT, 0
    panel = numbers(title, description, [(query, "")], unit=unit, steps=steps, span=span)
    panel.text_mode(looks.BigValueTextMode.VALUE)
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def numbers(title: str, description: str, queries: Sequence[Query], *, unit: str, steps: Steps, span: int = 4) -> stat.Panel:
    """Build one number per series of the result, each with its name, coloured by thresholds."""
    panel = stat.Panel().color_mode(looks.BigValueColorMode.VALUE).graph_mode(looks.BigValueGraphMode.NONE)
    panel.reduce_options(_last()).thresholds(_thresholds(steps)).text_mode(looks.BigValueTextMode.VALUE_AND_NAME)
    return _asked(_framed(panel, title, description, span, 4).unit(unit), queries, instant=True)


def bars(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    steps: Steps,
    span: int = 12,
    height: int = 9,
    high: float | None = None,
    decimals: int | None = None,
) -> bargauge.Panel:
    """Build one bar per series of the result. A count has no decimals."""
    if unit == "short":
        unit, decimals = _COUNT, 0
    panel = bargauge.Panel().orientation(looks.VizOrientation.HORIZONTAL).display_mode(looks.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(_last()).thresholds(_thresholds(steps)).min(0).value_mode(looks.BarGaugeValueMode.TEXT)
    if high is not None:
        panel.max(high)
    if decimals is not None:
        panel.decimals(decimals)
    return _asked(_framed(panel, title, description, span, height).unit(unit), queries, instant=True)


def buckets(
    title: str, description: str, histogram: Histogram, *, edge: float, beyond: bool, span: int = 12, height: int = 9
) -> heatmap.Panel:
    """Build a heatmap of a histogram, below or beyond the limit of a promise.

    Grafana cannot draw a line into a heatmap. So two panels are stacked: their border is the limit, and everything in the upper,
    red one broke the promise. The panel expects cumulative buckets; beyond the edge, counting starts at the edge.
    """
    outside = [bound for bound in histogram.bounds if (bound > edge) is beyond]
    chosen = "|".join(str(bound).replace(".", "[.]") for bound in outside) + ("|[+]Inf" if beyond else "")
    query = f'sum by (le) (increase({histogram.name}_bucket{{{CHOSEN}, le=~"{chosen}"}}[$__rate_interval]))'
    if beyond:
        below = f'sum (increase({histogram.name}_bucket{{{CHOSEN}, le="{edge}"}}[$__rate_interval]))'
        query = f"{query} - on () group_left () {below}"
    colour = heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).steps(32)
    colour.scheme("Reds" if beyond else "Greens").scale(heatmap_models.HeatmapColorScale.EXPONENTIAL).exponent(0.4)
    panel = heatmap.Panel().calculate(False).cell_gap(1).color(colour).show_legend().mode(looks.TooltipDisplayMode.SINGLE)
    panel.y_axis(heatmap.YAxisConfig().unit("s").axis_placement(looks.AxisPlacement.LEFT).axis_width(70))
    panel.rows_frame(heatmap.RowsHeatmapOptions().layout(looks.HeatmapCellLayout.LE))
    panel.filter_values(heatmap.FilterValueRange().le(1e-9))
    panel.cell_values(heatmap.CellValues().unit("short"))
    panel.max_data_points(90)
    return (
        _framed(panel, title, description, span, height)
        .datasource(PROMETHEUS)
        .with_target(
            prometheus.Dataquery().expr(query).legend_format("{{le}}").format(PromQueryFormat.HEATMAP).range().ref_id("A")
        )
    )


@dataclass(frozen=True)
class Column:
    """A column of a table of gateways: an expression with one series per gateway. `label`: shown instead of the value."""

    name: str
    query: str
    unit: str = "short"
    decimals: int | None = 0
    steps: Steps = ()
    label: str = ""


def gateways(
    title: str, description: str, columns: Sequence[Column], *, link: str, span: int = 24, height: int = 8
) -> table.Panel:
    """Build a table with a row per gateway. `link`: the URL of a gateway's name."""
    panel = _table().datasource(PROMETHEUS)
    names, hidden = {"instance": "gateway"}, {"Time": True}
    for n, column in enumerate(columns):
        ref_id = chr(ord("A") + n)
        panel.with_target(_table_query(column.query, ref_id))
        if column.label:
            names[column.label], hidden[f"Value #{ref_id}"] = column.name, True
            continue
        names[f"Value #{ref_id}"] = column.name
        properties = [models.DynamicConfigValue("unit", column.unit), models.DynamicConfigValue("decimals", column.decimals)]
        if column.steps:
            steps = [{"value": value, "color": colour} for value, colour in column.steps]
            properties.append(models.DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps}))
            properties.append(models.DynamicConfigValue("custom.cellOptions", _COLOURED))
        panel.override_by_name(column.name, properties)
    panel.override_by_name("gateway", [models.DynamicConfigValue("links", [{"title": "Show its latency", "url": link}])])
    return _framed(_merged(panel, names, hidden), title, description, span, height)


def alerts(title: str, description: str, *, span: int = 24, height: int = 6) -> table.Panel:
    """Build the list of alerts, pending and firing."""
    query = f"max by (severity, alertname, instance, alertstate) (ALERTS{{{CHOSEN}}})"
    panel = _table().datasource(PROMETHEUS).with_target(_table_query(query, "A"))
    names = {"severity": "severity", "alertname": "alert", "instance": "gateway", "alertstate": "state"}
    return _framed(_merged(panel, names, {"Time": True, "Value": True}), title, description, span, height)


def _table_query(expression: str, ref_id: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).format(PromQueryFormat.TABLE).instant().ref_id(ref_id)


def _merged(panel: table.Panel, names: dict[str, str], hidden: dict[str, bool]) -> table.Panel:
    """Join the results by their labels; name and sort the columns."""
    order = {name: n for n, name in enumerate(names)}
    organized = {"excludeByName": hidden, "indexByName": order, "renameByName": names}
    panel.with_transformation(models.DataTransformerConfig("merge", options={}))
    return panel.with_transformation(models.DataTransformerConfig("organize", options=organized))


def _table() -> table.Panel:
    """Build an empty table, whose cells show the whole text."""
    panel = table.Panel().cell_height(looks.TableCellHeight.SM).show_header(True).min_width(80)
    return panel.cell_options(looks.TableAutoCellOptions(wrap_text=True))


def rows(
    title: str,
    description: str,
    sql: str,
    *,
    span: int = 24,
    height: int = 8,
    units: dict[str, str] | None = None,
    widths: dict[str, int] | None = None,
    links: dict[str, tuple[str, str]] | None = None,
    hidden: Sequence[str] = (),
) -> table.Panel:
    """Build a table of an SQL result. Per column: `units`, `widths`, `links` (the title and the URL of its cells), `hidden`."""
    panel = _table()
    for column in hidden:
        panel.override_by_name(column, [models.DynamicConfigValue("custom.hidden", True)])
    for column, unit in (units or {}).items():
        panel.override_by_name(column, [models.DynamicConfigValue("unit", unit)])
    for column, width in (widths or {}).items():
        panel.override_by_name(column, [models.DynamicConfigValue("custom.width", width)])
    for column, (name, url) in (links or {}).items():
        panel.override_by_name(column, [models.DynamicConfigValue("links", [{"title": name, "url": url}])])
    return _framed(panel, title, description, span, height).datasource(MYSQL).with_target(SqlQuery(sql, "A"))


def _framed(panel: Panel, title: str, description: str, span: int, height: int) -> Panel:
    return panel.title(title).description(description).span(span).height(height)


def _asked(panel: Panel, queries: Sequence[Query], *, instant: bool = False) -> Panel:
    panel.datasource(PROMETHEUS)
    for n, (expression, name) in enumerate(queries):
        query = prometheus.Dataquery().expr(expression).legend_format(name or "__auto").ref_id(chr(ord("A") + n))
        panel.with_target(query.instant() if instant else query.range())
    return panel


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
    )


def _palette() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC)


def _legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().display_mode(looks.LegendDisplayMode.TABLE).show_legend(True)
    return legend.placement(looks.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])


def _all_values() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)

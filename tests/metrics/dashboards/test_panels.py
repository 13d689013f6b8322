"""metrics.dashboards.panels: PromQL for histograms, and the JSON of each kind of panel."""

from __future__ import annotations

import json
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from metrics.dashboards import panels
from metrics.dashboards.assemble import AnyPanel
from metrics.declare import TX_LATENESS, TX_SEND

_STEPS: panels.Steps = [(None, panels.GREEN), (1.0, panels.RED)]


def _json(panel: AnyPanel) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(panel.build(), cls=JSONEncoder))
    return document


def _expressions(panel: AnyPanel) -> list[str]:
    return [target["expr"] for target in _json(panel)["targets"]]


def test_a_quantile_sums_all_selected_gateways() -> None:
    expected = 'histogram_quantile(0.99, sum by (le) (rate(gw_tx_send_seconds_bucket{instance=~"$instance"}[5m])))'
    assert panels.quantile(0.99, TX_SEND, window="5m") == expected
    assert "sum by (le, greenlet)" in panels.quantile(0.99, TX_SEND, "greenlet")


def test_a_share_needs_a_bucket_edge() -> None:
    share = panels.within(TX_SEND, 0.001, "instance", window="1h")
    assert share.startswith('sum by (instance) (increase(gw_tx_send_seconds_bucket{instance=~"$instance", le="0.001"}[1h]))')
    with pytest.raises(ValueError, match=r"no bucket edge at 0\.002"):
        panels.within(TX_SEND, 0.002)


def test_a_number_is_an_instant_query_with_thresholds() -> None:
    document = _json(panels.number("Title", "Text.", "up", unit="s", steps=_STEPS, decimals=1))
    assert (document["title"], document["description"]) == ("Title", "Text.")
    assert [(query["expr"], query["instant"]) for query in document["targets"]] == [("up", True)]
    defaults = document["fieldConfig"]["defaults"]
    assert (defaults["unit"], defaults["decimals"]) == ("s", 1)
    assert [step["color"] for step in defaults["thresholds"]["steps"]] == [panels.GREEN, panels.RED]


def test_curves_have_one_range_query_each_and_a_line_at_a_limit() -> None:
    document = _json(panels.curves("Title", "Text.", [("a", "A"), ("b", "")], unit="s", line_at=0.5, high=1.0))
    assert [(query["refId"], query["legendFormat"]) for query in document["targets"]] == [("A", "A"), ("B", "__auto")]
    assert document["fieldConfig"]["defaults"]["max"] == 1.0
    assert document["fieldConfig"]["defaults"]["thresholds"]["steps"][1] == {"value": 0.5, "color": panels.RED}


def test_a_logarithmic_scale_has_no_minimum() -> None:
    assert "min" not in _json(panels.curves("Title", "Text.", [("a", "A")], unit="s", log=True))["fieldConfig"]["defaults"]
    assert _json(panels.curves("Title", "Text.", [("a", "A")], unit="s"))["fieldConfig"]["defaults"]["min"] == 0.0


def test_bars_have_an_optional_maximum() -> None:
    assert "max" not in _json(panels.bars("T", "Text.", [("a", "A")], unit="s", steps=_STEPS))["fieldConfig"]["defaults"]
    assert (
        _json(panels.bars("T", "Text.", [("a", "A")], unit="s", steps=_STEPS, high=2.0))["fieldConfig"]["defaults"]["max"] == 2.0
    )


def test_heatmaps_divide_the_buckets_at_the_limit() -> None:
    (within,) = _expressions(panels.buckets("T", "Text.", TX_LATENESS, edge=0.001, beyond=False))
    (beyond,) = _expressions(panels.buckets("T", "Text.", TX_LATENESS, edge=0.001, beyond=True))
    assert "0[.]001|" not in beyond.split(" - ")[0]
    assert beyond.split(" - ")[0].endswith('[+]Inf"}[$__rate_interval]))')
    assert within.endswith('|0[.]001"}[$__rate_interval]))')
    assert " - on () group_left () " in beyond


def test_a_table_is_one_sql_query_with_overrides_by_column() -> None:
    document = _json(
        panels.rows("T", "Text.", "SELECT  1\n FROM calls", units={"a": "s"}, widths={"a": 80}, links={"b": ("X", "/d/x")})
    )
    (query,) = document["targets"]
    assert query["rawSql"] == "SELECT 1 FROM calls"
    assert query["datasource"]["uid"] == "${mysql}"
    properties = [(one["matcher"]["options"], one["properties"][0]["id"]) for one in document["fieldConfig"]["overrides"]]
    assert properties == [("a", "unit"), ("a", "custom.width"), ("b", "links")]


def test_a_table_of_gateways_joins_its_columns_by_gateway() -> None:
    columns = [
        panels.Column("ready", "max by (instance) (a)", unit="bool_yes_no", steps=_STEPS),
        panels.Column("version", "max by (instance, v) (b)", label="v"),
    ]
    document = _json(panels.gateways("T", "Text.", columns, link="/d/x"))
    assert [(query["refId"], query["format"], query["instant"]) for query in document["targets"]] == [
        ("A", "table", True),
        ("B", "table", True),
    ]
    merge, organize = document["transformations"]
    assert merge["id"] == "merge"
    assert organize["options"]["renameByName"] == {"instance": "gateway", "Value #A": "ready", "v": "version"}
    assert organize["options"]["excludeByName"] == {"Time": True, "Value #B": True}
    assert organize["options"]["indexByName"] == {"instance": 0, "Value #A": 1, "v": 2}


def test_alerts_are_a_table_of_their_labels() -> None:
    document = _json(panels.alerts("T", "Text."))
    assert _expressions(panels.alerts("T", "Text.")) == [
        'max by (severity, alertname, instance, alertstate) (ALERTS{instance=~"$instance"})'
    ]
    assert document["transformations"][1]["options"]["excludeByName"] == {"Time": True, "Value": True}


def test_a_count_has_no_decimals() -> None:
    for panel in (
        panels.number("T", "Text.", "a", unit="short", steps=_STEPS),
        panels.bars("T", "Text.", [], unit="short", steps=_STEPS),
    ):
        assert _json(panel)["fieldConfig"]["defaults"]["decimals"] == 0

"""metrics.dashboards.assemble: variables, links and panel ids of a dashboard."""

from __future__ import annotations

import json
from typing import Any

from metrics.dashboards.assemble import as_text, call_dashboard, metrics_dashboard
from metrics.dashboards.panels import curves, rows


def _panel(title: str) -> Any:
    return curves(title, "Text.", [("up", "")], unit="short")


def test_panels_are_numbered_in_order() -> None:
    built = metrics_dashboard("try", "Try", "Text.", [("One", [_panel("a"), _panel("b")]), ("Two", [_panel("c")])])
    document = json.loads(as_text(built))
    assert [(panel["id"], panel["title"]) for panel in document["panels"]] == [
        (1, "One"),
        (2, "a"),
        (3, "b"),
        (4, "Two"),
        (5, "c"),
    ]


def test_a_dashboard_of_metrics_selects_its_gateways() -> None:
    document = json.loads(as_text(metrics_dashboard("try", "Try", "Text.", [], last="3h")))
    assert (document["uid"], document["title"]) == ("submilli-try", "Submilli: Try")
    assert document["time"] == {"from": "now-3h", "to": "now"}
    assert [variable["name"] for variable in document["templating"]["list"]] == ["prometheus", "instance"]
    assert [link["tags"] for link in document["links"]] == [["submilli"]]


def test_reloads_restarts_and_drains_are_marked() -> None:
    document = json.loads(as_text(metrics_dashboard("try", "Try", "Text.", [])))
    marks = {mark["name"]: mark for mark in document["annotations"]["list"]}
    assert [mark["useValueForTime"] for mark in marks.values()] == [True, True, False]
    assert marks["Reload"]["titleFormat"] == "Reload: {{instance}}"
    assert marks["Drained"]["expr"] == 'max by (instance) (gw_drained{instance=~"$instance"})'


def test_a_dashboard_of_one_call_has_its_sid_as_a_variable() -> None:
    document = json.loads(as_text(call_dashboard("try", "Try", "Text.", [("One", [rows("a", "Text.", "SELECT 1")])])))
    assert [variable["name"] for variable in document["templating"]["list"]] == ["mysql", "call_sid"]


def test_the_text_is_deterministic() -> None:
    texts = {as_text(metrics_dashboard("try", "Try", "Text.", [("One", [_panel("a")])])) for _ in range(3)}
    assert len(texts) == 1

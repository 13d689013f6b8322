"""deploy/grafana: the files match the code, pass the SDK unchanged, and every panel has data."""

import json
import math

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from gw.call.state import Reason, Result, result_of
from metrics.dashboards.__main__ import DASHBOARDS
from metrics.dashboards.assemble import as_text
from tests.dashboards.panels import FOLDER, boards, panels
from tests.deploy import names

BOARDS = boards()
PANELS = {panel.name: panel for panel in panels()}


def test_the_files_match_the_code():
    written = {path.stem: path.read_text() for path in FOLDER.glob("*.json")}
    assert written == {name: as_text(build()) for name, build in DASHBOARDS.items()}, "run `make dashboards`"


@pytest.mark.parametrize("name", BOARDS)
def test_a_file_goes_through_the_sdk_without_losing_a_key(name):
    register_default_plugins()
    read = Dashboard.from_json(BOARDS[name])
    written = json.loads(json.dumps(BOARDS[name]))
    for annotation in written.get("annotations", {}).get("list", []):
        for key in ("useValueForTime", "titleFormat", "textFormat", "tagKeys"):  # Prometheus's, which the SDK lacks
            del annotation[key]
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == written


def test_provisioning_has_the_data_sources_of_the_dashboards():
    found = yaml.safe_load((FOLDER.parent / "provisioning" / "datasources" / "submilli.yml").read_text())["datasources"]
    wanted = {
        variable["query"]
        for board in BOARDS.values()
        for variable in board["templating"]["list"]
        if variable["type"] == "datasource"
    }
    assert {source["type"] for source in found} == wanted
    (provider,) = yaml.safe_load((FOLDER.parent / "provisioning" / "dashboards" / "submilli.yml").read_text())["providers"]
    assert provider["options"]["path"] in (FOLDER.parent / "README.md").read_text()


def test_addresses_ids_and_positions_are_unique():
    assert len({board["uid"] for board in BOARDS.values()}) == len({board["title"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        taken = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24, panel["title"]
            taken |= cells


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_is_described_and_reads_series_that_exist(name):
    panel = PANELS[name]
    assert panel.json["title"]
    assert panel.json["description"].endswith(".")
    assert panel.queries
    if not panel.is_sql:
        for query in panel.queries:
            assert names.read(query["expr"]) or query["expr"].count("ALERTS{") == 1
            assert names.read(query["expr"]) <= names.exposed()
            assert query["expr"].count("{") == query["expr"].count('instance=~"$instance"'), "a selector ignores $instance"


def test_no_two_panels_have_one_title_or_one_content():
    titles = [panel.json["title"] for panel in PANELS.values()]
    contents = [tuple(query.get("expr") or query["rawSql"] for query in panel.queries) for panel in PANELS.values()]
    assert [title for title in titles if titles.count(title) > 1] == []
    assert [content for content in contents if contents.count(content) > 1] == []


@pytest.mark.parametrize("name", [name for name, panel in PANELS.items() if panel.json["type"] == "timeseries"])
def test_curves_have_a_table_of_last_and_max_without_zeros(name):
    panel = PANELS[name].json
    assert panel["options"]["legend"]["displayMode"] == "table"
    assert panel["options"]["legend"]["calcs"] == ["lastNotNull", "max"]
    (hidden,) = (one for one in panel["fieldConfig"]["overrides"] if one["matcher"]["id"] == "byValue")
    assert hidden["matcher"]["options"]["reducer"] == "allIsZero"
    assert hidden["properties"] == [{"id": "custom.hideFrom", "value": {"legend": True, "tooltip": True, "viz": False}}]


@pytest.mark.parametrize("name", [name for name, panel in PANELS.items() if panel.json["type"] in ("stat", "bargauge")])
def test_counts_have_no_decimals(name):
    defaults = PANELS[name].json["fieldConfig"]["defaults"]
    assert defaults["unit"] != "short", "2 K has lost its digits"
    assert defaults["unit"] != "locale" or defaults["decimals"] == 0


def test_lateness_has_one_threshold_and_the_promise_is_green_from_its_objective():
    def steps(name):
        return [step["value"] for step in PANELS[name].json["fieldConfig"]["defaults"]["thresholds"]["steps"]]

    assert steps("latency-04-lateness-p99") == [None, 0.005]
    assert PANELS["latency-12-lateness-over-5-ms"].queries[0]["expr"].count('le="0.005"') == 1
    promise = PANELS["latency-02-frames-within-1-ms"].json["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in promise] == [(None, "red"), (0.999, "green")]


@pytest.mark.parametrize("name", [name for name in BOARDS if name != "call"])
def test_reloads_restarts_and_drains_are_marked(name):
    marks = BOARDS[name]["annotations"]["list"]
    assert [mark["name"] for mark in marks] == ["Reload", "Restart", "Drained"]
    for mark in marks:
        assert names.read(mark["expr"]) <= names.exposed()
        assert mark["expr"].count("{") == mark["expr"].count('instance=~"$instance"')


def test_one_call_has_its_verdict_links_its_recording_and_cuts_nothing():
    panels = {panel.json["title"]: panel.json for name, panel in PANELS.items() if name.startswith("call-")}
    for title in ("Calls, worst first", "Verdict"):
        links = {
            one["matcher"]["options"]: prop["value"][0]["url"]
            for one in panels[title]["fieldConfig"]["overrides"]
            for prop in one["properties"]
            if prop["id"] == "links"
        }
        assert "AS 'verdict'" in panels[title]["targets"][0]["rawSql"]
        assert links["recording"] == "${__data.fields.url}.mp3"
    for title in ("Transcript", "Events", "Answers"):
        assert "LIMIT" not in panels[title]["targets"][0]["rawSql"]
    for panel in panels.values():
        assert panel["fieldConfig"]["defaults"]["custom"]["cellOptions"] == {"type": "auto", "wrapText": True}


def test_every_successful_end_is_normal():
    (query,) = PANELS["calls-04-ended-normally"].queries
    good = [str(reason) for reason in Reason if result_of(reason) is Result.SUCCESS]
    assert query["expr"].count(f'reason=~"{"|".join(good)}"') == 1


def test_a_call_s_recording_has_the_reason_of_its_failure():
    (query,) = (
        query["rawSql"]
        for name, panel in PANELS.items()
        if name.endswith("-recording")
        for query in panel.queries
        if panel.is_sql
    )
    assert {"reason", "error_code", "error_text"} <= set(query.replace(",", " ").split())


@pytest.mark.parametrize("name", PANELS)
def test_every_query_finds_data(name, shown):
    (found,) = (one for one in shown.panels if one["name"] == name)
    for answer in found["answers"]:
        if "rows" in answer:
            assert answer["rows"], "no row"
        else:
            values = [float(value) for series in answer["series"] for _, value in series["values"]]
            assert any(math.isfinite(value) for value in values), "no value"


#: Values that the scene must raise above zero.
@pytest.mark.parametrize(
    "name",
    [
        "latency-07-frames-sent",
        "latency-13-send-within-1-ms",
        "latency-14-lateness-within-5-ms",
        "calls-03-calls-ended",
        "calls-14-ends-by-reason",
        "calls-16-barge-in",
        "turns-04-turns-answered",
        "fleet-08-cpu",
        "fleet-09-memory",
        "fleet-10-descriptors",
        "recording-02-started",
        "recording-03-completed",
        "ai-03-errors",
    ],
)
def test_the_scene_s_events_are_counted(name, shown):
    (found,) = (one for one in shown.panels if one["name"] == name)
    values = [float(value) for answer in found["answers"] for series in answer["series"] for _, value in series["values"]]
    assert max(value for value in values if math.isfinite(value)) > 0


def test_every_rule_is_healthy_and_every_record_has_data(shown):
    assert [rule for rule in shown.rules if rule["health"] != "ok"] == []
    assert [name for name, series in shown.recorded.items() if not series] == []


def test_every_process_counts_its_start(shown):
    assert shown.starts == {"control": 1, "worker": 2}

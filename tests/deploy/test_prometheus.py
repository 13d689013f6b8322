"""deploy/prometheus: promtool accepts it, alerts fire only on their cause, and the runbook is complete."""

import re
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from gw.cli import root
from metrics.declare import FAMILIES
from tests import debian
from tests.dashboards.panels import boards, panels
from tests.deploy import names
from tests.timing import scaled

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
CASES = [Path(__file__).with_name(name) for name in ("alerts_test.yml", "alerts_of_hours_test.yml")]


def _rules(name: str) -> list[dict]:
    return [rule for group in yaml.safe_load((FOLDER / name).read_text())["groups"] for rule in group["rules"]]


RECORDED = _rules("rules.yml")
ALERTS = _rules("alerts.yml")
#: The one series that is Prometheus's own.
_UP = re.compile(r"(absent\()?up\{")


@pytest.mark.parametrize("arguments", [("check", "config", str(FOLDER / "prometheus.yml")), ("test", "rules", *map(str, CASES))])
def test_promtool_accepts_the_files(arguments):
    promtool = debian.unpacked("promtool", "prometheus")
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=scaled(180), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not():
    fires, rests = set(), set()
    for case in [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]:
        instances = set(re.findall(r'instance="(\w)"', str(case["input_series"])))
        for one in case.get("alert_rule_test", []):
            guilty = {alert["exp_labels"].get("instance") for alert in one["exp_alerts"]}
            if guilty:
                fires.add(one["alertname"])
            if instances - guilty:
                rests.add(one["alertname"])
    known = {alert["alert"] for alert in ALERTS}
    assert fires == known
    assert rests == known


def test_the_runbook_has_a_paragraph_for_each_alert_and_no_other():
    written = re.findall(r"^### (\w+)\n\n(\w.+)$", (FOLDER / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert sorted(name for name, _ in written) == sorted(alert["alert"] for alert in ALERTS)


def test_the_runbook_names_only_commands_that_exist():
    named = set(re.findall(r"`gateway\.py ([a-z ]+[a-z])", " ".join((FOLDER / "RUNBOOK.md").read_text().split())))
    assert named
    for words in named:
        command: click.Command | None = root
        for word in words.split():
            assert isinstance(command, click.Group), words
            command = command.get_command(click.Context(command), word)
        assert command is not None, words


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_its_severity_and_its_links(alert):
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("page", "ticket")
    notes, is_absent = alert["annotations"], alert["expr"].startswith("absent(")
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert "$labels.instance" in notes["summary"] or is_absent
    assert re.fullmatch(r"[A-Z0-9].+\.", notes["description"])
    assert notes["runbook_url"] == f"{{{{ $externalLabels.submilli_docs }}}}/RUNBOOK.md#{alert['alert'].lower()}"
    address, _, chosen = notes["dashboard_url"].partition("?")
    assert address.removeprefix("{{ $externalLabels.submilli_grafana }}/d/") in {board["uid"] for board in boards().values()}
    assert chosen == ("" if is_absent else "var-instance={{ $labels.instance | urlquery }}")


def test_the_shipped_configuration_has_the_labels_that_the_links_begin_with():
    labels = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]["external_labels"]
    assert set(labels) == {"submilli_docs", "submilli_grafana"}


@pytest.mark.parametrize("rule", RECORDED + ALERTS, ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_series_a_rule_reads_exists(rule):
    read, recorded = names.read(rule["expr"]), names.recorded(rule["expr"])
    assert read <= names.exposed()
    assert recorded <= {other["record"] for other in RECORDED}
    assert read or recorded or _UP.match(rule["expr"])


def test_every_label_value_in_a_rule_exists():
    known = {value for family in FAMILIES for values in family.labels.values() for value in values}
    for rule in RECORDED + ALERTS:
        for _, operator, wanted in re.findall(r"(\w+)(=~|!=|=)\"([^\"]+)\"", rule["expr"]):
            if _UP.match(rule["expr"]) or re.fullmatch(r"[\d.]+", wanted):
                continue
            for word in wanted.split("|"):
                matches = [value for value in known if re.fullmatch(word, value)]
                assert matches, f"{word!r} in {rule['expr']!r} ({operator}) is not a label value"


def test_a_rule_or_a_panel_reads_every_metric():
    asked = [rule["expr"] for rule in RECORDED + ALERTS]
    asked += [query["expr"] for panel in panels() if not panel.is_sql for query in panel.queries]
    asked += [mark["expr"] for board in boards().values() for mark in board.get("annotations", {}).get("list", [])]
    looked_at = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for one in asked for name in names.read(one)
    }
    there = {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in names.exposed()}
    assert there - looked_at == set()

"""gw.cli.capacity and its model: what calls need, in numbers that can be followed by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from gw.cli.capacity_figures import FIGURES, LIMITS, Figure
from gw.cli.capacity_model import Demand, Part, calls_per_worker, events_per_call, plan, spare, workers
from tests.gw.cli.conftest import CommandLine

ROOT = Path(__file__).resolve().parents[3]
VALUE = {name: figure.value for name, figure in FIGURES.items()}


def part(demand: Demand, name: str, **other: float) -> Part:
    figures = {**FIGURES, **{key: Figure(value, "", "assumed", "this test") for key, value in other.items()}}
    return next(one for one in plan(demand, figures).parts if one.name == name)


def test_one_call_needs_one_of_each():
    made = plan(Demand(1))
    assert (made.machines, made.balancers) == (1, 0)
    assert [one.engine for one in made.parts][2] == "one MariaDB"


def test_a_machine_more_than_is_needed_for_the_one_that_is_away():
    assert [spare(needed) for needed in (1, 2, 50, 51, 100, 101)] == [0, 1, 1, 2, 2, 3]
    demand = Demand(1000, cores=4)
    gateways = part(demand, "gateways").needs
    needed = math.ceil(1000 / gateways["calls_per_machine"])
    assert gateways["machines"] == needed + 1
    assert (gateways["machines"] - 1) * gateways["calls_per_machine"] >= 1000


def test_a_cores_calls_are_those_measured_less_its_webhooks():
    free = {**VALUE, "webhook_worker_cpu_ms": 0.0}
    assert calls_per_worker(Demand(1, load=1.0), free) == VALUE["calls_per_core"]
    assert calls_per_worker(Demand(1, load=0.5), free) == VALUE["calls_per_core"] / 2
    assert calls_per_worker(Demand(1, load=1.0), VALUE) < VALUE["calls_per_core"]
    brief = calls_per_worker(Demand(1, call_s=1.0, load=1.0), VALUE)  # five webhooks each second of a call
    share = VALUE["media_cpu_ms"] / (VALUE["media_cpu_ms"] + 5 * VALUE["webhook_worker_cpu_ms"])
    assert brief == pytest.approx(VALUE["calls_per_core"] * share)


def test_workers_are_what_auto_makes():
    assert [workers(cores) for cores in (1, 2, 3, 4, 16)] == [1, 2, 2, 3, 15]


def test_events_and_rows_follow_the_turns():
    assert events_per_call(Demand(1, call_s=180, turns_per_minute=4), VALUE) == 20  # what the bench's call has
    assert events_per_call(Demand(1, call_s=180, turns_per_minute=0), VALUE) == VALUE["events_beside_turns"]
    store = part(Demand(1800, call_s=180), "store").needs
    assert store["events_per_s"] == 10 * 20
    assert store["gb_per_day"] == round(10 * 86_400 * VALUE["store_bytes_per_call"] / 1e9, 2)


@pytest.mark.parametrize(
    ("calls", "engine"), [(100, "one MariaDB"), (1_000, "MySQL Group Replication"), (100_000, "Vitess, ")], ids=str
)
def test_the_smallest_store_that_carries_it(calls: int, engine: str):
    store = part(Demand(calls), "store")
    assert store.engine.startswith(engine)
    primary = VALUE["store_events_per_s"] * VALUE["store_primary_share"] * 0.7
    assert store.needs["events_per_s"] <= store.needs["shards"] * primary


def test_a_pair_of_balancers_then_many():
    assert part(Demand(1_000), "balancers").engine == "two HAProxy with one address between them (VRRP)"
    many = part(Demand(100_000), "balancers")
    assert "anycast" in many.engine
    assert many.needs["cores"] == round(100_000 * VALUE["haproxy_cpu_ms"] / 1000 / 0.7, 2)
    assert many.needs["machines"] * 4 > many.needs["cores"]


def test_metrics_grow_with_machines_alone():
    assert part(Demand(100_000), "metrics").engine.startswith("one Prometheus")
    long, brief = (part(Demand(5_000, call_s=seconds), "metrics").needs["series"] for seconds in (180.0, 181.0))
    assert long == brief
    assert "federates" in part(Demand(100_000), "metrics", series_per_gateway=7_000).engine
    assert part(Demand(100_000), "metrics", series_per_gateway=50_000).engine.endswith("Mimir")


@pytest.mark.parametrize("name", ["machines", "memory_mb_each", "webhooks_per_s"])
def test_more_calls_never_need_less(name: str):
    seen = [part(Demand(calls, cores=16), "gateways").needs[name] for calls in (10, 100, 1_000, 2_000)]
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "demand", [Demand(0), Demand(10**7), Demand(1, call_s=0), Demand(1, cores=0), Demand(1, load=0), Demand(1, load=1.1)]
)
def test_what_cannot_be_planned_is_refused(demand: Demand):
    with pytest.raises(ValueError, match="wanted"):
        plan(demand)


def test_every_figure_says_where_it_is_from():
    for name, figure in FIGURES.items():
        assert figure.value > 0, name
        assert figure.unit, name
        assert figure.source, name
    used = (ROOT / "gw" / "cli" / "capacity_model.py").read_text()
    assert set(re.findall(r'value\["(\w+)"\]', used)) == set(FIGURES)
    named = {path for figure in FIGURES.values() for path in re.findall(r"(?:tests|deploy)/[\w/.]+\.\w+", figure.source)}
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_command_shows_parts_and_limits(cli: CommandLine):
    shown = cli.run("capacity", "--calls", "500").output
    for words in (
        "gateways: gateway.py serve on 3 machines, [server] machine set on each",
        "balancers: two HAProxy",
        "MySQL Group Replication",
        "20429",
        "60 minutes",
    ):
        assert words in shown
    assert "bench_scale" not in shown
    assert "bench_scale" in cli.run("capacity", "--calls", "500", "--figures").output


def test_the_command_for_a_script(cli: CommandLine):
    told = json.loads(cli.run("capacity", "--calls", "500", "--cores", "8", "--json").stdout)
    assert told["demand"]["cores"] == 8
    assert [one["name"] for one in told["parts"]] == ["gateways", "balancers", "store", "metrics", "outside"]
    assert set(told["figures"]) == set(FIGURES)
    assert len(told["limits"]) == len(LIMITS)
    assert cli.run("capacity", "--calls", "0").exit_code == 2
    assert cli.run("capacity").exit_code == 2

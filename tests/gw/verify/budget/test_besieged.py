"""gw.verify.budget.besieged: strangers beside real calls; their own calls are counted apart."""

from __future__ import annotations

from pathlib import Path

from gw.bench.run import Load, measure_with
from gw.verify.budget.besieged import BesiegedGateway
from gw.verify.budget.judge import judge
from gw.verify.budget.strangers import CONNECTIONS
from tests.program import program


def test_strangers_come_and_are_counted_apart(tmp_path: Path) -> None:
    load = Load(calls=2, seconds=2.0, watched=True, maxima=False)
    gateway = BesiegedGateway(program(), tmp_path, load)
    run = {**measure_with(gateway, gateway, tmp_path, load, lambda step: None).summary(), "strangers": gateway.seen}
    assert not any("lost" in fault for fault in run["broken"])  # a flooding call ends with audio waiting
    seen = gateway.seen
    assert seen["half_open"] == seen["silent"] == CONNECTIONS
    assert seen["pings"] > 0
    assert seen["calls"] == sum(run["ended"].values()) > 0
    assert not seen["not_answered"]
    lines = {line.promise: line for line in judge(run, {"p99.9": 1.0}, quick=True)}
    assert lines["strangers at the door"].holds
    assert lines["calls that ended by themselves"].measured == "0"

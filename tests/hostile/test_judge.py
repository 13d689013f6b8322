"""tests.hostile.judge: each promise is broken alone, and a disturbed machine is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gw.verify.budget.chance import Base, holds_by_chance
from tests.hostile.judge import Round

GOOD = Round(
    name="unsigned",
    seconds=5.5,
    calls=30,
    alive=30,
    base_late_ms=1.0,
    late_ms=1.8,
    far_base_ms=1.1,
    far_late_ms=1.9,
    underruns=0,
    gap_ms=0.0,
    broken_frames=0,
    newcomers_ms=[4.0, 7.0],
    newcomers_lost=[],
    ready_ms=[3.0],
    seen={"403": 1000, "refused": 1000},
    stopped="",
    refused={"no_signature": 990.0, "cut_off": 10.0},
    ended={"caller_hangup": 13.0},
    connections={"head": 0.0},
    holds=60_000,
    long_holds={"tx": 2},
    base=Base(cpu_s=2.5, long_holds=0),
    cpu_s=2.0,
    worst_hold_ms=1.3,
    kernel_sends=2,
    lost_processes=[],
    grown_mb=1.0,
    worker_share=0.3,
    other_share=0.01,
    shared_cores=False,
    load_late_ms={"callers": 0.2, "ai": 0.3},
    log_bytes=4000,
    printed=[],
)


def test_a_good_round_holds() -> None:
    assert GOOD.survived() == GOOD.punctual() == GOOD.void() == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lost_processes": ["worker"]}, "ended: worker"),
        ({"alive": 29}, "1 good calls ended"),
        ({"broken_frames": 3}, "3 frames lost"),
        ({"printed": ["Traceback"]}, "printed 1: Traceback"),
        ({"log_bytes": 40_000}, "logged 7 KB/s"),
        ({"grown_mb": 65.0}, "memory grew by 65 MB"),
        ({"newcomers_lost": ["TimeoutError"]}, "1 newcomers not answered"),
        ({"refused": {"no_signature": 990.0}}, "refused 1000, counted 990"),
    ],
)
def test_what_does_not_survive(changed: dict[str, Any], words: str) -> None:
    (sentence,) = replace(GOOD, **changed).survived()
    assert words in sentence


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"underruns": 1, "gap_ms": 12.0}, "1 underruns, 12 ms"),
        ({"late_ms": None}, "no frame was sent"),
        ({"late_ms": 3.2}, "TX p99 3.2 ms, 1 without"),
        ({"newcomers_ms": [101.0]}, "a newcomer waited 101 ms"),
        ({"ready_ms": [1200.0]}, "/readyz took 1200 ms"),
        ({"long_holds": {"rx": 5, "tx": 2}}, "5 holds over 1 ms, up to 1.3; without an attack 4 at most"),
        ({"long_holds": {"rx": 10}, "base": Base(3.0, 3)}, "10 holds over 1 ms"),
    ],
)
def test_what_is_late(changed: dict[str, Any], words: str) -> None:
    (sentence,) = replace(GOOD, **changed).punctual()
    assert words in sentence


def test_the_machine_lengthens_holds_as_often_as_without_an_attack() -> None:
    assert replace(GOOD, long_holds={"rx": 8}, base=Base(3.0, 3)).punctual() == []
    assert [holds_by_chance(expected) for expected in (0.0, 0.1, 1.0, 10.0)] == [0, 2, 5, 21]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"other_share": 0.3}, "others used 30%"),
        ({"load_late_ms": {"callers": 9.0}}, "callers was late itself"),
        ({"shared_cores": True}, "one core"),
    ],
)
def test_a_disturbed_machine_is_named(changed: dict[str, Any], words: str) -> None:
    (sentence,) = replace(GOOD, **changed).void()
    assert words in sentence

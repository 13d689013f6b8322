"""gw.verify.budget.judge: each promise can fail alone, disturbance is reported, and a quick run judges fewer figures."""

from __future__ import annotations

from typing import Any

import pytest

from gw.verify.budget.judge import Line, judge, kept

GOOD: dict[str, Any] = {
    "tx_send_ms": {"p50": 0.02, "p99": 0.1, "p99.9": 0.3, "max": 0.8},
    "tx_lateness_ms": {"p50": 0.4, "p99": 1.8, "p99.9": 3.0, "max": 6.0},
    "tx_frames": 75_000,
    "hub_cpu_holds_over_1ms": {},
    "hub_holds_over_1ms": {"rx": 6},
    "hub_holds": 120_000,
    "calls": 50,
    "seconds": 30.0,
    "processes": {"worker": {"cpu_ms_per_call_s": 4.0}},  # 6 s of CPU
    "twins": {
        "callers": {"own_steps": {"count": 150_000, "over_1ms": 0, "cpu_s": 3.0}},
        "ai": {"own_steps": {"count": 150_000, "over_1ms": 0, "cpu_s": 3.0}},
    },
    "ended": {"phone_flood": 19},  # the strangers' calls
    "broken": [],
    "void": [],
    "strangers": {
        "half_open": 200,
        "silent": 200,
        "closed": 31,
        "pings": 42_315,
        "calls": 19,
        "slowest_ms": 9.0,
        "not_answered": 0,
    },
}
NOISE = {"p50": 0.06, "p99": 0.3, "p99.9": 1.0, "max": 4.0}


def failed(lines: list[Line]) -> list[str]:
    return [line.promise for line in lines if line.holds is False]


def test_a_good_run_keeps_every_promise() -> None:
    lines = judge(GOOD, NOISE)
    assert failed(lines) == []
    assert kept(lines)
    told = [line.promise for line in lines if line.holds is None]
    assert told == ["hub holds over 1 ms by the clock", "the load's own steps over 1 ms", "this machine's own timer noise, p99.9"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no frame": ({"tx_frames": 0}, "frames were sent"),
    "a call that ended": ({"ended": {"phone_flood": 19, "ai_lost": 1}}, "calls that ended by themselves"),
    "slow sends": ({"tx_send_ms": {**GOOD["tx_send_ms"], "p50": 0.1}}, "TX send, median"),
    "a slow send in a thousand": ({"tx_send_ms": {**GOOD["tx_send_ms"], "p99.9": 1.0}}, "TX send, p99.9"),
    "a hold of ours": ({"hub_cpu_holds_over_1ms": {"ai_in": 1}}, "hub holds over 1 ms by our code"),
    "a hub nobody watched": ({"hub_holds": 0}, "hub holds over 1 ms by our code"),
    "late frames": ({"tx_lateness_ms": {**GOOD["tx_lateness_ms"], "p99.9": 6.5}}, "TX lateness, p99.9, beyond that noise"),
    "no stranger": ({"strangers": {**GOOD["strangers"], "pings": 0}}, "strangers at the door"),
    "a newcomer who waits": ({"strangers": {**GOOD["strangers"], "slowest_ms": 100.0}}, "answer to a signed newcomer, slowest"),
    "a newcomer without an answer": (
        {"strangers": {**GOOD["strangers"], "not_answered": 1}},
        "answer to a signed newcomer, slowest",
    ),
    "a gap": ({"broken": ["40 ms of underrun"]}, "audible gaps"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_promise_fails_alone(name: str) -> None:
    changed, promise = BAD[name]
    lines = judge({**GOOD, **changed}, NOISE)
    assert failed(lines) == [promise]
    assert not kept(lines)


def test_a_missing_measurement_fails() -> None:
    lines = judge({**GOOD, "tx_send_ms": None, "tx_lateness_ms": None}, {})
    assert {"TX send, median", "TX send, p99.9", "TX lateness, p99.9, beyond that noise"} <= set(failed(lines))


def test_timer_noise_is_subtracted_from_lateness() -> None:
    late = {**GOOD, "tx_lateness_ms": {**GOOD["tx_lateness_ms"], "p99.9": 13.0}}
    assert "TX lateness, p99.9, beyond that noise" in failed(judge(late, NOISE))
    noisy = judge(late, {**NOISE, "p99.9": 9.0})
    assert kept(noisy)
    assert "9.000 ms" in [line.measured for line in noisy]


def test_disturbance_excuses_nothing_but_is_named() -> None:
    disturbed = {**GOOD, "void": ["other processes used 30% of the measured core"]}
    lines = judge(disturbed, NOISE)
    assert kept(lines)
    assert lines[-1] == Line("nothing else disturbed the run", disturbed["void"][0], "nothing", None)
    worse = judge({**disturbed, "broken": ["40 ms of underrun"]}, NOISE)
    assert failed(worse) == ["audible gaps", "nothing else disturbed the run"]


def test_holds_are_reported_by_greenlet() -> None:
    lines = judge({**GOOD, "hub_cpu_holds_over_1ms": {"rx": 2, "ai_in": 1}}, NOISE)
    assert "3 of 120000 (ai_in 1, rx 2)" in [line.measured for line in lines]


def test_kernel_time_within_a_send_is_not_counted() -> None:
    buckets = {"edges_s": [0.0001, 0.001, 0.01], "counts": [900, 998, 999, 1000]}
    run = {**GOOD, "hub_cpu_holds_over_1ms": {"tx": 2}, "send_buckets": buckets}
    assert kept(judge(run, NOISE))
    assert failed(judge({**run, "hub_cpu_holds_over_1ms": {"tx": 3}}, NOISE)) == ["hub holds over 1 ms by our code"]
    assert failed(judge({**run, "hub_cpu_holds_over_1ms": {"rx": 1}}, NOISE)) == ["hub holds over 1 ms by our code"]


@pytest.mark.parametrize("quick", [False, True])
def test_the_machine_explains_as_many_holds_as_the_load_had_itself(quick: bool) -> None:
    twins = {**GOOD["twins"], "ai": {"own_steps": {"count": 150_000, "over_1ms": 20, "cpu_s": 3.0}}}  # 20 in 6 s of CPU
    slowed = {**GOOD, "twins": twins}
    within = {**slowed, "hub_cpu_holds_over_1ms": {"rx": 35}}  # 20 expected, and three deviations
    beyond = {**slowed, "hub_cpu_holds_over_1ms": {"rx": 36}}
    assert kept(judge(within, NOISE, quick=quick))
    assert failed(judge(beyond, NOISE, quick=quick)) == ["hub holds over 1 ms by our code"]


def test_a_quick_run_judges_only_figures_immune_to_noise() -> None:
    noisy = {
        **GOOD,
        "tx_send_ms": {**GOOD["tx_send_ms"], "p99.9": 7.0},
        "tx_lateness_ms": {**GOOD["tx_lateness_ms"], "p99.9": 80.0},
        "broken": ["3 underruns"],
        "void": ["the callers twin was late itself"],
    }
    assert kept(judge(noisy, NOISE, quick=True))
    once = {**noisy, "hub_cpu_holds_over_1ms": {"rx": 12}}
    assert kept(judge(once, NOISE, quick=True)), "one in ten thousand is an interrupt's"
    often = {**noisy, "hub_cpu_holds_over_1ms": {"rx": 13}}
    assert failed(judge(often, NOISE, quick=True)) == ["hub holds over 1 ms by our code"]
    assert failed(judge({**noisy, "ended": {"internal_error": 1}}, NOISE, quick=True)) == ["calls that ended by themselves"]

"""tests.faults.scenarios: the same seed gives the same scenario, and lanes and windows are kept."""

from __future__ import annotations

import itertools

import pytest

from tests.faults.acts import ACTS
from tests.faults.scenarios import FAULTS, WINDOW_S, Scenario, again_and_again, short, soak, store_away

LONG = soak("seed", 1800.0)


def test_the_same_seed_is_the_same_scenario() -> None:
    assert soak("seed", 300.0) == soak("seed", 300.0)
    assert soak("seed", 300.0) != soak("other", 300.0)


@pytest.mark.parametrize(
    "scenario", [LONG, short("a"), store_away("a", 30.0), again_and_again("reload", "a", 60.0)], ids=lambda s: s.name
)
def test_strikes_are_sorted_and_end_in_time(scenario: Scenario) -> None:
    assert list(scenario.strikes) == sorted(scenario.strikes, key=lambda strike: strike.at_s)
    assert max(strike.until_s for strike in scenario.strikes) <= scenario.seconds
    assert 0 < scenario.calls[0].at_s <= scenario.calls[-1].at_s < scenario.seconds
    for strike in scenario.strikes:
        assert strike.fault.lasts_s[0] <= strike.lasts_s or scenario.name != "soak"
        assert 0.0 <= strike.pick < 1.0


def test_a_long_soak_meets_every_fault_and_places_its_calls() -> None:
    names = {strike.fault.name for strike in LONG.strikes}
    assert names == set(FAULTS)
    assert 700 < len(LONG.calls) < 1100


def test_no_two_faults_of_the_first_lane_at_a_time() -> None:
    """A worker and control that die together lose their messages in flight, which is permitted."""
    lane = [strike for strike in LONG.strikes if strike.fault.link not in ("ai", "phone")]
    for before, after in itertools.pairwise(lane):
        assert after.at_s >= before.until_s + before.fault.after_s


def test_legs_have_no_fault_in_every_other_window() -> None:
    legs = [strike for strike in LONG.strikes if strike.fault.link in ("ai", "phone")]
    assert legs
    assert not any(int(strike.at_s / WINDOW_S) % 2 for strike in legs)


def test_every_fault_has_an_act() -> None:
    assert {fault.act for fault in FAULTS.values()} == set(ACTS)

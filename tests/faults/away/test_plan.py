"""tests.faults.away.plan: plans depend on the seed alone, and each leave is found at the twin."""

from __future__ import annotations

from collections import Counter

from tests.faults.away.plan import PARTIES, draw_call, draw_kills

PLANS = [draw_call("word", number) for number in range(400)]


def test_a_seed_has_its_calls_and_kills() -> None:
    assert [draw_call("word", number) for number in range(400)] == PLANS
    assert draw_call("other", 7) != PLANS[7]
    assert draw_kills("word", 50) == draw_kills("word", 50) != draw_kills("other", 50)
    assert Counter(kill.role for kill in draw_kills("word", 50)).keys() == {"control", "worker"}


def test_no_party_and_no_digits_come_twice_in_a_call() -> None:
    for plan in PLANS:
        names = [leaving.party or leaving.digits for leaving in plan.leavings]
        assert len(names) == len(set(names)), plan
        assert not any(one in other for one in names for other in names if one is not other), plan


def test_only_the_last_leave_connects_the_caller() -> None:
    assert all(leaving.outcome != "completed" for plan in PLANS for leaving in plan.leavings[:-1])
    assert all(plan.acts[-1] is None or plan.acts[-1] == plan.leavings[-1] for plan in PLANS)


def test_every_party_agent_and_number_of_leaves_occurs() -> None:
    parties = {leaving.party for plan in PLANS for leaving in plan.leavings}
    assert parties == {*PARTIES, ""}
    assert {plan.agent for plan in PLANS} == {"warm", "cold", "slow"}
    assert {len(plan.leavings) for plan in PLANS} == {1, 2, 3, 4}

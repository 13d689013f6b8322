"""The model of the recording reaches the expected steps, and survives every fault."""

from __future__ import annotations

import pytest

from gw.verify.explorer import SURE, Explored, Explorer
from gw.verify.guard.claim_row import RowStore
from gw.verify.guard.model import ALL_FAULTS, GuardModel, Scenario


def scenario(faults: str = "", budget: int = 1, hosts: int = 1) -> Scenario:
    return Scenario("test", frozenset(filter(None, faults.split(","))), budget if faults else 0, hosts)


def explore(rows: RowStore, what: Scenario) -> Explored:
    return Explorer(GuardModel(what, rows), max_states=60_000).run()


def labels(rows: RowStore, what: Scenario) -> set[str]:
    """Every step that is taken somewhere."""
    model = GuardModel(what, rows)
    seen, level, found = {model.first()}, [model.first()], set[str]()
    while level:
        following = []
        for state in level:
            for step in model.steps(state):
                found.add(step.label)
                if step.state not in seen:
                    seen.add(step.state)
                    following.append(step.state)
        level = following
    return found


# -- the whole -------------------------------------------------------------------------------------------------------------


def test_without_faults_everything_holds_in_few_states(rows: RowStore) -> None:
    seen = explore(rows, scenario())
    assert seen.complete
    assert seen.violations == ()
    assert 100 < seen.states < 1000


@pytest.mark.parametrize("fault", sorted(ALL_FAULTS - {"kernel full", "host lost"}))
def test_each_fault_happens_and_is_survived(rows: RowStore, fault: str) -> None:
    """A frame that the kernel does not take makes no new state; a host is lost only if there are two."""
    seen = explore(rows, scenario(fault))
    assert seen.complete
    assert seen.violations == ()
    assert seen.states > explore(rows, scenario()).states


def test_a_lost_host_is_survived_by_the_other(rows: RowStore) -> None:
    seen = explore(rows, scenario("host lost", hosts=2))
    assert seen.violations == ()
    assert "host A is lost permanently" in labels(rows, scenario("host lost", hosts=2))


def test_every_order_of_webhook_and_answer_is_taken(rows: RowStore) -> None:
    model = GuardModel(scenario(), rows)
    state = model.first()
    for wanted in ("first frame", "further chunk", "pool sends", "keeps", "acknowledges", "claims the row", "it is made"):
        state = next(step.state for step in model.steps(state) if wanted in step.label)
    assert {"webhook 'recording 1 in-progress' reaches control", "control has Twilio's answer"} <= {
        step.label for step in model.steps(state) if step.kind == SURE
    }


def test_labels_of_steps(rows: RowStore) -> None:
    taken = labels(rows, scenario("control killed,time-out"))
    for step in (
        "control: the forwarder writes the wish to the store",
        "control: the pass takes the row up",
        "control takes over the claim of A/1",
        "control asks Twilio to create: time-out, but it is made",
        "control asks Twilio to create: time-out, nothing is made",
        "control keeps StartRecording of worker 1, already kept",
        "control is killed",
        "control is back",
    ):
        assert step in taken


def test_time_passes_only_when_no_party_can_act(rows: RowStore) -> None:
    model = GuardModel(scenario(), rows)
    frame = next(step.state for step in model.steps(model.first()) if "first frame" in step.label)
    assert [step.label for step in model.steps(frame) if step.kind == SURE] == ["100 ms pass"]
    turn = next(step.state for step in model.steps(frame) if step.label == "100 ms pass")
    assert [step.label for step in model.steps(turn) if step.kind == SURE] == ["worker 1: AI-out takes its turn"]

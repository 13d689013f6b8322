"""The model of the recording: it reaches what it should, and forgets nothing that counts."""

from __future__ import annotations

import pytest

from gw.verify.guard import check
from gw.verify.guard.claim_row import RowStore
from gw.verify.guard.explorer import SURE, Explored, Explorer
from gw.verify.guard.model import ALL_FAULTS, INVARIANTS, GuardModel, Scenario


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


def test_without_faults_everything_holds_and_little_is_to_be_seen(rows: RowStore) -> None:
    seen = explore(rows, scenario())
    assert seen.complete
    assert seen.violations == ()
    assert 100 < seen.states < 1000


@pytest.mark.parametrize("fault", sorted(ALL_FAULTS - {"kernel full", "host lost"}))
def test_each_fault_happens_and_is_survived(rows: RowStore, fault: str) -> None:
    """A frame the kernel does not take changes nothing, so it makes no state; a host is lost where there are two."""
    seen = explore(rows, scenario(fault))
    assert seen.complete
    assert seen.violations == ()
    assert seen.states > explore(rows, scenario()).states


def test_a_lost_host_is_survived_by_the_other(rows: RowStore) -> None:
    seen = explore(rows, scenario("host lost", hosts=2))
    assert seen.violations == ()
    assert "host A is lost for good" in labels(rows, scenario("host lost", hosts=2))


def test_every_order_of_webhook_and_answer_is_taken(rows: RowStore) -> None:
    model = GuardModel(scenario(), rows)
    state = model.first()
    for wanted in ("first frame", "further chunk", "pool sends", "keeps", "acknowledges", "claims the row", "it is made"):
        state = next(step.state for step in model.steps(state) if wanted in step.label)
    assert {"webhook 'recording 1 in-progress' reaches control", "control has Twilio's answer"} <= {
        step.label for step in model.steps(state) if step.kind == SURE
    }


def test_what_may_happen_is_in_the_words_of_the_house(rows: RowStore) -> None:
    taken = labels(rows, scenario("control killed,time-out"))
    for step in (
        "control: the forwarder brings the wish to the store",
        "control: the pass takes the row up",
        "control takes over the claim of A/1",
        "control asks Twilio to create: time-out, but it is made",
        "control asks Twilio to create: time-out, nothing is made",
        "control keeps StartRecording of worker 1, which it had",
        "control is killed",
        "control is back",
    ):
        assert step in taken


def test_time_passes_only_when_nobody_has_anything_to_do(rows: RowStore) -> None:
    model = GuardModel(scenario(), rows)
    frame = next(step.state for step in model.steps(model.first()) if "first frame" in step.label)
    assert [step.label for step in model.steps(frame) if step.kind == SURE] == ["100 ms pass"]
    turn = next(step.state for step in model.steps(frame) if step.label == "100 ms pass")
    assert [step.label for step in model.steps(turn) if step.kind == SURE] == ["worker 1: AI-out takes its turn"]


# -- the report ------------------------------------------------------------------------------------------------------------


def test_the_report_says_what_holds() -> None:
    report = check.check([scenario(), scenario("21220")])
    document = report.document()
    assert report.holds
    assert document["holds"]
    assert list(document["invariants"]) == list(INVARIANTS)
    assert all(verdict == {"holds": True} for verdict in document["invariants"].values())
    assert document["states"] == sum(one["states"] for one in document["scenarios"])


def test_the_report_says_what_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.media.ai_out.TURN_S", 5.0)
    report = check.check([scenario()])
    document = report.document()
    assert not report.holds
    (broken,) = [verdict for verdict in document["invariants"].values() if not verdict["holds"]]
    assert broken["trace"] == ["worker 1: TX's first frame reaches the kernel", "2 s pass"]


def test_what_was_cut_short_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_STATES", 50)
    report = check.check([scenario()])
    assert not report.holds
    assert not any(verdict["holds"] for verdict in report.document()["invariants"].values())

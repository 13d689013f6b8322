"""The model of the recording: it reaches what it should, forgets nothing that counts, and its parts are the production's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gw.control.recording_course import Claim, Leave, left_behind
from gw.control.recording_rules import Create, List, Settle
from gw.verify import guard
from gw.verify import guard_store as ops
from gw.verify.explore import SURE, Explored, Explorer
from gw.verify.guard_model import ALL_FAULTS, INVARIANTS, GuardModel, Scenario
from gw.verify.guard_parts import NOW_S, Parts, later
from gw.verify.guard_state import NEVER, Hook, State, Stream, at_rest, excused, span
from gw.verify.guard_store import ABSENT, RowStore


@pytest.fixture(scope="module")
def rows() -> Iterator[RowStore]:
    made = RowStore()
    yield made
    made.close()


@pytest.fixture(scope="module")
def parts(rows: RowStore) -> Parts:
    return Parts(rows)


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
        "control: the drainer brings the wish to the store",
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


# -- the parts -------------------------------------------------------------------------------------------------------------


def test_tx_raises_the_flag_for_a_frame_the_kernel_took(parts: Parts) -> None:
    assert parts.send_frame(flag=False, taken=True)
    assert not parts.send_frame(flag=False, taken=False)
    assert parts.send_frame(flag=True, taken=False)


def test_ai_out_asks_on_each_turn_and_at_its_end(parts: Parts) -> None:
    for chunk in (False, True):
        assert parts.turn(flag=True, started=False, room=True, chunk=chunk) == (1, True, 100, False)
        assert parts.turn(flag=False, started=False, room=True, chunk=chunk) == (0, False, 100, False)
        assert parts.turn(flag=True, started=False, room=False, chunk=chunk) == (0, False, 100, False)
        assert parts.turn(flag=True, started=True, room=True, chunk=chunk) == (0, True, 100, False)
    assert parts.last_turn(flag=True, started=False, room=True)[:2] == (1, True)
    assert parts.last_turn(flag=True, started=False, room=False)[:2] == (0, False)


def test_the_bus_tells_an_event_once(parts: Parts) -> None:
    assert parts.fresh(("started", "record"), 1, 0) == ("started", "record")
    assert parts.fresh(("started", "record"), 1, 1) == ("record",)
    assert parts.fresh(("started", "record"), 1, 2) == ()


def test_the_recorder_heeds_a_wish_and_nothing_else_of_a_stream(parts: Parts) -> None:
    course = parts.told(None, "record")
    assert course is not None
    assert (course.act, course.effort.began_s) == (Claim(), NOW_S)
    assert parts.told(course, "record") == course
    assert parts.heeded() == ()
    over = parts.told(course, "over")
    assert over is not None
    assert over.effort.call_over


def test_a_course_goes_by_the_production_rules(parts: Parts) -> None:
    course = parts.told(None, "record")
    assert course is not None
    assert parts.claimed(course, "theirs").act == Leave("duplicate")
    course = parts.claimed(course, "ours")
    assert parts.due(course, True).act == Create()
    assert parts.answered(course, "started RE1").act == Settle("started", "RE1")
    assert parts.answered(course, "time-out").act == List(0.5)
    found = parts.answered(parts.answered(course, "time-out"), ("completed",)).act
    assert isinstance(found, Settle)
    assert found.state == "completed"


def test_a_webhook_is_read_as_production_reads_it(parts: Parts) -> None:
    assert parts.webhook("in-progress", "RE1") == Settle("started", "RE1")
    assert parts.webhook("paused", "RE1") is None


def test_a_pass_does_what_production_does(rows: RowStore, parts: Parts) -> None:
    wanted = rows.apply(ABSENT, ops.Wish()).form
    assert parts.passed((wanted, 0), "A", False, None, ()).course is None
    taken = parts.passed((wanted, 60_000), "A", False, None, ()).course
    assert taken is not None
    assert taken.act == Claim(lists=True)
    claimed = rows.apply(wanted, ops.Claim("A/1")).form
    again = parts.passed((claimed, 0), "A", False, None, ()).course
    assert again is not None
    assert again.act == left_behind(0.0, 30.0, "A/1", create=True).act
    started = rows.apply(claimed, ops.Write(Settle("started", "RE1"))).form
    looked = parts.passed((started, 10_000_000), "A", False, None, ("completed",))
    assert looked.settle is not None
    assert looked.settle.state == "completed"
    going_on = parts.passed((started, 10_000_000), "A", False, None, ("in-progress",))
    assert (going_on.asked, going_on.settle) == (True, None)
    assert not parts.passed((started, 10_000_000), "A", False, going_on.looks, ("completed",)).asked


def test_a_course_grows_old(parts: Parts) -> None:
    course = parts.told(None, "record")
    assert course is not None
    assert later(course, 1500).effort.began_s == NOW_S - 1.5
    assert later(later(course, 10_000_000), 1) == later(course, 10_000_000), "old is old"


# -- the rows --------------------------------------------------------------------------------------------------------------


def test_the_store_says_what_a_row_becomes(rows: RowStore) -> None:
    claimed = rows.apply(ABSENT, ops.Claim("A/1"))
    assert (claimed.done, claimed.moved) == (True, True)
    fields = rows.fields(claimed.form)
    assert fields is not None
    assert (fields["state"], fields["owner"]) == ("claimed", "A/1")
    assert not rows.apply(claimed.form, ops.Claim("B/1")).done
    assert rows.apply(claimed.form, ops.Reclaim("B/1", "A/1")).done
    assert not rows.apply(claimed.form, ops.Reclaim("B/1", "A/2")).done
    assert rows.apply(ABSENT, ops.Write(Settle("started", "RE1"))) == (ABSENT, False, False)


def test_two_ways_to_one_row_are_one_form(rows: RowStore) -> None:
    first = rows.apply(rows.apply(ABSENT, ops.Wish()).form, ops.Claim("A/1")).form
    second = rows.apply(rows.apply(ABSENT, ops.Claim("A/1")).form, ops.Wish()).form
    assert first == second


def test_an_operation_is_tried_once(rows: RowStore) -> None:
    rows.apply(ABSENT, ops.Claim("A/9"))
    tried = rows.tried
    rows.apply(ABSENT, ops.Claim("A/9"))
    assert rows.tried == tried


# -- the states ------------------------------------------------------------------------------------------------------------


def test_a_stream_at_rest_keeps_what_counts() -> None:
    told = Stream(0, phase="ended", heard=True, flag=True, fired=1, outbox=("record",), spooled=1, acked=1)
    assert at_rest(told) == Stream(0, phase="ended", chunks=0, heard=True)
    untold = told._replace(spooled=0, acked=0)
    assert at_rest(untold).outbox == ("record",)
    assert at_rest(told._replace(fired=2)).fired == 2
    assert at_rest(told._replace(phase="open")).flag


def test_an_excuse_ends_the_promise() -> None:
    state = State(1, (Stream(0, due_ms=500),), ())
    assert excused(state).streams[0].due_ms == NEVER
    assert not excused(state._replace(over=True)).excused


def test_times_in_words() -> None:
    assert (span(100), span(1500), span(40_000)) == ("100 ms", "1.5 s", "40 s")


def test_webhooks_have_no_order() -> None:
    assert sorted([Hook("over", 0), Hook("completed", 1)]) == [Hook("completed", 1), Hook("over", 0)]


# -- the report ------------------------------------------------------------------------------------------------------------


def test_the_report_says_what_holds() -> None:
    report = guard.check([scenario(), scenario("21220")])
    document = report.document()
    assert report.holds
    assert document["holds"]
    assert list(document["invariants"]) == list(INVARIANTS)
    assert all(verdict == {"holds": True} for verdict in document["invariants"].values())
    assert document["states"] == sum(one["states"] for one in document["scenarios"])


def test_the_report_says_what_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.media.ai_out.TURN_S", 5.0)
    report = guard.check([scenario()])
    document = report.document()
    assert not report.holds
    (broken,) = [verdict for verdict in document["invariants"].values() if not verdict["holds"]]
    assert broken["trace"] == ["worker 1: TX's first frame reaches the kernel", "2 s pass"]


def test_what_was_cut_short_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_STATES", 50)
    report = guard.check([scenario()])
    assert not report.holds
    assert not any(verdict["holds"] for verdict in report.document()["invariants"].values())

"""gw.control.outbound.service: the pace of the lists, and what Twilio reports, over a real store, jobs and REST twin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

import gw.config
from gw import bus
from gw.control.jobs.dial import DialBody
from gw.control.outbound.service import (
    DELIVER_S,
    IDLE_S,
    LOST_AFTER_S,
    LOST_AT_ONCE,
    MAX_VERDICTS,
    RUN_S,
    TURN_S,
    call_request,
)
from gw.control.store import Store, StoreUnavailable, tables
from gw.control.twilio_api.answers import RestError
from gw.twin.twilio.stream import CallPlan
from tests.gw.control.outbound.rig import Rig
from tests.gw.control.outbound.rows import LIST, line

OTHER = "ba9876543210"
Make = Callable[..., Rig]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Rig] = []

    def make(**rules: Any) -> Rig:
        made.append(Rig(tmp_path, **rules))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def placed(rig: Rig, n: int = 2, attempt: int = 1, **changes: Any) -> str:
    """Have a line's call placed at Twilio, as its job does. Returns the SID."""
    assert rig.lines.claim(LIST, n, attempt, f"dial/{n}", time.time())
    call_sid = rig.service.place(body(rig, n, attempt, **changes))
    assert rig.lines.place(LIST, n, attempt, call_sid)
    return call_sid


def body(rig: Rig, n: int = 2, attempt: int = 1, **changes: Any) -> DialBody:
    row = rig.lines.one(LIST, n) or line(n)
    facts = {"list_id": LIST, "n": n, "attempt": attempt, "to": row.to_number, "caller": "+15557654321", "agent": "default"}
    return DialBody(**{**facts, "account": "", "until": time.time() + 60.0, **changes})


def amd(n: int, call_sid: str, verdict: str, attempt: int = 1) -> bus.Webhook:
    fields = {"dial": f"{LIST}-{n}-{attempt}", "CallSid": call_sid, "AnsweredBy": verdict}
    return bus.Webhook("amd", time.time(), fields)


# -- the whole way --------------------------------------------------------------------------------------------------------


def test_a_list_is_dialled_and_its_ends_are_reported(make: Make) -> None:
    rig = make()
    rig.listed(2, 3, 4)
    rig.start()
    gevent.sleep(0.1)
    assert rig.dialled == {}, "a list runs only on request"
    rig.run()
    rig.until(lambda: rig.lines.progress(LIST).counts == {"placed": 3}, "each line has its call")
    assert rig.dialled == {f"+1555000{n:04d}": 1 for n in (2, 3, 4)}
    assert rig.sid_of(3) == rig.twilio.placed["+15550000003"][0]
    rig.report(2)
    rig.report(3, "completed")
    rig.report(4, "failed", SipResponseCode="404")
    assert [rig.state(n) for n in (2, 3, 4)] == [("waiting", "busy", 1), ("done", "answered", 1), ("done", "failed", 1)]
    assert [(one.line, one.result, one.is_last, one.list_name) for one in rig.ended] == [
        (2, "busy", False, "list.csv"),
        (3, "answered", True, "list.csv"),
        (4, "failed", True, "list.csv"),
    ]
    row = rig.lines.one(LIST, 4)
    assert row is not None and row.detail == "SIP 404"
    on_disk = rig.spool.transact(lambda db: db.execute("SELECT COUNT(*) FROM jobs WHERE kind LIKE 'event%'").fetchone())
    assert on_disk == (3,), "the reports wait on disk for their endpoint"


def test_a_number_that_was_not_reached_is_dialled_again(make: Make) -> None:
    rig = make(retries=1, retry_after_s=0.0)
    rig.listed(2)
    rig.start()
    rig.run()
    rig.until(lambda: rig.state(2)[0] == "placed", "the first dial")
    rig.report(2)
    rig.until(lambda: rig.state(2)[::2] == ("placed", 2), "the second dial")
    rig.report(2, attempt=2)
    gevent.sleep(0.1)
    assert (rig.state(2), rig.dialled) == (("done", "busy", 2), {"+15550000002": 2})


# -- turns ----------------------------------------------------------------------------------------------------------------


def test_lists_take_turns_at_one_pace(make: Make) -> None:
    rig = make(calls_per_s=4.0)
    rig.listed(2, 3)
    rig.listed(5, 6, list_id=OTHER)
    assert rig.turn() == IDLE_S, "no list runs"
    rig.run()
    rig.run(OTHER)
    rig.service._turn()
    first_s = rig.service._next_s
    rig.service._turn()
    assert rig.service._next_s >= first_s + 1 / 4.0
    rig.service._next_s = time.monotonic() + 60.0
    assert rig.service._turn() > 0.0
    assert len(rig.wanted()) == 2, "the third one's time has not come"
    for _ in range(2):
        rig.turn()
    assert rig.wanted() == [f"{LIST}-2-1", f"{OTHER}-5-1", f"{LIST}-3-1", f"{OTHER}-6-1"]
    assert rig.turn() == IDLE_S, "each line has its dial"


def test_dials_under_way_are_limited(make: Make) -> None:
    rig = make(concurrent=2)
    rig.listed(2, 3, 4, 5)
    rig.run()
    placed(rig, 2)
    rig.turn()
    rig.turn()
    assert rig.wanted() == [f"{LIST}-3-1"], "one is at Twilio, one waits for its turn"
    rig.report(2)
    rig.turn()
    assert rig.wanted() == [f"{LIST}-3-1", f"{LIST}-4-1"]


def test_a_dial_without_a_turn_is_counted_for_a_while(make: Make) -> None:
    rig = make(concurrent=1)
    rig.listed(2)
    rig.run()
    rig.turn()
    rig.turn()
    assert rig.wanted() == [f"{LIST}-2-1"]
    rig.service._waiting[LIST, 2] -= TURN_S + 1.0
    rig.turn()
    assert rig.wanted() == [f"{LIST}-2-1"] * 2, "the line is due, and one job will claim it"
    rig.service.on_turn(body(rig))
    assert rig.service._waiting == {}


def test_a_gateway_that_takes_no_call_dials_none(make: Make) -> None:
    rig = make()
    rig.listed(2)
    rig.run()
    rig.refusal = "drained by an operator"
    assert rig.turn() == IDLE_S
    assert (rig.wanted(), rig.service.problem) == ([], "drained by an operator")
    rig.refusal = ""
    rig.turn()
    assert rig.wanted() == [f"{LIST}-2-1"]


def test_no_line_is_dialled_outside_the_hours_of_its_zone(make: Make) -> None:
    opens = datetime.now(UTC) + timedelta(hours=2)
    rig = make(hours=f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M}")
    rig.listed(2)
    rig.lines.add([line(3, zone="Etc/GMT-2")])  # two hours ahead: its hours have begun
    rig.run()
    rig.turn()
    assert rig.wanted() == [f"{LIST}-3-1"]
    row = rig.lines.one(LIST, 2)
    assert row is not None
    assert 0.0 < row.next_at - time.time() <= 2 * 3600.0


def test_a_list_stops_without_its_command(make: Make) -> None:
    rig = make()
    rig.listed(2)
    assert not rig.service.keep(LIST)
    rig.run()
    rig.service._running[LIST].until_s -= RUN_S / 2
    assert rig.service.keep(LIST)
    assert rig.service._running[LIST].until_s > time.monotonic() + RUN_S - 1.0
    rig.service._running[LIST].until_s = time.monotonic() - 0.1
    rig.turn()
    assert (rig.service.keep(LIST), rig.wanted(), rig.service.why_stopped(LIST)) == (False, [], "")


def test_failures_in_a_row_stop_a_list(make: Make) -> None:
    rig = make(stop_at_failures=2)
    rig.listed(2, 3, 4, 5, 6)
    rig.run()
    for n, status in ((2, "failed"), (3, "busy"), (4, "failed")):
        placed(rig, n)
        rig.report(n, status)
        assert rig.service.keep(LIST), "a dial between that did not fail begins the count anew"
    placed(rig, 5)
    rig.report(5, "failed")
    assert not rig.service.keep(LIST)
    assert rig.service.why_stopped(LIST) == "2 dials in a row failed (outbound.stop_at_failures)"
    rig.run()
    assert rig.service.why_stopped(LIST) == ""
    rig.service.end(LIST)
    assert (rig.service.keep(LIST), rig.service.why_stopped(LIST)) == (False, "")


def test_the_lists_wait_for_a_store_that_is_away(make: Make, tmp_path: Path) -> None:
    rig = make()
    rig.listed(2)
    away = Store(gw.config.Store(url="mysql+pymysql://nobody@127.0.0.1:9/none", connect_timeout_s=0.5), "")
    service = rig.made(away)
    row = rig.lines.one_list(LIST)
    assert row is not None
    service.run(row)
    service.start()
    rig.until(lambda: service.problem != "", "the list waits")
    with pytest.raises(StoreUnavailable):
        service.on_stored(bus.Webhook("status", time.time(), {"dial": f"{LIST}-2-1", "CallSid": "CA1", "CallStatus": "busy"}))
    assert service.keep(LIST)
    service.stop()
    away.close()


def test_the_greenlets_outlive_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.control.outbound.service.LOST_EVERY_S", 0.01)
    rig = make()
    rig.listed(2, 3)
    long_placed(rig, 3)
    asked: list[bool] = []

    def refuse() -> str:
        asked.append(True)
        if len(asked) == 1:
            raise RuntimeError("unknown")
        return ""

    unknown = {"claimed": [RuntimeError("unknown"), StoreUnavailable("away")]}
    in_state = rig.lines.in_state

    def fail_twice(state: Any, before: float, limit: int) -> list[Any]:
        if unknown.get(state):
            raise unknown[state].pop()
        return in_state(state, before, limit)

    monkeypatch.setattr(rig.lines, "in_state", fail_twice)
    monkeypatch.setattr(rig.service, "_refusal", refuse)
    rig.start()
    rig.run()
    rig.until(lambda: rig.state(2)[0] == "placed", "it is dialled by the next turn")
    rig.until(lambda: rig.state(3)[0] == "waiting", "its end is found by a later look")
    assert unknown == {"claimed": []}


# -- Twilio's answers -----------------------------------------------------------------------------------------------------


def test_a_refused_dial_is_done(make: Make) -> None:
    rig = make(stop_at_failures=1)
    rig.listed(2)
    rig.twilio.rest.fail("21220", operation="call_create")
    rig.start()
    rig.run()
    rig.until(lambda: rig.state(2) == ("done", "rejected", 1), "the refusal is stored")
    assert rig.service.problem.startswith("Twilio did not place a call: ")
    assert not rig.service.keep(LIST)
    (ended,) = rig.ended
    assert (ended.result, ended.status, ended.call_sid, ended.is_last) == ("rejected", "", "", True)


def test_a_dial_that_twilio_does_not_list_is_unknown(make: Make) -> None:
    rig = make()
    rig.listed(2)
    assert rig.lines.claim(LIST, 2, 1, "dial/2", time.time())
    row = rig.lines.one(LIST, 2)
    assert row is not None
    rig.service.on_lost(row)
    assert (rig.state(2), rig.ended) == (("unknown", None, 1), [])
    rig.report(2, CallSid="CA1")
    assert rig.state(2) == ("waiting", "busy", 1), "Twilio had it"


def test_the_call_of_a_lost_answer_is_found_and_no_other(make: Make) -> None:
    rig = make()
    rig.listed(2)
    since = time.time()
    former, mine = rig.service.place(body(rig)), rig.service.place(body(rig))
    assert rig.service.find(body(rig, former_sid=former), since) == mine
    placed(rig, attempt=1)
    assert rig.service.find(body(rig, former_sid=former), since) == mine
    rig.report(2, attempt=1)
    rig.lines.claim(LIST, 2, 2, "dial/2", since)
    rig.lines.place(LIST, 2, 2, mine)
    rig.lines.add([line(3)])
    assert rig.service.find(body(rig, 3), since) == "", "Twilio lists no call to this number"


def test_an_account_that_is_not_configured_is_an_error(make: Make) -> None:
    rig = make()
    with pytest.raises(RestError, match="'west' is not configured"):
        rig.service.place(body(rig, account="west"))
    assert rig.dialled == {}


def test_an_account_whose_circuit_is_open_is_not_asked(make: Make) -> None:
    rig = make()
    account = rig.accounts.named("")
    assert account is not None
    rig.twilio.rest.fail("503", 1000, operation="call_create")
    for _ in range(50):
        with pytest.raises(RestError):
            rig.service.place(body(rig))
        if account.breaker.is_open:
            break
    asked = len(rig.twilio.rest.requests)
    with pytest.raises(RestError) as error:
        rig.service.place(body(rig))
    assert (error.value.kind, len(rig.twilio.rest.requests)) == ("unreachable", asked)


def test_a_call_names_its_dial_in_every_url(make: Make) -> None:
    config = make(ring_s=20).config
    request = call_request(config, f"{LIST}-2-1", "+15550000002", "+1555", "sales", {"name": "Ann Lee"}, amd=True)
    assert request.url == f"https://voice.example.com/twilio/voice?agent=sales&dial={LIST}-2-1&var_name=Ann+Lee#rc=2&rp=all"
    assert request.status_url == f"https://voice.example.com/twilio/status?dial={LIST}-2-1#rc=2&rp=all"
    assert request.amd_url == f"https://voice.example.com/twilio/amd?dial={LIST}-2-1#rc=2&rp=all"
    assert request.ring_s == 20
    assert call_request(config, "x", "+1", "+1", "sales", {}, amd=False).amd_url == ""


# -- webhooks -------------------------------------------------------------------------------------------------------------


def test_a_report_that_is_repeated_late_or_anothers_changes_nothing(make: Make) -> None:
    rig = make()
    rig.listed(2)
    sid = placed(rig)
    rig.report(2, "ringing")
    rig.report(2, CallSid="CA" + "0" * 32)
    rig.report(9, CallSid=sid)
    assert (rig.state(2), rig.ended) == (("placed", None, 1), [])
    rig.report(2)
    rig.report(2)
    assert rig.lines.claim(LIST, 2, 2, "dial/2", time.time())
    rig.report(2, attempt=1, CallSid=sid)
    assert (rig.state(2), len(rig.ended)) == (("claimed", None, 2), 1)
    for event in (bus.Webhook("voice", 0.0, {"dial": f"{LIST}-2-2"}), bus.Webhook("status", 0.0, {"CallStatus": "busy"})):
        rig.service.on_stored(event)
    assert rig.state(2) == ("claimed", None, 2)


def test_a_report_may_come_before_twilios_answer(make: Make) -> None:
    rig = make()
    rig.listed(2)
    assert rig.lines.claim(LIST, 2, 1, "dial/2", time.time())
    rig.report(2, "no-answer", CallSid="CA1")
    assert (rig.state(2), rig.sid_of(2)) == (("waiting", "no-answer", 1), "CA1")


def test_a_report_that_cannot_be_acted_on_blocks_nothing(make: Make) -> None:
    rig = make()
    rig.listed(2)
    placed(rig)
    rig.service._events = lambda ended: 1 // 0  # type: ignore[assignment, return-value]
    rig.report(2)
    assert rig.state(2) == ("placed", None, 1), "the look for lost dials will settle it"


def test_a_single_calls_end_is_reported(make: Make) -> None:
    rig = make()
    fields = {"dial": "call-0123456789ab", "CallSid": "CA1", "CallStatus": "completed", "To": "+1", "From": "+2"}
    rig.service.on_event(bus.Webhook("amd", 1.0, {"dial": fields["dial"], "CallSid": "CA1", "AnsweredBy": "machine_end_beep"}))
    rig.service.on_stored(bus.Webhook("status", 7.0, fields))
    (ended,) = rig.ended
    assert (ended.dial, ended.call_sid, ended.at, ended.to, ended.caller) == ("call-0123456789ab", "CA1", 7.0, "+1", "+2")
    assert (ended.result, ended.answered_by, ended.line, ended.list_name, ended.is_last) == (
        "machine",
        "machine_end_beep",
        0,
        "",
        True,
    )


def test_dials_of_a_list_that_was_removed_are_settled_and_not_reported(make: Make) -> None:
    rig = make()
    rig.listed(2, 3, 4)
    placed(rig, 2)
    long_placed(rig, 3)
    assert rig.lines.claim(LIST, 4, 1, "dial/4", time.time() - AGO)
    rig.store._backend.write(lambda connection: connection.execute(tables.dial_lists.delete()))
    rig.report(2)
    assert (rig.state(2), rig.ended) == (("waiting", "busy", 1), [])
    rig.service.look_for_lost(time.time())
    assert [rig.state(n)[0] for n in (3, 4)] == ["placed", "claimed"], "nothing is known of the account to ask"
    assert rig.wanted() == []


# -- verdicts about machines ----------------------------------------------------------------------------------------------


def test_a_verdict_reaches_the_worker_and_the_line(make: Make) -> None:
    rig = make()
    rig.listed(2)
    sid = placed(rig)
    rig.service.on_event(amd(2, sid, "machine_end_beep"))
    rig.service.on_stored(amd(2, sid, "machine_end_beep"))
    assert rig.verdicts == [(sid, "machine_end_beep")]
    rig.service.on_stored(amd(2, sid, "human"))
    row = rig.lines.one(LIST, 2)
    assert row is not None and row.answered_by == "machine_end_beep", "the first verdict stays"
    rig.report(2, "completed")
    assert rig.state(2) == ("done", "machine", 1)


def test_a_verdict_of_an_earlier_process_is_delivered(make: Make) -> None:
    rig = make()
    rig.listed(2)
    sid = placed(rig)
    rig.service.on_stored(amd(2, sid, "fax"))
    assert rig.verdicts == [(sid, "fax")]


def test_a_verdict_waits_for_the_calls_worker_for_a_while(make: Make) -> None:
    rig = make()
    rig.has_call = False
    for sid in ("CA1", "CA2"):
        rig.service.on_event(amd(2, sid, "human"))
    rig.turn()
    assert rig.verdicts == []
    rig.service._undelivered["CA2"] -= DELIVER_S + 1.0
    rig.turn()
    rig.has_call = True
    rig.turn()
    rig.turn()
    assert rig.verdicts == [("CA1", "human")]


def test_verdicts_are_bounded(make: Make) -> None:
    rig = make()
    rig.has_call = False
    for n in range(MAX_VERDICTS + 5):
        rig.service.on_event(amd(2, f"CA{n}", "human"))
    single = bus.Webhook("amd", 1.0, {"dial": "call-0123456789ab", "CallSid": "CA9", "AnsweredBy": "human"})
    rig.service.on_stored(single)  # no line has it
    for event in (amd(2, "", "human"), amd(2, "CA", ""), bus.CallEvent("CA", "keys", 1.0, {})):
        rig.service.on_event(event)
    assert len(rig.service._verdicts) == len(rig.service._undelivered) == MAX_VERDICTS
    assert "CA4" not in rig.service._verdicts and "CA5" in rig.service._verdicts


# -- dials without an end -------------------------------------------------------------------------------------------------

AGO = LOST_AFTER_S + 10.0


def long_placed(rig: Rig, n: int = 2) -> str:
    """Have a call that was placed long ago, and of which no webhook came."""
    assert rig.lines.claim(LIST, n, 1, f"dial/{n}", time.time() - AGO)
    sid = rig.service.place(body(rig, n))
    assert rig.lines.place(LIST, n, 1, sid)
    return sid


def test_a_call_without_a_webhook_is_looked_up(make: Make) -> None:
    rig = make()
    rig.listed(2, 3)
    ended = long_placed(rig)
    rig.twilio.callee = CallPlan(ring_s=60.0)
    long_placed(rig, 3)
    assert rig.twilio.calls[ended].wait(10.0)
    rig.twilio.calls[ended].answered_by = "human"
    rig.service.look_for_lost(time.time())
    assert [rig.state(n) for n in (2, 3)] == [("waiting", "busy", 1), ("placed", None, 1)], "the other still rings"
    row = rig.lines.one(LIST, 2)
    assert row is not None and row.answered_by == "human"
    asked = len(rig.twilio.rest.requests)
    rig.service.look_for_lost(time.time())
    assert len(rig.twilio.rest.requests) == asked, "a look at a call comes once in a while"
    rig.service._looked_s[LIST, 3] -= LOST_AFTER_S + 1.0
    rig.service.look_for_lost(time.time())
    assert len(rig.twilio.rest.requests) == asked + 1


def test_a_call_that_twilio_has_deleted_has_failed(make: Make) -> None:
    rig = make()
    rig.listed(2, 3)
    sid = long_placed(rig)
    assert rig.twilio.calls.pop(sid).wait(10.0)
    long_placed(rig, 3)
    rig.twilio.rest.fail("503", 10, call_sid=rig.sid_of(3), operation="call_fetch")
    rig.service.look_for_lost(time.time())
    assert [rig.state(n) for n in (2, 3)] == [("done", "failed", 1), ("placed", None, 1)], "no answer decides nothing"


def test_a_claim_without_an_answer_is_looked_up_by_its_job(make: Make) -> None:
    rig = make()
    rig.listed(2, 3)
    rig.run()
    rig.turn()
    (job_id,) = rig.spool.transact(lambda db: db.execute("SELECT id FROM jobs").fetchone())
    assert rig.lines.claim(LIST, 2, 1, job_id, time.time() - AGO)
    assert rig.lines.claim(LIST, 3, 1, "dial/gone", time.time() - AGO)
    rig.service.look_for_lost(time.time())
    rows = dict(rig.spool.transact(lambda db: db.execute("SELECT id, body FROM jobs").fetchall()))
    assert rows.keys() == {job_id, "dial/gone"}
    asked = {key: msgspec.json.decode(text, type=DialBody).is_asked for key, text in rows.items()}
    assert asked == {job_id: False, "dial/gone": True}, "an open job goes on; another one only looks"
    assert rig.dialled == {}


def test_a_look_takes_some_lines_at_a_time(make: Make) -> None:
    rig = make()
    numbers = range(2, 2 + LOST_AT_ONCE + 3)
    rig.listed(*numbers)
    for n in numbers:
        assert rig.lines.claim(LIST, n, 1, f"dial/{n}", time.time() - AGO)

    def jobs() -> int:
        return len(rig.wanted())

    rig.service.look_for_lost(time.time())
    assert jobs() == LOST_AT_ONCE
    rig.service.look_for_lost(time.time())
    assert jobs() == LOST_AT_ONCE + 3

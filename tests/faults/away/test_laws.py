"""tests.faults.away.laws: each law holds for a good record and is broken by its fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.away.laws import LAWS, NEAR_S, SILENCE_S, CallLine, Dial, Killed, Record, Takeover, Wish, gaps, judge
from tests.faults.away.plan import NUMBERS, Leaving

#: Declined, digits, then connected: silent for two seconds at most.
CALL = CallLine(
    number=1,
    call_sid="CA1",
    span=(0.0, 30.0),
    ended="connected",
    filled=[(1.0, 10.0), (8.0, 20.0), (22.0, 30.0)],
    wishes=[
        Wish(Leaving("declines"), ["declined", "declined"]),
        Wish(Leaving(digits="1001#"), ["sent"]),
        Wish(Leaving("accepts"), []),
    ],
    dials=[Dial(NUMBERS["declines"], "declined"), Dial(NUMBERS["accepts"], "completed")],
    tones="ww1001#",
    takeovers=[Takeover(["a", "b"], ["before", "a", "b"])],
)


def good() -> Record:
    return Record(calls=[CALL], kills=[Killed(9.0, "worker")])


def recorded_twice(record: Record) -> None:
    record.calls = [replace(CALL, recorded=2)]


def never_recorded(record: Record) -> None:
    record.calls = [replace(CALL, recorded=0)]


def silent_for_long(record: Record) -> None:
    record.calls = [replace(CALL, filled=[*CALL.filled[:2], (20.0 + SILENCE_S + 0.1, 30.0)])]


def silent_at_the_start(record: Record) -> None:
    record.calls = [replace(CALL, span=(-2.1, 30.0))]


def silent_at_the_end(record: Record) -> None:
    record.calls = [replace(CALL, span=(0.0, 33.1))]


def dialled_twice(record: Record) -> None:
    record.calls = [replace(CALL, dials=[CALL.dials[0], *CALL.dials])]


def sent_twice(record: Record) -> None:
    record.calls = [replace(CALL, tones="ww1001#ww1001#")]


def learnt_nothing(record: Record) -> None:
    record.calls = [replace(CALL, wishes=[Wish(Leaving("declines"), []), *CALL.wishes[1:]])]


def learnt_nothing_of_digits(record: Record) -> None:
    record.calls = [replace(CALL, wishes=[CALL.wishes[0], Wish(Leaving(digits="1001#"), [])])]


def learnt_wrongly(record: Record) -> None:
    record.calls = [replace(CALL, wishes=[Wish(Leaving("declines"), ["declined", "busy"]), *CALL.wishes[1:]])]


def forgotten(record: Record) -> None:
    record.calls = [replace(CALL, takeovers=[Takeover(["a", "b"], ["b"])])]


def restated_twice(record: Record) -> None:
    record.calls = [replace(CALL, takeovers=[Takeover(["a", "b"], ["a", "b", "b"])])]


def restated_out_of_sequence(record: Record) -> None:
    record.calls = [replace(CALL, takeovers=[Takeover(["a", "b"], ["b", "a"])])]


def gave_up(record: Record) -> None:
    record.calls = [replace(CALL, ended="gave_up")]


def ended_by_the_gateway(record: Record) -> None:
    record.calls = [replace(CALL, ended="ended by gateway")]


def request_failed_without_a_kill(record: Record) -> None:
    record.calls, record.kills = [replace(CALL, ended="ended by Twilio", request_failed=True)], [Killed(30.0, "control")]


def open_in_the_store(record: Record) -> None:
    record.calls = [replace(CALL, is_open=True)]


def complained(record: Record) -> None:
    record.calls = [replace(CALL, complaints=["12100 no TwiML"])]


def bench_failed(record: Record) -> None:
    record.errors = ["the gateway did not come to rest"]


NAMES = list(LAWS)
RECORDED, SILENT, DOUBLED, LEARNS, CONTINUES, ENDS, TWINS, BENCH = NAMES
FAULTS: dict[Callable[[Record], None], str] = {
    recorded_twice: RECORDED,
    never_recorded: RECORDED,
    silent_for_long: SILENT,
    silent_at_the_start: SILENT,
    silent_at_the_end: SILENT,
    dialled_twice: DOUBLED,
    sent_twice: DOUBLED,
    learnt_nothing: LEARNS,
    learnt_nothing_of_digits: LEARNS,
    learnt_wrongly: LEARNS,
    forgotten: CONTINUES,
    restated_twice: CONTINUES,
    restated_out_of_sequence: CONTINUES,
    gave_up: ENDS,
    ended_by_the_gateway: ENDS,
    request_failed_without_a_kill: ENDS,
    open_in_the_store: ENDS,
    complained: TWINS,
    bench_failed: BENCH,
}


@pytest.mark.parametrize(
    ("streams_s", "away_s", "is_excused"),
    [
        ([9.0, 12.0], 4.6, True),
        ([9.0, 12.0], 2.0, False),
        ([9.0], 9.0, False),
        ([9.0, 9.1], 9.0, False),
        ([9.0, 15.0], 4.0, False),
    ],
)
def test_a_call_that_returned_to_a_control_that_stayed_away_continues_without(
    streams_s: list[float], away_s: float, is_excused: bool
) -> None:
    record = good()
    record.kills = [Killed(10.8, "control", away_s=away_s)]
    lost = replace(CALL, streams_s=streams_s, wishes=[Wish(Leaving("declines"), []), *CALL.wishes[1:]])
    record.calls = [replace(lost, takeovers=[Takeover(["a", "b"], [])])]
    assert [bool(judge(record)[law]) for law in (LEARNS, CONTINUES)] == [not is_excused] * 2
    record.calls = [replace(lost, wishes=[Wish(Leaving("declines"), ["busy"])], takeovers=[Takeover(["a", "b"], ["b"])])]
    assert all(judge(record)[law] for law in (LEARNS, CONTINUES)), "a wrong outcome and half a memory are never excused"


def test_a_good_record_breaks_no_law() -> None:
    assert judge(good()) == {name: [] for name in LAWS}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_breaks_its_law(fault: Callable[[Record], None]) -> None:
    record = good()
    fault(record)
    assert [name for name, broken in judge(record).items() if broken] == [FAULTS[fault]]


def test_a_call_that_never_left_its_stream_may_be_short_and_unrecorded() -> None:
    record = Record(calls=[replace(CALL, span=(0.0, 3.0), filled=[], wishes=[], dials=[], tones="", recorded=0, ended="hung_up")])
    assert not any(judge(record).values())


def test_twilios_request_dies_with_the_worker_that_had_it() -> None:
    record = good()
    record.calls = [replace(CALL, ended="ended by Twilio", request_failed=True)]
    record.kills = [Killed(29.5, "worker")]
    assert not any(judge(record).values())


def test_a_call_whose_worker_died_as_it_began_is_not_known() -> None:
    record = good()
    unknown = CallLine(2, "CA2", span=(8.8, 10.0), ended="ended by gateway", recorded=0, is_open=True)
    record.calls.append(unknown)
    assert not any(judge(record).values())
    record.calls[1] = replace(unknown, span=(8.0, 10.0))
    assert judge(record)[ENDS]


def test_the_machine_may_keep_a_restarted_process_waiting() -> None:
    record = good()
    silent_for_long(record)
    record.kills = [Killed(20.0 - NEAR_S - 0.1, "control", 9.0), Killed(19.0, "control", 0.05)]
    assert judge(record)[SILENT]
    record.kills[1] = Killed(19.0, "control", 0.2)
    assert not any(judge(record).values())


def test_gaps() -> None:
    assert gaps((0.0, 10.0), [(4.0, 6.0), (1.0, 5.0)]) == [(0.0, 1.0), (6.0, 10.0)]
    assert gaps((2.0, 5.0), [(0.0, 9.0)]) == []
    assert gaps((2.0, 5.0), [(6.0, 9.0)]) == [(2.0, 5.0)]

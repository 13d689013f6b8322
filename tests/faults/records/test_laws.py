"""tests.faults.records.laws: each law holds on a sound ledger, and each can be violated."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from gw.call.cost.usage import KINDS
from tests.faults.records.laws import HEALTHY_S, LAWS, RECOVERED_S, answered_s, judge, totals
from tests.faults.records.ledger import CallLine, Census, Ledger, StoreReturn, Struck
from tests.faults.records.report import draw, print_tables, write_ledger
from tests.faults.run import machine_faults

AUDIO = Struck("phone reset", "phone", ["audio"], 50.0, 50.0, "connections [3]")
USED = {"stream_sid": "MZ", **dict.fromkeys(KINDS, 2)}
REST = Struck("REST 503", "rest", ["rest"], 1.0, 4.0)


def line(number: int, placed_s: float = 0.0, lasts_s: float = 10.0) -> CallLine:
    sid, recording = f"CA{number}", f"RE{number}"
    return CallLine(
        number=number,
        call_sid=sid,
        placed_s=placed_s,
        ended_s=placed_s + lasts_s,
        streamed=True,
        closed_by="gateway",
        close_reason="ai_hangup",
        received_bytes=1600,
        received_sha="same",
        heard_bytes=1600,
        recordings=1,
        recording_sids=[recording],
        starts=1,
        said_bytes=1600,
        said_sha="same",
        said_all=True,
        requested_s=placed_s + 0.5,
        row={"stream_sid": "MZ", "first_audio_at": 1.0, "ended_at": 2.0, "reason": "ai_hangup", "used": [USED]},
        recording={"recording_sid": recording, "state": "completed", "error_text": None},
        quality={"frames_sent": 10},
    )


def sent_of(number: int, first: int) -> list[list[object]]:
    kinds = ["CallStarted", "FirstAudio", "StartRecording", "Turn", "CallEnded", "CallEvent", "Webhook", "Usage"]
    parts = {"Turn": "1", "Usage": "MZ 12", "CallEnded": "ai_hangup", "CallEvent": "dtmf", "Webhook": "webhook_status"}
    return [["i", first + k, kind, f"CA{number}", parts.get(kind, ""), 0, 1.0] for k, kind in enumerate(kinds)]


def sound() -> Ledger:
    """Return a ledger of three calls; the last met a broken leg and ended early."""
    calls = [line(1), line(2, 20.0), line(3, 45.0)]
    calls[2].close_reason, calls[2].received_bytes, calls[2].received_sha = "", 800, "half"
    calls[2].row = {**(calls[2].row or {}), "reason": "phone_lost"}
    sent = [*sent_of(1, 1), *sent_of(2, 9), *sent_of(3, 17)]
    sent[20][4] = "phone_lost"
    return Ledger(
        "test",
        "a",
        60.0,
        0.0,
        [REST, AUDIO],
        calls,
        sent,
        {"turns": [[f"CA{n}", "1"] for n in (1, 2, 3)], "events": [["i", n] for n in (6, 7, 14, 15, 22, 23)]},
        returns=[StoreReturn(5.0, 10, 1.0)],
        census=[Census("worker", 7, 20, 20, 9, 9)],
    )


def test_a_sound_ledger_breaks_no_law() -> None:
    assert judge(sound()) == {law.name: [] for law in LAWS}
    counted = totals(sound())
    assert (counted["calls placed"], counted["calls a fault met"], counted["calls judged byte for byte"]) == (3, 2, 2)


def test_a_resumed_call_whose_worker_dies_loses_no_event() -> None:
    """Its row has the end of the last stream, which no worker sent."""
    ledger = sound()
    ledger.calls[2].row = {**(ledger.calls[2].row or {}), "reason": "worker_lost"}
    assert judge(ledger)["no event lost"] == []


def _call(n: int, **changes: object) -> Callable[[Ledger], None]:
    def change(ledger: Ledger) -> None:
        for name, value in changes.items():
            setattr(ledger.calls[n], name, value)

    return change


def _whole(**changes: object) -> Callable[[Ledger], None]:
    def change(ledger: Ledger) -> None:
        for name, value in changes.items():
            setattr(ledger, name, value)

    return change


def _row(table: str, **changes: object) -> Callable[[Ledger], None]:
    def change(ledger: Ledger) -> None:
        getattr(ledger.calls[1], table).update(changes)

    return change


def _late(ledger: Ledger) -> None:
    """Kill the second call's worker at 21 s, and end the call at 24 s."""
    ledger.struck.append(Struck("worker killed", "process", ["audio"], 21.0, 21.0, calls=[2]))
    ledger.calls[1].row = {**(ledger.calls[1].row or {}), "reason": "worker_lost", "ended_at": 24.0}


def _ai_fault(ledger: Ledger) -> None:
    """End the last call by a single fault of the AI."""
    ledger.struck[1] = Struck("AI reset", "ai", ["audio"], 50.0, 50.0)
    ledger.calls[2].row = {**(ledger.calls[2].row or {}), "reason": "ai_lost"}


def _unsent(n: int) -> Callable[[Ledger], None]:
    def change(ledger: Ledger) -> None:
        del ledger.sent[n]

    return change


NEVER_RECORDED = _call(1, recordings=0, recording_sids=[], starts=0, recording={"state": "failed", "error_text": "x"})


@pytest.mark.parametrize(
    ("law", "change"),
    [
        ("no duplicate", _call(1, recordings=2, recording_sids=["RE2", "RE9"])),
        ("no duplicate", _call(1, starts=2)),
        ("none missing", NEVER_RECORDED),
        ("no event lost", _whole(stored={"turns": [], "events": [["i", n] for n in (6, 7, 14, 15, 22)]})),
        ("no event lost", lambda ledger: ledger.stored["events"].pop()),
        ("no event lost", _row("row", first_audio_at=None)),
        ("no event lost", _row("row", stream_sid=None)),
        ("no event lost", _row("row", used=[USED | {"text_in": 1}])),
        ("no event lost", _row("row", reason="worker_lost")),
        ("no event lost", lambda ledger: ledger.sent.append(["i", 25, "CallStarted", "CA9", "", 0, 1.0])),
        ("no gap", _unsent(3)),
        ("nothing open", _row("row", ended_at=None)),
        ("nothing open", _whole(open_recordings=[{"call_sid": "CA1", "state": "wanted"}])),
        ("nothing open", _whole(backlog=1)),
        ("nothing open", _whole(poison=1)),
        ("nothing open", _call(0, over=False)),
        ("nothing open", _call(0, row=None)),
        ("rows are true", _row("recording", recording_sid="RE9")),
        ("rows are true", _row("recording", state="failed")),
        ("rows are true", _call(1, recordings=0, recording_sids=[])),
        ("true reasons", _row("row", reason="internal_error")),
        ("true reasons", _row("row", reason="ai_lost")),
        ("true reasons", _row("row", reason="worker_lost")),
        ("true reasons", lambda ledger: ledger.calls[2].row.update(reason="ai_lost")),
        ("lost in time", _late),
        ("leg replaced", _ai_fault),
        ("audio whole", _call(1, received_sha="other")),
        ("audio whole", _call(1, received_bytes=3200)),
        ("audio whole", _call(1, close_reason="ai_stalled")),
        ("audio whole", _call(1, streamed=False)),
        ("audio whole", _call(1, legs_lost=1)),
        ("audio whole", _call(1, error="ValueError: x")),
        ("audio whole", _row("quality", frames_sent=9)),
        ("no underrun", _call(1, underrun_60_ms=20.0)),
        ("caught up", _whole(returns=[StoreReturn(5.0, 10, 31.0)])),
        ("caught up", _whole(returns=[StoreReturn(5.0, 10, None)])),
        ("no leak", _whole(left_processes=[7])),
        ("no leak", _whole(census=[Census("worker", 7, 60, 20, 9, 9)])),
        ("no leak", _whole(census=[Census("worker", 7, 20, 20, 60, 9)])),
        ("bench sound", _whole(bench_errors=["it failed"])),
    ],
)
def test_each_law_can_be_broken(law: str, change: Callable[[Ledger], None]) -> None:
    ledger = copy.deepcopy(sound())
    change(ledger)
    assert judge(ledger)[law]


def test_a_permitted_effect_breaks_no_law() -> None:
    ledger = sound()
    ledger.calls[2].underrun_60_ms = 900.0
    assert not judge(ledger)["no underrun"]
    assert not judge(ledger)["audio whole"]
    ledger.calls[1].underrun_60_ms = ledger.calls[1].allowed_ms = 40.0
    assert not judge(ledger)["no underrun"]


def test_a_fault_of_single_calls_excuses_no_other() -> None:
    ledger = sound()
    ledger.calls[1].received_sha = "other"
    ledger.struck = [Struck("AI reset", "ai", ["audio"], 21.0, 21.0, calls=[3])]
    assert [sentence[:3] for sentence in judge(ledger)["audio whole"]] == ["CA2"]
    ledger.struck[0].calls = None
    assert not [sentence for sentence in judge(ledger)["audio whole"] if sentence.startswith("CA2")]


def test_a_stall_of_the_machine_is_an_excuse() -> None:
    began_s = 100.0
    stalls = [(121.0, 0.2), (122.0, 1.5), (123.0, 0.6), (160.0, 0.7)]
    found = machine_faults(stalls, began_s)
    assert [(round(one.from_s, 1), round(one.to_s, 1)) for one in found] == [(20.5, 23.6), (59.3, 60.7)]
    ledger = sound()
    ledger.calls[1].row = {**(ledger.calls[1].row or {}), "reason": "phone_silent"}
    ledger.returns = [StoreReturn(15.0, 10, 31.0)]
    ledger.struck += found
    assert not judge(ledger)["true reasons"] + judge(ledger)["caught up"]


def test_the_longest_undisturbed_time_counts() -> None:
    ledger = sound()
    ledger.struck = []
    assert answered_s(ledger, ledger.calls[0]) == (9.5, False)
    ledger.struck = [REST]
    assert answered_s(ledger, ledger.calls[0]) == (5.5, True)
    ledger.struck = [REST, Struck("control killed", "process", ["rest"], 3.0, 3.0)]
    assert answered_s(ledger, ledger.calls[0]) == (1.0, True)
    NEVER_RECORDED(ledger)
    ledger.calls[1].ended_s = ledger.calls[1].placed_s + 0.5 + HEALTHY_S - 0.1
    assert not judge(ledger)["none missing"]
    ledger.calls[0].recordings, ledger.calls[0].ended_s = 0, 4.5 + RECOVERED_S
    ledger.struck = [REST]
    assert judge(ledger)["none missing"]


def test_a_ledger_is_written_printed_and_drawn(tmp_path: Path) -> None:
    ledger = sound()
    ledger.calls[1].starts = 2
    write_ledger(ledger, tmp_path / "ledger.json")
    whole = json.loads((tmp_path / "ledger.json").read_text())
    assert whole["broken"]["no duplicate"] and whole["calls"][0]["call_sid"] == "CA1"
    draw(ledger, tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
    console = Console(record=True, width=140)
    print_tables(ledger, console)
    assert "CA2: 2 starts granted" in console.export_text()

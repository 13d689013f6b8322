"""gw.cli.calls.findings: each finding with its cause, the verdict, and the timeline."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gw.cli.calls.findings import Finding, event_sentence, findings, timeline, verdict
from gw.control.rows import CallDetails, EventRow

Row = dict[str, Any]

BEGAN = 1_795_300_000.0

QUALITY: Row = {
    "frames_sent": 500,
    "frames_expected": 500,
    "send_p50_s": 0.00001,
    "send_p99_s": 0.00004,
    "send_p999_s": 0.0001,
    "send_max_s": 0.0002,
    "lateness_p50_s": 0.0001,
    "lateness_p99_s": 0.0005,
    "lateness_p999_s": 0.001,
    "lateness_max_s": 0.002,
    "underrun_ms": 0,
    "dropped_frames": {},
    "uplink_dropped_frames": {},
    "bargeins": 0,
    "first_audio_ms": 640,
    "ai_first_audio_ms": 400,
    "hub_hold_max_s": 0.0008,
}
RECORDING: Row = {
    "call_sid": "CA1",
    "state": "completed",
    "recording_sid": "RE1",
    "trigger_ms": 60,
    "attempts": 1,
    "reason": None,
    "error_code": None,
    "error_text": None,
    "claimed_at": BEGAN + 1.8,
    "started_at": BEGAN + 1.9,
}


def _call(*, quality: Row | None = None, recording: Row | None = None, **facts: Any) -> CallDetails:
    row = {
        "call_sid": "CA1",
        "stream_sid": "MZ1",
        "agent": "default",
        "from_number": "+15550001",
        "to_number": "+15550002",
        "started_at": BEGAN,
        "answered_at": BEGAN + 1.0,
        "first_audio_at": BEGAN + 1.64,
        "ended_at": BEGAN + 60.0,
        "reason": "caller_hangup",
        "result": "success",
        "detail": "",
        "host": "vm1",
        "worker": 0,
        "turns": [_turn(1, "agent", 600), _turn(2, "caller", 2000), _turn(3, "agent", 4000)],
        "events": [],
        "quality": QUALITY | (quality or {}),
        "recording": RECORDING | (recording or {}),
        **facts,
    }
    return msgspec.convert(row, type=CallDetails)


def _turn(n: int, role: str, start_ms: int, text: str = "Hello there.", heard_ms: int | None = None) -> Row:
    cut = heard_ms is not None
    return {"call_sid": "CA1", "n": n, "role": role, "text": text, "start_ms": start_ms, "interrupted": cut, "heard_ms": heard_ms}


def _wait(at_s: float, ms: int, **parts: int) -> Row:
    return _event("answered", at_s, ms=ms, item="i1", agent="default", **{"tool_ms": 0, "gateway_ms": 0, **parts})


def _event(kind: str, at_s: float, **data: Any) -> Row:
    return {"kind": kind, "at": BEGAN + 1.0 + at_s, "data": data, "instance": "w0", "n": 1}


def _of(call: CallDetails, about: str) -> Finding:
    (found,) = (finding for finding in findings(call) if finding.about == about)
    return found


def test_a_good_call() -> None:
    said = findings(_call())
    assert {finding.weight for finding in said} == {"good"}
    assert verdict(_call(), said) == "No sign of bad audio on the gateway's side."


@pytest.mark.parametrize(
    ("quality", "because"),
    [
        ({"hub_hold_max_s": 0.085}, "held for 85 ms"),
        ({"lateness_max_s": 0.3}, "up to 300 ms late without a sampled hold of the worker"),
        ({}, "the AI's audio arrived too slowly"),
    ],
)
def test_a_gap_has_its_cause(quality: Row, because: str) -> None:
    call = _call(quality={"underrun_ms": 340} | quality)
    found = _of(call, "gaps")
    assert found.weight == "bad"
    assert "340 ms of silence" in found.sentence
    assert because in found.sentence
    assert verdict(call, findings(call)) == "The caller had cause for complaint: gaps."


@pytest.mark.parametrize(
    ("facts", "about", "weight", "piece"),
    [
        ({"quality": {"first_audio_ms": 3100, "ai_first_audio_ms": 2900}}, "slow greeting", "bad", "AI took 2.9 s"),
        ({"quality": {"first_audio_ms": None, "frames_sent": 0}}, "silence", "bad", "no frame was sent"),
        ({"answered_at": BEGAN + 4.5}, "slow start", "bad", "4.5 s after its webhook"),
        ({"quality": {"lateness_p99_s": 0.03}}, "late frames", "odd", "30 ms late"),
        ({"quality": {"lateness_p99_s": 0.03, "underrun_ms": 20}}, "late frames", "bad", "30 ms late"),
        ({"quality": {"frames_sent": 1000, "lateness_p999_s": 0.03}}, "late frames", "odd", "0.1 % of the frames"),
        (
            {"quality": {"frames_sent": 1000, "send_p999_s": 0.0023}},
            "slow sends",
            "odd",
            "0.1 % of the sends took at least 2.30 ms",
        ),
        ({"quality": {"frames_sent": 999, "send_max_s": 0.0023}}, "slow sends", "odd", "The longest send took 2.30 ms"),
        ({"quality": {"frames_sent": 999}}, "sends", "good", "the longest 0.20 ms"),
        ({"quality": {"frames_sent": 1000}}, "sends", "good", "p99.9 0.10 ms"),
        ({"quality": {"hub_hold_max_s": 0.05}}, "a held worker", "odd", "buffer covered it"),
        ({"quality": {"dropped_frames": {"overrun": 100}}}, "cut speech", "bad", "2.00 s"),
        ({"quality": {"uplink_dropped_frames": {"overrun": 50}}}, "lost words", "bad", "1.00 s of the caller's words"),
        ({"quality": {"dropped_frames": {"call_ended": 50}}, "reason": "phone_lost"}, "unheard end", "odd", "1.00 s"),
        ({"reason": "ai_refused", "result": "peer_error", "detail": "401"}, "the end", "bad", "key, quota or model (401)."),
        ({"reason": "duration_limit"}, "the end", "odd", "media.max_call_s"),
        (
            {"recording": {"state": "failed", "attempts": 4, "reason": "busy", "error_code": 20429}},
            "recording",
            "bad",
            "after 4 tries",
        ),
        ({"recording": {"state": "claimed"}}, "recording", "odd", "unfinished"),
        ({"recording": {"trigger_ms": 900}}, "recording", "odd", "900 ms after the first audio"),
        ({"events": [_event("resumed", 9, n=1)]}, "lost worker", "bad", "on another stream once: the worker died"),
        ({"events": [_event("resumed", 9, n=1, after="phone_lost")]}, "lost stream", "bad", "on another stream once"),
        ({"events": [_event("ai_error", 9, code="bad_tool", message="no")]}, "AI error", "odd", "bad_tool: no"),
        ({"events": [_event("ai_unreadable", 9, code="bad_json", detail="cut")]}, "AI event", "odd", "skipped. (cut)"),
        ({"events": [_event("response_failed", 9, detail="server_error")]}, "broken answer", "bad", "(server_error)"),
        ({"events": [_event("ai_leg_replaced", 9, reason="expiring")]}, "AI session", "good", "during a pause"),
        ({"events": [_event("ai_leg_lost", 9, reason="ai_lost", detail="")]}, "AI leg lost", "bad", "It was not replaced"),
        ({"events": [_event("answer_failed", 9)]}, "failed answer", "bad", "requested again"),
        ({"events": [_event("answer_failed", 9)] * 3}, "failed answer", "bad", "It happened 3 times"),
        ({"events": [_event("session_lost", 9)]}, "AI session", "odd", "check the network"),
        ({"events": [_event("fallback: ai_refused", 9)]}, "fallback", "bad", "key, quota and model"),
        ({"events": [_event("goodbye_taken_back", 9)]}, "goodbye", "odd", "call continued"),
        ({"events": [_event("budget_near", 9)]}, "budget", "odd", "nearly spent"),
        ({"reason": "budget"}, "the end", "odd", "a limit of [budget]"),
        ({"events": [_event("tool_repeated", 9)]}, "tools", "odd", "answered once"),
        ({"events": [_event("unreadable", 9)]}, "AI event", "odd", "update the gateway"),
        ({"events": [_event("dead_air", 9, ms=5001)]}, "dead air", "bad", "once, for up to 5.0 s"),
        (
            {"events": [_event("dead_air", 9, ms=5050), _event("dead_air", 19, ms=5100)]},
            "dead air",
            "bad",
            "twice, for up to 5.1 s",
        ),
        ({"events": [_event("dead_air", 9, ms=5100)]}, "the end", "odd", "caller_hangup"),
        ({"turns": [_turn(1, "agent", 600), _turn(2, "caller", 900, "")]}, "transcription", "odd", "spoke once without"),
        ({"turns": [_turn(1, "agent", 600)]}, "a silent caller", "odd", "No word of the caller"),
        (
            {"turns": [_turn(1, "caller", 600, "Are you there?"), _turn(2, "agent", 9600)]},
            "slow answer",
            "odd",
            '9.0 s, after "Are you',
        ),
        (
            {"events": [_wait(9, 700, ai_ms=700), _wait(19, 2900, pause_ms=500, ai_ms=2400), _wait(29, 900, ai_ms=900)]},
            "answers",
            "good",
            "at most 2.90 s for an answer (voice detection 0.50 s, AI 2.40 s); half of the 3 answers came within 0.90 s.",
        ),
        (
            {"events": [_wait(9, 3100, ai_ms=300, tool_ms=2800)], "turns": [_turn(1, "caller", 600), _turn(2, "agent", 9600)]},
            "slow answer",
            "odd",
            "at most 3.10 s for an answer (AI 0.30 s, tools 2.80 s).",
        ),
    ],
)
def test_a_finding_and_its_figure(facts: Row, about: str, weight: str, piece: str) -> None:
    found = _of(_call(**facts), about)
    assert found.weight == weight
    assert piece in found.sentence


def test_a_wait_that_was_not_measured_is_not_mentioned() -> None:
    call = _call(events=[_wait(9, 0), _wait(19, 3, gateway_ms=3)])
    assert [finding for finding in findings(call) if finding.about in ("answers", "slow answer")] == []
    assert not any("answer began" in moment.sentence for moment in timeline(call))


def test_a_detail_that_repeats_the_reason_is_left_out() -> None:
    sentence = _of(_call(reason="ai_hangup", detail="the agent hung up"), "the end").sentence
    assert sentence == "The call ended as ai_hangup: the agent hung up after its goodbye was played."


def test_an_interruption_has_the_heard_part() -> None:
    call = _call(quality={"bargeins": 6}, turns=[_turn(1, "agent", 600, heard_ms=900), _turn(2, "caller", 1500)])
    sentence = _of(call, "interruptions").sentence
    assert '6 times: "Hello there." after 900 ms.' in sentence
    assert "echo" in sentence


def test_a_turn_of_which_nothing_was_heard_is_not_quoted() -> None:
    turns = [_turn(1, "agent", 600, heard_ms=900), _turn(2, "agent", 1500, heard_ms=0), _turn(3, "caller", 1600)]
    sentence = _of(_call(quality={"bargeins": 1}, turns=turns), "interruptions").sentence
    assert sentence == 'The caller interrupted the agent once: "Hello there." after 900 ms.'


def test_a_lost_ai_leg_has_its_downtime() -> None:
    events = [_event("ai_leg_lost", 10, reason="ai_stalled", detail="x"), _event("ai_leg_replaced", 12.5, reason="stalled")]
    assert _of(_call(events=events), "AI leg lost").sentence.endswith("(x) It was replaced 2.5 s later.")


def test_a_missing_recording_is_odd_only_for_a_call_that_was_heard() -> None:
    call = msgspec.structs.replace(_call(), recording=None)
    assert _of(call, "recording").weight == "odd"
    call = msgspec.structs.replace(call, first_audio_at=None)
    assert not [finding for finding in findings(call) if finding.about == "recording"]


def test_figures_that_were_not_measured_give_no_finding() -> None:
    call = msgspec.structs.replace(_call(reason="worker_lost", result="own_error"), quality=None)
    assert {finding.about for finding in findings(call)} == {"the end", "recording"}
    live = msgspec.structs.replace(_call(reason=None, result=None, ended_at=None), quality=None)
    assert verdict(live, findings(live)).startswith("The call is live")
    call = msgspec.structs.replace(call, reason="caller_hangup", result="success")
    assert verdict(call, findings(call)).startswith("The call has no quality report")


def test_a_tool_that_failed_is_named_with_its_status() -> None:
    statuses = ("ok", "timeout", "timeout", "cancelled")
    found = findings(_call(events=[_event("tool_called", 3.0, tool="lookup", status=status, ms=1) for status in statuses]))
    (sentence,) = (finding.sentence for finding in found if finding.about == "tools")
    assert sentence == "The tool lookup gave no result twice: timeout. Try it with `tools try lookup`."


def test_a_failed_tool_of_an_mcp_server_is_not_tried_here() -> None:
    event = _event("tool_called", 3.0, tool="find", id="mcp/item_1", status="unavailable", ms=1)
    found = findings(_call(events=[event, _event("mcp_list_failed", 1.0)]))
    first, second = (finding.sentence for finding in found if finding.about == "tools")
    assert "The tool find gave no result once: unavailable. Look into the log of its MCP server." in (first, second)
    assert any("could not list the tools of an MCP server" in sentence for sentence in (first, second))


def test_the_worst_finding_is_first() -> None:
    said = findings(_call(quality={"underrun_ms": 40, "bargeins": 1}))
    assert [finding.weight for finding in said] == sorted((finding.weight for finding in said), key=("bad", "odd", "good").index)


def test_the_timeline_is_chronological_and_begins_before_the_answer() -> None:
    moments = timeline(_call(events=[_event("keys", 3.0, count=3)]))
    assert [moment.at_s for moment in moments] == sorted(moment.at_s for moment in moments)
    assert [moment.what for moment in moments] == [
        "call",
        "stream",
        "agent",
        "first audio",
        "recording",
        "recording",
        "caller",
        "event",
        "agent",
        "end",
    ]
    assert moments[0].at_s == -1.0
    assert moments[7].sentence == "the caller pressed [3 keys]"


def test_no_stream_is_shown_where_none_began() -> None:
    call = _call(stream_sid=None, first_audio_at=None, reason="no_stream", ended_at=BEGAN + 1.0)
    assert "stream" not in [moment.what for moment in timeline(call)]


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        ("ai_leg_lost", {"reason": "ai_lost", "detail": "reset"}, "the AI leg was lost: the AI's socket broke (reset)"),
        ("ai_leg_replaced", {"reason": "expiring"}, "the AI leg was replaced, because the old session was about to expire"),
        ("tool_call", {"name": "hang_up", "id": "call_1"}, "the AI calls hang_up"),
        ("tool_called", {"tool": "lookup", "status": "timeout", "ms": 8004}, "tool lookup: timeout after 8004 ms"),
        ("mcp_approval", {"name": "find", "approved": True}, "the MCP tool find was approved"),
        ("mcp_approval", {"name": "drop", "approved": False}, "the MCP tool drop was not approved"),
        ("mcp_list_failed", {}, "the tools of an MCP server could not be listed"),
        ("resumed", {"n": 2}, "the call resumed on another stream, number 2"),
        ("resumed", {"n": 2, "after": "transferred"}, "the call is back with the agent, on stream 3"),
        ("leaving", {"tool": "transfer", "target": "sales"}, "the call leaves its stream: transfer sales"),
        ("leaving", {"tool": "send_digits", "target": ""}, "the call leaves its stream: send_digits"),
        ("transfer_accepted", {"key": "k"}, "the callee accepted the transfer"),
        ("transfer_ended", {"target": "sales", "status": "busy"}, "the transfer to sales ended: the line was busy"),
        ("transfer_wanted", {"to": "+1555"}, "transfer to +1555 requested"),
        ("transferred", {"to": "+1555"}, "transfer to +1555 done"),
        ("hung_up", {}, "an operator hung up"),
        ("webhook_recording", {"RecordingStatus": "completed", "RecordingSid": "RE1"}, "Twilio: recording completed RE1"),
        ("webhook_status", {"CallStatus": "completed"}, "Twilio: call completed"),
        ("webhook_stream", {"StreamEvent": "stream-error", "StreamError": "e"}, "Twilio: stream-error e"),
        ("webhook_action", {}, "Twilio requested the next instructions"),
        ("ai_error", {"code": "c", "message": "m"}, "AI error c: m"),
        ("ai_unreadable", {"code": "bad_json", "detail": "cut"}, "an event of the AI could not be read (cut)"),
        ("answer_failed", {"detail": "quota"}, "a response failed, and was requested again (quota)"),
        ("session_lost", {}, "the AI session was lost"),
        ("fallback: ai_lost", {}, "the AI was given up: the AI's socket broke"),
        ("fallback", {"reason": "ai_lost"}, "the AI was given up: the AI's socket broke"),
        ("goodbye_taken_back", {}, "the caller spoke during the goodbye, and the conversation continued"),
        ("budget_near", {"of": "caller", "spent_usd": 0.5}, "the budget of the caller was nearly spent, 0.5 USD by this call"),
        ("budget_spent", {"of": "call", "spent_usd": 1.2}, "the budget of the call was spent, 1.2 USD by this call"),
        ("tool_repeated", {}, "the AI repeated a tool call, which was answered once"),
        ("unreadable", {"detail": "cut"}, "an event of the AI could not be read (cut)"),
        ("dead_air", {"ms": 5100}, "silence of 5100 ms while an answer was owed"),
        ("of_tomorrow", {"a": 1, "b": ""}, "of_tomorrow  a=1"),
    ],
)
def test_sentences_of_events(kind: str, data: Row, sentence: str) -> None:
    assert event_sentence(EventRow(kind=kind, at=BEGAN, data=data, instance="w0", n=1)) == sentence


def test_a_stream_error_is_bad() -> None:
    event = _event("webhook_stream", 3, StreamEvent="stream-error", StreamError="31924 protocol")
    assert "31924 protocol" in _of(_call(events=[event]), "stream error").sentence


def test_a_turn_without_a_transcript_is_named_in_the_timeline() -> None:
    moments = timeline(_call(turns=[_turn(1, "caller", 900, "")]))
    assert "(not transcribed)" in [moment.sentence for moment in moments if moment.what == "caller"]


def test_a_wait_is_a_sentence_of_the_timeline() -> None:
    call = _call(events=[_wait(9, 720, pause_ms=500, ai_ms=200, gateway_ms=20)])
    (moment,) = (one for one in timeline(call) if one.what == "event")
    assert moment.sentence == (
        "the answer began 0.72 s after the caller's last sound: voice detection 0.50 s, AI 0.20 s, gateway 0.02 s"
    )


def test_recording_that_was_off_causes_no_complaint() -> None:
    call = _call(events=[_event("recording_off", 0.0, by="no_credentials")])
    call = msgspec.structs.replace(call, recording=None)
    assert _of(call, "recording") == Finding("good", "recording", "Recording was off: no Twilio credentials are configured.")
    assert event_sentence(call.events[0]) == "recording is off: no Twilio credentials are configured"
    assert "No sign of bad audio" in verdict(call, findings(call))


@pytest.mark.parametrize(
    ("events", "weight", "sentence"),
    [
        ([("transfer_ended", {"target": "sales", "status": "completed"})], "good", "the two were connected."),
        ([("transfer_ended", {"target": "sales", "status": "no-answer"})], "odd", "there was no answer."),
        ([("resumed", {"n": 1, "after": "digits_sent"})], "good", "The agent sent digits once"),
        ([("tool_called", {"tool": "transfer", "status": "unavailable", "ms": 5})], "bad", "could not leave its stream"),
    ],
)
def test_transfers_and_digits_are_findings(events: list[tuple[str, dict[str, Any]]], weight: str, sentence: str) -> None:
    rows = [{"kind": kind, "at": BEGAN, "data": data, "instance": "w0", "n": n} for n, (kind, data) in enumerate(events)]
    found = [one for one in findings(_call(events=rows)) if one.about in ("transfer", "digits")]
    assert [one.weight for one in found] == [weight]
    assert sentence in found[0].sentence

"""Findings and timeline of one call, derived from the rows of the store.

Every sentence follows from data that `calls show --json` has too (quality report, events, turns, recording), and quotes the
figure. A finding is `bad` if the caller heard it or a guarantee was broken, `odd` if it may explain something, `good` if the
figure is within its limits. Pure: rows in, sentences out. Figures that were not measured give no finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from gw.call.leave import LEAVING_TOOLS
from gw.call.resume import LEFT
from gw.call.state import Reason
from gw.call.tool_calls import MCP_PREFIX
from gw.cli.calls.reason_words import ENDINGS, RECORDING_OFF, RECORDING_TROUBLES, REPLACED, TRANSFER_ENDS
from gw.cli.calls.waits import KIND, is_measured, parts, total_ms
from gw.control.rows import CallDetails, EventRow, QualityRow, Scalar, paused_by

Weight = Literal["bad", "odd", "good"]

#: A caller notices a pause of this length before the first word; Twilio's ringing tone has ended by then.
SLOW_GREETING_MS: Final = 2000
#: One telephone frame; a longer hold of a worker delays the audio of all its calls.
FRAME_S: Final = 0.020
#: The guaranteed bound on sending a frame to the kernel.
SEND_BUDGET_S: Final = 0.001
#: Fewer frames have no p99.9 worth a sentence: it would be the longest.
FRAMES_FOR_P999: Final = 1000
#: Silence after a caller's words from which the caller asks whether the line is dead.
SLOW_ANSWER_MS: Final = 5000
#: Wait for an answer, after the caller's last sound, that callers notice.
SLOW_WAIT_MS: Final = 3000
#: Events of the dialogue: weight, subject, and a sentence with its remedy.
_DIALOGUE: Final[dict[str, tuple[Weight, str, str]]] = {
    "answer_failed": (
        "bad",
        "failed answer",
        "A response failed or had no audio, and was requested again; the log line has the AI's error.",
    ),
    "session_lost": (
        "odd",
        "AI session",
        "An AI session broke and was replaced; check the network and the AI's status.",
    ),
    "fallback": (
        "bad",
        "fallback",
        "The AI was given up: check its key, quota and model, and media.ai_reconnect_s.",
    ),
    "goodbye_taken_back": (
        "odd",
        "goodbye",
        "The caller spoke during the goodbye, and the call continued; if this recurs, have the agent ask before it hangs up.",
    ),
    "budget_near": (
        "odd",
        "budget",
        "A budget was nearly spent, and the agent was asked to come to an end; gateway.py config show has [budget].",
    ),
    "tool_repeated": (
        "odd",
        "tools",
        "The AI repeated a tool call, which was answered once; nothing needs to be done.",
    ),
    "mcp_list_failed": (
        "odd",
        "tools",
        "The AI's provider could not list the tools of an MCP server, so the agent had none: check server_url and its token.",
    ),
    "unreadable": (
        "odd",
        "AI event",
        "An event of the AI could not be read and was skipped: update the gateway.",
    ),
}
#: The guaranteed bound from the first audio to the start of the recording.
TRIGGER_MS: Final = 250
_SHOWN_CHARS: Final = 60


class Finding(NamedTuple):
    """A sentence, its subject and its weight."""

    weight: Weight
    about: str
    sentence: str


class Moment(NamedTuple):
    """One event of the timeline. `at_s`: seconds since the answer."""

    at_s: float
    what: str
    sentence: str


def findings(call: CallDetails) -> list[Finding]:
    """Return the findings of a call, the worst first, then in chronological sequence."""
    parts = (
        _start,
        _gaps,
        _punctuality,
        _losses,
        _answers,
        _dead_air,
        _dialogue,
        _tools,
        _interruptions,
        _ai_leg,
        _worker,
        _left,
        _end,
        _recording,
    )
    found = [finding for part in parts for finding in part(call)]
    return sorted(found, key=lambda finding: ("bad", "odd", "good").index(finding.weight))


def verdict(call: CallDetails, found: list[Finding]) -> str:
    """Return one sentence on the whole call."""
    bad = [finding.about for finding in found if finding.weight == "bad"]
    if bad:
        return f"The caller had cause for complaint: {', '.join(dict.fromkeys(bad))}."
    if call.quality is None and call.ended_at is not None:
        return "The call has no quality report, so the findings rest on its events alone."
    if call.ended_at is None:
        return "The call is live; its quality report follows at its end. No problem so far."
    odd = [finding.about for finding in found if finding.weight == "odd"]
    if odd:
        return f"No problem for the caller; worth a look: {', '.join(dict.fromkeys(odd))}."
    return "No sign of bad audio on the gateway's side."


def timeline(call: CallDetails) -> list[Moment]:
    """Return everything with a time, in chronological sequence."""
    began = call.began_at or 0.0
    return sorted(_moments(call, began), key=lambda moment: moment.at_s)


# -- findings ----------------------------------------------------------------------------------------------------------


def _start(call: CallDetails) -> Iterator[Finding]:
    quality = call.quality or QualityRow()
    first_ms, ai_ms = quality.first_audio_ms, quality.ai_first_audio_ms
    waited = call.answered_at - call.started_at if call.answered_at and call.started_at else 0.0
    if waited > SLOW_GREETING_MS / 1000:
        yield Finding("bad", "slow start", f"Twilio opened the stream {waited:.1f} s after its webhook; that wait is Twilio's.")
    if quality.frames_sent == 0:
        yield Finding("bad", "silence", "The caller never heard the agent: no frame was sent.")
    elif first_ms is not None and first_ms > SLOW_GREETING_MS:
        share = f" The AI took {ai_ms / 1000:.1f} s of that, from the first request to its first audio." if ai_ms else ""
        yield Finding("bad", "slow greeting", f"The caller waited {first_ms / 1000:.1f} s for the first word.{share}")
    elif first_ms is not None:
        yield Finding("good", "greeting", f"The caller waited {first_ms} ms for the first word.")


def _gaps(call: CallDetails) -> Iterator[Finding]:
    quality = call.quality
    if not quality or quality.underrun_ms is None:
        return
    gap_ms, hold_s, late_s = quality.underrun_ms, quality.hub_hold_max_s or 0.0, quality.lateness_max_s or 0.0
    if not gap_ms:
        if quality.frames_sent:
            yield Finding(
                "good", "audio", "No gap within the agent's sentences: every frame arrived before Twilio's buffer was empty."
            )
        return
    if hold_s >= FRAME_S:
        why = f"the worker's event loop was held for {_ms(hold_s)}: gateway.py status --holds shows the cause"
    elif late_s >= FRAME_S:
        why = f"frames left up to {_ms(late_s)} late without a sampled hold of the worker: the machine may have paused"
    else:
        why = "the gateway sent every frame on time, so the AI's audio arrived too slowly within its sentences"
    yield Finding("bad", "gaps", f"The caller heard {gap_ms} ms of silence within the agent's sentences; {why}.")


def _punctuality(call: CallDetails) -> Iterator[Finding]:
    quality = call.quality
    if not quality:
        return
    p99_s, p999_s, send_s = quality.lateness_p99_s, quality.lateness_p999_s, quality.send_p999_s
    is_long = (quality.frames_sent or 0) >= FRAMES_FOR_P999
    if p99_s is not None and p99_s >= FRAME_S:
        weight: Weight = "bad" if quality.underrun_ms else "odd"  # without a gap, Twilio's buffer covered it
        rare = f" (p99.9 {_ms(p999_s)})" if is_long else ""
        yield Finding(weight, "late frames", f"1 % of the frames left at least {_ms(p99_s)} late{rare}.")
    elif is_long and p999_s is not None and p999_s >= FRAME_S:
        yield Finding("odd", "late frames", f"0.1 % of the frames left at least {_ms(p999_s)} late.")
    if not is_long:
        send_s = quality.send_max_s
    if send_s is not None and send_s > SEND_BUDGET_S:
        share = "0.1 % of the sends took at least" if is_long else "The longest send took"
        yield Finding("odd", "slow sends", f"{share} {_ms(send_s)}, over the guaranteed 1 ms.")
    elif send_s is not None:
        measure = "p99.9" if is_long else "the longest"
        yield Finding("good", "sends", f"Sends were within the guaranteed 1 ms: {measure} {_ms(send_s)}.")
    hold_s = quality.hub_hold_max_s
    if hold_s is not None and hold_s >= FRAME_S and not quality.underrun_ms:
        yield Finding("odd", "a held worker", f"The worker's event loop was held for {_ms(hold_s)}; Twilio's buffer covered it.")


def _losses(call: CallDetails) -> Iterator[Finding]:
    quality = call.quality
    if not quality:
        return
    down, up = quality.dropped_frames or {}, quality.uplink_dropped_frames or {}
    if frames := down.get("overrun"):
        yield Finding(
            "bad",
            "cut speech",
            f"{_length(frames)} of the agent's speech were dropped: the AI was too far ahead (media.playout_s).",
        )
    lost = sum(up.values())
    if lost:
        why = ", ".join(f"{count} {reason}" for reason, count in up.items() if count)
        yield Finding("bad", "lost words", f"{_length(lost)} of the caller's words did not reach the AI ({why}).")
    if (left := down.get("call_ended")) and call.reason not in (None, Reason.CALLER_HANGUP):
        yield Finding("odd", "unheard end", f"{_length(left)} of the agent's speech had not been played when the call ended.")


def _answers(call: CallDetails) -> Iterator[Finding]:
    """Yield a finding for the longest wait for an answer; of an older call, from the caller's first word."""
    spoken = sorted(call.turns, key=lambda turn: (turn.start_ms, turn.n))
    measured = sorted(filter(is_measured, call.events), key=total_ms)
    if measured:
        longest = measured[-1]
        weight: Weight = "odd" if total_ms(longest) > SLOW_WAIT_MS else "good"
        text = f"The caller waited at most {total_ms(longest) / 1000:.2f} s for an answer ({parts(longest)})"
        typical = f"half of the {len(measured)} answers came within {total_ms(measured[(len(measured) - 1) // 2]) / 1000:.2f} s"
        yield Finding(weight, "slow answer" if weight == "odd" else "answers", f"{text}{f'; {typical}' if measured[2:] else ''}.")
    waits = [
        (after.start_ms - turn.start_ms, turn.text)
        for turn, after in pairwise(spoken)
        if turn.role == "caller" and after.role == "agent"
    ]
    wait_ms, text = max(waits, default=(0, ""))
    if not measured and wait_ms > SLOW_ANSWER_MS:
        yield Finding(
            "odd",
            "slow answer",
            f"The longest time from a caller's first word to the answer was {wait_ms / 1000:.1f} s, after {_quoted(text)}.",
        )
    roles = {turn.role for turn in spoken if turn.role == "agent" or turn.text}
    silent = [turn for turn in spoken if turn.role == "caller" and not turn.text]
    if silent:
        yield Finding(
            "odd",
            "transcription",
            f"The caller spoke {_times(len(silent))} without a transcript: check the transcription model.",
        )
    elif call.ended_at and call.quality and "agent" in roles and "caller" not in roles:
        yield Finding(
            "odd", "a silent caller", "No word of the caller was transcribed: silent, not heard, or transcription is off."
        )


def _dead_air(call: CallDetails) -> Iterator[Finding]:
    """Yield a finding for silence while the caller was owed an answer."""
    silences = [ms for event in _events(call, "dead_air") if isinstance(ms := event.data.get("ms"), int | float)]
    longest_ms = max(silences, default=0)
    if longest_ms:
        yield Finding(
            "bad",
            "dead air",
            f"The caller heard silence while an answer was owed {_times(len(silences))}, for up to {longest_ms / 1000:.1f} s: "
            "check the AI's latency, media.ai_answer_s and the holding sound.",
        )


def _dialogue(call: CallDetails) -> Iterator[Finding]:
    """Yield a finding for each kind of event of the dialogue."""
    counts = Counter(event.kind.partition(":")[0] for event in call.events)
    for kind, (weight, about, sentence) in _DIALOGUE.items():
        if count := counts[kind]:
            yield Finding(weight, about, sentence if count == 1 else f"{sentence} It happened {_times(count)}.")


def _tools(call: CallDetails) -> Iterator[Finding]:
    """Yield a finding for each kind of failure of each tool."""
    ended = [(event.data, str(event.data.get("id")).startswith(MCP_PREFIX)) for event in _events(call, "tool_called")]
    failed = Counter((data.get("tool"), data.get("status"), is_remote) for data, is_remote in ended)
    for (tool, status, is_remote), count in failed.items():
        if status not in ("ok", "cancelled") and tool not in LEAVING_TOOLS:
            remedy = "Look into the log of its MCP server" if is_remote else f"Try it with `tools try {tool}`"
            yield Finding("odd", "tools", f"The tool {tool} gave no result {_times(count)}: {status}. {remedy}.")


def _interruptions(call: CallDetails) -> Iterator[Finding]:
    count = call.quality.bargeins if call.quality else 0
    cut = [turn for turn in call.turns if turn.role == "agent" and turn.interrupted]
    if not count and not cut:
        return
    times = count or len(cut)
    heard = [f"{_quoted(turn.text)} after {turn.heard_ms} ms" for turn in cut if turn.heard_ms][:3]
    text = f"The caller interrupted the agent {_times(times)}" + (f": {', '.join(heard)}." if heard else ".")
    if times >= 5:
        text += " Many interruptions may be echo or noise that the AI takes for speech."
    yield Finding("odd", "interruptions", text)


def _ai_leg(call: CallDetails) -> Iterator[Finding]:
    for event in _events(call, "ai_leg_lost"):
        why = ENDINGS.get(str(event.data.get("reason")), "it failed")
        later = [one for one in _events(call, "ai_leg_replaced") if one.at >= event.at]
        pause = f" It was replaced {later[0].at - event.at:.1f} s later." if later else " It was not replaced."
        yield Finding("bad", "AI leg lost", f"The AI leg was lost: {why}.{_detail(event.data)}{pause}")
    rolled = [event for event in _events(call, "ai_leg_replaced") if event.data.get("reason") == "expiring"]
    if rolled:
        yield Finding("good", "AI session", f"The AI session was replaced before its end {_times(len(rolled))}, during a pause.")
    for event in _events(call, "ai_error"):
        data = event.data
        yield Finding("odd", "AI error", f"The AI reported an error: {data.get('code')}: {data.get('message')}")
    for event in _events(call, "ai_unreadable"):
        yield Finding("odd", "AI event", f"An event of the AI could not be read, and was skipped.{_detail(event.data)}")
    for kind in ("response_failed", "response_incomplete"):
        for event in _events(call, kind):
            how = "failed" if kind == "response_failed" else "stopped early"
            yield Finding("bad", "broken answer", f"A response of the AI {how}.{_detail(event.data)}")


def _worker(call: CallDetails) -> Iterator[Finding]:
    after = Counter(str(event.data.get("after") or Reason.WORKER_LOST) for event in _events(call, "resumed"))
    for reason, times in after.items():
        if reason in LEFT:
            continue
        what = "lost worker" if reason == Reason.WORKER_LOST else "lost stream"
        yield Finding("bad", what, f"The call resumed on another stream {_times(times)}: {ENDINGS.get(reason, reason)}.")
    for event in _events(call, "webhook_stream"):
        if event.data.get("StreamEvent") == "stream-error":
            yield Finding("bad", "stream error", f"Twilio reported a stream error: {event.data.get('StreamError', '')}")


def _left(call: CallDetails) -> Iterator[Finding]:
    """Yield a finding for each transfer, and one for digits."""
    for event in _events(call, "transfer_ended"):
        status, target = str(event.data.get("status")), event.data.get("target") or "an unknown target"
        weight: Weight = "good" if status == "completed" else "odd"
        yield Finding(weight, "transfer", f"The transfer to {target} ended: {TRANSFER_ENDS.get(status, status)}.")
    if times := sum(event.data.get("after") == Reason.DIGITS_SENT for event in _events(call, "resumed")):
        yield Finding("good", "digits", f"The agent sent digits {_times(times)}, and the conversation continued.")
    failed = [event for event in _events(call, "tool_called") if event.data.get("tool") in LEAVING_TOOLS]
    for event in failed:
        if event.data.get("status") not in ("ok", "cancelled"):
            sentence = f"The call could not leave its stream for {event.data.get('tool')}: {event.data.get('status')}."
            yield Finding("bad", "transfer", f"{sentence} Look for the call in the log of control.")


def _end(call: CallDetails) -> Iterator[Finding]:
    if call.reason is None:
        return
    words = ENDINGS.get(call.reason, "a reason unknown to this version")
    if call.reason == Reason.CALLER_HANGUP and call.detail:  # more precise
        words = call.detail
    sentence = f"The call ended as {call.reason}: {words}"
    weight: Weight = "good" if call.result == "success" else "bad"
    if weight == "good" and any(finding.weight == "bad" for finding in _dead_air(call)):
        weight = "odd"
    if call.reason in (Reason.IDLE_LIMIT, Reason.DURATION_LIMIT, Reason.BUDGET, Reason.SHUTDOWN):
        weight = "odd"
    detail = f" ({call.detail})" if call.detail and call.detail not in words else ""
    yield Finding(weight, "the end", f"{sentence}{detail}.")


def _recording(call: CallDetails) -> Iterator[Finding]:
    row = call.recording
    if row is None:
        if off := recording_off(call):
            yield Finding("good", "recording", f"Recording was off: {off}.")
        elif _events(call, "not_announced"):
            yield Finding("odd", "recording", "No recording was started: the notice was not heard to its end.")
        elif call.first_audio_at:
            yield Finding(
                "odd", "recording", "No recording was requested, although the caller heard the agent: see gateway.py status."
            )
        return
    trouble = RECORDING_TROUBLES.get(row.reason or "", "")
    more = ": ".join(str(part) for part in (trouble or row.reason, row.error_code, row.error_text) if part)
    tried = f" after {row.attempts} tries" if row.attempts and row.attempts > 1 else ""
    soon = "" if row.trigger_ms is None else f", requested {row.trigger_ms} ms after the first audio"
    match row.state:
        case "failed" if row.reason == "call_over":
            yield Finding("odd", "recording", f"The call was not recorded. {more}")
        case "failed" | "absent":
            yield Finding("bad", "recording", f"The call was not recorded ({row.state}{tried}). {more}".rstrip())
        case "wanted" | "claimed":
            yield Finding("odd", "recording", f"The recording is {row.state} and unfinished{tried}. {more}".rstrip())
        case state:
            late = row.trigger_ms is not None and row.trigger_ms > TRIGGER_MS
            by = paused_by(call.events)
            more = " ".join(part for part in (more, f"It is paused for {' and '.join(by)}." if by else "") if part)
            weight: Weight = "odd" if late or more else "good"
            yield Finding(weight, "recording", f"The recording {state}{tried}{soon}. {more}".rstrip())


# -- the timeline ------------------------------------------------------------------------------------------------------


def _moments(call: CallDetails, began: float) -> Iterator[Moment]:
    def since(at: float) -> float:
        return round(at - began, 3)

    if call.started_at:
        where = f"{call.from_number or 'unknown'} to {call.to_number or 'unknown'}, agent {call.agent or 'unknown'}"
        yield Moment(since(call.started_at), "call", where)
    if call.answered_at and call.stream_sid:
        yield Moment(since(call.answered_at), "stream", f"began on {call.host or 'a host'}, worker {call.worker}")
    if call.first_audio_at:
        yield Moment(since(call.first_audio_at), "first audio", "the caller hears the agent")
    for turn in call.turns:
        heard = "" if turn.heard_ms is None else f" [{turn.heard_ms} ms heard]"
        cut = " [interrupted]" if turn.interrupted else ""
        text = turn.text or "(not transcribed)"
        yield Moment(turn.start_ms / 1000, turn.role, f"{text}{cut}{heard}")
    for event in call.events:
        if event.kind != KIND or is_measured(event):
            yield Moment(since(event.at), "event", event_sentence(event))
    if recording := call.recording:
        if recording.claimed_at:
            yield Moment(since(recording.claimed_at), "recording", "claimed by the control process")
        if recording.started_at:
            yield Moment(
                since(recording.started_at), "recording", f"started at Twilio, {recording.recording_sid or 'no SID yet'}"
            )
    if call.ended_at:
        yield Moment(since(call.ended_at), "end", f"{call.reason}: {ENDINGS.get(call.reason or '', 'unknown')}")


def event_sentence(event: EventRow) -> str:
    """Return a sentence for an event; for an unknown kind, its data."""
    data, kind = event.data, event.kind
    match kind:
        case "ai_leg_lost":
            return f"the AI leg was lost: {_worded(ENDINGS, data)}{_detail(data)}"
        case "ai_leg_replaced":
            return f"the AI leg was replaced, {_worded(REPLACED, data)}"
        case "ai_error":
            return f"AI error {data.get('code')}: {data.get('message')}"
        case "ai_unreadable":
            return f"an event of the AI could not be read{_detail(data)}"
        case "tool_call":
            return f"the AI calls {data.get('name')}"
        case "tool_called":
            return f"tool {data.get('tool')}: {data.get('status')} after {data.get('ms')} ms"
        case "mcp_approval":
            return f"the MCP tool {data.get('name')} was {'approved' if data.get('approved') else 'not approved'}"
        case "mcp_list_failed":
            return "the tools of an MCP server could not be listed"
        case "answer_failed":
            return f"a response failed, and was requested again{_detail(data)}"
        case "session_lost":
            return f"the AI session was lost{_detail(data)}"
        case "goodbye_taken_back":
            return "the caller spoke during the goodbye, and the conversation continued"
        case "budget_near" | "budget_spent":
            state = "spent" if kind == "budget_spent" else "nearly spent"
            return f"the budget of the {data.get('of')} was {state}, {data.get('spent_usd')} USD by this call"
        case "tool_repeated":
            return "the AI repeated a tool call, which was answered once"
        case "unreadable":
            return f"an event of the AI could not be read{_detail(data)}"
        case "answered":
            return f"the answer began {total_ms(event) / 1000:.2f} s after the caller's last sound: {parts(event)}"
        case "dead_air":
            return f"silence of {data.get('ms')} ms while an answer was owed"
        case _ if kind.startswith("fallback"):
            reason = kind.partition(": ")[2] or str(data.get("reason", ""))
            return f"the AI was given up: {ENDINGS.get(reason, reason)}"
        case "answered_by":
            return f"Twilio's verdict on who answered: {data.get('verdict')}"
        case "keys":
            return f"the caller pressed [{data.get('count')} {'key' if data.get('count') == 1 else 'keys'}]"
        case "recording_off":
            return f"recording is off: {_by(data)}"
        case "leaving":
            return f"the call leaves its stream: {data.get('tool')} {data.get('target') or ''}".rstrip()
        case "transfer_accepted":
            return "the callee accepted the transfer"
        case "transfer_ended":
            status = str(data.get("status"))
            return f"the transfer to {data.get('target') or 'an unknown target'} ended: {TRANSFER_ENDS.get(status, status)}"
        case "resumed" if data.get("after") in LEFT:
            return f"the call is back with the agent, on stream {int(data.get('n') or 0) + 1}"
        case "resumed":
            return f"the call resumed on another stream, number {data.get('n')}"
        case "transfer_wanted" | "transferred":
            return f"transfer to {data.get('to')} {'requested' if kind == 'transfer_wanted' else 'done'}"
        case "hung_up":
            return "an operator hung up"
        case "operator":
            return f"an operator (uid {data.get('uid')}): {data.get('command')}, {data.get('outcome')}"
        case "recording_paused" | "recording_resumed":
            did = "was paused" if kind == "recording_paused" else "continued"
            return f"the recording {did}{_PAUSED.get(str(data.get('by')), '')}"
        case "not_announced":
            return "no recording was started: the notice was not heard to its end"
        case "webhook_recording":
            return f"Twilio: recording {data.get('RecordingStatus', 'unknown')} {data.get('RecordingSid', '')}".rstrip()
        case "webhook_status":
            return f"Twilio: call {data.get('CallStatus', 'unknown')}"
        case "webhook_stream":
            return f"Twilio: {data.get('StreamEvent', 'stream')} {data.get('StreamError', '')}".rstrip()
        case "webhook_action":
            return "Twilio requested the next instructions"
        case _:
            return "  ".join([kind, *(f"{name}={value}" for name, value in data.items() if value not in ("", None))])


def recording_off(call: CallDetails) -> str:
    """Return why recording was off for a call; empty if it was on, or unknown."""
    return next((_by(event.data) for event in _events(call, "recording_off")), "")


#: Why a recording was paused.
_PAUSED: Final = {"digits": " while the caller typed sensitive digits", "operator": " by an operator"}


# -- phrases -----------------------------------------------------------------------------------------------------------


def _events(call: CallDetails, kind: str) -> list[EventRow]:
    return [event for event in call.events if event.kind == kind]


def _worded(words: Mapping[str, str], data: Mapping[str, Scalar]) -> str:
    reason = str(data.get("reason", ""))
    return words.get(reason, reason)


def _by(data: Mapping[str, Scalar]) -> str:
    return RECORDING_OFF.get(str(data.get("by")), "as configured")


def _detail(data: Mapping[str, Scalar]) -> str:
    return f" ({data['detail']})" if data.get("detail") else ""


def _ms(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def _length(frames: int) -> str:
    return f"{frames * FRAME_S:.2f} s"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _quoted(text: str) -> str:
    return f'"{text[:_SHOWN_CHARS]}{"..." if len(text) > _SHOWN_CHARS else ""}"'

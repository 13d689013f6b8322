"""Laws that must hold after any faults, as judgements over a ledger.

Each law reads the ledger and returns one sentence per violation. `totals` shows how much there was to judge. Pure, so that the
tests can violate each law.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gw.call.cost.usage import KINDS
from gw.call.resume import RESUMABLE
from gw.call.state import Reason
from gw.control.twilio_api.rest import POOL_CONNECTIONS
from tests.faults.records.ledger import CallLine, Ledger, Struck

#: A request must lead to a recording if control and Twilio work for this long.
HEALTHY_S: Final = 3.0
#: The same after a fault: the longest wait between two attempts is 8 s, plus or minus half.
RECOVERED_S: Final = 13.0
#: Time in which a killed control must ask Twilio again.
CONTROL_BACK_S: Final = 6.0
#: Time after the store's return in which all events must be stored.
CATCH_UP_S: Final = 30.0
#: Time after a worker's death in which its calls must be ended.
LOST_S: Final = 2.0
#: Connections a process keeps for reuse: control's to Twilio's REST API, and five to the store.
SLACK_DESCRIPTORS: Final = {"control": POOL_CONNECTIONS + 5, "worker": 3}
SLACK_GREENLETS: Final = 4
#: Time before a call in which an ended fault may still spoil its audio, because a leg is being reopened.
LINGERS_S: Final = 2.0
#: Final states of a recording.
FINAL: Final = frozenset({"completed", "failed", "absent"})


@dataclass(frozen=True)
class Law:
    """A condition: its name, its statement, and the function that returns its violations."""

    name: str
    statement: str
    broken: Callable[[Ledger], list[str]]


def _duplicates(ledger: Ledger) -> list[str]:
    return [
        f"{call.call_sid}: {call.starts} starts granted, {call.recordings} recordings made"
        for call in ledger.calls
        if call.recordings > 1 or call.starts > 1
    ]


def _missing(ledger: Ledger) -> list[str]:
    found = []
    for call in ledger.calls:
        if call.requested_s is None or call.recordings:
            continue
        open_s, disturbed = answered_s(ledger, call)
        if open_s >= (RECOVERED_S if disturbed else HEALTHY_S):
            found.append(f"{call.call_sid}: requested at {call.requested_s:.1f} s, {open_s:.1f} s undisturbed, no recording")
    return found


def answered_s(ledger: Ledger, call: CallLine) -> tuple[float, bool]:
    """Return the longest undisturbed time, and whether a fault met it.

    From the request for the recording to the call's end. Undisturbed: no fault prevented a request to Twilio.
    """
    assert call.requested_s is not None
    blocks = sorted(
        (one.from_s, one.to_s + (CONTROL_BACK_S if one.link == "process" else 0.5))
        for one in ledger.struck
        if "rest" in one.spoils
    )
    at_s, longest_s, disturbed = call.requested_s, 0.0, False
    for from_s, to_s in blocks:
        if to_s <= call.requested_s or from_s >= call.ended_s:
            continue
        disturbed = True
        longest_s = max(longest_s, from_s - at_s)
        at_s = max(at_s, to_s)
    return max(longest_s, call.ended_s - at_s), disturbed


def _events(ledger: Ledger) -> list[str]:
    """Return the events that a worker sent and the store does not have."""
    lines = {call.call_sid: call for call in ledger.calls}
    turns = {tuple(key) for key in ledger.stored.get("turns", [])}
    events = {tuple(key) for key in ledger.stored.get("events", [])}
    ends: dict[str, set[str]] = defaultdict(set)
    for _, _, kind, call_sid, part, *_ in ledger.sent:
        if kind == "CallEnded":
            ends[call_sid].add(part)
    found = []
    for instance, n, kind, call_sid, part, *_ in ledger.sent:
        call = lines.get(call_sid)
        row: dict[str, Any] = (call.row if call is not None else None) or {}
        if kind == "JobWanted":
            there = True  # a row of the spool, not of the store
        elif kind in ("CallEvent", "Webhook") or not call_sid:
            there = (instance, n) in events
        elif kind == "Turn":
            there = (call_sid, part) in turns
        elif kind == "StartRecording":
            there = call is not None and call.recording is not None
        elif kind == "CallEnded":
            reason = row.get("reason")
            is_lost = reason == Reason.WORKER_LOST and ends[call_sid] <= RESUMABLE  # the call's last stream sent none
            there = row.get("ended_at") is not None and (reason in ends[call_sid] or is_lost)
        elif kind == "Usage":
            stream_sid, tokens = part.split()
            used = [one for one in row.get("used", []) if one["stream_sid"] == stream_sid]
            there = sum(one[name] for one in used for name in KINDS) >= int(tokens)
        elif kind == "FirstAudio":
            there = row.get("first_audio_at") is not None
        else:
            there = row.get("stream_sid") is not None
        if not there:
            found.append(f"{kind} {part} of {call_sid or 'no call'} (event {n} of {instance[:8]})")
    return found


def _numbers(ledger: Ledger) -> list[str]:
    """Return gaps in the numbers of a worker's events."""
    heard: dict[str, set[int]] = defaultdict(set)
    for instance, n, *_ in ledger.sent:
        heard[instance].add(n)
    return [
        f"instance {instance[:8]}: {max(numbers) - len(numbers)} of {max(numbers)} events were never sent"
        for instance, numbers in heard.items()
        if len(numbers) != max(numbers)
    ]


def _open(ledger: Ledger) -> list[str]:
    calls = ledger.calls
    found = [f"{call.call_sid}: no end in the store" for call in calls if call.row and call.row.get("ended_at") is None]
    found += [f"{call.call_sid}: heard {call.heard_bytes} bytes, no row" for call in calls if not call.row and call.heard_bytes]
    found += [f"{one['call_sid']}: its recording is {one['state']}" for one in ledger.open_recordings]
    if ledger.backlog:
        found.append(f"{ledger.backlog} events wait in the spool")
    if ledger.poison:
        found.append(f"{ledger.poison} events are set aside as poison")
    found += [f"{call.call_sid}: the call is not over" for call in calls if not call.over]
    return found


def _rows(ledger: Ledger) -> list[str]:
    """Return recordings whose row differs from Twilio's recordings."""
    found = []
    for call in ledger.calls:
        row = call.recording or {}
        if call.recordings == 1 and row.get("recording_sid") != call.recording_sids[0]:
            found.append(f"{call.call_sid}: Twilio has {call.recording_sids[0]}, the row {row.get('recording_sid')}")
        elif call.recordings == 0 and row.get("state") == "completed":
            found.append(f"{call.call_sid}: the row says completed, Twilio has nothing")
        elif call.recordings == 1 and row.get("state") in FINAL - {"completed"}:
            found.append(f"{call.call_sid}: Twilio has a recording, the row says {row.get('state')}: {row.get('error_text')}")
    return found


def unspoiled(ledger: Ledger, call: CallLine) -> bool:
    """Return whether no fault that may spoil audio met the call."""
    return not any("audio" in one.spoils for one in ledger.met(call, LINGERS_S))


def _audio(ledger: Ledger) -> list[str]:
    """Return calls whose audio differs from the AI's, or from the gateway's count of frames."""
    found = []
    for call in ledger.calls:
        if not unspoiled(ledger, call):
            continue
        if call.error:
            found.append(f"{call.call_sid}: {call.error}")
        elif not call.streamed:
            found.append(f"{call.call_sid}: never reached the gateway")
        elif call.close_reason and call.close_reason != "ai_hangup":
            found.append(f"{call.call_sid}: ended with {call.close_reason} without a fault")
        elif call.legs_lost:
            found.append(f"{call.call_sid}: lost its AI leg without a fault")
        elif call.received_bytes > call.said_bytes:
            found.append(f"{call.call_sid}: heard {call.received_bytes} bytes, the AI said {call.said_bytes}")
        elif call.closed_by == "gateway" and call.said_all and not call.cleared and call.received_sha != call.said_sha:
            found.append(f"{call.call_sid}: heard {call.received_bytes} of {call.said_bytes} bytes, or others")
        elif call.quality and call.closed_by == "gateway" and call.quality["frames_sent"] * 160 != call.received_bytes:
            found.append(f"{call.call_sid}: {call.quality['frames_sent']} frames sent, {call.received_bytes} bytes received")
    return found


def _underrun(ledger: Ledger) -> list[str]:
    return [
        f"{call.call_sid}: {call.underrun_60_ms:.0f} ms of silence behind 60 ms, {call.allowed_ms:.0f} allowed for the machine"
        f" ({', '.join(sorted({one.name for one in ledger.met(call)})) or 'no fault'})"
        for call in ledger.calls
        if unspoiled(ledger, call) and not call.cleared and call.underrun_60_ms > call.allowed_ms
    ]


#: Links whose faults may cause a reason with this prefix. After a stall, a worker finds its legs closed by their peers.
_BLAMES: Final = {
    "phone_": {"phone", "process", "machine"},
    "start_timeout": {"phone", "process", "machine"},
    "ai_": {"ai", "process", "machine"},
    "fallback_": {"ai", "process", "machine"},
    "worker_lost": {"process"},
}


def _reasons(ledger: Ledger) -> list[str]:
    """Return failed calls whose reason does not match a fault that met them."""
    found = []
    for call in ledger.calls:
        reason = str((call.row or {}).get("reason") or "")
        if reason in ("", "caller_hangup", "ai_hangup"):
            continue
        links = next((links for prefix, links in _BLAMES.items() if reason.startswith(prefix)), set())
        if not any(one.link in links and "audio" in one.spoils for one in ledger.met(call, LINGERS_S)):
            met = ", ".join(sorted({one.name for one in ledger.met(call)})) or "no fault"
            found.append(f"{call.call_sid}: ended with {reason}, but met {met}")
    return found


def _lost_in_time(ledger: Ledger) -> list[str]:
    """Return calls of killed workers that control ended too late."""
    kills = [one.from_s for one in ledger.struck if one.name == "worker killed"]
    found = []
    for call in ledger.calls:
        row = call.row or {}
        if row.get("reason") != "worker_lost" or not row.get("ended_at"):
            continue
        ended_s = row["ended_at"] - ledger.began_at
        took_s = min((ended_s - kill_s for kill_s in kills if kill_s <= ended_s), default=0.0)
        if took_s > LOST_S + call.allowed_ms / 1000:
            found.append(f"{call.call_sid}: ended {took_s:.1f} s after its worker")
    return found


def _replaced(ledger: Ledger) -> list[str]:
    """Return calls that a single fault of the AI's side ended: the leg should have been replaced in time."""
    found = []
    for call in ledger.calls:
        reason = str((call.row or {}).get("reason") or "")
        if reason == "ai_hangup" or not reason.startswith(("ai_", "fallback_")):
            continue
        spoilers = [one for one in ledger.met(call, LINGERS_S) if "audio" in one.spoils]
        if len(spoilers) == 1 and spoilers[0].link == "ai":
            found.append(
                f"{call.call_sid}: ended with {reason} ({(call.row or {}).get('detail')}) after {spoilers[0].name} alone"
            )
    return found


def _catch_up(ledger: Ledger) -> list[str]:
    return [
        f"back at {one.at_s:.0f} s with {one.backlog} events waiting: "
        + ("never caught up" if one.caught_up_s is None else f"caught up after {one.caught_up_s:.1f} s")
        for one in ledger.returns
        if (one.caught_up_s is None or one.caught_up_s > CATCH_UP_S)
        and not any(
            met.link == "machine" and one.at_s <= met.to_s and met.from_s <= one.at_s + CATCH_UP_S for met in ledger.struck
        )
    ]


def _leaks(ledger: Ledger) -> list[str]:
    found = [f"process {pid} is still there" for pid in ledger.left_processes]
    for one in ledger.census:
        if one.descriptors > one.descriptors_fresh + SLACK_DESCRIPTORS[one.role]:
            found.append(f"{one.role} ({one.pid}): {one.descriptors} descriptors, {one.descriptors_fresh} when fresh")
        if one.greenlets > one.greenlets_fresh + SLACK_GREENLETS:
            found.append(f"{one.role} ({one.pid}): {one.greenlets} greenlets, {one.greenlets_fresh} when fresh: {one.kinds}")
    return found


LAWS: Final = (
    Law("no duplicate", "no call is recorded twice", _duplicates),
    Law("none missing", "a call is recorded if Twilio could be asked", _missing),
    Law("no event lost", "every event a worker sent is in the store", _events),
    Law("no gap", "a worker's events are numbered without a gap", _numbers),
    Law("nothing open", "every call and recording has its end, and nothing waits", _open),
    Law("rows are true", "a recording's row agrees with Twilio", _rows),
    Law("true reasons", "a failed call has the reason of a fault that met it", _reasons),
    Law("lost in time", f"the calls of a killed worker are ended within {LOST_S:g} s", _lost_in_time),
    Law("leg replaced", "one fault of the AI's leg ends no call", _replaced),
    Law("audio whole", "calls without a fault that may spoil audio are heard byte for byte", _audio),
    Law("no underrun", "the same calls have no gap behind a 60 ms buffer", _underrun),
    Law("caught up", f"events are stored within {CATCH_UP_S:g} s of the store's return", _catch_up),
    Law("no leak", "no process, descriptor or greenlet is left over", _leaks),
    Law("bench sound", "the bench itself worked", lambda ledger: ledger.bench_errors),
)


def judge(ledger: Ledger) -> dict[str, list[str]]:
    """Return the violations of each law, by its name."""
    return {law.name: law.broken(ledger) for law in LAWS}


def totals(ledger: Ledger) -> dict[str, int]:
    """Return the amounts that the laws had to judge."""
    calls = ledger.calls
    kinds = Counter(kind for _, _, kind, *_ in ledger.sent)
    met = [call for call in calls if _struck(ledger, call)]
    return {
        "calls placed": len(calls),
        "calls a fault met": len(met),
        "calls judged byte for byte": sum(1 for call in calls if unspoiled(ledger, call) and call.heard_bytes),
        "rows of calls": sum(1 for call in calls if call.row is not None),
        "recordings requested": sum(1 for call in calls if call.requested_s is not None),
        "recordings made, Twilio's count": sum(call.recordings for call in calls),
        "recordings in the store": sum(1 for call in calls if (call.recording or {}).get("recording_sid")),
        "events sent by workers": len(ledger.sent),
        "of them turns": kinds["Turn"],
        "of them webhooks": kinds["Webhook"],
        "bytes the AI said": sum(call.said_bytes for call in calls),
        "bytes callers received": sum(call.received_bytes for call in calls),
        "bytes callers heard": sum(call.heard_bytes for call in calls),
        "faults": sum(1 for one in ledger.struck if one.link != "machine"),
        "stalls of the machine": sum(1 for one in ledger.struck if one.link == "machine"),
    }


def _struck(ledger: Ledger, call: CallLine) -> list[Struck]:
    return ledger.met(call)

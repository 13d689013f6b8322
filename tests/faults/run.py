"""One run of the fault bench: a scenario applied to a world, and the resulting ledger.

Places calls and does faults by the clock of the scenario. Then all faults are undone, the run waits until the gateway has
finished its work, and writes the records of each side. `records/laws.py` judges them.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import gevent
import msgspec
from gevent.pool import Group

from gw.control.rows import RecordingRow
from gw.control.store import StoreError
from gw.control.store.recordings import SETTLED
from gw.twin import speech
from gw.twin.sound import SILENT_FRAME
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from tests.faults.acts import ACTS
from tests.faults.records.ledger import CallLine, Ledger, Struck
from tests.faults.scenarios import PlacedCall, Scenario, Strike
from tests.faults.world import World
from tests.mariadb import MariaDB
from tests.timing import scaled

#: The telephone's jitter buffer.
BUFFER_MS: Final = 60
#: Longest call of a caller, waiting included.
MAX_CALL_S: Final = 30.0
#: Time for the remaining work without faults: the longest wait between two attempts, and one or two reconcile passes.
SETTLE_S: Final = 45.0
#: Time for recordings without a stored callback: Twilio is asked for them after two minutes, twenty per pass.
LOOK_S: Final = 240.0
#: A part of the world that a shared machine does not run for this long counts as a fault.
MACHINE_S: Final = 0.5
#: Lateness of the twin below this does not count as a stall of the machine.
_TWIN_LATE_S: Final = 0.02


def run(scenario: Scenario, mariadb: MariaDB, *, wait_for_looks: bool = False) -> Ledger:
    """Run a scenario. Returns its ledger.

    `wait_for_looks`: also wait for recordings whose end is known only after a question to Twilio.
    """
    ledger = Ledger(scenario.name, scenario.seed, scenario.seconds)
    with tempfile.TemporaryDirectory(prefix="gw-faults-") as folder, World(Path(folder), scenario.seed, mariadb) as world:
        _warm_up(world)
        world.begin()
        ledger.began_at = world.began_at
        doing = Group()
        doing.spawn(_strike_all, world, scenario, ledger)
        doing.spawn(_place_all, world, scenario)
        doing.join(scenario.seconds + scaled(60.0), raise_error=True)
        _wait_until_done(world, ledger, wait_for_looks)
        ledger.census = world.census()
        _write_down(world, ledger)
        ledger.left_processes = world.end()
        ledger.returns = world.returns
        ledger.bench_errors += world.errors
    return ledger


def _warm_up(world: World) -> None:
    """Place first calls, so that connections kept for reuse are open before they are counted."""
    for _ in range(4):
        world.twilio.place_call([SILENT_FRAME] * 100, max_s=MAX_CALL_S)
        gevent.sleep(0.3)
    if not world.twilio.wait(scaled(20.0)):
        world.errors.append("the first calls did not end")
    world.wait(world.is_calm, "the gateway is at rest after the first calls", 15.0)
    world.note_fresh()


def _strike_all(world: World, scenario: Scenario, ledger: Ledger) -> None:
    lasting = Group()
    for strike in scenario.strikes:
        gevent.sleep(max(0.0, strike.at_s - world.now_s()))
        lasting.spawn(_strike, world, strike, ledger)
    lasting.join(raise_error=True)


def _strike(world: World, strike: Strike, ledger: Ledger) -> None:
    fault = strike.fault
    struck = Struck(fault.name, fault.link, sorted(fault.spoils), world.now_s(), world.now_s() + strike.lasts_s)
    ledger.struck.append(struck)
    callers = world.callers()
    done = ACTS[fault.act](world, strike)
    struck.about = done.about
    if done.met is not None:
        world.met.append((struck, done.met, callers))
    gevent.sleep(max(0.0, struck.to_s - world.now_s()))
    done.undo()
    struck.to_s = world.now_s()


def _place_all(world: World, scenario: Scenario) -> None:
    for placed in scenario.calls:
        gevent.sleep(max(0.0, placed.at_s - world.now_s()))
        world.twilio.place_call(script_of(placed), max_s=MAX_CALL_S)


def script_of(placed: PlacedCall) -> list[bytes]:
    """Return the caller's frames."""
    if not placed.phrase:
        return [SILENT_FRAME] * (placed.stays_ms // 20)
    said = speech.script(placed.phrase_ms, placed.phrase)
    return [*said, *[SILENT_FRAME] * (placed.stays_ms // 20 - len(said))]


# -- afterwards -------------------------------------------------------------------------------------------------------


def _wait_until_done(world: World, ledger: Ledger, wait_for_looks: bool) -> None:
    """Undo all faults, then wait for the last call and for the gateway's remaining work."""
    world.mariadb.revive()
    world.twilio.rest.heal()
    for link in ("phone", "ai", "rest", "store", "bus"):
        world.proxy.ask("clear", link=link)
    if not world.twilio.wait(scaled(MAX_CALL_S + 10.0)):
        world.errors.append("a caller's call did not end")
    world.twilio.rest.wait_callbacks()
    until_s = time.monotonic() + scaled(SETTLE_S)
    store = world.open_store()
    rows: list[RecordingRow] = []
    try:
        while True:
            lost = lost_callbacks(world.twilio) | _overtaken(world, ledger)
            try:
                unsettled = [row for row in store.recordings(limit=10_000) if row.state not in SETTLED]
                rows = [row for row in unsettled if _counts(row, lost, wait_for_looks)]
                is_over = not rows and not store.calls(open_only=True) and world.is_calm()
            except StoreError as error:
                world.errors.append(f"the store does not answer the bench after the faults: {error}")
                world.mariadb.revive()
                is_over = False
            if is_over or time.monotonic() > until_s + (LOOK_S if wait_for_looks else 0.0):
                break
            gevent.sleep(0.3)
        ledger.open_recordings = [msgspec.structs.asdict(row) for row in rows]
    finally:
        store.close()


def _counts(row: RecordingRow, lost: set[str], wait_for_looks: bool) -> bool:
    """Return whether the gateway should have finished an open recording by now."""
    return wait_for_looks or row.state != "started" or row.recording_sid not in lost


def _overtaken(world: World, ledger: Ledger) -> set[str]:
    """Return the recordings that ended while the store was down.

    If Twilio's last webhook precedes their row, the row gets its end only when Twilio is asked, after two minutes.
    """
    away = [(one.from_s + world.began_at, one.to_s + world.began_at + 3.0) for one in ledger.struck if one.link == "store"]
    ended = [call for call in world.twilio.calls.values() if any(a <= (call.ended_at or 0.0) <= b for a, b in away)]
    return {one.sid for call in ended for one in world.twilio.rest.recordings_of(call.call_sid)}


def lost_callbacks(twilio: TwilioTwin) -> set[str]:
    """Return the recordings whose end Twilio could not report to the gateway."""
    reported = {
        post.fields["RecordingSid"]
        for post in twilio.webhooks.posted_to("/twilio/recording")
        if post.is_good and post.fields["RecordingStatus"] in ("completed", "absent")
    }
    return {one.sid for one in twilio.rest.recordings.values()} - reported


def _write_down(world: World, ledger: Ledger) -> None:
    """Write the records of each side to the ledger."""
    tapped = world.proxy.ask("tapped")
    ledger.sent = [[*one[:6], one[6] - world.began_s] for one in tapped["sent"]]
    if tapped["unreadable"]:
        ledger.bench_errors.append(f"{tapped['unreadable']} bus connections could not be read")
    stalls = sorted([*world.stalls, *((at_s, late_s) for at_s, late_s in world.proxy.ask("stalls"))])
    ledger.struck += machine_faults(stalls, world.began_s)
    legs_lost = Counter(one[3] for one in ledger.sent if one[4] == "ai_leg_lost")
    spoken = world.ai.ask("sessions")
    sessions = Counter(one["tag"] for one in spoken)
    said = {one["tag"]: one for one in reversed(spoken)}
    requested = {one[3]: float(one[4]) - world.began_at for one in reversed(ledger.sent) if one[2] == "StartRecording"}
    lost = lost_callbacks(world.twilio)
    store = world.open_store()
    try:
        for call in world.twilio.calls.values():
            line = _line(world, call, lost)
            line.allowed_ms = allowed_ms(call, stalls)
            line.legs_lost = legs_lost[call.call_sid]
            line.requested_s = requested.get(call.call_sid)
            session = said.get(call.number)
            if session is not None:
                line.sessions = sessions[call.number]
                line.said_bytes, line.said_sha = session["padded_bytes"], session["padded_sha"]
                line.said_all = bool(session["statuses"]) and set(session["statuses"]) == {"completed"}
            row = msgspec.to_builtins(store.call(call.call_sid))
            if row is not None:
                line.row = {k: v for k, v in row.items() if k not in ("turns", "events", "quality", "recording")}
                line.quality, line.recording = row["quality"], row["recording"]
            else:
                recording = store.recording(call.call_sid)
                line.recording = None if recording is None else msgspec.structs.asdict(recording)
            ledger.calls.append(line)
    finally:
        store.close()
    _whose(world, ledger, tapped["pids"], spoken)
    status = world.status()
    ledger.backlog, ledger.poison = (status["backlog"], status["poison"]) if status else (-1, -1)
    with world.connect_to_store() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT call_sid, n, item_id FROM turns")
        ledger.stored["turns"] = [[sid, f"{n} {item or ''}".strip()] for sid, n, item in cursor.fetchall()]
        cursor.execute("SELECT instance, n FROM events")
        ledger.stored["events"] = [[instance, n] for instance, n in cursor.fetchall()]


def _whose(world: World, ledger: Ledger, pids: dict[str, int], sessions: list[dict[str, Any]]) -> None:
    """Find the calls that each fault of a connection or a process met."""
    homes: dict[str, set[int]] = defaultdict(set)  # pids of a call's workers
    for one in ledger.sent:
        if one[2] == "CallStarted":
            homes[one[3]].add(pids[one[0]])
    for struck, met, ports in world.met:
        if struck.link == "phone":
            struck.calls = [ports[one["from_port"]] for one in met if one["from_port"] in ports]
        elif struck.link == "ai":
            tags = [_caller_at(sessions, one["to_port"], world.began_s + struck.from_s) for one in met]
            if None not in tags:  # a session without a tag, not yet or never, may be of any call
                struck.calls = [tag for tag in tags if tag is not None]
        elif struck.link == "process" and "audio" in struck.spoils:
            gone = {one["pid"] for one in met}
            struck.calls = [call.number for call in ledger.calls if _was_at(call, homes[call.call_sid], gone, struck)]


def _caller_at(sessions: list[dict[str, Any]], port: int, at_s: float) -> int | None:
    """Return the call whose session came from this port at that time; ports are reused."""
    found = [one for one in sessions if one["port"] == port and one["connected_s"] <= at_s + 0.1]
    caller: int | None = max(found, key=lambda one: one["connected_s"])["tag"] if found else None
    return caller


def _was_at(call: CallLine, homes: set[int], gone: set[int], struck: Struck) -> bool:
    """Return whether a call was at one of these workers, or was being accepted when they died."""
    near = call.placed_s - 3.0 <= struck.to_s and call.ended_s >= struck.from_s
    return near and (bool(homes & gone) or not homes or abs(call.placed_s - struck.from_s) < 3.0)


def _line(world: World, call: TwinCall, lost: set[str]) -> CallLine:
    recordings = world.twilio.rest.recordings_of(call.call_sid)
    received, over_s = call.received_audio, call.ended_s if call.ended_s is not None else time.monotonic()
    return CallLine(
        number=call.number,
        call_sid=call.call_sid,
        placed_s=call.placed_s - world.began_s,
        ended_s=over_s - world.began_s,
        over=call.is_over,
        streamed=call.started_s is not None,
        closed_by=call.closed_by,
        close_reason=call.close_reason,
        error=call.error,
        received_bytes=len(received),
        received_sha=hashlib.sha256(received).hexdigest(),
        cleared=bool(call.clears),
        heard_bytes=len(call.heard_audio),
        underrun_60_ms=call.player.underrun_behind_ms(BUFFER_MS),
        recordings=len(recordings),
        recording_sids=[one.sid for one in recordings],
        starts=sum(1 for one in world.twilio.rest.starts.get(call.call_sid, []) if one.recording_sid),
        callback_lost=any(one.sid in lost for one in recordings),
    )


def allowed_ms(call: TwinCall, stalls: list[tuple[float, float]]) -> float:
    """Return the time in which the machine did not run the bench or a worker."""
    ended_s = call.ended_s if call.ended_s is not None else time.monotonic()
    others_s = sum(late_s for at_s, late_s in stalls if call.placed_s <= at_s <= ended_s + 1.0)
    own_s = call.late_max_s if call.late_max_s > _TWIN_LATE_S else 0.0  # overdue frames leave late
    return (others_s + own_s) * 1000


def machine_faults(stalls: list[tuple[float, float]], began_s: float) -> list[Struck]:
    """Return the machine's stalls that are long enough to end a call, as faults."""
    found: list[Struck] = []
    for at_s, late_s in stalls:
        if late_s < MACHINE_S:
            continue
        from_s, to_s = at_s - began_s - late_s, at_s - began_s + late_s
        if found and from_s <= found[-1].to_s + 1.0:
            found[-1].to_s = max(found[-1].to_s, to_s)
        else:
            found.append(Struck("machine stalled", "machine", ["audio", "rest"], from_s, to_s))
    return found


def say(text: str) -> None:
    """Print a line immediately."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()

"""gw.media.call_events: the words a call has for control, on a real plane and a real TX."""

from __future__ import annotations

from typing import NamedTuple

from gw import bus
from gw.call.pacer import Pacer
from gw.call.playout import Playout
from gw.call.turns import Turn
from gw.media.call_events import Told
from gw.media.context import MediaPlane
from gw.media.tx import Tx
from gw.protocol.twilio import Start
from tests.gw.media.support import ACCOUNT, CALL, STREAM, WAIT_S, PlaneMaker, door_and_peer

STARTED_S, STARTED_AT = 1000.0, 1.7e9


class Rig(NamedTuple):
    plane: MediaPlane
    said: list[bus.Event]
    tx: Tx
    told: Told
    start: Start


def _rig(planes: PlaneMaker, **parameters: str) -> Rig:
    plane, said = planes.plane(recording={"pool_size": 1})
    door, peer = door_and_peer()
    tx = Tx(door, Pacer(100), Playout(100), plane.clock, plane.tx_cells)
    start = Start(STREAM, ACCOUNT, CALL, ("inbound",), "audio/x-mulaw", 8000, 1, parameters)
    door.shut()
    peer.close()
    return Rig(plane, said, tx, Told(plane, start, tx, started_s=STARTED_S, started_at=STARTED_AT), start)


def test_a_start_names_who_called_whom_and_when_the_webhook_was_answered(planes: PlaneMaker) -> None:
    rig = _rig(planes, direction="outbound-api", caller="+1", called="+2")
    rig.told.on_start(rig.start, "clerk", STARTED_AT - 0.5)
    assert rig.said == [bus.CallStarted(CALL, STREAM, ACCOUNT, "clerk", "outbound-api", "+1", "+2", STARTED_AT - 0.5, STARTED_AT)]


def test_a_start_of_which_little_is_known(planes: PlaneMaker) -> None:
    rig = _rig(planes)
    rig.told.on_start(rig.start, "default", None)
    assert rig.said == [bus.CallStarted(CALL, STREAM, ACCOUNT, "default", "inbound", "", "", STARTED_AT, STARTED_AT)]


def test_turns_and_notes_carry_the_calls_name(planes: PlaneMaker) -> None:
    rig = _rig(planes)
    turns = [Turn(n, "agent", f"words {n}", f"item-{n}", 10, False, 10) for n in range(2)]
    rig.told.tell(turns)
    rig.told.note("dtmf", digit="5")
    assert rig.said[:2] == [bus.Turn(CALL, *turn) for turn in turns]
    noted = rig.said[2]
    assert isinstance(noted, bus.CallEvent)
    assert (noted.call_sid, noted.kind, noted.data) == (CALL, "dtmf", {"digit": "5"})


def test_first_audio_and_recording_are_dated_by_the_first_frame_sent(planes: PlaneMaker) -> None:
    rig = _rig(planes)
    rig.tx.first_audio_s = STARTED_S + 0.75
    rig.told.on_first_audio()
    assert rig.told.pool_has_room()
    rig.told.on_record()
    assert not rig.told.pool_has_room()
    rig.plane.recording_pool.join(WAIT_S)
    assert rig.told.pool_has_room()
    assert rig.said == [bus.FirstAudio(CALL, STARTED_AT + 0.75), bus.StartRecording(CALL, ACCOUNT, STARTED_AT + 0.75)]


def test_a_call_that_came_back_says_so_with_its_wish(planes: PlaneMaker) -> None:
    rig = _rig(planes, resume="1", began=f"{STARTED_AT - 60:.3f}")
    rig.told.on_record()
    rig.plane.recording_pool.join(WAIT_S)
    [wish] = rig.said
    assert isinstance(wish, bus.StartRecording) and wish.resumed

"""gw.control.retention.erasure: one call leaves every place, or nothing is removed and the error has the cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
import gevent.event
import msgspec
import pytest

from gw import bus
from gw.control.admin.server import CommandError
from gw.control.store import Report
from tests.gw.control.retention.rig import OTHER, Rig
from tests.gw.control.stamped import call_sid
from tests.timing import scaled


def forget(rig: Rig, k: int = 1, **options: Any) -> Any:
    of_rig = {name: options.pop(name) for name in ("signed", "fetches") if name in options}
    command = rig.retention(**of_rig).commands()["forget"]
    return msgspec.to_builtins(command.run({"call_sid": call_sid(k), **options}))


def test_a_call_leaves_every_place(rig: Rig) -> None:
    made = rig.recorded()
    rig.call(2)
    rig.recordings().pass_over(lambda: True)
    file = Path(rig.row().file or "")
    event = bus.encode_event(bus.CallEvent(call_sid(1), "dtmf", 1.0, {"digit": "5"}))
    rig.spool.append("w", [(1, event), (2, event), (3, bus.encode_event(bus.CallEvent(call_sid(2), "dtmf", 1.0, {})))])
    rig.spool.set_aside(rig.spool.batch(1)[0].id, "refused")
    done = forget(rig, twilio=True)
    assert done["store"] == {"turns": 0, "call_quality": 1, "call_usage": 0, "recordings": 1, "events": 0, "calls": 1}
    assert done["spool"] == {"entries": 1, "poison": 1, "claims": 0, "jobs": 0}
    assert (done["twilio"], done["file"], done["remains"]) == ([made.sid], str(file), [])
    assert not file.exists()
    assert rig.twin.recordings == {}
    assert rig.store.call(call_sid(1)) is None
    assert rig.spool.backlog() == 1
    assert rig.store.call(call_sid(2)) is not None
    assert set(forget(rig)["store"].values()) == {0}, "a second time finds nothing"


def test_what_remains_is_reported(rig: Rig) -> None:
    made = rig.recorded()
    rig.store.update_recording(call_sid(1), fetched_at=1.0, fetched_by="vm2", file="/nowhere/x.wav")
    (rig.folder / "spool.db.corrupt-1").write_bytes(b"")
    twilio, elsewhere, corrupt = forget(rig)["remains"]
    assert made.sid in twilio
    assert "vm2 downloaded the recording to /nowhere/x.wav" in elsewhere
    assert "1 corrupt spool files" in corrupt
    assert list(rig.twin.recordings) == [made.sid]


def files_in(rig: Rig) -> list[Path]:
    return [path for path in rig.files.rglob("*") if path.is_file()]


def test_the_part_of_a_broken_download_is_deleted(rig: Rig) -> None:
    rig.recorded()
    rig.twin.fail("cut", operation="media")
    rig.recordings().pass_over(lambda: True)
    [part] = files_in(rig)
    assert (rig.row().state, rig.row().file) == ("completed", None)
    assert forget(rig, twilio=True)["file"] == str(part)
    assert files_in(rig) == []


def test_a_part_beside_the_file_is_deleted_too(rig: Rig) -> None:
    """Of a download that began once more, or that an earlier `recording.fetch_dir` has."""
    rig.recorded()
    rig.recordings().pass_over(lambda: True)
    moved = rig.folder / "elsewhere.wav"
    Path(rig.row().file or "").rename(moved)
    rig.store.update_recording(call_sid(1), file=str(moved))
    (part := rig.folder / ".elsewhere.wav.part").write_bytes(b"x")
    assert forget(rig)["file"] == str(moved)
    assert not moved.exists()
    assert not part.exists()


@pytest.mark.parametrize("end", ["", "cut", "gone"])
def test_a_download_that_begins_meanwhile_leaves_nothing(rig: Rig, end: str) -> None:
    """Its row was read before the call was erased."""
    rig.recorded()
    if end == "cut":
        rig.twin.fail("cut", operation="media")

    def erase() -> bool:
        forget(rig, twilio=end == "gone")
        return True

    rig.recordings().pass_over(erase)
    assert rig.asked("GET") > 0
    assert files_in(rig) == []
    assert rig.store.recording(call_sid(1)) is None


def test_a_download_under_way_leaves_nothing(rig: Rig) -> None:
    rig.recorded(1)
    rig.recorded(2)
    rig.twin.delay_s = 0.5
    downloads = gevent.spawn(rig.recordings().pass_over, lambda: True)
    with gevent.Timeout(scaled(10)):
        while not rig.twin.requests:
            gevent.sleep(0.01)
    forget(rig)
    assert not downloads.ready()
    downloads.get()
    assert [str(path) for path in files_in(rig)] == [rig.row(2).file], "the other call's download is not disturbed"


def test_a_download_that_completes_before_the_row_is_gone_leaves_nothing(rig: Rig) -> None:
    rig.recorded()
    event = bus.CallEvent(call_sid(1), "dtmf", 1.0, {"digit": "5"})
    rig.spool.append("w", [(1, bus.encode_event(event))])
    erase, downloads = rig.spool.erase, rig.recordings()

    def slow(sid: str) -> Any:
        downloads.pass_over(lambda: True)
        assert rig.row().file is not None
        return erase(sid)

    rig.spool.erase = slow  # type: ignore[method-assign]
    assert forget(rig)["file"].endswith(".wav")
    assert files_in(rig) == []


def test_a_file_that_another_machine_completes_meanwhile_is_reported(rig: Rig) -> None:
    """`forget` reported the part of a broken download there, and no row named the file."""
    rig.recorded()
    for gateway, machine in (("me", "vm1"), ("other", "vm2")):
        rig.store.claim_gateway(Report(gateway, "f", machine, "1"))
    erase = rig.spool.erase

    def slow(sid: str) -> Any:
        assert rig.store.update_recording(sid, fetched_at=1.0, fetched_by="vm2", file="/nowhere/x.wav")
        return erase(sid)

    rig.spool.erase = slow  # type: ignore[method-assign]
    _, *remains = forget(rig)["remains"]
    assert remains == ["vm2 downloaded the recording to /nowhere/x.wav: it is not on this machine"]


def test_a_part_on_another_machine_is_reported_where_there_can_be_one(rig: Rig) -> None:
    rig.recorded(1)
    assert [one for one in forget(rig, 1)["remains"] if "part" in one] == [], "it is the only gateway"
    for gateway, machine in (("me", "vm1"), ("other", "vm2")):
        rig.store.claim_gateway(Report(gateway, "f", machine, "1"))
    rig.recorded(2)
    rig.recorded(3)
    rig.call(4)
    [part] = [one for one in forget(rig, 2)["remains"] if "part" in one]
    assert "on vm2: a gateway that runs there deletes such parts after a day" in part
    rig.recordings().pass_over(lambda: True)
    assert [one for k in (3, 4) for one in forget(rig, k)["remains"] if "part" in one] == [], "downloaded, or not recorded"
    rig.recorded(5)
    assert [one for one in forget(rig, 5, fetches=False)["remains"] if "part" in one] == [], "nothing is downloaded"


def test_a_batch_under_way_does_not_bring_the_call_back(rig: Rig) -> None:
    rig.call()
    event = bus.CallEvent(call_sid(1), "dtmf", 1.0, {"digit": "5"})
    rig.spool.append("w", [(1, bus.encode_event(event))])
    apply, begun, proceed = rig.store.apply, gevent.event.Event(), gevent.event.Event()

    def slow(events: Any) -> None:
        begun.set()
        proceed.wait()
        apply(events)

    rig.store.apply = slow  # type: ignore[method-assign]
    forwarding = gevent.spawn(rig.forwarder.run)
    begun.wait()
    erasing = gevent.spawn(forget, rig)
    gevent.sleep(0.01)
    assert not erasing.ready()
    proceed.set()
    assert erasing.get()["store"]["events"] == 1
    rig.forwarder.stop()
    forwarding.join()
    assert rig.spool.backlog() == 0
    assert rig.store.call(call_sid(1)) is None


def test_a_call_that_is_not_over_is_refused(rig: Rig) -> None:
    rig.recorded()
    rig.alive.add(call_sid(1))
    with pytest.raises(CommandError, match="has not ended"):
        forget(rig)
    rig.alive.clear()
    rig.store.apply([])
    with pytest.raises(CommandError, match="no Twilio credentials"):
        forget(rig, signed=False, twilio=True)
    rig.twin.fail("503", operation="delete")
    with pytest.raises(CommandError, match="did not delete"):
        forget(rig, twilio=True)
    rig.twin.fail("503", operation="list")
    with pytest.raises(CommandError, match="did not list"):
        forget(rig, twilio=True)
    assert rig.store.call(call_sid(1)) is not None
    rig.call(2)
    from gw.control.store import Stamped

    rig.store.apply([Stamped(bus.StartRecording(call_sid(2), "AC1", 1.0), "vm1", 0, "x", 1)])
    with pytest.raises(CommandError, match="is wanted"):
        forget(rig, 2)


def test_recordings_of_another_account_are_deleted_there(rig: Rig) -> None:
    rig.has_other = True
    made = rig.recorded(account=OTHER)
    assert forget(rig, twilio=True)["twilio"] == [made.sid]
    assert rig.other.recordings == {}
    assert rig.twin.requests == type(rig.twin.requests)()


def test_a_call_of_an_account_that_is_not_configured_stays(rig: Rig) -> None:
    rig.has_other = True
    rig.recorded(account="AC" + "3" * 32)
    with pytest.raises(CommandError, match=r"no Twilio credentials for the account of CA.*: nothing was removed"):
        forget(rig, twilio=True)
    assert rig.row().deleted_at is None

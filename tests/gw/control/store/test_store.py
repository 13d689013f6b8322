"""gw.control.store on both databases: calls are read as written, for any order of their events."""

from __future__ import annotations

import itertools
import random
import stat
from pathlib import Path

import gevent
import pytest

import gw.config
from gw import bus
from gw.control.rows import CallRow
from gw.control.store import Store, StoreError, StoreUnavailable
from gw.errors import ConfigError
from tests.conftest import StoreMaker
from tests.gw.control.stamped import ACCOUNT, T0, call_sid, ended, stamp, started, turn
from tests.timing import scaled

SID = call_sid(1)


def whole_call() -> list[bus.Event]:
    """Every kind of event of one call."""
    return [
        started(),
        bus.FirstAudio(SID, T0 + 2.25),
        bus.StartRecording(SID, ACCOUNT, T0 + 2.25),
        turn(n=1, text="Grüß Gott 👋"),
        turn(n=2, text="yes", role="caller", item_id="", heard_ms=None),
        bus.CallEvent(SID, "dtmf", T0 + 5, {"digit": "5", "count": 1, "final": True, "nothing": None, "level": 0.5}),
        bus.Webhook("status", T0 + 61, {"CallSid": SID, "CallStatus": "completed"}),
        ended(send_p50_s=0.000123, dropped_frames={"bargein": 7}, first_audio_ms=1750),
    ]


def test_a_call_is_read_as_written(store: Store) -> None:
    store.apply(stamp(*whole_call(), worker=2))
    call = store.call(SID)
    assert call is not None
    quality, recording, turns, events = call.quality, call.recording, call.turns, call.events
    assert quality is not None
    assert recording is not None
    facts = {name: getattr(call, name) for name in CallRow.__struct_fields__}
    assert facts == {
        "call_sid": SID,
        "stream_sid": "MZ" + SID[2:],
        "account_sid": ACCOUNT,
        "agent": "default",
        "direction": "inbound",
        "from_number": "+4915112345678",
        "to_number": "+493012345678",
        "started_at": T0 + 1,
        "answered_at": T0 + 1.5,
        "first_audio_at": T0 + 2.25,
        "ended_at": T0 + 60,
        "reason": "caller_hangup",
        "result": "success",
        "detail": "",
        "host": "h1",
        "gateway": "gw-1",
        "worker": 2,
        "instance": "i1",
    }
    assert quality.send_p50_s == 0.000123
    assert quality.send_max_s is None, "not measured is nothing, not -1"
    assert (quality.dropped_frames, quality.uplink_dropped_frames) == ({"bargein": 7}, {})
    assert (recording.state, recording.account_sid, recording.first_audio_at) == ("wanted", ACCOUNT, T0 + 2.25)
    assert [(t.n, t.role, t.text, t.item_id, t.heard_ms, t.interrupted) for t in turns] == [
        (1, "agent", "Grüß Gott 👋", "item_1", 900, False),
        (2, "caller", "yes", None, None, False),
    ]
    assert [(e.kind, e.at, e.data) for e in events] == [
        ("dtmf", T0 + 5, {"digit": "5", "count": 1, "final": True, "nothing": None, "level": 0.5}),
        ("webhook_status", T0 + 61, {"CallSid": SID, "CallStatus": "completed"}),
    ]


def test_reversed_and_repeated_events_leave_the_same_call(store: Store) -> None:
    batch = stamp(*whole_call())
    store.apply(batch)
    expected = store.call(SID)
    other = stamp(*(started(2), ended(2)), instance="i2")
    store.apply([*reversed(batch)])
    for stamped in [*batch, *other[::-1], *other[::-1]]:
        store.apply([stamped])
    assert store.call(SID) == expected
    assert [(c.call_sid, c.reason, c.recording_state) for c in store.calls()] == [
        (call_sid(2), "caller_hangup", None),
        (SID, "caller_hangup", "wanted"),
    ]


def test_an_empty_batch_changes_nothing(store: Store) -> None:
    store.apply([])
    assert store.calls() == []


def test_a_batch_is_written_whole_or_not_at_all(store: Store) -> None:
    unwritable = bus.CallEvent(SID, "bad", T0, {"x": "\ud800"})  # a lone surrogate has no UTF-8
    with pytest.raises(StoreError, match="surrogates"):
        store.apply(stamp(started(), unwritable))
    assert store.calls() == []


def test_events_without_a_call_make_no_call(store: Store) -> None:
    refused = bus.CallEnded("", T0, "token_forged", "peer_error", "bad signature", ended().quality)
    store.apply(stamp(refused, bus.CallEvent("", "stream_refused", T0), bus.Webhook("status", T0, {"a": "b"})))
    assert (store.calls(), store.call("")) == ([], None)


def test_an_inferred_end_closes_open_calls_and_yields_to_a_real_one(store: Store) -> None:
    store.apply(stamp(started(1), started(2), started(3), ended(1)))
    store.apply(stamp(started(4), gateway="gw-2", instance="i2"))
    assert [c.call_sid for c in store.open_calls(gateway="gw-1")] == [call_sid(2), call_sid(3)]
    assert [c.call_sid for c in store.calls(open_only=True)] == [call_sid(4), call_sid(3), call_sid(2)]
    store.apply(stamp(*(ended(n, "worker_lost", "own_error", T0 + 99) for n in (1, 2, 3))))
    lost = store.call(call_sid(2))
    assert lost is not None
    assert (lost.ended_at, lost.reason, lost.result, lost.quality) == (T0 + 99, "worker_lost", "own_error", None)
    store.apply(stamp(ended(2, reason="ai_hangup"), ended(3, reason="worker_lost", result="own_error")))
    assert [c.reason for c in store.calls()] == [None, "worker_lost", "ai_hangup", "caller_hangup"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([("phone_lost", 10), ("worker_lost", 30)], "worker_lost"),  # of the call's next stream
        ([("worker_lost", 10), ("worker_lost", 30)], "worker_lost"),
        ([("caller_hangup", 30), ("phone_silent", 40)], "caller_hangup"),  # of a stream whose worker missed its HangUp
        ([("worker_lost", 40), ("caller_hangup", 30)], "caller_hangup"),  # of a worker given up too early
        ([("phone_lost", 10), ("caller_hangup", 30), ("worker_lost", 40)], "caller_hangup"),
        ([("ai_hangup", 10), ("caller_hangup", 30)], "caller_hangup"),
    ],
)
def test_the_end_of_the_last_stream_is_that_of_its_call(store: Store, ends: list[tuple[str, float]], expected: str) -> None:
    for order in itertools.permutations(ends):
        store.apply(stamp(started()))
        for reason, at in order:
            store.apply(stamp(ended(reason=reason, at=T0 + at)))
        call = store.call(SID)
        assert call is not None
        assert (call.reason, call.ended_at) == (expected, T0 + 30)
        store.forget(SID)


def test_an_inferred_end_has_no_quality(store: Store) -> None:
    store.apply(stamp(started(), ended(reason="worker_lost", result="own_error")))
    call = store.call(SID)
    assert call is not None
    assert (call.reason, call.quality) == ("worker_lost", None)


# -- concurrency and failures -------------------------------------------------------------------------------------------


def test_many_greenlets_write_at_the_same_time(store: Store, open_store: StoreMaker) -> None:
    stores = [store, open_store()]
    batches = [stamp(*(started(k) for k in range(1, 30)), *(ended(k) for k in range(1, 30)), instance=f"i{g}") for g in range(6)]
    for batch in batches:
        random.Random(1).shuffle(batch)
    jobs = [gevent.spawn(stores[g % 2].apply, batch) for g, batch in enumerate(batches)]
    gevent.joinall(jobs, timeout=scaled(30), raise_error=True)
    assert len(store.calls()) == 29


def test_the_hub_continues_while_the_store_works(store: Store) -> None:
    order: list[str] = []
    work = gevent.spawn(lambda: (store.apply(stamp(*(started(k) for k in range(1, 200)))), order.append("stored")))
    other = gevent.spawn(lambda: (gevent.sleep(0), gevent.sleep(0), order.append("continued")))
    gevent.joinall([work, other], timeout=scaled(20), raise_error=True)
    assert order == ["continued", "stored"]


def test_missing_tables_are_a_temporary_error(open_store: StoreMaker) -> None:
    with pytest.raises(StoreUnavailable, match=r"calls"):
        open_store().apply(stamp(started()))


def test_only_the_owner_can_read_the_sqlite_file(tmp_path: Path) -> None:
    store = Store(gw.config.Store(url=f"sqlite:///{tmp_path}/deep/er/s.db"), "")
    assert not (tmp_path / "deep").exists(), "making a store touches nothing"
    store.upgrade()
    for file in (tmp_path / "deep" / "er").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    store.close()


def test_an_impossible_sqlite_path_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(gw.config.Store(url=f"sqlite:///{tmp_path}/file/s.db"), "")
    with pytest.raises(StoreUnavailable):
        store.calls()
    store.close()
    store.close()
    with pytest.raises(StoreError):
        store.calls()


def test_a_closed_port_is_unavailable() -> None:
    store = Store(gw.config.Store(url="mysql+pymysql://u@127.0.0.1:1/db"), "hunter2")
    with pytest.raises(StoreUnavailable) as raised:
        store.calls()
    assert "hunter2" not in str(raised.value)
    store.close()


def test_the_wrong_password_is_unavailable_and_not_shown(mariadb_config: gw.config.Store) -> None:
    store = Store(mariadb_config, "hunter2")
    with pytest.raises(StoreUnavailable, match="Access denied") as raised:
        store.calls()
    assert "hunter2" not in f"{raised.value} {raised.value.__cause__}"
    store.close()


def test_an_invalid_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"store\.url"):
        Store(gw.config.Store(url="postgresql://x/y"), "")

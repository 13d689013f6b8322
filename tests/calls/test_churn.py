"""Two hundred ended calls leave no greenlet, descriptor, open row or gauge above zero."""

from __future__ import annotations

import gc
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import greenlet
from gevent.pool import Pool

from gw.config import Store
from gw.control.store.recordings import SETTLED
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from tests.calls.conftest import World, WorldMaker
from tests.calls.gateway import descriptors
from tests.calls.hearing import in_parallel, until
from tests.timing import scaled

CALLS = 200
AT_ONCE = 25
#: Connections kept for reuse may be a few more where calls fell closer together. A leak would be one per call.
KEPT = 8
#: Just enough audio for a recording to start.
BRIEF = AiScript(greeting=lasting(1)[:801], answers=(lasting(1)[:333],), hang_up_after=1)


def alive() -> Counter[str]:
    """Count the greenlets that have begun and not ended, by function."""
    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, greenlet.greenlet) and not one.dead]
    return Counter(_name(one) for one in found)


def _name(one: greenlet.greenlet) -> str:
    run = getattr(one, "_run", None)
    return f"{type(one).__name__} {getattr(run, '__qualname__', run)}"


def call_once(w: World, n: int) -> None:
    """Place one short call, ended by caller, agent or a broken connection."""
    caller_ends = n % 2 == 1 or w.gateway.config.agents["default"].provider == "parrot"
    hooks = {15: lambda call: call.abort()} if n % 10 == 9 else {}
    call = w.twilio.place_call(speech.script(400 if caller_ends else 8000), hang_up=caller_ends, max_s=scaled(8.0), hooks=hooks)
    assert call.wait(scaled(60.0)), f"call {n} did not end"  # fifty calls of one process on a busy machine


def churn(w: World, begin: int, calls: int) -> None:
    """Place `calls` calls, at most AT_ONCE at a time."""
    pool = Pool(AT_ONCE)
    crowd = [pool.spawn(call_once, w, n) for n in range(begin, begin + calls)]
    gevent.joinall(crowd, raise_error=True)


def wait_until_idle(w: World) -> None:
    """Wait for the last callbacks, status webhooks and recordings."""
    w.twilio.rest.wait_callbacks()
    until(lambda: not w.gateway.store.calls(open_only=True), "no call is open in the store")
    until(lambda: all(row.state in SETTLED for row in w.gateway.store.recordings(limit=10_000)), "every recording is final")
    gevent.sleep(scaled(2.3))  # a status webhook is checked again two seconds later


def check_nothing_remains(w: World, calls: int, before: Counter[str], open_before: int) -> None:
    until_s = time.monotonic() + scaled(10.0)  # on a busy machine the last answers take their time
    while time.monotonic() < until_s and (alive() - before or descriptors() > open_before + KEPT):
        gevent.sleep(0.1)
    assert not alive() - before
    assert descriptors() <= open_before + KEPT
    context = w.gateway.worker.context
    assert (context.calls, context.streams, len(w.gateway.worker.server.sessions)) == ({}, 0, 0)
    rows = w.gateway.store.calls(limit=1000)
    assert len(rows) == calls
    assert all(row.ended_at for row in rows)
    metrics = w.gateway.metrics()
    assert [name for name, value in metrics.items() if name.startswith("gw_calls{") and value] == []
    ended = {name: value for name, value in metrics.items() if name.startswith("gw_calls_ended_total{") and value}
    assert sum(ended.values()) == calls, ended
    assert metrics["gw_bus_unacked_events"] == metrics["gw_store_backlog_events"] == 0
    rest = w.twilio.rest
    for sid, call in w.twilio.calls.items():
        row = w.gateway.store.recording(sid)
        asked = rest.starts.get(sid) is not None
        assert (row is not None) >= asked
        assert (row is not None) >= bool(call.received_audio)
        assert asked or row is None or row.reason == "call_ended"  # a busy store answered after the call's end
        assert len(rest.recordings_of(sid)) == (row is not None and row.state == "completed")  # otherwise the call ended first


def test_two_hundred_calls_leave_nothing_behind(world: WorldMaker, tmp_path: Path) -> None:
    with ExitStack() as opened:
        options: dict[str, Any] = {"store": Store(url=f"sqlite:///{tmp_path}/parrot.db"), "var_dir": "parrot"}
        worlds = [opened.enter_context(world(BRIEF)), opened.enter_context(world(agent={"provider": "parrot"}, **options))]
        for w in worlds:
            w.twilio.rest.delay_s = 0.5  # the first calls open every connection that is kept for later ones
        in_parallel(*(partial(churn, w, 0, AT_ONCE) for w in worlds))
        in_parallel(*(partial(wait_until_idle, w) for w in worlds))
        for w in worlds:
            w.twilio.rest.delay_s = 0.0
        before, open_before = alive(), descriptors()
        in_parallel(*(partial(churn, w, AT_ONCE, CALLS // 2) for w in worlds))
        in_parallel(*(partial(wait_until_idle, w) for w in worlds))
        for w in worlds:
            check_nothing_remains(w, AT_ONCE + CALLS // 2, before, open_before)

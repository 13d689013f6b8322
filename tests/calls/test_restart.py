"""A gateway of real processes, as `serve` starts them: the death of a process affects as few calls as possible."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gevent

import gw.config
from gw.bench.gateway_process import GatewayProcess, wait_until_gone
from gw.control.admin.client import AdminClient, NotReachable
from gw.control.store import Store
from gw.twin import speech
from gw.twin.ai.faults import Call
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.hooks import HookTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from tests import schema
from tests.calls.hearing import check_ear, not_run_ms, padded, until
from tests.program import program
from tests.timing import scaled

SCRIPT = program()
AUTH_TOKEN = "an auth token of the tests"
HOOK_SECRET = "a hook secret of the tests"
#: Twelve seconds of an agent who then hangs up: longer than a process needs to restart on a busy machine.
SPEECH = lasting(12)[:96_003]
#: Allowance for times in which the machine does not run the worker, which the twins in another process cannot measure.
JITTER_MS = 300
TALKS = AiScript(greeting=SPEECH, hang_up_after=1, speed=2.0)
NEVER_ENDS = AiScript(greeting=lasting(60))


class Running:
    """A gateway of real processes, between the twins."""

    def __init__(self, gateway: GatewayProcess, ai: AiTwin, twilio: TwilioTwin) -> None:
        self.gateway = gateway
        self.ai = ai
        self.twilio = twilio
        self._admin = AdminClient(gateway.admin_socket, timeout_s=scaled(20.0))

    def status(self) -> dict[str, Any] | None:
        """Return the gateway's status; None while control is down."""
        try:
            answer: dict[str, Any] = self._admin.request("status")
        except NotReachable:
            return None
        return answer

    def pids(self) -> dict[str, int]:
        """Return the pids of control and of each connected worker."""
        status = self.status()
        if status is None:
            return {}
        return {
            "control": status["pid"],
            **{f"worker {one['index']}": one["pid"] for one in status["workers"] if one["connected"]},
        }

    def row(self, call: TwinCall) -> dict[str, Any]:
        """Return a call's row; empty if the store has none or control is down."""
        try:
            return self._admin.request("call", call_sid=call.call_sid) or {}
        except NotReachable:
            return {}

    def place(self, count: int) -> list[TwinCall]:
        return [self.twilio.place_call(speech.script(20_000), hang_up=False, max_s=scaled(30.0)) for _ in range(count)]

    def arrive(self, count: int) -> None:
        """Place calls ten milliseconds apart, so that some are at every step of their beginning."""
        for _ in range(count):
            self.place(1)
            gevent.sleep(0.01)

    def check_whole(self, call: TwinCall) -> None:
        """Check that a call was undisturbed: all audio heard, everything in the store, one recording."""
        assert call.wait(scaled(40.0))
        assert (call.closed_by, call.close_reason) == ("gateway", "ai_hangup")
        assert call.heard_audio == padded([SPEECH])
        check_ear(call, JITTER_MS)
        until(lambda: self.row(call).get("ended_at"), f"{call.call_sid} ended in the store")
        until(lambda: (self.row(call)["recording"] or {}).get("state") == "completed", f"{call.call_sid} was recorded")
        row = self.row(call)
        assert (row["reason"], row["result"]) == ("ai_hangup", "success")
        assert row["quality"]["frames_sent"] == len(padded([SPEECH])) // 160
        assert [turn["heard_ms"] for turn in row["turns"]] == [len(SPEECH) // 8]
        assert [one.sid for one in self.twilio.rest.recordings_of(call.call_sid)] == [row["recording"]["recording_sid"]]
        assert sum(start.recorded for start in self.twilio.rest.starts[call.call_sid]) == 1
        assert len(self.twilio.rest.starts[call.call_sid]) == 1


@contextlib.contextmanager
def running(
    folder: Path,
    script: AiScript | Callable[[int, str], AiScript],
    workers: int,
    server: str = "",
    store_url: str = "",
    program: Sequence[str] = SCRIPT,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Running]:
    """Start a gateway; afterwards check that none of its processes is left, replaced ones included.

    `server`: further keys of [server]. `store_url`: replaces an SQLite file. `settings`: further tables.
    """
    tables = {"server": f"workers = {workers}\n{server}", "media": "holding_sound = false\n", **settings}
    gateway = GatewayProcess(program, folder, tables, store_url)
    if not store_url:
        schema.prepare(gateway)
    seen: set[int] = set()
    with AiTwin(script) as ai, TwilioTwin(gateway.url, auth_token=AUTH_TOKEN) as twilio:
        try:
            gateway.start(
                account_sid=twilio.account_sid,
                auth_token=AUTH_TOKEN,
                api_base=twilio.rest.url,
                ai_url=ai.url,
                hook_secret=HOOK_SECRET,
            )
            r = Running(gateway, ai, twilio)
            until(lambda: len(r.pids()) == workers + 1, "every worker is on the bus")
            seen |= set(gateway.pids())
            yield r
        finally:
            seen |= set(gateway.pids())
            gateway.stop()
    assert wait_until_gone(sorted(seen), scaled(20.0)) == []


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process; continue it afterwards."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_death_of_control_disturbs_no_call(tmp_path: Path) -> None:
    """Kill control while recordings are at every step between the request and Twilio's answer.

    Calls continue and new ones are accepted without control. Once it is back, nothing is missing and no call is recorded twice.
    """
    with running(tmp_path, TALKS, workers=1) as r:
        before = r.pids()
        r.twilio.rest.delay_s = 0.7
        r.place(5)
        until(lambda: len(r.twilio.rest.starts) == 5, "Twilio is asked to record")
        arriving = gevent.spawn(r.arrive, 20)
        until(lambda: len(r.twilio.rest.starts) >= 10, "Twilio is asked to record more")
        with stopped(r.gateway.pids()[0]):  # the supervisor: no successor starts
            os.kill(before["control"], signal.SIGKILL)
            arriving.join()
            (call,) = r.place(1)
            until(lambda: call.received_audio, "a call is accepted without control")
            assert r.status() is None
        until(lambda: all(call.received_audio for call in r.twilio.calls.values()), "every call is accepted")
        r.twilio.rest.delay_s = 0.0
        until(lambda: len(r.pids()) == 2, "control is back")
        after = r.pids()
        assert after["control"] != before["control"]
        assert after["worker 0"] == before["worker 0"]
        r.place(2)
        calls = list(r.twilio.calls.values())
        for call in calls:
            r.check_whole(call)
        assert len(r.twilio.rest.starts) == len(calls) == 28
        page = r.gateway.metrics()
        assert f'gw_calls_ended_total{{reason="ai_hangup"}} {len(calls)}.0' in page
        assert 'gw_calls_ended_total{reason="worker_lost"} 0.0' in page


def test_the_death_of_control_costs_no_tool_call_its_output(tmp_path: Path) -> None:
    """Kill control while two requests are under way: the idempotent one is repeated, the other one's outcome is unknown.

    The worker asks for both results, and the AI gets one output for each call.
    """
    calls = {1: (Call("lookup"), Call("book"))}
    script = AiScript(greeting=lasting(2), answers=(lasting(1),), calls=calls, hang_up_after=2, speed=2.0)
    with HookTwin(HOOK_SECRET) as endpoint:
        endpoint.slow_s = 3.0
        tool = f'description = "d"\ntimeout_s = {scaled(20.0)}\nurl = "{endpoint.url("slow")}/'
        settings = {
            "agents.default": 'tools = ["hang_up", "lookup", "book"]\n',
            "hooks": 'allow_networks = ["127.0.0.1/32"]\n',
            "tools.lookup": f'{tool}lookup"\nidempotent = true\n',
            "tools.book": f'{tool}book"\n',
        }
        with running(tmp_path, script, workers=1, settings=settings) as r:
            before = r.pids()
            (call,) = r.place(1)
            until(lambda: len(endpoint.requests) == 2, "both tools are called")
            os.kill(before["control"], signal.SIGKILL)
            assert call.wait(scaled(40.0))
            session = r.ai.session_of(call.number)
            assert session is not None
            names = {one.call_id: one.name for one in session.calls}
            outputs = [(names[one["call_id"]], json.loads(one["output"])) for one in session.tool_outputs]
        assert [name for name, _ in outputs].count("lookup") == [name for name, _ in outputs].count("book") == 1
        found = dict(outputs)
        assert (found["lookup"], found["book"]["error"]) == ({"done": "lookup"}, "unknown_outcome")
        assert (call.close_reason, len(session.responses)) == ("ai_hangup", 2)
        assert set(endpoint.executions.values()) == {1}
        attempts = [(request.body["tool"], request.body["attempt"]) for request in endpoint.requests]
        assert sorted(attempts) == [("book", 1), ("lookup", 1), ("lookup", 2)]


def test_the_death_of_a_worker_ends_only_its_own_calls(tmp_path: Path) -> None:
    """Its calls are ended within two seconds, the other worker's continue, and the worker is replaced."""
    with running(tmp_path, lambda index, path: NEVER_ENDS if index >= 12 else TALKS, 2, 'on_lost = "goodbye"\n') as r:
        before = r.pids()
        calls = r.place(8)
        until(lambda: len(r.twilio.rest.starts) == 8, "Twilio is asked to record")
        until(lambda: all(r.row(call).get("worker") is not None for call in calls), "the store has the calls")
        by_slot: dict[int, list[TwinCall]] = {0: [], 1: []}
        for call in calls:
            by_slot[r.row(call)["worker"]].append(call)
        victim = 0 if by_slot[0] else 1
        os.kill(before[f"worker {victim}"], signal.SIGKILL)
        killed_s = time.monotonic()
        for call in by_slot[victim]:
            until(lambda call=call: r.row(call)["ended_at"], "the lost call is ended")  # type: ignore[misc]
        ended_s = time.monotonic() - killed_s
        assert ended_s < scaled(2.0) + max(not_run_ms(call) for call in calls) / 1000
        for call in by_slot[victim]:
            assert (r.row(call)["reason"], r.row(call)["result"]) == ("worker_lost", "own_error")
            assert call.wait(scaled(20.0))
            assert [notice.code for notice in call.notices] == [31903]
        for call in by_slot[1 - victim]:
            r.check_whole(call)
        until(lambda: len(r.pids()) == 3, "the worker is replaced")
        after = r.pids()
        assert after[f"worker {victim}"] != before[f"worker {victim}"]
        others = {name: pid for name, pid in after.items() if name != f"worker {victim}"}
        assert others.items() <= before.items()
        for call in by_slot[victim]:
            until(lambda call=call: r.row(call)["recording"]["state"] == "completed", "its recording is final")  # type: ignore[misc]
        calls = r.place(4)
        for call in calls:
            r.check_whole(call)
        check_the_stop(r)


def check_the_stop(r: Running) -> None:
    """Stop the gateway: calls that outlast stop_timeout_s are ended, and all ends are in the store."""
    calls = r.place(3)
    until(lambda: all(call.received_audio for call in calls), "the agents talk")
    until(lambda: all(r.row(call) for call in calls), "the store has the calls")
    r.gateway.stop()
    store = Store(gw.config.Store(url=f"sqlite:///{r.gateway.var_dir}/submilli.db"), "")
    try:
        for call in calls:
            assert call.wait(scaled(20.0))
            assert (call.closed_by, call.close_code, call.close_reason) == ("gateway", 1000, "shutdown")
            row = store.call(call.call_sid)
            assert row is not None
            assert (row.reason, row.result) == ("shutdown", "success")
        assert store.calls(open_only=True) == []
    finally:
        store.close()

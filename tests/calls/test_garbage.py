"""Ended calls are freed by reference counting and leave nothing to the garbage collector.

Every end of a call, a stream and an AI leg, at the same time on a worker in a separate process, which reports its garbage.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import gevent
import msgspec
from gevent import socket, subprocess
from gevent.event import Event

from gw.config import Agent, Config, Media, Ops, Secrets, Server, Store, Twilio
from gw.control.main import Control
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.stream import CallPlan, Hook
from tests.calls.conftest import free_port
from tests.calls.gateway import ACCOUNT, AUTH_TOKEN, PUBLIC_URL
from tests.calls.hearing import until
from tests.calls.shared import murmur
from tests.timing import scaled

#: Number of calls of each kind.
CALLS: Final = 3
OK: Final = AiScript(greeting=lasting(1)[:4000], speed=20.0)
TALKS: Final = AiScript(greeting=lasting(3), speed=5.0)
#: Limit of objects per call that reference counting does not free. A reference cycle has at least two objects.
BOUND: Final = 1


class Case(NamedTuple):
    """Scripts of an agent's sessions, the caller's acts, and the expected end.

    The last script is that of all further sessions.
    """

    scripts: tuple[AiScript, ...] = (OK,)
    hooks: dict[int, Hook] = {}
    ends: str = "caller"
    says: tuple[bytes, ...] = murmur(1.5)
    agent: dict[str, Any] = {}


def _broken(fault: Any, **changes: Any) -> Case:
    """Return a case in which the leg fails during the greeting and is replaced."""
    return Case((TALKS.with_fault(fault), OK), says=murmur(2.5), **changes)


CASES: Final = {
    "caller": Case(),
    "parrot": Case(agent={"provider": "parrot"}, says=tuple(speech.script(1000))),
    "agent": Case((AiScript(greeting=lasting(1)[:801], answers=(lasting(1)[:333],), hang_up_after=1),), ends="ai_hangup"),
    "line_breaks": Case((TALKS,), {15: lambda call: call.abort()}, ends="twin"),
    "no_websocket": Case((TALKS,), {15: lambda call: call.send_raw(b"GET / HTTP/1.1\r\n\r\n")}, ends="phone_bad_websocket"),
    "no_json": Case((TALKS,), {15: lambda call: call.send_text(b"{")}, ends="phone_bad_json"),
    "no_agent": Case(ends=""),  # refused by the webhook, with words
    **{fault: _broken(fault) for fault in ("reset", "close", "bad_json", "bad_websocket", "oversize_message", "session_expired")},
    "freeze": Case((TALKS.with_fault("freeze"), OK), says=murmur(4.0)),
    "refused": Case((AiScript(fault="refuse_500"), OK)),
    "mute": Case((AiScript(fault="mute"), OK), says=murmur(2.5)),
    "never": Case((AiScript(fault="refuse_401"),), ends="fallback_goodbye"),
    "away": Case((TALKS.with_fault("reset"), AiScript(fault="refuse_500")), ends="fallback_goodbye", says=murmur(scaled(6.0))),
    "nowhere": Case(agent={"base_url": "ws://127.0.0.1:9/"}, ends="fallback_goodbye", says=murmur(scaled(6.0))),
    "rollover": Case((AiScript(greeting=lasting(1)[:4000], speed=20.0, lifetime_s=2.0, expires=True), OK), says=murmur(4.0)),
}


class Found(NamedTuple):
    """Report of the worker."""

    garbage: Counter[str]
    alive: Counter[str]


class Gateway:
    """A gateway whose worker is a separate process."""

    def __init__(self, child: subprocess.Popen[bytes], twilio: TwilioTwin) -> None:
        self._child = child
        self.twilio = twilio

    def look(self) -> Found | None:
        """Return the garbage so far and the live objects; None while a call is alive."""
        self._child.send_signal(signal.SIGUSR1)
        assert self._child.stdout is not None
        with gevent.Timeout(scaled(5.0)):
            report = json.loads(self._child.stdout.readline())
        return None if report["sessions"] else Found(Counter(report["garbage"]), Counter(report["alive"]))

    def look_at_rest(self, before: Found) -> Found:
        """Return the report once no more objects are alive than before, or after 3 s."""
        found = None
        for _ in range(30):
            found = self.look()
            if found is not None and not found.alive - before.alive:
                break
            gevent.sleep(scaled(0.1))
        assert found is not None, "a call is still alive"
        return found


def _scripts() -> Callable[[int, str], AiScript]:
    """Return a function that gives an agent's next session its script. Each call has its own agent."""
    opened: Counter[str] = Counter()

    def next_of(index: int, path: str) -> AiScript:
        agent = path.rsplit("/", 1)[1]
        opened[agent] += 1
        chosen = CASES[agent.partition("-")[0]].scripts
        return chosen[min(opened[agent], len(chosen)) - 1]

    return next_of


@contextlib.contextmanager
def _opened(var_dir: Path, ai: AiTwin) -> Iterator[Gateway]:
    agents = {"default": Agent()}
    for name, case in CASES.items():
        for n in range(CALLS if name != "no_agent" else 0):
            plain = Agent(provider="openai", base_url=f"{ai.url}/{name}-{n}", goodbye="Goodbye.")
            agents[f"{name}-{n}"] = msgspec.structs.replace(plain, **case.agent)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    address, rest_port = "{}:{}".format(*listener.getsockname()), free_port()
    config = Config(
        server=Server(listen=address, public_url=PUBLIC_URL, stop_timeout_s=0.5),
        ops=Ops(listen="127.0.0.1:0", admin_socket=str(var_dir / "admin.sock"), var_dir=str(var_dir)),
        twilio=Twilio(account_sid=ACCOUNT, api_base=f"http://127.0.0.1:{rest_port}", timeout_s=scaled(2.0)),
        media=Media(ai_connect_s=scaled(1.5), ai_stall_s=scaled(1.5), ai_reconnect_s=scaled(3.0)),
        store=Store(url=f"sqlite:///{var_dir}/store.db"),
        agents=agents,
        secrets=Secrets(twilio_auth_token=AUTH_TOKEN, openai_api_key="key-of-the-tests", token_key="a key of the tests"),
    )
    control = Control(config)
    is_up = Event()
    running = gevent.spawn(control.run, is_up.set)
    assert is_up.wait(scaled(30.0))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.calls.garbage_worker", str(listener.fileno())],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "GARBAGE_CONFIG": msgspec.json.encode(config).decode()},
        pass_fds=[listener.fileno()],
        stdout=subprocess.PIPE,
    )
    listener.close()
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        until(lambda: control._health.readiness().ready, "the worker is on the bus")
        url = f"http://{address}"
        with TwilioTwin(url, account_sid=ACCOUNT, auth_token=AUTH_TOKEN, public_url=PUBLIC_URL, rest_port=rest_port) as twilio:
            yield Gateway(child, twilio)
    finally:
        child.terminate()
        try:
            assert child.wait(scaled(30.0)) == 0
        finally:
            child.kill()
            control.stop()
            running.join(scaled(15.0))


def _place_calls(gateway: Gateway) -> dict[str, TwinCall]:
    """Place every call of every kind, and wait for their ends."""
    calls = {}
    for n in range(CALLS):
        for name, case in CASES.items():
            plan = CallPlan(agent=f"{name}-{n}", speech=case.says, hooks=case.hooks, max_s=scaled(20.0))
            calls[f"{name}-{n}"] = gateway.twilio.place(plan)
            gevent.sleep(0.01)
    for name, call in calls.items():
        assert call.wait(scaled(25.0)), f"{name} did not end"
    return calls


def test_ended_calls_leave_no_garbage(tmp_path: Path) -> None:
    with AiTwin(_scripts()) as ai, _opened(tmp_path, ai) as gateway:
        before = gateway.look()
        assert before is not None
        calls = _place_calls(gateway)
        found = gateway.look_at_rest(before)
        assert len(calls) == len(CASES) * CALLS
        ended = {name: call.close_reason or call.closed_by for name, call in calls.items()}
        assert {name: CASES[name.partition("-")[0]].ends for name in ended} == ended
        assert not found.alive - before.alive
        left = found.garbage - before.garbage
        assert not {name: count for name, count in left.items() if name.startswith("gw.")}
        assert left.total() < BOUND * len(calls), left

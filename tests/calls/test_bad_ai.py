"""Each fault of an AI ends at most its own call, with its own reason.

The reason is the same in log, store, metrics and close frame. All cases are calls on one gateway at the same time, each with its
own agent, beside a good call. Audio that the AI sent before its fault is heard to the last byte. Some cases are faults that must
not end a call.
"""

from __future__ import annotations

import contextlib
import socket as plain_socket
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

import gw.config
from gw.call.audio.hold_tone import hold_tone
from gw.call.dialogue.rules import MAX_UNREADABLE
from gw.config import Agent
from gw.twin.ai.script import CONNECT_FAULTS, RESPONSE_FAULTS, SESSION_FAULTS, AiScript, Fault
from gw.twin.ai.server import AiTwin
from gw.twin.sound import SILENT_FRAME
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.stream import CallPlan, Hook
from tests.calls.conftest import World
from tests.calls.hearing import until
from tests.calls.shared import Outcome, end_good, held_between, padded, place_good, run_world, speaking
from tests.timing import scaled

#: No second attempt: test_ai_lost covers the replacement of a leg.
MEDIA: Final = gw.config.Media(ai_connect_s=scaled(1.0), ai_stall_s=scaled(1.5), ai_reconnect_s=0.0)
GOOD_S: Final = 9.0


class Case(NamedTuple):
    """An agent that fails, and the expected end of its call.

    `deltas`: number of deltas of the first response that are heard; None for all.
    """

    script: AiScript
    reason: str
    deltas: int | None = 0
    hooks: Mapping[int, Hook] = {}
    then: str = ""  # reason of the phone leg's end after the AI's fault


def _fault(fault: Fault, deltas: int = 2) -> AiScript:
    return speaking(2.0).with_fault(fault, deltas=deltas)


def _burst(call: TwinCall) -> None:
    """Send twelve seconds of audio in one burst. What is beyond real time is dropped: it never fills the AI's socket."""
    for _ in range(600):
        call.send_media()


#: The AI never spoke.
NEVER_READY: Final[Mapping[str, Case]] = {
    "refuse_401": Case(_fault("refuse_401"), "ai_refused"),
    "refuse_403": Case(_fault("refuse_403"), "ai_refused"),
    "refuse_429": Case(_fault("refuse_429"), "ai_rate_limited"),
    "refuse_500": Case(_fault("refuse_500"), "ai_refused"),
    "mute": Case(_fault("mute"), "ai_timeout"),
    "silent": Case(_fault("silent"), "ai_timeout"),
    "never_ready": Case(_fault("never_ready"), "ai_timeout"),
    "close_first": Case(_fault("close_first"), "ai_closed"),
    "update_refused": Case(_fault("update_refused"), "ai_refused"),
    "wrong_format": Case(_fault("wrong_format"), "ai_wrong_format"),
    "beta_names": Case(_fault("beta_names"), "ai_wrong_format"),
}
#: The session is healthy, and refuses every response. The caller hears the holding sound meanwhile.
REFUSING: Final[Mapping[str, Case]] = {
    "rate_limited": Case(_fault("rate_limited"), "ai_rate_limited"),
}
#: Servers that are not an AI, made by `other_servers`.
OTHER_SERVERS: Final[Mapping[str, Case]] = {
    "no_server": Case(AiScript(), "ai_unreachable"),
    "no_tls": Case(AiScript(), "ai_unreachable"),
    "ssh": Case(AiScript(), "ai_refused"),
    "a_web_page": Case(AiScript(), "ai_refused"),
    "hangs_up": Case(AiScript(), "ai_lost"),
}
#: The AI failed while it spoke.
WHILE_SPEAKING: Final[Mapping[str, Case]] = {
    "close": Case(_fault("close"), "ai_closed", 2),
    "reset": Case(_fault("reset"), "ai_lost", 2),
    "stall": Case(_fault("stall"), "ai_stalled", 2),
    "freeze": Case(_fault("freeze"), "ai_stalled", 2),
    "bad_json": Case(_fault("bad_json"), "ai_bad_json", 2),
    "bad_type": Case(_fault("bad_type"), "ai_bad_type", 2),
    "missing_field": Case(_fault("missing_field"), "ai_missing_field", 2),
    "bad_utf8": Case(_fault("bad_utf8"), "ai_bad_utf8", 2),
    "bad_base64": Case(_fault("bad_base64"), "ai_bad_base64", 2),
    "binary_message": Case(_fault("binary_message"), "ai_binary_message", 2),
    "oversize_message": Case(_fault("oversize_message"), "ai_oversize_message", 2),
    "bad_websocket": Case(_fault("bad_websocket"), "ai_bad_websocket", 2),
    "error_fatal": Case(_fault("error_fatal"), "ai_refused", 2),
    "session_expired": Case(_fault("session_expired"), "ai_refused", 2),
    "deaf": Case(_fault("deaf"), "ai_stalled", None, {25: _burst}),
}
#: Deltas before a fault that precedes the phone leg's end: at least one and a half seconds of audio, sent at ten times its speed.
LAST_DELTA: Final = 13
#: Longer than the AI pauses between two deltas.
PAUSE_S: Final = 0.2
#: Both legs end, the AI's first: the reason is the AI's, whatever ends the phone leg during the AI's last audio.
BOTH: Final[Mapping[str, Case]] = {
    "then_a_hang_up": Case(_fault("close", LAST_DELTA), "ai_closed", -1, {50: lambda call: call.hang_up()}, "caller_hangup"),
    "then_a_reset": Case(_fault("reset", LAST_DELTA), "ai_lost", -1, {50: lambda call: call.abort()}, "phone_lost"),
    "then_a_bad_message": Case(
        _fault("bad_json", LAST_DELTA), "ai_bad_json", -1, {50: lambda call: call.send_text(b"{")}, "phone_bad_json"
    ),
}
#: Faults that do not end a call.
HARMLESS: Final[Mapping[str, AiScript]] = {
    "unknown_event": _fault("unknown_event"),
    "error_benign": _fault("error_benign"),
    "one_bad_event": _fault("one_bad_event"),
    "response_refused": _fault("response_refused"),
}
ENDED: Final = {**NEVER_READY, **REFUSING, **OTHER_SERVERS, **WHILE_SPEAKING, **BOTH}


def _script(index: int, path: str) -> AiScript:
    """Return the script for an agent's path; the good agent has no name."""
    name = path.removeprefix("/v1/realtime").strip("/")
    return ENDED[name].script if name in ENDED else HARMLESS.get(name, speaking(GOOD_S))


@contextlib.contextmanager
def other_servers() -> Iterator[dict[str, str]]:
    """Start servers that are not an AI. Yields their base URLs."""

    def answering(answer: bytes) -> StreamServer:
        def serve(sock: socket.socket, address: tuple[str, int]) -> None:
            with contextlib.suppress(OSError):
                sock.recv(4096)
                if answer:
                    sock.sendall(answer)
                    gevent.sleep(scaled(3.0))
            sock.close()

        server = StreamServer(("127.0.0.1", 0), serve)
        server.start()
        return server

    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
    servers = {"ssh": answering(b"SSH-2.0-OpenSSH_9.2\r\n"), "a_web_page": answering(page), "hangs_up": answering(b"")}
    with contextlib.closing(plain_socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        urls = {name: f"ws://127.0.0.1:{server.server_port}/v1" for name, server in servers.items()}
        urls["no_server"] = f"ws://127.0.0.1:{closed.getsockname()[1]}/v1"
        urls["no_tls"] = urls["ssh"].replace("ws:", "wss:")
        try:
            yield urls
        finally:
            for server in servers.values():
                server.stop(timeout=0.1)


def _after_the_ai(world: World, hook: Hook) -> Hook:
    """Return the hook, delayed until the AI has sent its last delta and then its fault."""
    ai = weakref.ref(world.ai)  # the call, which outlives the world, keeps the hook

    def act(call: TwinCall) -> None:
        def is_struck() -> bool:
            twin = ai()
            session = twin.session_of(call.number) if twin is not None else None
            deltas = session.responses[0].deltas if session is not None and session.responses else ()
            return bool(deltas) and time.monotonic() - deltas[-1].at_s > PAUSE_S

        until(is_struck, "the AI's fault")
        hook(call)

    return act


def _place_calls(world: World, outcome: Outcome) -> None:
    place_good(world, outcome)
    for name, case in ENDED.items():
        hooks = {frame: _after_the_ai(world, hook) for frame, hook in case.hooks.items()} if case.then else case.hooks
        plan = CallPlan(agent=name, hooks=hooks, hang_up=False)
        outcome.calls[name] = world.twilio.place(plan)
        gevent.sleep(0.01)
    some = (SILENT_FRAME,) * 150
    for name in HARMLESS:
        outcome.calls[name] = world.twilio.place(CallPlan(agent=name, speech=some))
    for name, call in outcome.calls.items():
        assert name == "good" or call.wait(scaled(30)), f"{name} did not end"
    end_good(world, outcome)
    for call in outcome.calls.values():
        world.gateway.ended(call.call_sid)
    outcome.keep(world)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Outcome:
    """Place every call above at the same time, beside a good one."""
    with other_servers() as urls:

        def agents(ai: AiTwin) -> dict[str, Agent]:
            bases = {name: urls.get(name, f"{ai.url}/{name}") for name in [*ENDED, *HARMLESS]}
            return {name: Agent(provider="openai", base_url=base, goodbye="") for name, base in bases.items()}

        folder = tmp_path_factory.mktemp("ai")
        return run_world(folder, shared_store, _script, _place_calls, agents=agents, media=MEDIA)


@pytest.mark.parametrize("name", ENDED)
def test_a_call_that_ends(outcome: Outcome, name: str) -> None:
    case, call = ENDED[name], outcome.calls[name]
    outcome.check_ended(name, case.reason)
    row = outcome.rows[name]
    assert row is not None
    if case.then:
        assert row["detail"].endswith(f"; then {case.then}")
    else:
        assert (call.closed_by, call.close_code, call.close_reason) == ("gateway", 1000, case.reason)
    assert (call.error, call.warnings) == ("", [])


@pytest.mark.parametrize("name", WHILE_SPEAKING)
def test_audio_before_the_fault_is_heard(outcome: Outcome, name: str) -> None:
    response = outcome.sessions[name].responses[0]
    deltas = response.deltas if WHILE_SPEAKING[name].deltas is None else response.deltas[: WHILE_SPEAKING[name].deltas]
    expected = padded(response.audio[: sum(delta.size for delta in deltas)])
    assert len(expected) > 0
    assert outcome.calls[name].received_audio == outcome.calls[name].heard_audio
    held_between(outcome.calls[name].received_audio, b"", expected)


@pytest.mark.parametrize("name", [*NEVER_READY, *OTHER_SERVERS])
def test_an_ai_that_was_never_ready_is_not_heard(outcome: Outcome, name: str) -> None:
    """The holding sound is."""
    assert (hold_tone() * 10).startswith(outcome.calls[name].received_audio)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_call_that_continues(outcome: Outcome, name: str) -> None:
    call = outcome.calls[name]
    outcome.check_ended(name, "caller_hangup")
    assert (call.closed_by, call.error, call.warnings) == ("caller", "", [])
    held_between(call.received_audio, b"", padded(outcome.sessions[name].responses[0].audio))
    assert outcome.sessions[name].responses[0].status == "completed"


@pytest.mark.parametrize("name", REFUSING)
def test_refused_responses_are_requested_three_times(outcome: Outcome, name: str) -> None:
    assert [event.kind for event in outcome.sessions[name].events].count("response.create") == 3
    assert hold_tone().startswith(outcome.calls[name].received_audio)


def test_a_refused_response_is_stored_and_requested_again(outcome: Outcome) -> None:
    row = outcome.rows["response_refused"]
    assert row is not None
    assert [event["data"]["code"] for event in row["events"] if event["kind"] == "ai_error"] == ["server_error"]
    assert [event["kind"] for event in row["events"]].count("answer_failed") == 1
    assert [response.asked for response in outcome.sessions["response_refused"].responses] == [True]


def test_the_metrics_count_each_end_once(outcome: Outcome) -> None:
    expected = Counter(case.reason for case in ENDED.values())
    expected["caller_hangup"] += len(HARMLESS) + 1
    assert outcome.ended == expected
    errors = {
        kind: outcome.metrics[f'gw_ai_errors_total{{kind="{kind}"}}'] for kind in ("benign", "error", "fatal", "unreadable")
    }
    assert errors == {"benign": 1, "error": 4, "fatal": 3, "unreadable": 1 + 5 * MAX_UNREADABLE}


def test_the_good_call_beside_them_is_undisturbed(outcome: Outcome) -> None:
    outcome.check_good()


def test_no_greenlet_descriptor_or_open_call_remains(outcome: Outcome) -> None:
    outcome.check_nothing_left()


def test_every_fault_of_the_twin_is_a_case() -> None:
    assert {*CONNECT_FAULTS, *SESSION_FAULTS, *RESPONSE_FAULTS} == {*NEVER_READY, *REFUSING, *WHILE_SPEAKING, *HARMLESS}

"""Every normal end of a call has one reason in store, metrics and close frame."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest

from gw.config import Media, Server, Store
from gw.control.admin.client import AdminClient, Refused
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.sound import BYTES_PER_MS
from gw.twin.twilio.caller import TwinCall
from tests.calls.conftest import World, WorldMaker
from tests.calls.hearing import check_ear, in_parallel, not_run_ms, padded, session_of, until
from tests.timing import scaled

LONG = lasting(20)
GOODBYE = lasting(2)[:8_005]
SHORT = lasting(1)[:1600]
#: An agent who is silent at the limit, and one who is in the middle of a sentence.
AT_LIMIT = [AiScript(greeting=greeting, answers=(SHORT,)) for greeting in (SHORT, GOODBYE * 2)]
TALKS = AiScript(greeting=LONG)
SAYS_GOODBYE = AiScript(greeting=GOODBYE, hang_up_after=1)
#: Without the holding sound, which a busy machine plays before the first word.
QUIET = partial(Media, holding_sound=False)
#: Interval of the watchdog, and the allowance for a busy machine: a line that is idle waits four times for an answer of the AI.
LOOK_S = 0.25
MARGIN_S = 2.0


def check_end(w: World, call: TwinCall, reason: str) -> dict[str, Any]:
    """Check the reason in the store and in the close frame, if the gateway closed. Returns the row."""
    assert call.wait(scaled(10.0))
    row = w.gateway.ended(call.call_sid)
    assert (row["reason"], row["result"]) == (reason, "success")
    assert (call.error, call.warnings) == ("", [])
    if call.closed_by == "gateway":
        assert (call.close_code, call.close_reason) == (1000, reason)
    return row


def lasted_s(row: dict[str, Any]) -> float:
    """Return the seconds from the stream's start to its end."""
    return float(row["ended_at"] - row["answered_at"])


def check_counts(w: World, **reasons: int) -> None:
    """Check that each end is counted once, and that no call is alive."""
    metrics = w.gateway.metrics()
    prefix = "gw_calls_ended_total{"
    ended = {name: int(value) for name, value in metrics.items() if name.startswith(prefix) and value}
    assert ended == {f'gw_calls_ended_total{{reason="{reason}"}}': count for reason, count in reasons.items()}
    assert [name for name, value in metrics.items() if name.startswith("gw_calls{") and value] == []
    assert w.gateway.store.calls(open_only=True) == []
    assert w.gateway.worker.context.calls == {}


def test_every_end_has_one_reason(world: WorldMaker, tmp_path: Path) -> None:
    with ExitStack() as opened:

        def new(name: str, *arguments: Any, **options: Any) -> World:
            sqlite = Store(url=f"sqlite:///{tmp_path}/{name}.db")
            return opened.enter_context(world(*arguments, var_dir=name, store=sqlite, **options))

        in_parallel(
            partial(the_caller_hangs_up, new("caller", lambda index, path: SAYS_GOODBYE if index == 2 else TALKS)),
            partial(the_ai_hangs_up, new("ai", SAYS_GOODBYE, media=QUIET(goodbye_s=scaled(0.6)))),
            partial(the_parrot_hangs_up, new("parrot", agent={"provider": "parrot"})),
            partial(an_operator_hangs_up, new("admin", TALKS)),
            partial(twilio_completes_the_call, new("rest", TALKS)),
            partial(the_line_is_idle, new("idle", AiScript(answers=(SHORT,)), media=QUIET(idle_limit_s=1.0))),
            partial(the_call_is_too_long, new("limit", lambda index, path: AT_LIMIT[index], media=QUIET(max_call_s=1.5))),
        )


def the_caller_hangs_up(w: World) -> None:
    """Hang up during a response, before any, and during the goodbye: the first reason counts."""
    calls = []
    for ms in (1500, 20, 500):
        calls.append(w.twilio.place_call(speech.script(ms)))
        until(lambda: len(w.ai.sessions) == len(calls), "the call's AI session is up")
    for call in calls:
        check_end(w, call, "caller_hangup")
        assert call.closed_by == "caller"
    until(lambda: all(session.is_over for session in w.ai.sessions), "every AI session is closed")
    ended_by = [session.closed_by for session in w.ai.sessions]
    assert (ended_by[0], ended_by[2]) == ("peer", "peer")
    assert ended_by[1] in ("peer", "lost")  # the AI may have answered the upgrade after the hang-up
    assert len(calls[2].heard_audio) < len(GOODBYE)
    check_counts(w, caller_hangup=3)


def the_ai_hangs_up(w: World) -> None:
    """The AI hangs up after the goodbye was heard. Without a mark's echo the wait is bounded."""
    polite = w.twilio.place_call(speech.script(10_000), hang_up=False, max_s=scaled(20.0))
    deaf = w.twilio.place_call(
        speech.script(10_000), hang_up=False, max_s=scaled(20.0), hooks={1: lambda call: call.stop_reading()}
    )
    row = check_end(w, polite, "ai_hangup")
    check_ear(polite)
    assert polite.heard_audio == padded([GOODBYE])
    assert polite.ended_s is not None
    assert polite.ended_s >= polite.echoes[-1].at_s
    assert w.gateway.worker.context.is_owed_nothing(polite.call_sid)
    assert session_of(w, polite).tool_outputs[0]["output"] == '{"ok": true}'
    goodbye_s = len(GOODBYE) / BYTES_PER_MS / 1000
    assert lasted_s(row) < goodbye_s + LOOK_S + MARGIN_S + not_run_ms(polite) / 1000
    row = check_end_deaf(w, deaf)
    assert goodbye_s + scaled(0.6) < lasted_s(row) < goodbye_s + scaled(0.6) + LOOK_S + MARGIN_S + not_run_ms(deaf) / 1000
    check_counts(w, ai_hangup=2)


def check_end_deaf(w: World, call: TwinCall) -> dict[str, Any]:
    """Check the end of a call whose caller reads nothing, no close frame either."""
    assert call.wait(scaled(15.0))
    row = w.gateway.ended(call.call_sid)
    assert (row["reason"], row["result"], call.closed_by) == ("ai_hangup", "success", "gateway")
    return row


def the_parrot_hangs_up(w: World) -> None:
    """Press the goodbye key during the greeting: both are heard, then the parrot hangs up."""
    prompts = w.gateway.worker.context.prompts
    call = w.twilio.place_call(speech.script(10_000), hang_up=False, max_s=scaled(20.0), hooks={50: lambda call: call.press("#")})
    check_end(w, call, "ai_hangup")
    check_ear(call)
    assert call.heard_audio == padded([prompts.greeting, prompts.goodbye])
    check_counts(w, ai_hangup=1)


def an_operator_hangs_up(w: World) -> None:
    """Hang up twice at the same time by the admin socket: one end. An ended call is not found."""
    admin = AdminClient(w.gateway.config.ops.admin_socket, timeout_s=scaled(5.0))
    call = w.twilio.place_call(speech.script(15_000))
    until(lambda: len(call.received_audio) > 4000, "the agent talks")
    asked = [gevent.spawn(admin.request, "hangup", call_sid=call.call_sid) for _ in range(2)]
    gevent.joinall(asked)
    answers = [greenlet.value for greenlet in asked if greenlet.successful()]
    assert {"call_sid": call.call_sid, "worker": True, "rest": "requested"} in answers
    row = check_end(w, call, "admin_hangup")
    assert lasted_s(row) < 5.0
    until(
        lambda: any(path.endswith(f"/{call.call_sid}.json") for _, _, path, _ in w.twilio.rest.requests),
        "Twilio is asked to end it",
    )
    for sid in (call.call_sid, "CA" + "f" * 32):
        with pytest.raises(Refused) as refused:
            admin.request("hangup", call_sid=sid)
        assert refused.value.code == "not_found"
    check_counts(w, admin_hangup=1)


def twilio_completes_the_call(w: World) -> None:
    """End calls by REST: by Twilio's `stop` message or, without one, by the status webhook."""
    stopped = w.twilio.place_call(speech.script(15_000))
    unstopped = w.twilio.place_call(speech.script(15_000))
    until(lambda: stopped.received_audio and unstopped.received_audio, "the agents talk")
    stopped.hang_up("rest")
    fields = {**unstopped.fields(), "CallStatus": "completed"}
    assert w.twilio.webhooks.post(w.twilio.webhooks.absolute("/twilio/status"), fields).status == 204
    check_end(w, stopped, "caller_hangup")
    check_end(w, unstopped, "admin_hangup")
    assert (stopped.closed_by, unstopped.closed_by) == ("rest", "gateway")
    check_counts(w, caller_hangup=1, admin_hangup=1)


def the_line_is_idle(w: World) -> None:
    """The idle limit runs from the last speech. Two prompts come before it, then closing words."""
    calls = [w.twilio.place_call(speech.script(10_000)) for _ in range(2)]
    later = w.twilio.place_call(speech.script(900, lasting(1)[:4000], 10_000))
    for call in calls:
        row = check_end(w, call, "idle_limit")
        assert call.heard_audio == padded([SHORT] * 4)
        expected_s = 1.0 + 4 * len(SHORT) / BYTES_PER_MS / 1000
        assert expected_s <= lasted_s(row) < expected_s + LOOK_S + MARGIN_S + not_run_ms(call) / 1000
        assert call.closed_by == "gateway"
    assert lasted_s(check_end(w, later, "idle_limit")) > 2.0
    check_counts(w, idle_limit=3)


def the_call_is_too_long(w: World) -> None:
    """The agent ends its sentence at the duration limit, then speaks closing words."""
    for number, script in enumerate(AT_LIMIT, 1):
        call = w.twilio.place_call(speech.script(10_000))
        until(lambda number=number: len(w.ai.sessions) == number, "the call's AI session is up")  # type: ignore[misc]
        row = check_end(w, call, "duration_limit")
        assert call.heard_audio == padded([script.greeting, SHORT])
        sentence_s, words_s = (len(sound) / BYTES_PER_MS / 1000 for sound in (script.greeting, SHORT))
        expected_s = max(1.5, sentence_s) + words_s
        assert expected_s <= lasted_s(row) < expected_s + 2 * LOOK_S + MARGIN_S + not_run_ms(call) / 1000
        assert call.closed_by == "gateway"
    check_counts(w, duration_limit=2)


def test_the_worker_stops(world: WorldMaker) -> None:
    """Stop a worker: calls may end within stop_timeout_s, then they are ended; new calls are refused."""
    with world(
        lambda index, path: SAYS_GOODBYE if index == 0 else TALKS, server=Server(stop_timeout_s=scaled(2.0)), agent={}
    ) as w:
        polite = w.twilio.place_call(speech.script(10_000), hang_up=False, max_s=scaled(20.0))
        until(lambda: len(w.ai.sessions) == 1, "the call's AI session is up")
        others = [w.twilio.place_call(speech.script(10_000)) for _ in range(3)]
        until(lambda: all(call.received_audio for call in (polite, *others)), "the agents talk")
        w.gateway.worker.stop()
        gevent.sleep(0.05)
        refused = w.twilio.place_call(speech.script(1000))
        assert refused.wait(scaled(10.0))
        assert refused.started_s is None
        check_end(w, polite, "ai_hangup")
        assert polite.heard_audio == padded([GOODBYE])
        for call in others:
            row = check_end(w, call, "shutdown")
            assert call.closed_by == "gateway"
            assert lasted_s(row) >= scaled(2.0)
        check_counts(w, ai_hangup=1, shutdown=3)

"""Each fault of a phone leg ends at most its call, with its own reason.

The reason is the same in log, store, metrics and close frame. All cases are calls on one gateway at the same time, beside a good
call. `outcome` has their results; each test judges one of the calls. Some cases are faults that must not end a call. No call is
resumed here: a lost caller hears the goodbye.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import gevent
import pytest

import gw.config
from gw.media.http import server
from gw.twin.sound import SILENT_FRAME
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.faults import with_fault
from gw.twin.twilio.messages import CONNECTED
from gw.twin.twilio.stream import CallPlan, Hook
from tests.calls.conftest import World
from tests.calls.shared import ONE_STREAM, Outcome, end_good, place_good, run_world, speaking
from tests.timing import scaled

MEDIA: Final = gw.config.Media(start_timeout_s=scaled(1.0), phone_silence_s=scaled(1.5), holding_sound=False)
#: Length of the agent's response: longer than any case takes, so that each fault meets a response.
AGENT_S: Final = 14.0


class Case(NamedTuple):
    """A caller's plan and its expected end. `code` is the close frame's; None where none can be seen."""

    plan: CallPlan
    reason: str
    code: int | None


def _hook(hook: Hook) -> CallPlan:
    """Return an ordinary call with this hook before the fifteenth frame."""
    return CallPlan(hooks={15: hook}, hang_up=False)


def _sends(text: str) -> CallPlan:
    """Return a call with a text message in the middle. MZ in the text is replaced by the stream's SID."""
    return _hook(lambda call: call.send_text(text.replace("MZ", call.stream_sid).encode()))


def _begins(prelude: Hook) -> CallPlan:
    return CallPlan(prelude=prelude, hang_up=False)


def _start(**changes: object) -> CallPlan:
    """Return a call with changed fields in its `start`."""

    def prelude(call: TwinCall) -> None:
        call.send_text(CONNECTED)
        call.send_start(**changes)

    return _begins(prelude)


def _first_text(text: bytes) -> CallPlan:
    return _begins(lambda call: call.send_text(text))


def _hesitate(call: TwinCall) -> None:
    """Send `connected` and no `start`."""
    call.send_text(CONNECTED)
    gevent.sleep(MEDIA.start_timeout_s + scaled(2.0))


def _fault(name: str) -> CallPlan:
    return with_fault(CallPlan(), name)


_MEDIA: Final = (
    '{"event":"media","sequenceNumber":"9","media":{"track":"inbound","chunk":"1","timestamp":%s,"payload":%s},"streamSid":%s}'
)

#: Audio of a caller who then hangs up.
SOME: Final = (SILENT_FRAME,) * 60


def _media(call: TwinCall) -> bytes:
    return (_MEDIA % ('"1"', '"//8="', f'"{call.stream_sid}"')).encode()


def _passing(text: Callable[[TwinCall], bytes]) -> CallPlan:
    """Return an ordinary call with one unusual message."""
    return CallPlan(hooks={10: lambda call: call.send_text(text(call))}, speech=SOME)


def _unknown_event(n: int) -> Hook:
    return lambda call: call.send_text(b'{"event":"unknown%d","x":[null]}' % n)


#: The stream never starts: a `stream_refused` in `events`, and a call without a stream once Twilio asks what follows.
REFUSED: Final[Mapping[str, Case]] = {
    "no start": Case(_begins(_hesitate), "start_timeout", 1008),
    "half open before start": Case(_begins(lambda call: call.freeze()), "start_timeout", None),
    "gone before start": Case(_begins(lambda call: call.abort()), "phone_lost", None),
    "media before start": Case(_fault("media_before_start"), "phone_media_before_start", 1002),
    "dtmf before start": Case(_begins(lambda call: call.press("1")), "phone_media_before_start", 1002),
    "another account": Case(_fault("wrong_account"), "wrong_account", 1008),
    "another format": Case(_fault("wrong_format"), "phone_wrong_format", 1007),
    "start without a body": Case(_fault("start_without_body"), "phone_missing_field", 1007),
    "start of two streams": Case(_start(streamSid="MZ" + "e" * 32), "phone_wrong_stream", 1002),
    "a call SID that is a path": Case(_start(callSid="../../etc/passwd"), "phone_bad_type", 1007),
    "a call SID that is a number": Case(_start(callSid=5), "phone_bad_type", 1007),
    "parameters that are numbers": Case(_start(customParameters={"token": 5}), "phone_bad_type", 1007),
    "binary at first": Case(_begins(lambda call: call.send_binary(CONNECTED)), "phone_binary_message", 1003),
    "invalid JSON at first": Case(_first_text(b"hello"), "phone_bad_json", 1007),
    "invalid UTF-8 at first": Case(_first_text(b"\xff\xfe"), "phone_bad_utf8", 1007),
    "HTTP at first": Case(_begins(lambda call: call.send_raw(b"GET / HTTP/1.1\r\n\r\n")), "phone_bad_websocket", 1002),
    "oversize at first": Case(_first_text(b'{"event":"x' + b"x" * (64 << 10) + b'"}'), "phone_oversize_message", 1009),
}

#: The call had begun: it ends with its row.
ENDED: Final[Mapping[str, Case]] = {
    "second start": Case(_fault("second_start"), "phone_second_start", 1002),
    "another stream's media": Case(_fault("wrong_stream"), "phone_wrong_stream", 1002),
    "another stream's mark": Case(_sends('{"event":"mark","streamSid":"ZM1","mark":{"name":"a"}}'), "phone_wrong_stream", 1002),
    "another stream's stop": Case(
        _sends('{"event":"stop","streamSid":"ZM1","stop":{"callSid":"CA1"}}'), "phone_wrong_stream", 1002
    ),
    "half of a JSON text": Case(_fault("bad_json"), "phone_bad_json", 1007),
    "a list": Case(_fault("not_an_object"), "phone_bad_json", 1007),
    "JSON as deep as it is long": Case(_sends("[" * 60_000), "phone_bad_json", 1007),
    "an empty message": Case(_sends(""), "phone_bad_json", 1007),
    "no event": Case(_sends('{"streamSid":"MZ"}'), "phone_missing_field", 1007),
    "an event that is a number": Case(_sends('{"event":7}'), "phone_bad_type", 1007),
    "media that is a number": Case(_fault("bad_type"), "phone_bad_type", 1007),
    "a key with a wrong type": Case(_sends('{"event":"dtmf","streamSid":"MZ","dtmf":{"digit":1}}'), "phone_bad_type", 1007),
    "media without payload": Case(_fault("missing_field"), "phone_missing_field", 1007),
    "invalid UTF-8": Case(_fault("bad_utf8"), "phone_bad_utf8", 1007),
    "half a surrogate pair": Case(_sends(r'{"event":"mark","streamSid":"MZ","mark":{"name":"\ud800"}}'), "phone_bad_json", 1007),
    "invalid base64": Case(_fault("bad_base64"), "phone_bad_base64", 1007),
    "base64 with trailing characters": Case(_sends(_MEDIA % ('"1"', '"//8=AAAA"', '"MZ"')), "phone_bad_base64", 1007),
    "base64 that would leave its JSON": Case(_sends(_MEDIA % ('"1"', r'"\"},\"x\":{"', '"MZ"')), "phone_bad_base64", 1007),
    "a binary message": Case(_fault("binary_message"), "phone_binary_message", 1003),
    "over 64 KiB": Case(_fault("oversize_message"), "phone_oversize_message", 1009),
    "a frame without a mask": Case(_fault("bad_websocket"), "phone_bad_websocket", 1002),
    "bytes that are not a frame": Case(_hook(lambda call: call.send_raw(b"\x00" * 4096)), "phone_bad_websocket", 1002),
    "a reset": Case(_fault("reset"), "phone_lost", None),
    "a close without stop": Case(_hook(lambda call: call._connected().start_close(1000)), "phone_lost", 1000),
    "half open": Case(_fault("half_open"), "phone_silent", None),
    "a Twilio that does not read": Case(_fault("stalled"), "phone_leg_stalled", None),
}

#: Faults that do not end a call.
HARMLESS: Final[Mapping[str, CallPlan]] = {
    "unknown events": CallPlan(hooks={n: _unknown_event(n % 20) for n in range(10, 40)}, speech=SOME),
    "connected again": _passing(lambda call: CONNECTED),
    "the other track": _passing(lambda call: _media(call).replace(b"inbound", b"outbound")),
    "the echo of an unknown mark": _passing(
        lambda call: b'{"event":"mark","streamSid":"%b","mark":{"name":"g0r99"}}' % call.stream_sid.encode()
    ),
    "fields of a newer Twilio": _passing(lambda call: _media(call).replace(b'"event"', b'"mood":[null,{"deep":1e9}],"event"')),
}


def _during_audio(plan: CallPlan) -> CallPlan:
    """Return the plan with its hooks delayed until the caller hears the agent, so that the AI's side is there to judge."""

    def delayed(hook: Hook) -> Hook:
        def act(call: TwinCall) -> None:
            call.wait_for(lambda call: bool(call.received_audio), scaled(5.0))
            hook(call)

        return act

    return dataclasses.replace(plan, hooks={frame: delayed(hook) for frame, hook in plan.hooks.items()})


def _place_calls(world: World, outcome: Outcome) -> None:
    place_good(world, outcome)
    plans = {name: case.plan for name, case in REFUSED.items()} | HARMLESS
    plans |= {name: _during_audio(case.plan) for name, case in ENDED.items()}
    for name, plan in plans.items():
        outcome.calls[name] = world.twilio.place(plan)
        gevent.sleep(0.01)
    blind = {name for name, case in (REFUSED | ENDED).items() if case.code is None}  # callers that cannot see their end
    for name in plans.keys() - blind:
        assert outcome.calls[name].wait(scaled(30)), f"{name} did not end"
    good_sid = outcome.calls["good"].call_sid
    world.gateway.until(lambda: set(world.gateway.worker.context.calls) == {good_sid}, "only the good call is left", 30)
    for name in blind:
        outcome.calls[name].hang_up("twin")
    assert not outcome.calls["good"].is_over
    end_good(world, outcome)
    world.gateway.until(lambda: len(world.gateway.events("stream_refused")) == len(REFUSED), "all refusals are stored")
    for name in [*ENDED, *HARMLESS, *(REFUSED.keys() - blind)]:
        world.gateway.ended(outcome.calls[name].call_sid)
    outcome.keep(world)
    outcome.seen["unknown"] = len(world.gateway.events("unknown_message"))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Outcome:
    """Place every call above at the same time, beside a good one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "MAX_WAITING_BYTES", 32 << 10)  # the same bound, reached sooner by a Twilio that does not read
        return run_world(
            tmp_path_factory.mktemp("phone"), shared_store, speaking(AGENT_S), _place_calls, media=MEDIA, server=ONE_STREAM
        )


@pytest.mark.parametrize("name", REFUSED)
def test_a_stream_that_never_starts(outcome: Outcome, name: str) -> None:
    case, call = REFUSED[name], outcome.calls[name]
    started = name in ("another account", "no such agent")  # the others end before the gateway reads a call SID
    if started:
        outcome.check_refused(name, case.reason)
    if case.code is None:
        assert outcome.rows[name] is None, "its caller hung up, and Twilio asked nothing"
    else:
        outcome.check_no_stream(name)
        assert (call.close_code, call.error) == (case.code, "")
    if case.code is not None and case.code not in (1002, 1009):
        assert call.close_reason == case.reason


def test_each_refused_stream_is_logged_and_stored(outcome: Outcome) -> None:
    stored = Counter(reason for reasons in outcome.refused.values() for reason in reasons)
    assert stored == Counter(case.reason for case in REFUSED.values())
    logged = Counter(line.reason for line in outcome.log.lines if line.text.startswith("stream refused"))
    assert logged == stored


@pytest.mark.parametrize("name", ENDED)
def test_a_call_that_ends(outcome: Outcome, name: str) -> None:
    case, call = ENDED[name], outcome.calls[name]
    outcome.check_ended(name, case.reason)
    if case.code is not None:
        assert (call.close_code, call.error) == (case.code, "")
    assert outcome.sessions[name].is_over  # its AI session was closed as well


@pytest.mark.parametrize("name", HARMLESS)
def test_a_call_that_continues(outcome: Outcome, name: str) -> None:
    call = outcome.calls[name]
    outcome.check_ended(name, "caller_hangup")
    assert (call.closed_by, call.error, call.frames_sent) == ("caller", "", 61)


def test_the_metrics_count_each_end_once(outcome: Outcome) -> None:
    expected = Counter(case.reason for case in (REFUSED | ENDED).values())
    expected["caller_hangup"] += len(HARMLESS) + 1
    expected["no_stream"] = sum(case.code is not None for case in REFUSED.values())
    assert outcome.ended == expected
    assert outcome.metrics['gw_rx_dropped_frames_total{reason="unknown_event"}'] == 30
    assert outcome.metrics['gw_rx_dropped_frames_total{reason="other_track"}'] == 1
    assert outcome.seen["unknown"] == 16  # names are stored as events, up to a bound; each message is counted


def test_the_good_call_beside_them_is_undisturbed(outcome: Outcome) -> None:
    outcome.check_good()


def test_no_greenlet_descriptor_or_open_call_remains(outcome: Outcome) -> None:
    outcome.check_nothing_left()

"""A stream opens only with Twilio's signature and its call's token, once and in time.

A request refused before the upgrade gets no 101; a stream refused at its start is closed with 1008 and its own reason. A call
whose token is stolen is undisturbed.
"""

from __future__ import annotations

import http.client
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import pytest

import gw.config
from gw.protocol.token import ledger_key, make
from gw.twin.sound import SILENT_FRAME
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.messages import CONNECTED
from gw.twin.twilio.stream import CallPlan, Hook
from gw.twin.twilio.webhooks import Posted, sign
from tests.calls.conftest import World
from tests.calls.gateway import ACCOUNT, AUTH_TOKEN, PUBLIC_URL
from tests.calls.shared import ONE_STREAM, Outcome, end_good, place_good, run_world, speaking, start_with
from tests.timing import scaled


def _token(token_of: Callable[[TwinCall], str]) -> Hook:
    """Return an ordinary beginning with another token."""
    return lambda call: start_with(token=token_of(call))(call)


#: The key of the running gateway's tokens.
_keys: dict[str, bytes] = {}


def _made(call_sid: str, age_s: int = 0, key: bytes = b"", agent: str = "default") -> str:
    return make(key or _keys["own"], call_sid, int(time.time()) - age_s, os.urandom(16), {"agent": agent})


def _other_account(call: TwinCall) -> None:
    call.send_text(CONNECTED)
    call.send_start(accountSid="AC" + "f" * 32)


#: Refused beginnings, and their reasons.
REFUSED: Final[Mapping[str, tuple[Hook, str]]] = {
    "none": (start_with(token=""), "token_missing"),
    "nonsense": (start_with(token="let me in"), "token_forged"),
    "dots": (start_with(token="..."), "token_forged"),
    "not ASCII": (start_with(token="é.1.é"), "token_forged"),
    "longer than any token": (start_with(token="A" * 5000), "token_forged"),
    "the last character changed": (_token(lambda call: call.parameters["token"][:-2] + "AA"), "token_forged"),
    "a changed time": (
        _token(
            lambda call: ".".join((lambda nonce, at, mac: (nonce, str(int(at) + 1), mac))(*call.parameters["token"].split(".")))
        ),
        "token_forged",
    ),
    "under another key": (_token(lambda call: _made(call.call_sid, key=b"another key")), "token_forged"),
    "under the auth token": (_token(lambda call: _made(call.call_sid, key=AUTH_TOKEN.encode())), "token_forged"),
    "another machine's": (
        _token(lambda call: _made(call.call_sid, key=ledger_key(AUTH_TOKEN.encode(), bytes(16)))),
        "token_forged",
    ),
    "another agent's": (_token(lambda call: _made(call.call_sid, agent="clerk")), "token_forged"),
    "a resumed call's": (start_with(resume="1", began="1.000"), "token_forged"),
    "another call's": (_token(lambda call: _made("CA" + "0" * 32)), "token_forged"),
    "expired": (_token(lambda call: _made(call.call_sid, age_s=66)), "token_expired"),
    "of an hour ago": (_token(lambda call: _made(call.call_sid, age_s=3600)), "token_expired"),
    "from the future": (_token(lambda call: _made(call.call_sid, age_s=-60)), "token_expired"),
    "another account": (_other_account, "wrong_account"),
}
#: Wrong signatures of an upgrade.
UNSIGNED: Final[Mapping[str, str]] = {
    "no signature": "",
    "invalid base64": "!",
    "of another URL": sign(AUTH_TOKEN, "wss://voice.example.com/other"),
    "under another key": sign("another token", "wss://voice.example.com/media"),
}


#: Requests refused: webhooks, and upgrades.
REFUSED_REQUESTS: Final = {"no_signature": 3 + 1, "bad_signature": 3 + len(UNSIGNED) - 1}


def _webhook(world: World, path: str, signature: str | None, **changes: str) -> int:
    """POST a voice webhook, as any client could. Returns the status."""
    fields = {"CallSid": "CA" + "a" * 32, "AccountSid": ACCOUNT, "From": "+15005550006", "To": "+15005550001"}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if signature is not None:
        headers["X-Twilio-Signature"] = signature or sign(AUTH_TOKEN, PUBLIC_URL + path, fields)
    connection = http.client.HTTPConnection(*world.gateway.address, timeout=scaled(5.0))
    try:
        connection.request("POST", path, urlencode({**fields, **changes}), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _steal(victim: TwinCall, token: str) -> CallPlan:
    """Return a plan for a stream that names the victim's call."""

    def prelude(call: TwinCall) -> None:
        call.parameters = {**call.parameters, "token": token}
        call.send_text(CONNECTED)
        call.send_start(callSid=victim.call_sid)

    return CallPlan(prelude=prelude, hang_up=False)


def _place_calls(world: World, outcome: Outcome) -> None:
    _keys["own"] = world.gateway.worker.context.token_key
    place_good(world, outcome)
    victim = outcome.calls["good"]
    world.gateway.until(lambda: victim.call_sid in world.gateway.worker.context.calls, "the good call is up")
    for name, (prelude, _) in REFUSED.items():
        outcome.calls[name] = world.twilio.place(CallPlan(prelude=prelude, hang_up=False))
    for name, signature in UNSIGNED.items():
        outcome.calls[f"upgrade: {name}"] = world.twilio.place(CallPlan(signature=signature))
    outcome.calls["used"] = world.twilio.place(_steal(victim, victim.parameters["token"]))
    outcome.calls["a second stream"] = world.twilio.place(_steal(victim, _made(victim.call_sid)))
    outcome.calls["first"] = first = world.twilio.place_call([SILENT_FRAME] * 20)
    for name, call in outcome.calls.items():
        assert name == "good" or call.wait(scaled(20)), f"{name} did not end"
    world.gateway.ended(first.call_sid)
    outcome.calls["used, after its call"] = late = world.twilio.place(_steal(first, first.parameters["token"]))
    assert late.wait(scaled(20))
    outcome.seen["webhooks"] = {
        "right": _webhook(world, "/twilio/voice", ""),
        "none": _webhook(world, "/twilio/voice", None),
        "invalid base64": _webhook(world, "/twilio/voice", "\xff"),
        "a field changed": _webhook(world, "/twilio/voice", "", From="+15005550009"),
        "a field more": _webhook(world, "/twilio/voice", "", Extra="1"),
        "status": _webhook(world, "/twilio/status", None),
        "recording": _webhook(world, "/twilio/recording", None),
    }
    end_good(world, outcome)
    for call in outcome.calls.values():
        world.gateway.ended(call.call_sid)
    refused = len(REFUSED) + 3
    world.gateway.until(lambda: len(world.gateway.events("stream_refused")) == refused, "all refusals are stored")
    outcome.keep(world)
    outcome.seen["calls"] = {call.call_sid for call in world.gateway.store.calls(limit=100)}
    outcome.seen["posts"] = [post for post in world.twilio.webhooks.posts if not post.is_good]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Outcome:
    """Place every call above at the same time, beside the call whose token is stolen."""
    return run_world(tmp_path_factory.mktemp("tokens"), shared_store, speaking(3.0), _place_calls, server=ONE_STREAM)


@pytest.mark.parametrize("name", REFUSED)
def test_a_token_that_is_refused(outcome: Outcome, name: str) -> None:
    reason, call = REFUSED[name][1], outcome.calls[name]
    outcome.check_refused(name, reason)
    assert (call.closed_by, call.close_code, call.close_reason) == ("gateway", 1008, reason)
    assert call.received_audio == b""


@pytest.mark.parametrize("name", ["used", "a second stream", "used, after its call"])
def test_a_token_opens_one_stream(outcome: Outcome, name: str) -> None:
    call = outcome.calls[name]
    assert (call.closed_by, call.close_code, call.close_reason) == ("gateway", 1008, "token_used")
    assert call.received_audio == b""
    outcome.check_no_stream(name)


def test_the_call_whose_token_was_stolen_is_undisturbed(outcome: Outcome) -> None:
    outcome.check_good(refused=["token_used", "token_used"])


@pytest.mark.parametrize("name", UNSIGNED)
def test_an_upgrade_without_twilio_s_signature(outcome: Outcome, name: str) -> None:
    call = outcome.calls[f"upgrade: {name}"]
    assert (call.http_status, call.started_s, call.closed_by) == (403, None, "gateway")  # no 101
    outcome.check_no_stream(f"upgrade: {name}")


def test_webhooks_without_twilio_s_signature(outcome: Outcome) -> None:
    answers: dict[str, int] = outcome.seen["webhooks"]
    assert answers == {name: 200 if name == "right" else 403 for name in answers}
    bad = {kind: outcome.metrics[f'gw_webhooks_total{{kind="{kind}",outcome="bad_signature"}}'] for kind in ("voice", "status")}
    assert bad == {"voice": 4, "status": 1}
    logged = [line.text for line in outcome.log.lines if line.text.startswith("webhook refused")]
    assert f"{PUBLIC_URL}/twilio/voice" in logged[0]
    refused = {reason: outcome.metrics[f'gw_requests_refused_total{{reason="{reason}"}}'] for reason in REFUSED_REQUESTS}
    assert refused == REFUSED_REQUESTS
    posts: list[Posted] = outcome.seen["posts"]
    assert posts == []  # the twin's own webhooks were accepted


def test_refusals_are_counted(outcome: Outcome) -> None:
    expected = Counter(reason for _, reason in REFUSED.values())
    expected["token_used"] += 3
    for reason, number in expected.items():
        assert outcome.metrics[f'gw_streams_refused_total{{reason="{reason}"}}'] == number
    assert outcome.metrics['gw_streams_refused_total{reason="bad_signature"}'] == len(UNSIGNED)
    logged = [line for line in outcome.log.lines if line.text.startswith("upgrade refused")]
    assert {line.reason for line in logged} == {"bad_signature"}  # one line a second, and all are counted
    assert outcome.ended == expected + Counter(caller_hangup=2, no_stream=len(REFUSED) + len(UNSIGNED) + 3)
    # an unsigned request writes no row
    assert outcome.seen["calls"] == {call.call_sid for call in outcome.calls.values()}


def test_no_greenlet_descriptor_or_open_call_remains(outcome: Outcome) -> None:
    outcome.check_nothing_left()


def test_no_token_is_ever_logged(outcome: Outcome) -> None:
    tokens = {call.parameters.get("token", "") for call in outcome.calls.values()} - {""}
    text = "\n".join(line.text for line in outcome.log.lines)
    assert len(tokens) > 5
    assert [token for token in tokens if len(token) > 20 and token in text] == []


# -- without credentials ------------------------------------------------------------------------------------------------


def test_without_credentials_a_token_may_be_missing_but_not_forged(tmp_path: Path) -> None:
    def place_calls(world: World, outcome: Outcome) -> None:
        _keys["own"] = world.gateway.worker.context.token_key
        preludes = {
            "unchanged": lambda call: start_with()(call),
            "none": start_with(token=""),
            "forged": _token(lambda call: call.parameters["token"][:-2] + "AA"),
            "expired": _token(lambda call: _made(call.call_sid, 66)),
            "under the auth token": _token(lambda call: _made(call.call_sid, key=AUTH_TOKEN.encode())),
        }
        for name, prelude in preludes.items():
            outcome.calls[name] = world.twilio.place(CallPlan(prelude=prelude, speech=(SILENT_FRAME,) * 20))
        for name, call in outcome.calls.items():
            assert call.wait(scaled(20)), f"{name} did not end"
        world.gateway.until(lambda: len(world.gateway.events("stream_refused")) == 3, "all refusals are stored")
        for name in preludes:
            world.gateway.ended(outcome.calls[name].call_sid)
        outcome.keep(world)

    store = gw.config.Store(url=f"sqlite:///{tmp_path}/store.db")
    outcome = run_world(tmp_path, store, speaking(0.2), place_calls, signed=False, server=ONE_STREAM)
    outcome.check_ended("unchanged", "caller_hangup")
    outcome.check_ended("none", "caller_hangup")
    outcome.check_refused("forged", "token_forged")
    outcome.check_refused("expired", "token_expired")
    outcome.check_refused("under the auth token", "token_forged")
    outcome.check_nothing_left()

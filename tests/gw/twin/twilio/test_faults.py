"""gw.twin.twilio.faults, as a minimal server sees them on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator

import gevent
import pytest

from gw.twin.twilio import faults
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.stream import CallPlan
from tests.gw.twin.tiny_gateway import PARAMETERS, WAIT_S, WORDS, Stream, TinyGateway, document


def first_of(name: str) -> list[str]:
    """Return the first events of a fault's stream, without those that are not JSON."""
    events: list[str] = []

    def talk(stream: Stream) -> None:
        try:
            while len(events) < 40:
                message = stream.websocket.receive()
                try:
                    events.append(json.loads(message.data).get("event", "?") if message.text else "binary")
                except (ValueError, AttributeError):
                    events.append("broken")
        finally:
            if stream.websocket.violation:
                events.append("violation")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", PARAMETERS)
        plan = faults.with_fault(CallPlan(speech=WORDS, max_s=0.4), name)
        call = twin.place(plan)
        assert call.wait(WAIT_S)
        assert call.error == ""
    return events


BEGINNINGS = {
    "no_start": ["connected"],
    "media_before_start": ["connected", "media", "start"],
    "wrong_account": ["connected", "start", "media"],
    "wrong_format": ["connected", "start", "media"],
    "token_missing": ["connected", "start", "media"],
    "token_forged": ["connected", "start", "media"],
    "start_without_body": ["connected", "start", "media"],
}


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, gevent.Greenlet[..., list[str]]]]:
    """Place every fault's call at the same time: each takes as long as its speech."""
    calls = {name: gevent.spawn(first_of, name) for name in (*BEGINNINGS, *faults.HOOKS)}
    yield calls
    gevent.killall(calls.values(), timeout=1)


@pytest.mark.parametrize("name", list(BEGINNINGS))
def test_broken_beginnings(seen: dict[str, gevent.Greenlet[..., list[str]]], name: str) -> None:
    events, expected = seen[name].get(timeout=WAIT_S), BEGINNINGS[name]
    assert events[: len(expected)] == expected
    # without a start there is no audio, only the end
    assert (name != "no_start") == ("media" in events)


@pytest.mark.parametrize("name", list(faults.HOOKS))
def test_broken_middles(seen: dict[str, gevent.Greenlet[..., list[str]]], name: str) -> None:
    events = seen[name].get(timeout=WAIT_S)
    assert events[:12] == ["connected", "start", *["media"] * 10]
    odd = {
        "second_start": "start",
        "bad_json": "broken",
        "not_an_object": "broken",
        "bad_utf8": "broken",
        "binary_message": "binary",
        "unknown_event": "telepathy",
        "bad_websocket": "violation",
    }.get(name)
    if odd:
        assert events[12] == odd
    if name in ("reset", "half_open", "silent"):
        assert "media" not in events[12:]


def test_false_fields_of_the_start() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", PARAMETERS)
        for name in ("wrong_account", "token_missing", "token_forged"):
            call = twin.place(faults.with_fault(CallPlan(max_s=0.1), name))
            assert call.wait(WAIT_S)
        starts = [stream.messages[1]["start"] for stream in gateway.streams]
        assert starts[0]["accountSid"] != twin.account_sid
        assert [start["customParameters"].get("token") for start in starts] == ["t-123", None, "t-12A"]
        used = twin.place_call(WORDS, parameters={"token": "used before"})
        assert used.wait(WAIT_S)
        assert gateway.streams[-1].messages[1]["start"]["customParameters"] == {"token": "used before"}

"""gw.twin.twilio.account: many calls, and the end of all."""

from __future__ import annotations

from gw.twin import sound
from gw.twin.twilio.account import TwilioTwin
from tests.gw.twin.tiny_gateway import WAIT_S, WORDS, TinyGateway


def test_stop_hangs_up() -> None:
    with TinyGateway() as gateway:
        with TwilioTwin(gateway.url) as twin:
            call = twin.place_call(hang_up=False)
            assert call.wait_for(lambda call: call.frames_sent > 0)
        assert call.is_over
        assert call.closed_by == "twin"


def test_many_calls_at_once() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        calls = [twin.place_call(WORDS) for _ in range(40)]
        assert twin.wait(WAIT_S)
        assert {call.status for call in calls} == {"completed"}
        assert {sound.find_tag(stream.heard()) for stream in gateway.streams} == set(range(1, 41))

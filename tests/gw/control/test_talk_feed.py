"""gw.control.talk_feed: words of the last calls and histograms, for requests with the key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gw import bus
from gw.call.quality import Quality
from gw.config import Config, Secrets, Server, Twilio
from gw.control import talk_feed
from gw.control.talk_feed import TalkFeed

PAGE = b"""# TYPE gw_tx_send_seconds histogram
gw_tx_send_seconds_bucket{le="0.001",worker="0"} 3
gw_tx_send_seconds_bucket{le="0.001",worker="1"} 4
gw_tx_send_seconds_bucket{le="+Inf",worker="0"} 5
gw_tx_send_seconds_sum 1
gw_tx_lateness_seconds_bucket{le="0.002"} 6
"""


def feed(**secrets: str) -> TalkFeed:
    return TalkFeed(Config(server=Server(listen="127.0.0.1:8080"), secrets=Secrets(talk_key="k", **secrets)), lambda: PAGE)


def answer(made: TalkFeed, call: str = "CA1") -> Any:
    body = made.answer(f"key=k&call={call}")
    assert body is not None
    return json.loads(body)


def test_words_and_the_end_of_a_call() -> None:
    made = feed()
    made.on_event(bus.Turn("CA1", 1, "agent", "Hello.", "item", 40, interrupted=True, heard_ms=300))
    made.on_event(bus.Turn("CA2", 1, "agent", "Another call.", "item", 40))
    made.on_event(bus.FirstAudio("CA1", 1.0))
    found = answer(made)
    assert found["turns"] == [{"n": 1, "role": "agent", "text": "Hello.", "interrupted": True, "heard_ms": 300}]
    assert found["ended"] == ""
    made.on_event(bus.CallEnded("CA1", 2.0, "ai_hangup", "success", "", Quality()))
    assert answer(made)["ended"] == "ai_hangup"
    assert answer(made, "CA9")["turns"] == []


def test_histograms_are_summed_over_their_series() -> None:
    assert answer(feed())["histograms"] == {"send": [[0.001, 7], [None, 5]], "lateness": [[0.002, 6]]}


def test_everything_kept_is_bounded() -> None:
    made = feed()
    for n in range(talk_feed.MAX_TURNS + 5):
        made.on_event(bus.Turn("CA1", n, "caller", "x" * (talk_feed.MAX_TEXT_CHARS + 5), "item", 40))
    found = answer(made)
    assert len(found["turns"]) == talk_feed.MAX_TURNS
    assert len(found["turns"][0]["text"]) == talk_feed.MAX_TEXT_CHARS
    for n in range(talk_feed.MAX_CALLS):
        made.on_event(bus.Turn(f"CB{n}", 1, "caller", "x", "item", 40))
    assert answer(made)["turns"] == []


@pytest.mark.parametrize("query", ["", "key=", "key=wrong", "call=CA1", "key=k&" + "x" * 2000])
def test_without_the_key_there_is_no_answer(query: str) -> None:
    assert feed().answer(query) is None


def test_with_credentials_or_without_a_key_there_is_no_feed() -> None:
    config = Config(twilio=Twilio(account_sid="AC1"), secrets=Secrets(talk_key="k", twilio_auth_token="t"))
    for closed in (TalkFeed(config, lambda: PAGE), TalkFeed(Config(), lambda: PAGE)):
        closed.on_event(bus.Turn("CA1", 1, "agent", "Hello.", "item", 40))
        assert closed.answer("key=k") is None and closed.answer("key=") is None
        assert not closed._calls


def test_only_the_public_ports_pages_may_read_it() -> None:
    made = feed()
    assert [made.origin_of(f"http://{host}:8080") != "" for host in ("127.0.0.1", "localhost", "[::1]")] == [True] * 3
    for other in ("", "null", "http://127.0.0.1:8081", "http://evil.example.com:8080", "https://127.0.0.1:8080"):
        assert made.origin_of(other) == ""

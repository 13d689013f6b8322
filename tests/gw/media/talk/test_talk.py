"""gw.media.talk: the page's key, and a policy that permits its own code only."""

from __future__ import annotations

import base64
import re
from hashlib import sha256

import pytest

from gw.config import Config, Ops, Secrets, Twilio
from gw.control import talk_feed
from gw.media import talk
from gw.media.talk import TalkPage

KEY = "a key of the tests"


def page(ops: str = "127.0.0.1:9464", key: str = KEY) -> TalkPage:
    return TalkPage(Config(ops=Ops(listen=ops), secrets=Secrets(talk_key=key)))


@pytest.mark.parametrize(
    ("query", "may"),
    [
        ("key=a+key+of+the+tests", True),
        ("agent=x&key=a%20key%20of%20the%20tests", True),
        ("", False),
        ("key=", False),
        ("key=another", False),
        ("key=%ff", False),
        ("key=%", False),
        ("key=\xe4", False),
    ],
)
def test_only_the_key_opens_the_page(query: str, may: bool) -> None:
    assert page().may_see(query) is may


def test_without_a_key_or_with_credentials_there_is_no_page() -> None:
    signed = Config(twilio=Twilio(account_sid="AC1"), secrets=Secrets(talk_key=KEY, twilio_auth_token="t"))
    for closed in (page(key=""), TalkPage(signed)):
        assert closed.body == b""
        assert not closed.may_see("key=") and not closed.may_see("key=a+key+of+the+tests")


def test_the_policy_permits_the_pages_code_and_nothing_else() -> None:
    shown = page()
    headers = dict(shown.headers("localhost:8080"))
    policy = headers["Content-Security-Policy"]
    for element, rule in (("script", "script-src"), ("style", "style-src")):
        (code,) = re.findall(rf"<{element}>(.*?)</{element}>".encode(), shown.body, re.DOTALL)
        assert f"{rule} 'sha256-{base64.b64encode(sha256(code).digest()).decode()}'" in policy
    assert "connect-src 'self' ws://localhost:8080 http://127.0.0.1:9464/talk/feed;" in policy
    assert int(headers["Content-Length"]) == len(shown.body)
    assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_is_self_contained() -> None:
    assert not re.findall(rb"(?:src|href)\s*=\s*[\"'](?!data:)", page().body)


@pytest.mark.parametrize(
    ("ops", "feed"),
    [
        ("127.0.0.1:9464", "http://127.0.0.1:9464/talk/feed"),
        ("[::1]:1", "http://[::1]:1/talk/feed"),
        ("127.0.0.1:0", ""),
        (":7", "http://127.0.0.1:7/talk/feed"),
    ],
)
def test_the_feed_is_where_control_listens(ops: str, feed: str) -> None:
    assert f'const FEED = "{feed}"'.encode() in page(ops).body
    assert talk.FEED_PATH == talk_feed.PATH

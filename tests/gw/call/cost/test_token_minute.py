"""gw.call.cost.token_minute: one more call is carried while a minute of it is left."""

from __future__ import annotations

from gw.call.cost.token_minute import TokenMinute
from gw.protocol.ai import TokenLimit


def test_without_a_report_every_call_is_carried() -> None:
    minute = TokenMinute()
    assert minute.left(0.0) is None
    minute.on_used("CA1", 10**6, 0.0)
    assert minute.carries_one_more(1.0), "no limit was reported"
    other = TokenMinute()
    other.on_limit(TokenLimit(100, 0, 60.0), 0.0)
    assert other.carries_one_more(0.0), "no call has used anything"


def test_the_rest_grows_until_the_limit_is_whole() -> None:
    minute = TokenMinute()
    minute.on_limit(TokenLimit(1000, 400, 30.0), 10.0)
    assert [minute.left(at) for at in (10.0, 25.0, 40.0, 400.0)] == [400, 700, 1000, 1000]
    minute.on_limit(TokenLimit(1000, 400, 0.0), 500.0)
    assert minute.left(500.0) == 1000


def test_one_more_call_takes_what_the_others_took() -> None:
    minute = TokenMinute()
    for at in (0.0, 20.0, 40.0):
        minute.on_used("CA1", 200, at)
        minute.on_used("CA2", 100, at)
    minute.on_limit(TokenLimit(1000, 440, 3600.0), 40.0)
    assert not minute.carries_one_more(40.0), "a call takes 450"
    assert minute.carries_one_more(70.0), "the first uses are older than a minute: a call takes 300"

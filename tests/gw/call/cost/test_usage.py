"""gw.call.cost.usage: sums of tokens, and costs by the prices."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from gw.call.cost.usage import KINDS, CallUsage, Used, cost_of, day_of, rounded, total
from gw.config import Price
from gw.protocol.ai import Tokens

MODEL = "gpt-realtime-2.1"
PRICE = Price(text_in=4.0, text_cached=0.4, text_out=24.0, audio_in=32.0, audio_cached=0.4, audio_out=64.0)
#: Shortly before midnight, 2026-11-28.
LATE = 1_795_910_390.0
tokens = st.builds(Tokens, *[st.integers(0, 10**6)] * 6)


def test_the_kinds_are_the_fields_of_price_and_report() -> None:
    assert Price.__struct_fields__ == KINDS
    assert set(KINDS) < set(Used.__struct_fields__)


def test_a_cached_token_has_the_cached_price_only() -> None:
    assert cost_of(Tokens(text_in=1_000_000), PRICE) == 4.0
    assert cost_of(Tokens(text_cached=1_000_000), PRICE) == 0.4
    assert rounded(cost_of(Tokens(10, 20, 30, 40, 50, 60), PRICE)) == 0.005908


def test_a_call_is_summed_by_day_and_model() -> None:
    usage = CallUsage(MODEL, {MODEL: PRICE, "scribe": Price(text_out=10.0)})
    usage.add(MODEL, Tokens(audio_in=100), LATE)
    usage.add(MODEL, Tokens(audio_in=20, text_out=1), LATE)
    usage.add("scribe", Tokens(text_out=8), LATE + 20)
    assert usage.used() == [
        Used(day="2026-11-28", model=MODEL, audio_in=120, text_out=1, cost_usd=(120 * 32.0 + 24.0) / 1e6),
        Used(day="2026-11-29", model="scribe", text_out=8, cost_usd=80 / 1e6),
    ]
    assert usage.tokens == 129
    assert rounded(usage.spent_usd) == 0.003944
    assert total(usage.used()) == (Tokens(audio_in=120, text_out=9), 0.003944)


def test_without_a_price_there_are_tokens_only() -> None:
    usage = CallUsage(MODEL, {"scribe": PRICE})
    usage.add(MODEL, Tokens(audio_in=5), LATE)
    usage.add("scribe", Tokens(text_out=5), LATE)
    assert [one.cost_usd for one in usage.used()] == [None, None], "a part of the cost is not the cost"
    assert (total(usage.used())[1], usage.spent_usd) == (None, 0.0)
    assert total([]) == (Tokens(), None)


def test_an_unpriced_transcription_adds_nothing() -> None:
    usage = CallUsage(MODEL, {MODEL: PRICE})
    usage.add(MODEL, Tokens(text_out=1_000_000), LATE)
    usage.add("scribe", Tokens(text_out=5), LATE)
    assert total(usage.used()) == (Tokens(text_out=1_000_005), 24.0)


@given(st.lists(st.tuples(st.sampled_from([MODEL, "scribe"]), tokens, st.floats(LATE, LATE + 100)), max_size=8))
def test_no_token_is_lost_or_counted_twice(parts: list[tuple[str, Tokens, float]]) -> None:
    usage = CallUsage(MODEL, {MODEL: PRICE, "scribe": PRICE})
    for model, used, at in parts:
        usage.add(model, used, at)
    expected = Tokens(*(sum(used[n] for _, used, _ in parts) for n in range(6)))
    assert total(usage.used())[0] == expected
    assert usage.tokens == sum(expected)
    assert abs(usage.spent_usd - cost_of(expected, PRICE)) < 1e-6


def test_a_cost_has_six_decimals() -> None:
    assert rounded(0.12345678) == 0.123457
    assert rounded(None) is None


def test_a_day_is_utc() -> None:
    assert (day_of(LATE), day_of(LATE + 10)) == ("2026-11-28", "2026-11-29")


@given(st.floats(0.0, 253_402_300_799.0))
@example(951_782_400.0)  # 2000-02-29
@example(1_709_164_799.9)  # the last moment before 2024-02-29
@example(4_107_542_400.0)  # 2100-03-01: no leap year
def test_a_day_is_that_of_the_calendar(at: float) -> None:
    assert day_of(at) == datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%d")

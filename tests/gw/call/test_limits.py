"""gw.call.limits: over any period, no more than the rate and one burst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gw.call.limits import AUDIO_BURST_S, AUDIO_SAVED_S, AUDIO_SPEED, Allowance, audio_allowance, event_allowance, frames_charged
from gw.protocol.audio import FRAME_BYTES, PTIME_S


def test_a_burst_is_free_at_first_and_refills_at_the_rate() -> None:
    allowance = Allowance(10, 3)
    assert [allowance.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert not allowance.take(100.09)
    assert allowance.take(100.1) and not allowance.take(100.1)
    assert [allowance.take(200.0) for _ in range(4)] == [True, True, True, False], "no more than the burst is saved"


def test_an_amount_is_taken_whole_or_not_at_all() -> None:
    allowance = Allowance(1, 2)
    assert not allowance.take(0.0, 2.5)
    assert allowance.take(0.0, 2) and not allowance.take(0.0, 0.5)


def test_a_charge_beyond_the_burst_returns_the_time_until_it_is_covered() -> None:
    allowance = Allowance(10, 3)
    assert [round(allowance.charge(100.0, amount), 3) for amount in (2, 1, 1, 5)] == [0.0, 0.0, 0.1, 0.6]
    assert not allowance.take(100.6) and allowance.take(100.71)
    assert allowance.charge(200.0, 3) == 0.0, "no more than the burst is saved"
    assert round(allowance.charge(200.0, 1), 3) == 0.1


def test_two_seconds_of_audio_that_a_stall_delayed_pass_whole() -> None:
    allowance, now_s = audio_allowance(), 86_400.0
    for _ in range(500):
        assert allowance.take(now_s)
        now_s += PTIME_S
    now_s += AUDIO_BURST_S
    assert all(allowance.take(now_s) for _ in range(round(AUDIO_BURST_S / PTIME_S)))


def test_audio_that_a_longer_stall_delayed_passes_whole_once_the_call_has_lasted_as_long() -> None:
    allowance, now_s = audio_allowance(), 86_400.0
    for _ in range(round(60 / PTIME_S)):
        assert allowance.take(now_s)
        now_s += PTIME_S
    now_s += AUDIO_SAVED_S
    assert all(allowance.take(now_s) for _ in range(round(AUDIO_SAVED_S / PTIME_S)))
    assert sum(allowance.take(now_s + 3600.0) for _ in range(10_000)) == round((AUDIO_SAVED_S + AUDIO_BURST_S) / PTIME_S)


@given(st.lists(st.floats(0, 0.05), max_size=400))
def test_no_sequence_of_frames_exceeds_real_time_by_more_than_allowed(pauses_s: list[float]) -> None:
    allowance, now_s, passed_s = audio_allowance(), 0.0, 0.0
    for pause_s in pauses_s:
        now_s += pause_s
        passed_s += PTIME_S * allowance.take(now_s)
        assert passed_s <= AUDIO_SPEED * now_s + AUDIO_BURST_S + 1e-3


def test_a_piece_is_charged_for_its_audio_and_at_least_half_a_frame() -> None:
    assert [frames_charged(n_bytes) for n_bytes in (1, FRAME_BYTES // 2, FRAME_BYTES)] == [0.5, 0.5, 1.0]


def test_each_kind_of_event_has_a_limit_and_a_burst_fits_in_one_slice() -> None:
    def burst(kind: str) -> int:
        allowance = event_allowance(kind)
        return sum(allowance.take(1.0) for _ in range(100))

    assert [burst(kind) for kind in ("dtmf", "tool_call", "interruption", "ai_error", "turn")] == [20, 20, 10, 5, 64]

"""gw.twin.twilio.player: examples and properties of the playout buffer; time is passed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.twin.twilio.player import LIMIT_BYTES, Player

FRAME = bytes(range(160))


def test_frames_play_one_after_the_other() -> None:
    player = Player()
    for n in range(5):
        assert player.push(10.0, bytes([n]) * 160) == 0
    assert player.is_playing(10.0)
    assert player.buffered_s(10.0) == pytest.approx(0.1)
    assert player.heard(10.05) == b"\0" * 160 + b"\1" * 160 + b"\2" * 80
    assert player.heard_ms(10.05) == 50
    assert not player.is_playing(10.2)
    assert player.heard_ms(99.0) == 100
    assert player.first_heard_s == 10.0
    assert player.gaps == []


def test_an_empty_buffer_played_nothing() -> None:
    player = Player()
    assert player.heard(5.0) == b""
    assert player.heard(5.0, since_s=4.99) == b"\xff" * 80
    assert player.first_heard_s is None
    assert player.clear(5.0) == []


def test_a_dry_buffer_inside_a_talkspurt_is_an_underrun() -> None:
    player = Player()
    player.push(1.0, FRAME)
    player.push(1.05, FRAME)
    assert player.underrun_ms == pytest.approx(30)
    assert player.gaps[0].at_s == pytest.approx(1.02)
    assert player.underrun_behind_ms(0) == pytest.approx(30)
    assert player.underrun_behind_ms(10) == pytest.approx(20)
    assert player.underrun_behind_ms(60) == 0
    assert player.heard(2.0) == FRAME * 2
    assert player.heard(1.07, since_s=1.0) == FRAME + b"\xff" * 240 + FRAME


@pytest.mark.parametrize("between", ["mark", "clear"])
def test_a_pause_between_talkspurts_is_not_an_underrun(between: str) -> None:
    player = Player()
    player.push(1.0, FRAME)
    if between == "mark":
        player.mark(1.0, "end")
    else:
        player.clear(1.5)
    player.push(3.0, FRAME)
    assert player.underrun_ms == 0
    assert player.underrun_behind_ms(0) == 0


def test_a_mark_is_due_once_the_audio_before_it_was_played() -> None:
    player = Player()
    player.push(1.0, FRAME * 10)
    due_s, number = player.mark(1.01, "one")
    assert due_s == pytest.approx(1.2)
    assert player.pending_marks == ["one"]
    assert player.take_mark(number) == "one"
    assert player.take_mark(number) is None
    assert player.mark(5.0, "nothing before it")[0] == 5.0


def test_clear_cuts_at_the_byte_and_returns_the_marks() -> None:
    player = Player()
    player.push(1.0, FRAME * 10)
    player.mark(1.0, "one")
    _, second = player.mark(1.0, "two")
    player.push(1.0, FRAME)
    assert player.clear(1.05) == ["one", "two"]
    assert player.take_mark(second) is None
    assert player.heard(9.0) == (FRAME * 10)[:400]
    assert player.cleared_bytes == 11 * 160 - 400
    player.push(1.06, FRAME)
    assert player.heard(9.0) == (FRAME * 10)[:400] + FRAME
    assert player.underrun_ms == 0


def test_more_than_ten_minutes_is_dropped() -> None:
    player = Player()
    assert player.push(0.0, bytes(LIMIT_BYTES - 10)) == 0
    assert player.push(0.0, bytes(15)) == 5
    assert player.push(0.0, bytes(3)) == 3
    assert player.dropped_bytes == 8
    assert player.push(1.0, bytes(8000)) == 0


steps = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=400),  # milliseconds since the previous step
        st.one_of(st.binary(min_size=1, max_size=2000), st.just("mark"), st.just("clear")),
    ),
    max_size=40,
)


@given(steps)
def test_every_byte_is_heard_once_or_cleared(run: list[tuple[int, bytes | str]]) -> None:
    player, now_ms, pushed, marks, echoed = Player(), 0, b"", 0, 0
    for wait_ms, step in run:
        now_ms += wait_ms
        now_s = now_ms / 1000
        if isinstance(step, bytes):
            player.push(now_s, step)
            pushed += step
        elif step == "mark":
            due_s, _ = player.mark(now_s, "m")
            assert due_s >= now_s
            marks += 1
        else:
            echoed += len(player.clear(now_s))
            assert not player.is_playing(now_s)
    later_s = now_ms / 1000 + 1000
    heard = player.heard(later_s)
    assert len(heard) + player.cleared_bytes == len(pushed)
    assert player.heard_ms(later_s) == len(heard) // 8
    assert echoed + len(player.pending_marks) == marks
    if not player.cleared_bytes:
        assert heard == pushed


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 600)), min_size=1, max_size=40), st.integers(0, 200))
def test_a_jitter_buffer_never_makes_it_worse(run: list[tuple[int, int]], jitter_ms: int) -> None:
    player, now_ms = Player(), 0
    for wait_ms, size in run:
        now_ms += wait_ms
        player.push(now_ms / 1000, bytes(size))
    assert player.underrun_behind_ms(0) == pytest.approx(player.underrun_ms, abs=0.2 * len(run))
    assert player.underrun_behind_ms(jitter_ms) <= player.underrun_behind_ms(0) + 1e-6


@given(st.lists(st.integers(0, 80), min_size=1, max_size=40))
def test_audio_with_gaps_covers_all_the_time(waits_ms: list[int]) -> None:
    player, now_ms = Player(), 0
    for wait_ms in waits_ms:
        now_ms += wait_ms
        player.push(now_ms / 1000, FRAME)
    for at_ms in (0, now_ms // 2, now_ms + 5000):
        assert len(player.heard(at_ms / 1000, since_s=0.0)) == at_ms * 8


def test_pieces_as_played() -> None:
    player = Player()
    player.push(1.0, b"a" * 160)
    player.push(1.0, b"b" * 160)
    player.push(2.0, b"c" * 800)
    player.clear(2.0625)
    assert player.played(1.03) == [(1.0, b"a" * 160), (pytest.approx(1.02), b"b" * 80)]
    assert player.played(3.0)[2] == (2.0, b"c" * 500)

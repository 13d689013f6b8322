"""gw.call.audio.pacer against an ear: a player without pacing that plays received frames one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.audio.pacer import Pacer

PTIME_S = 0.02
START_S = 1000.0
#: Every wait in a drawn scenario is this much longer than a whole microsecond, so no two instants of it coincide by chance.
ODD_S = 1e-9


@dataclass
class Ear:
    """A caller's ear: frames play contiguously from their arrival; a pause before a late frame is a gap."""

    free_s: float | None = None  # end of the last frame; None: no frame since the start or the last clear
    ends_s: list[float] = field(default_factory=list)
    gaps_s: float = 0.0

    def play(self, now_s: float, *, new_talkspurt: bool) -> float:
        """Receive a frame. Returns the start of its playing."""
        begin_s = now_s if self.free_s is None or now_s > self.free_s else self.free_s
        if self.free_s is not None and not new_talkspurt:
            self.gaps_s += begin_s - self.free_s
        self.free_s = begin_s + PTIME_S
        self.ends_s.append(self.free_s)
        return begin_s

    def clear(self) -> None:
        self.free_s = None
        self.ends_s.clear()

    def heard(self, now_s: float) -> int:
        return sum(end_s <= now_s for end_s in self.ends_s)


class Line:
    """TX driving the pacer, and the ear at the other end. `now_s` is the clock."""

    def __init__(self, lead_ms: int) -> None:
        self.lead_ms = lead_ms
        self.pacer = Pacer(lead_ms)
        self.ear = Ear()
        self.now_s = START_S
        self.marked = False
        self.sent_s: list[float] = []
        self.lateness_s: list[float] = []

    def starve(self, duration_s: float, *, is_dry: bool = False) -> None:
        """Let the queue be empty for a while. `is_dry`: the playout too."""
        self.now_s += duration_s
        self.pacer.on_starved(self.now_s, is_dry)

    def frame(self, stall_s: float = 0.0, *, held_s: float = 0.0) -> float:
        """Take a frame, wait for its deadline, oversleep by `stall_s`, wait while held, send. Returns the deadline."""
        asked_s = self.now_s
        due_s = self.pacer.deadline(asked_s)
        self.now_s = max(asked_s, due_s) + stall_s
        if held_s:
            self.now_s += held_s
            self.pacer.on_held(self.now_s)
        new = self.marked and (self.ear.free_s is None or asked_s >= self.ear.free_s)
        self.marked = False
        heard_s = self.ear.play(self.now_s, new_talkspurt=new)
        self.lateness_s.append(self.pacer.on_sent(self.now_s))
        self.sent_s.append(self.now_s)
        # below one ptime of lead the pacer allows one ptime of catch-up
        assert heard_s - self.now_s <= max(self.lead_ms / 1000, PTIME_S) + 1e-9
        return due_s

    def mark(self) -> None:
        self.pacer.on_mark()
        self.marked = True

    def held_mark(self, held_s: float) -> None:
        self.starve(held_s)
        self.mark()

    def clear(self, *, in_hand: bool = False, held_s: float = 0.0) -> None:
        """Clear. `in_hand`: while TX waits with a frame, which it then drops. `held_s`: TX was held since that frame was due."""
        if in_hand or held_s:
            self.now_s = max(self.now_s, self.pacer.deadline(self.now_s)) + held_s
        self.pacer.on_clear()
        if held_s:
            self.pacer.on_held(self.now_s)
        self.ear.clear()
        self.marked = False


def odd(us: int) -> float:
    return us / 1e6 + ODD_S if us else 0.0


leads = st.integers(min_value=0, max_value=500)
waits_us = st.sampled_from([0, 0, 0, 1_000, 19_999, 20_000, 100_000]) | st.integers(min_value=0, max_value=700_000)
steps = st.lists(
    st.tuples(
        st.sampled_from(["frame"] * 8 + ["held frame"] * 2 + ["mark", "held mark", "clear", "clear in hand", "clear held"]),
        waits_us,
        waits_us,
    ),
    min_size=1,
    max_size=60,
)


def play(line: Line, what: str, wait_s: float) -> float | None:
    """Do one step of a drawn scenario; `wait_s`: the stall of a frame, or the length of a hold. Returns a frame's deadline."""
    if what == "frame":
        return line.frame(wait_s)
    if what == "held frame":
        return line.frame(held_s=wait_s)
    if what == "mark":
        line.mark()
    elif what == "held mark":
        line.held_mark(wait_s)
    else:
        line.clear(in_hand=what == "clear in hand", held_s=wait_s if what == "clear held" else 0.0)
    return None


@given(leads, steps, st.integers(min_value=0, max_value=2_000_000))
def test_any_arrivals_stalls_holds_marks_and_clears(lead_ms: int, script: list[tuple[str, int, int]], probe_us: int) -> None:
    """The lead is never exceeded, and with a cushion of a frame or more the pacer counts exactly the frames heard."""
    line = Line(lead_ms)
    last_due_s = 0.0
    for what, starved_us, stall_us in script:
        if starved_us:
            line.starve(odd(starved_us))
        due_s = play(line, what, odd(stall_us))
        if due_s is not None:
            assert due_s >= last_due_s - 1e-9, "an earlier frame was due later"
            last_due_s = due_s
        elif what.startswith("clear"):
            last_due_s = 0.0
        assert line.pacer.sent_frames == len(line.ear.ends_s)
        if lead_ms >= 20:
            probe_s = line.now_s + probe_us / 1e6 + 5e-7
            assert line.pacer.underrun_s + line.pacer.held_s == pytest.approx(line.ear.gaps_s, abs=1e-6)
            assert line.pacer.heard_frames(probe_s) == line.ear.heard(probe_s)
            assert line.pacer.heard_out_s() == pytest.approx(line.ear.free_s or 0.0, abs=1e-6)


@given(leads, steps)
def test_a_punctual_tx_is_never_late(lead_ms: int, script: list[tuple[str, int, int]]) -> None:
    """Starving, holds, new talkspurts and clears are not lateness of TX."""
    line = Line(lead_ms)
    for what, starved_us, stall_us in script:
        if starved_us:
            line.starve(odd(starved_us))
        play(line, what, 0.0 if what == "frame" else odd(stall_us))
    assert max(line.lateness_s, default=0.0) <= 1e-9


@given(leads, st.lists(waits_us, min_size=1, max_size=60))
def test_lateness_equals_the_oversleeping_of_tx(lead_ms: int, stalls_us: list[int]) -> None:
    """With audio always queued: a frame TX waited for is late by its stall, an overdue frame at most by the previous stalls."""
    line = Line(lead_ms)
    stalls_s = 0.0
    for stall_us in stalls_us:
        asked_s, stall_s = line.now_s, odd(stall_us)
        waited = line.frame(stall_s) >= asked_s
        stalls_s = stall_s if waited else stalls_s + stall_s
        late_s = line.lateness_s[-1]
        if waited:
            assert late_s == pytest.approx(stall_s, abs=1e-9)
        assert late_s <= stalls_s + 1e-9


@given(
    st.integers(min_value=20, max_value=500), st.integers(min_value=30, max_value=60), st.integers(min_value=0, max_value=900_000)
)
def test_a_stall_gives_at_most_one_lead_of_catch_up(lead_ms: int, before: int, stall_us: int) -> None:
    """With the cushion full: a stall beyond the lead is a gap, the rest is caught up immediately."""
    line = Line(lead_ms)
    for _ in range(before):
        line.frame()
    stall_s = odd(stall_us)
    line.frame(stall_s)
    immediate = 0
    while line.frame() <= line.now_s - 1e-12 and line.sent_s[-1] == line.sent_s[-2]:
        immediate += 1
    assert immediate <= lead_ms // 20
    assert line.pacer.underrun_s == pytest.approx(max(0.0, stall_s - lead_ms / 1000), abs=1e-6)


@given(st.integers(min_value=0, max_value=19), st.lists(st.integers(min_value=0, max_value=19_000), min_size=1, max_size=30))
def test_without_a_cushion_timer_noise_does_not_slow_the_pace(lead_ms: int, noise_us: list[int]) -> None:
    """A minute of frames, each up to 19 ms late: the last leaves where a perfect clock would send it, noise aside."""
    line = Line(lead_ms)
    for n in range(3000):
        line.frame(noise_us[n % len(noise_us)] / 1e6)
    assert line.sent_s[-1] - line.sent_s[0] <= 2999 * PTIME_S + 0.019 + 1e-6
    assert line.pacer.underrun_s == 0.0
    assert line.pacer.moves == 0


def test_the_lead_is_sent_immediately_and_then_one_frame_a_ptime() -> None:
    line = Line(100)
    for _ in range(9):
        line.frame()
    assert [round((sent_s - START_S) * 1000) for sent_s in line.sent_s] == [0, 0, 0, 0, 0, 0, 20, 40, 60]


def test_without_lead_every_frame_leaves_when_it_is_played() -> None:
    line = Line(0)
    for _ in range(4):
        line.frame()
    assert [round((sent_s - START_S) * 1000) for sent_s in line.sent_s] == [0, 20, 40, 60]


def test_a_stall_within_the_cushion_is_lateness_but_no_gap() -> None:
    line = Line(100)
    for _ in range(10):
        line.frame()
    line.frame(0.060)
    line.frame()
    assert line.lateness_s[-2:] == [pytest.approx(0.060), pytest.approx(0.040)]
    assert (line.pacer.underrun_s, line.pacer.moves) == (0.0, 0)


def test_a_stall_beyond_the_cushion_moves_the_origin_by_the_gap_once() -> None:
    line = Line(100)
    for _ in range(10):
        line.frame()
    line.frame(0.500)
    assert line.pacer.underrun_s == pytest.approx(0.400)
    for _ in range(20):
        line.frame()
    assert line.pacer.underrun_s == pytest.approx(0.400)
    assert line.pacer.moves == 1
    assert line.ear.gaps_s == pytest.approx(0.400)


def test_without_a_cushion_a_stall_of_more_than_a_frame_is_a_gap() -> None:
    line = Line(0)
    line.frame()
    line.frame(0.050)
    assert line.pacer.underrun_s == pytest.approx(0.050)
    assert line.pacer.moves == 1


def test_late_audio_is_a_gap_but_not_lateness_of_tx() -> None:
    line = Line(100)
    line.frame()
    line.starve(0.120)
    line.frame()
    assert line.lateness_s == [0.0, 0.0]
    assert line.pacer.underrun_s == pytest.approx(0.100)


@pytest.mark.parametrize(
    ("is_dry", "stall_s", "ai_s"), [(True, 0.0, 1.5), (False, 0.0, 0.0), (True, 0.3, 1.5)], ids=["ai", "gateway", "both"]
)
def test_a_gap_is_the_ai_s_while_no_audio_was_there(is_dry: bool, stall_s: float, ai_s: float) -> None:
    line = Line(100)
    line.frame()
    line.starve(1.52, is_dry=is_dry)
    line.frame(stall_s)
    assert line.pacer.underrun_s == pytest.approx(1.5 + stall_s)
    assert line.pacer.ai_underrun_s == pytest.approx(ai_s)
    for _ in range(10):
        line.frame()
    line.frame(0.5)
    assert line.pacer.ai_underrun_s == pytest.approx(ai_s), "a later stall is not the AI's"


def test_a_hold_beyond_the_cushion_is_held_and_nothing_else() -> None:
    line = Line(100)
    for _ in range(10):
        line.frame()
    line.frame(held_s=0.500)
    for _ in range(20):
        line.frame()
    assert line.pacer.held_s == pytest.approx(0.400)
    assert (line.pacer.underrun_s, line.pacer.moves, max(line.lateness_s)) == (0.0, 0, 0.0)
    assert line.sent_s[15] == pytest.approx(line.sent_s[10]), "the cushion is filled again"
    assert line.sent_s[-1] - line.sent_s[10] == pytest.approx(0.300)


def test_a_hold_within_the_cushion_is_not_heard() -> None:
    line = Line(100)
    for _ in range(10):
        line.frame()
    line.frame(held_s=0.060)
    line.frame()
    assert (line.pacer.held_s, line.pacer.underrun_s, line.lateness_s[-2:]) == (0.0, 0.0, [0.0, 0.0])
    assert line.pacer.heard_frames(START_S + 0.240 + 1e-6) == 12, "the run continues"


def test_a_hold_before_a_talkspurt_delays_it_without_a_gap() -> None:
    line = Line(100)
    line.frame()
    line.mark()
    line.starve(1.0)
    line.frame(held_s=0.5)
    assert (line.pacer.held_s, line.pacer.underrun_s, line.lateness_s[-1]) == (0.0, 0.0, 0.0)


def test_frames_on_their_way_are_heard_during_a_hold() -> None:
    """An ear half a second away: the run before the hold still travels when the next begins."""
    line = far_line()
    line.frame(held_s=0.300)
    assert line.pacer.heard_frames(START_S + 0.599) == 4
    assert line.pacer.heard_frames(START_S + 0.700 + 1e-6) == 10
    assert line.pacer.heard_frames(line.now_s + 0.519) == 10
    assert line.pacer.heard_frames(line.now_s + 0.521) == 11


def test_a_pause_between_talkspurts_is_neither_gap_nor_lateness() -> None:
    line = Line(100)
    line.frame()
    line.mark()
    line.starve(30.0)
    line.frame()
    line.frame()
    assert line.lateness_s == [0.0, 0.0, 0.0]
    assert line.pacer.underrun_s == 0.0
    assert line.sent_s[1] == line.sent_s[2], "the lead of the new talkspurt is sent immediately"


def test_a_response_that_follows_immediately_keeps_the_clock() -> None:
    line = Line(100)
    for _ in range(10):
        line.frame()
    line.mark()
    due_s = line.frame()
    assert due_s == pytest.approx(START_S + 10 * PTIME_S - 0.100)


def test_a_mark_covers_the_next_frame_only() -> None:
    """Starving later in the new response is a gap."""
    line = Line(20)
    line.frame()
    line.mark()
    line.frame()
    line.starve(0.100)
    line.frame()
    assert line.pacer.underrun_s == pytest.approx(0.060)


def test_a_mark_before_any_frame_excuses_no_later_gap() -> None:
    pacer = Pacer(20)
    pacer.on_mark()
    pacer.deadline(1.0)
    pacer.on_sent(1.0)
    pacer.on_starved(1.5)
    pacer.deadline(1.5)
    pacer.on_sent(1.5)
    assert pacer.underrun_s == pytest.approx(0.480)


def test_a_clear_restarts_the_counts_and_keeps_the_totals() -> None:
    line = Line(20)
    line.frame()
    line.starve(0.100)
    line.frame()
    line.clear()
    assert (line.pacer.sent_frames, line.pacer.heard_frames(2000.0), line.pacer.heard_out_s()) == (0, 0, 0.0)
    assert line.pacer.underrun_s == pytest.approx(0.080)
    line.starve(0.050)
    line.frame()
    assert line.pacer.underrun_s == pytest.approx(0.080)
    assert line.pacer.sent_frames == 1
    assert line.pacer.heard_frames(line.now_s) == 0, "frames heard before the clear belong to the previous generation"


# -- echoes -----------------------------------------------------------------------------------------------------------


def test_nothing_is_heard_before_anything_is_sent() -> None:
    pacer = Pacer(100)
    assert (pacer.heard_frames(5.0), pacer.heard_out_s(), pacer.sent_frames) == (0, 0.0, 0)


def test_an_echo_shows_the_way_to_the_ear() -> None:
    line = Line(100)
    for _ in range(10):
        line.frame()
    line.pacer.on_echo(10, START_S + 0.200 + 0.150)
    assert line.pacer.echo_delay_s == pytest.approx(0.150)
    assert line.pacer.heard_frames(START_S + 0.350) == 10
    assert line.pacer.heard_out_s() == pytest.approx(START_S + 0.350)


def test_a_clear_takes_effect_where_the_audio_is_played_however_long_the_way() -> None:
    line = Line(100)
    for _ in range(10):
        line.frame()
    line.pacer.on_echo(10, START_S + 0.200 + 0.600)
    assert line.pacer.heard_frames(START_S + 0.150) == 10, "an echo came for all of it"
    line.pacer.on_clear()
    assert line.pacer.heard_at_clear(START_S + 0.150) == 0
    line.starve(1.0)
    start_s = line.now_s
    for _ in range(10):
        line.frame()
    assert line.pacer.heard_frames(start_s + 0.105) == 0
    assert line.pacer.heard_at_clear(start_s + 0.105) == pytest.approx(5.25)
    assert line.pacer.heard_at_clear(start_s + 5.0) == 10


def test_the_quickest_echo_is_kept() -> None:
    pacer = Line(100).pacer
    pacer.deadline(1.0)
    for _ in range(4):
        pacer.on_sent(1.0)
    for frames, at_s, delay_s in ((1, 1.12, 0.10), (2, 1.24, 0.10), (3, 1.11, 0.05), (4, 1.28, 0.05)):
        pacer.on_echo(frames, at_s)
        assert pacer.echo_delay_s == pytest.approx(delay_s)


def test_a_slow_echo_is_limited_to_one_second() -> None:
    line = Line(100)
    line.frame()
    line.pacer.on_echo(1, START_S + 60.0)
    assert line.pacer.echo_delay_s == 1.0


def test_echoed_frames_were_heard_despite_the_clock() -> None:
    line = Line(100)
    for _ in range(5):
        line.frame()
    line.pacer.on_echo(5, START_S + 0.090)
    assert line.pacer.echo_delay_s == 0.0
    assert line.pacer.heard_frames(START_S + 0.090) == 5


def test_an_echo_never_exceeds_the_frames_sent() -> None:
    line = Line(100)
    line.frame()
    line.pacer.on_echo(50, START_S + 0.1)
    assert line.pacer.heard_frames(START_S + 0.001) == 1
    assert line.pacer.echo_delay_s == 0.0


def test_an_echo_of_audio_before_a_gap_does_not_measure_the_gap() -> None:
    """The clock moved by the gap; the echo belongs to the previous run."""
    line = Line(20)
    for _ in range(5):
        line.frame()
    line.mark()
    line.frame()
    line.frame(0.200)
    line.pacer.on_echo(5, START_S + 0.100 + 0.300)
    assert line.pacer.echo_delay_s == 0.0


@given(
    st.integers(min_value=1, max_value=30),
    st.integers(min_value=1, max_value=30),
    st.integers(min_value=1, max_value=30),
    st.integers(min_value=1_000, max_value=900_000),
    st.integers(min_value=0, max_value=1_000_000),
    st.booleans(),
)
def test_the_end_of_a_talkspurt_still_travels_when_the_next_begins(
    first: int, second: int, third: int, delay_us: int, pause_us: int, marked: bool
) -> None:
    """The first talkspurt's echo shows the ear's distance; two more have a pause between them, a gap without a mark."""
    line, delay_s = Line(100), delay_us / 1e6 + ODD_S
    for _ in range(first):
        line.frame()
    line.mark()
    assert line.ear.free_s is not None
    line.starve(line.ear.free_s + delay_s - line.now_s)
    line.pacer.on_echo(first, line.now_s)
    assert line.pacer.echo_delay_s == pytest.approx(delay_s, abs=1e-9)
    line.starve(1.0 + ODD_S)
    heard = 0
    for n in range(second + third):
        if n == second:
            if marked:
                line.mark()
            line.starve(max(0.0, line.ear.free_s - line.now_s) + odd(pause_us))
        line.frame()
        probe_s = line.now_s + 5e-7
        expected = line.ear.heard(probe_s - delay_s)
        assert line.pacer.heard_frames(probe_s) == expected
        assert expected >= heard
        heard = expected


def far_line() -> Line:
    """Return a line with an ear half a second away and ten frames sent."""
    line = Line(100)
    for _ in range(2):
        line.frame()
    line.pacer.on_echo(1, START_S + 0.020 + 0.500)
    for _ in range(8):
        line.frame()
    return line


def test_a_clear_drops_travelling_frames() -> None:
    line = far_line()
    line.starve(0.300)
    line.frame()
    line.clear()
    assert line.pacer.heard_frames(line.now_s) == 0
    line.frame()
    assert line.pacer.heard_frames(line.now_s) == 0
    assert line.pacer.heard_frames(line.now_s + 0.521) == 1


def test_two_gaps_within_one_echo_delay_count_the_first_run_as_heard() -> None:
    line = far_line()
    for _ in range(2):
        line.starve(0.300)
        line.frame()
    assert line.pacer.moves == 2
    assert line.pacer.heard_frames(line.now_s) == 10


def test_a_frame_that_ends_now_is_heard_after_months_of_uptime() -> None:
    """After a hundred days the last bit of a monotonic clock is worth nanoseconds."""
    start_s = 9_876_543.21
    pacer = Pacer(500)
    for n in range(1, 500):
        pacer.deadline(start_s)
        pacer.on_sent(start_s)
        assert pacer.heard_frames(start_s + n * 20 / 1000) == n


@given(steps, st.lists(st.tuples(st.integers(min_value=0, max_value=70), st.integers(min_value=0, max_value=900_000))))
def test_no_echo_makes_more_heard_than_sent(script: list[tuple[str, int, int]], echoes: list[tuple[int, int]]) -> None:
    line = Line(100)
    for index, (what, starved_us, stall_us) in enumerate(script):
        if starved_us:
            line.starve(odd(starved_us))
        if what == "mark":
            line.mark()
        elif what == "frame":
            line.frame(odd(stall_us))
        else:
            line.clear()
        if index < len(echoes):
            frames, later_us = echoes[index]
            line.pacer.on_echo(frames, line.now_s + later_us / 1e6)
        assert 0.0 <= line.pacer.echo_delay_s <= 1.0
        for later_s in (0.0, 0.5, 100.0):
            assert 0 <= line.pacer.heard_frames(line.now_s + later_s) <= line.pacer.sent_frames
        assert line.pacer.heard_frames(line.now_s + 100.0) == line.pacer.sent_frames


def test_before_the_first_frame_all_figures_are_zero() -> None:
    pacer = Pacer(100)
    assert (pacer.echo_delay_s, pacer.underrun_s, pacer.moves, pacer.sent_frames) == (0.0, 0.0, 0, 0)
    pacer.on_echo(1, 5.0)
    assert (pacer.echo_delay_s, pacer.heard_frames(5.0)) == (0.0, 0)


def test_a_stall_of_exactly_the_slack_is_not_a_gap() -> None:
    pacer = Pacer(0)
    for late_s in (0.0, 0.0, PTIME_S):
        pacer.deadline(0.0)
        pacer.on_sent(pacer.sent_frames * PTIME_S + late_s)
    assert (pacer.underrun_s, pacer.moves) == (0.0, 0)


def test_the_departure_of_a_frame_is_known_after_it_left() -> None:
    pacer = Pacer(100)
    assert pacer.sent_s(0) is None
    pacer.deadline(START_S)
    pacer.on_sent(START_S + 0.003)
    assert pacer.sent_s(0) == START_S + 0.003
    assert pacer.sent_s(1) is None
    for _ in range(19):
        pacer.on_sent(pacer.deadline(START_S + 0.5))
    assert pacer.sent_s(1) == START_S + 0.003, "within the lead it left with the first"
    assert pacer.sent_s(15) == pytest.approx(START_S + 0.003 + 15 * PTIME_S - 0.1)
    pacer.on_mark()
    pacer.deadline(START_S + 5)
    pacer.on_sent(START_S + 5)
    assert pacer.sent_s(20) == START_S + 5, "a new talkspurt"
    assert pacer.sent_s(15) == pytest.approx(START_S + 0.003 + 15 * PTIME_S - 0.1), "of the previous run"
    pacer.on_mark()
    pacer.deadline(START_S + 9)
    pacer.on_sent(START_S + 9)
    assert pacer.sent_s(15) is None, "long ago"

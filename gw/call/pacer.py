"""When each frame is due, and what the caller's ear has had.

Within a talkspurt frame n is played at `origin + n * ptime` and sent one lead earlier, so Twilio holds a cushion of one lead. The
origin is the moment the first frame left. After a stall overdue frames are sent at once: the cushion fills again. A stall
longer than the cushion was heard as a gap: the origin moves by it, and it is counted as underrun. A new talkspurt starts a new
clock, so idle time is never lateness.

Strategy: frames heard without a gap are a run: an origin and a count. A new talkspurt and a heard gap begin a new run; the run
before is remembered, as it may still be on its way to the ear. Times are monotonic seconds, passed in.
Never waits, never reads a clock, never touches audio.
"""

from __future__ import annotations

from typing import Final

from gw.protocol.audio import PTIME_S

#: No path to a caller takes longer: a slower echo says something else, a Twilio that stalled for one.
MAX_ECHO_DELAY_S: Final = 1.0


class Pacer:
    """The clock of one call's downlink.

    `deadline` says when the next frame is due, `on_sent` that it left. Frames are counted per generation, `on_clear` begins a new
    one; `underrun_s` and `moves` are the call's.
    """

    __slots__ = (
        "_echoed",
        "_first",
        "_floor_s",
        "_lead_s",
        "_mark_sent",
        "_n",
        "_open",
        "_origin_s",
        "_past_n",
        "_past_origin_s",
        "_slack_s",
        "echo_delay_s",
        "moves",
        "underrun_s",
    )

    def __init__(self, lead_ms: int) -> None:
        self._lead_s = lead_ms / 1000.0
        # with less than one ptime of lead, one ptime of catch-up is still allowed: else timer noise alone would slow the pace
        self._slack_s = max(0.0, PTIME_S - self._lead_s)
        self._open = False  # this generation has a run
        self._mark_sent = False  # a response ended: a pause from here on is no underrun
        self._origin_s = 0.0  # when the run's first frame left
        self._n = 0  # frames sent in this run
        self._first = 0  # frames sent in this generation before this run
        self._past_origin_s = 0.0  # the run before
        self._past_n = 0
        self._echoed = 0  # frames of this generation an echo proved heard
        self._floor_s = 0.0  # no frame was due before this: it was not there yet
        self.echo_delay_s = 0.0  # the way to the ear and back, as the quickest mark echo showed it; 0 until one came
        self.underrun_s = 0.0  # what the caller heard as gaps within talkspurts
        self.moves = 0  # how many gaps

    def deadline(self, now_s: float) -> float:
        """When the next frame is due. In the past: send it now. The first of a talkspurt is due now."""
        if not self._open or (self._mark_sent and now_s >= self._origin_s + self._n * PTIME_S):
            self._begin(now_s)
        self._mark_sent = False
        return self._origin_s + self._n * PTIME_S - self._lead_s

    def on_sent(self, now_s: float) -> float:
        """The next frame left at `now_s`. Returns its lateness in seconds, 0 or more: against its deadline or, where it came
        to the queue later than that, against its coming."""
        play_s = self._origin_s + self._n * PTIME_S
        due_s = play_s - self._lead_s
        late_s = now_s - (due_s if due_s > self._floor_s else self._floor_s)
        if self._n == 0:
            self._origin_s = now_s
        elif now_s > play_s + self._slack_s:
            self.underrun_s += now_s - play_s
            self.moves += 1
            self._begin(now_s)
        self._n += 1
        return late_s if late_s > 0.0 else 0.0

    def _begin(self, now_s: float) -> None:
        """A new run, heard from now on."""
        self._past_origin_s, self._past_n = self._origin_s, self._n
        self._first += self._n
        self._n = 0
        self._open = True
        self._origin_s = self._floor_s = now_s

    def on_starved(self, now_s: float) -> None:
        """The queue was empty and has a frame again: nothing before `now_s` was TX's lateness."""
        self._floor_s = now_s

    def on_mark(self) -> None:
        """A response's mark followed its last frame: what comes next may be a new talkspurt."""
        self._mark_sent = True

    def on_clear(self) -> None:
        """Twilio was told to discard: a new generation, counted from zero."""
        self._open = False
        self._first = self._n = self._past_n = self._echoed = 0

    @property
    def sent_frames(self) -> int:
        """Frames sent in this generation."""
        return self._first + self._n

    def on_echo(self, frames: int, now_s: float) -> None:
        """Twilio's echo says that `frames` of this generation were heard: what it took longer than our clock thought is the way
        to the ear and back. An echo that came after its run says nothing of that."""
        self._echoed = max(self._echoed, min(frames, self.sent_frames))
        if self._first < frames <= self._first + self._n:
            delay_s = max(0.0, now_s - self._origin_s - (frames - self._first) * PTIME_S)
            if not self.echo_delay_s or delay_s < self.echo_delay_s:
                self.echo_delay_s = min(delay_s, MAX_ECHO_DELAY_S)

    def heard_frames(self, now_s: float) -> int:
        """Frames of this generation the caller has heard to their end. Exact unless two gaps fall into one echo delay."""
        ear_s = now_s - self.echo_delay_s
        if ear_s < self._origin_s:
            frames = self._first - self._past_n + _played(ear_s - self._past_origin_s, self._past_n)
        else:
            frames = self._first + _played(ear_s - self._origin_s, self._n)
        return max(frames, self._echoed)

    def heard_out_s(self) -> float:
        """When the last frame sent has been heard to its end; 0.0 before the first."""
        return self._origin_s + self._n * PTIME_S + self.echo_delay_s if self._open else 0.0


def _played(duration_s: float, frames: int) -> int:
    """How many of these frames have ended `duration_s` after the first began; a frame that ends just now counts, whatever the
    clock's last bit says."""
    return max(0, min(frames, int(duration_s / PTIME_S + 1e-6)))

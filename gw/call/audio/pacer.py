"""Pacer: the due time of each frame, and the number of frames the caller has heard.

Within a talkspurt frame n is played at `origin + n * ptime` and sent one lead earlier, so Twilio holds a cushion of one lead. The
origin is the moment the first frame left. After a stall overdue frames are sent immediately, which refills the cushion. A stall
longer than the cushion was heard as a gap: the origin moves by the gap, which is counted as underrun. A hold moves the origin in
the same way; its gap is counted as held, and is not lateness. A new talkspurt starts a new clock, so idle time is never lateness.

Strategy: frames heard without a gap form a run, an origin and a count. A new talkspurt and a heard gap begin a new run; the
previous run is kept, because it may still be on its way to the ear. Times are monotonic seconds, passed in. No waiting, no clock,
no audio.
"""

from __future__ import annotations

from typing import Final

from gw.protocol.audio import PTIME_S

#: Longest path to a caller. A slower echo has another cause, for example a stall at Twilio.
MAX_ECHO_DELAY_S: Final = 1.0


class Pacer:
    """The clock of one call's downlink.

    `deadline` returns the due time of the next frame, `on_sent` records its departure. Frames are counted per generation;
    `on_clear` begins a new one. `underrun_s`, `ai_underrun_s`, `moves` and `held_s` cover the whole
    call.
    """

    __slots__ = (
        "_dry_s",
        "_echoed",
        "_first",
        "_floor_s",
        "_lead_s",
        "_mark_sent",
        "_n",
        "_open",
        "_origin_s",
        "_previous_n",
        "_previous_origin_s",
        "_slack_s",
        "ai_underrun_s",
        "echo_delay_s",
        "held_s",
        "moves",
        "underrun_s",
    )

    def __init__(self, lead_ms: int) -> None:
        self._lead_s = lead_ms / 1000.0
        # a lead below one ptime still allows one ptime of catch-up, or timer noise alone would slow the pace
        self._slack_s = max(0.0, PTIME_S - self._lead_s)
        self._open = False  # this generation has a run
        self._mark_sent = False  # a response ended: a pause from here on is not an underrun
        self._origin_s = 0.0  # when the run's first frame left
        self._n = 0  # frames sent in this run
        self._first = 0  # frames sent in this generation before this run
        self._previous_origin_s = 0.0  # of the previous run
        self._previous_n = 0
        self._echoed = 0  # frames of this generation heard according to an echo
        self._floor_s = 0.0  # no frame was due before this: the queue was empty
        self.echo_delay_s = 0.0  # delay to the ear and back, of the quickest mark echo; 0 before the first echo
        self._dry_s = 0.0  # before this there was no audio of the AI to send
        self.underrun_s = 0.0  # gaps the caller heard within talkspurts
        self.ai_underrun_s = 0.0  # the part of them in which there was no audio of the AI
        self.moves = 0  # number of gaps
        self.held_s = 0.0  # gaps the caller heard within talkspurts because TX was held

    def deadline(self, now_s: float) -> float:
        """Return the due time of the next frame; in the past means now.

        The first frame of a talkspurt is due now.
        """
        if not self._open or (self._mark_sent and now_s >= self._origin_s + self._n * PTIME_S):
            self._begin(now_s)
        self._mark_sent = False
        return self._origin_s + self._n * PTIME_S - self._lead_s

    def on_sent(self, now_s: float) -> float:
        """Record that the next frame left at `now_s`.

        Returns: its lateness in seconds, 0 or more, after its deadline or its arrival in the queue, whichever is later.
        """
        play_s = self._origin_s + self._n * PTIME_S
        due_s = play_s - self._lead_s
        late_s = now_s - (due_s if due_s > self._floor_s else self._floor_s)
        if self._n == 0:
            self._origin_s = now_s
        elif now_s > play_s + self._slack_s:
            self.underrun_s += now_s - play_s
            if self._dry_s > play_s:
                self.ai_underrun_s += self._dry_s - play_s
            self.moves += 1
            self._begin(now_s)
        self._n += 1
        return late_s if late_s > 0.0 else 0.0

    def _begin(self, now_s: float) -> None:
        """Begin a new run, heard from now on."""
        self._previous_origin_s, self._previous_n = self._origin_s, self._n
        self._first += self._n
        self._n = 0
        self._open = True
        self._origin_s = self._floor_s = now_s

    def on_starved(self, now_s: float, is_dry: bool = False) -> None:
        """Record that the empty queue has a frame again: time before `now_s` is not lateness of TX.

        `is_dry`: the playout was empty too, so that a gap before `now_s` is the AI's.
        """
        self._floor_s = now_s
        if is_dry:
            self._dry_s = now_s

    def on_held(self, now_s: float) -> None:
        """Record that a held frame leaves now: time before `now_s` is neither lateness nor underrun.

        A pause within the cushion was not heard, and the run continues. After a longer one a new run begins.
        """
        play_s = self._origin_s + self._n * PTIME_S
        if self._n and now_s > play_s:
            self.held_s += now_s - play_s
            self._begin(now_s)
        self._floor_s = now_s

    def on_mark(self) -> None:
        """Record that a response's mark followed its last frame: the next frame may begin a new talkspurt."""
        self._mark_sent = True

    def on_clear(self) -> None:
        """Begin a new generation, counted from zero, after a `clear`."""
        self._open = False
        self._first = self._n = self._previous_n = self._echoed = 0

    @property
    def sent_frames(self) -> int:
        """Number of frames sent in this generation."""
        return self._first + self._n

    def sent_s(self, frame: int) -> float | None:
        """Return when a frame left; None before, and long after.

        `frame`: its number in this generation, from 0. Exact for the first frame of a run; for others the time at which they were
        due.
        """
        n, origin_s = frame - self._first, self._origin_s
        if n < 0:
            n, origin_s = n + self._previous_n, self._previous_origin_s
            return max(origin_s, origin_s + n * PTIME_S - self._lead_s) if n >= 0 else None
        return max(origin_s, origin_s + n * PTIME_S - self._lead_s) if n < self._n else None

    def on_echo(self, frames: int, now_s: float) -> None:
        """Record Twilio's echo of a mark: `frames` of this generation were heard.

        The echo's delay after the expected end of the frame is the way to the ear and back; after its run an echo does not
        measure that way.
        """
        self._echoed = max(self._echoed, min(frames, self.sent_frames))
        if self._first < frames <= self._first + self._n:
            delay_s = max(0.0, now_s - self._origin_s - (frames - self._first) * PTIME_S)
            self.echo_delay_s = min(delay_s, self.echo_delay_s or MAX_ECHO_DELAY_S)

    def heard_frames(self, now_s: float) -> int:
        """Return the number of this generation's frames heard to their end.

        Exact unless two gaps fall into one echo delay.
        """
        ear_s = now_s - self.echo_delay_s
        if ear_s < self._origin_s:
            frames = self._first - self._previous_n + _played(ear_s - self._previous_origin_s, self._previous_n)
        else:
            frames = self._first + _played(ear_s - self._origin_s, self._n)
        return max(frames, self._echoed)

    def heard_at_clear(self, now_s: float) -> float:
        """Return the frames heard before a `clear` sent now takes effect, with a fraction.

        The clear travels as long as the audio did, so the length of the way does not count.
        """
        played = min(max(0.0, now_s - self._origin_s) / PTIME_S, self._n)
        return max(self._first + played, self._echoed)

    def heard_out_s(self) -> float:
        """Return when the last frame sent is heard to its end; 0.0 before the first."""
        return self._origin_s + self._n * PTIME_S + self.echo_delay_s if self._open else 0.0


def _played(duration_s: float, frames: int) -> int:
    """Return how many of `frames` have ended `duration_s` after the first began.

    A frame that ends just now counts, despite rounding of the clock.
    """
    return max(0, min(frames, int(duration_s / PTIME_S + 1e-6)))

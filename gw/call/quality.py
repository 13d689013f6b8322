"""A call's quality report: the counts of its pure parts, summed up at its end."""

from __future__ import annotations

import msgspec


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of one call's media. -1 or -1.0: not measured."""

    frames_sent: int = 0
    frames_expected: int = 0  # AI audio received, less what was dropped on purpose (barge-in), in frames
    send_p50_s: float = -1.0
    send_p99_s: float = -1.0
    send_p999_s: float = -1.0
    send_max_s: float = -1.0
    lateness_p50_s: float = -1.0
    lateness_p99_s: float = -1.0
    lateness_p999_s: float = -1.0
    lateness_max_s: float = -1.0
    underrun_ms: int = 0
    dropped_frames: dict[str, int] = {}  # by reason, towards the caller
    uplink_dropped_frames: dict[str, int] = {}  # by reason, towards the AI
    bargeins: int = 0
    first_audio_ms: int = -1  # from the stream's start, or without a greeting the first request, to the agent's first audio
    ai_first_audio_ms: int = -1  # from the first request for a response to its first audio
    hub_hold_max_s: float = -1.0


class LatencyCounts:
    """One call's histogram of durations, as plain ints.

    `counts[i]` counts durations up to `bounds_s[i]`, the last entry those above all bounds. TX increments the ints directly.
    """

    __slots__ = ("bounds_s", "counts", "max_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.max_s = -1.0

    def percentile_s(self, share: float) -> float:
        """Return the duration that `share` (0 to 1) of all counts do not exceed.

        Shape: the upper bound of its bucket, at most the maximum seen; -1.0 without counts.
        """
        total = sum(self.counts)
        if not total:
            return -1.0
        wanted, seen = share * total, 0
        for bound_s, count in zip(self.bounds_s, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return min(bound_s, self.max_s)
        return self.max_s

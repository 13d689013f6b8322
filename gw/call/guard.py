"""Whether the recording of a call may start now. It says yes exactly once.

TX sets `first_audio_sent`; AI-out asks here on every turn. The yes is taken before anything can switch greenlets. A full
pool is no reason to wait and none to forget: the guard stays armed and is asked again.
"""

from __future__ import annotations


class RecordingGuard:
    """One call's guard. `recording_started` never goes back."""

    __slots__ = ("enabled", "recording_started")

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.recording_started = False

    def may_start(self, *, first_audio_sent: bool, pool_has_room: bool) -> bool:
        """True once: the caller then starts the recording, now, in the pool."""
        if not self.enabled or self.recording_started or not first_audio_sent or not pool_has_room:
            return False
        self.recording_started = True
        return True

"""Recording guard: allows a call's recording to start, exactly once.

TX sets `first_audio_sent`; AI-out asks on every turn. The flag is set before any greenlet switch. With a full pool the guard
stays armed and is asked again.
"""

from __future__ import annotations


class RecordingGuard:
    """One call's guard. `recording_started` is never reset."""

    __slots__ = ("enabled", "recording_started")

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.recording_started = False

    def may_start(self, *, first_audio_sent: bool, pool_has_room: bool) -> bool:
        """Return True once: start the recording now, in the pool."""
        if not self.enabled or self.recording_started or not first_audio_sent or not pool_has_room:
            return False
        self.recording_started = True
        return True

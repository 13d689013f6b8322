"""Recording guard: allows a call's recording to start, exactly once.

TX sets `first_audio_sent`; AI-out asks on every turn. The flag is set before any greenlet switch. With a full pool, before the
caller has heard the notice of the recording, and while the caller types sensitive digits, the guard stays armed and is asked
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gw.config import Agent, Config, Route

#: The stream parameter of a call whose caller has heard that it is recorded, before this stream.
HEARD: Final = {"notice": "heard"}
#: The variable of a route that decides whether its calls are recorded, and its values for no.
_VARIABLE: Final = "recording"
_OFF: Final = ("false", "no", "off", "0")


def is_unrecorded(variables: Mapping[str, str]) -> bool:
    """Return whether a route's variables turn the recording off."""
    return variables.get(_VARIABLE, "").strip().lower() in _OFF


def off_by(config: Config, agent: Agent, route: Route) -> str:
    """Return why a call is not recorded; empty if it is."""
    if not config.signed:
        return "no_credentials"
    if not config.recording.enabled:
        return "disabled"
    if not agent.recording:
        return "agent"
    if is_unrecorded(route.variables):
        return "variable"
    return "" if route.record else "route"


class RecordingGuard:
    """One call's guard. `recording_started` is never reset, and `is_announced` never again False."""

    __slots__ = ("enabled", "is_announced", "is_concealed", "recording_started")

    def __init__(self, *, enabled: bool, is_announced: bool = True) -> None:
        """`is_announced`: the caller has heard that the call is recorded, or need not."""
        self.enabled = enabled
        self.is_announced = is_announced
        self.is_concealed = False
        self.recording_started = False

    def may_start(self, *, first_audio_sent: bool, pool_has_room: bool) -> bool:
        """Return True once: start the recording now, in the pool."""
        if not self.enabled or self.recording_started or not first_audio_sent or not pool_has_room:
            return False
        if not self.is_announced or self.is_concealed:
            return False
        self.recording_started = True
        return True

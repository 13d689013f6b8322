"""The dialogue machine: which part reacts to each input and timer, and what follows from the facts then.

`Dialogue.on` takes one input and returns commands; `Dialogue.tick` does the same when `deadline_ms` has come. A handler records
the facts of its input. `_settle` then derives what follows from the facts: the call's end, a request for a response, the holding
sound, the idle limit, the swap of sessions. So no handler has to remember what another one left waiting.

All times are milliseconds of one clock, passed in. Every wait has a timer. `_HANDLERS` and `_TIMERS` are the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from gw.call.dialogue import answers, ending, keys, playback, responses, sessions, silence, speech, tools
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Command
from gw.call.dialogue.facts import NEVER, Facts, Floor, Phase, Response, Successor
from gw.call.dialogue.inputs import Input
from gw.call.dialogue.rules import Rules


class Dialogue(Facts):
    """One call's dialogue, from the start of its first session's opening to the call's end."""

    __slots__ = ()

    @classmethod
    def begin(cls, rules: Rules, now_ms: int) -> Dialogue:
        """Begin a call's dialogue; its first session is being opened."""
        made = cls(rules, window_ms=rules.window_ms, lost_ms=now_ms, now=now_ms)
        made.open_by = now_ms + rules.open_ms
        made.limit_at = now_ms + rules.max_call_ms
        made.warn_at = made.limit_at - rules.warn_ms if 0 < rules.warn_ms < rules.max_call_ms else NEVER
        made.final_at = made.limit_at + limits.CLOSING_MS + rules.goodbye_ms
        made.hold_at = now_ms + rules.hold_after_ms
        return made

    def on(self, event: Input, now_ms: int) -> list[Command]:
        """Take one input. Returns the commands to carry out, in sequence. After the end nothing follows."""
        if self.phase is Phase.ENDED:
            return []
        self.now, self.out = now_ms, []
        if type(event) in _OF_AI:
            self.silent_by = NEVER
        _HANDLERS[type(event)](self, event)
        self._settle()
        return self.out

    def plays_on(self, response_id: str, queued_ms: int, now_ms: int) -> bool:
        """Take one more chunk of the response that the caller hears: the same as `on` with its Audio, in a fifth of the time.

        Returns: False, without effect, where more than two times would change.
        """
        is_next = response_id == self.response_id and self.response is Response.ACTIVE and self.has_audio
        if not is_next or not self.plays or self.starved or self.floor is not Floor.OPEN or self.phase is not Phase.TALK:
            return False
        self.now = now_ms
        self.answer_by = now_ms + self.rules.stall_ms
        self.heard_by = now_ms + queued_ms + self.heard_ms
        return True

    def tick(self, now_ms: int) -> list[Command]:
        """React to every timer that has come. Returns commands, as `on`."""
        if self.phase is Phase.ENDED:
            return []
        self.now, self.out = now_ms, []
        for name, react in _TIMERS.items():
            if getattr(self, name) <= now_ms:
                setattr(self, name, NEVER)
                react(self)
                if self._has_ended():
                    break
        self._settle()
        return self.out

    def _has_ended(self) -> bool:
        return self.phase is Phase.ENDED

    @property
    def deadline_ms(self) -> int:
        """Time of the next `tick`; NEVER after the end."""
        if self.phase is Phase.ENDED:
            return NEVER
        earliest: int = min(_times_of(self))
        return min(earliest, self.ask_at) if answers.may_ask(self) else earliest

    def _settle(self) -> None:
        ending.announce_limit(self)
        if self.phase is Phase.CLOSING and ending.is_over(self):
            ending.end(self)
        if self.phase is Phase.ENDED:
            return
        if self.ask_at <= self.now and answers.may_ask(self):
            answers.ask(self)
        if self.leaving and self.left_for is None and tools.may_leave(self):
            tools.leave(self)
        silence.update_hold_sound(self)
        silence.update_idle(self)
        if self.successor is Successor.READY and sessions.may_swap(self) and not sessions.awaits_text(self):
            sessions.swap(self)


_HANDLERS: Final[dict[type, Callable[[Facts, Any], None]]] = {
    given.SessionReady: sessions.on_session_ready,
    given.SessionLost: sessions.on_session_lost,
    given.SuccessorReady: sessions.on_successor_ready,
    given.SuccessorFailed: sessions.on_successor_failed,
    given.ResponseStarted: responses.on_response_started,
    given.Alive: responses.on_alive,
    given.Audio: responses.on_audio,
    given.ResponseDone: responses.on_response_done,
    given.CreateRefused: responses.on_create_refused,
    given.SpeechStarted: speech.on_speech_started,
    given.SpeechStopped: speech.on_speech_stopped,
    given.CallerText: speech.on_caller_text,
    given.ToolCall: responses.on_tool_call,
    given.Unreadable: sessions.on_unreadable,
    given.HeardOut: speech.on_heard_out,
    given.Starved: playback.on_starved,
    given.Delayed: playback.on_delayed,
    given.Key: keys.on_key,
    given.Recorded: playback.on_recorded,
    given.AnsweredBy: ending.on_answered_by,
    given.NoticeHeard: playback.on_notice_heard,
    given.FramesMissing: silence.on_frames_missing,
    given.FramesBack: silence.on_frames_back,
    given.StreamEnded: ending.on_stream_ended,
    given.ToolSettled: tools.on_tool_settled,
    given.Concealed: keys.on_concealed,
    given.NotConcealed: keys.on_not_concealed,
    given.ToolResumed: tools.on_tool_resumed,
    given.BudgetNear: ending.on_budget_near,
    given.BudgetSpent: ending.on_budget_spent,
    given.EndWanted: ending.on_end_wanted,
}


#: Inputs that are signs of life of the AI.
_OF_AI: Final = frozenset(
    (
        *(given.ResponseStarted, given.Alive, given.Audio, given.ResponseDone, given.CreateRefused, given.SpeechStarted),
        *(given.SpeechStopped, given.CallerText, given.ToolCall, given.Unreadable),
    )
)

#: Each timer's reaction. The timer is unset first. `ask_at` has none: `_settle` reads it.
_TIMERS: Final[dict[str, Callable[[Facts], None]]] = {
    "final_at": ending.on_final_at,
    "limit_at": ending.on_limit_at,
    "close_by": ending.end,
    "open_by": sessions.on_open_by,
    "answer_by": responses.on_answer_by,
    "cancel_by": answers.on_cancel_by,
    "silent_by": responses.on_answer_by,
    "wait_by": answers.on_wait_by,
    "speech_by": speech.on_speech_by,
    "heard_by": playback.on_heard_by,
    "cut_at": speech.cut,
    "judge_at": speech.resume,
    "keys_at": keys.send_keys,
    "tools_by": tools.on_tools_by,
    "digits_at": keys.on_digits_at,
    "hold_at": silence.on_hold_at,
    "filler_at": silence.on_filler_at,
    "protect_by": playback.on_protect_by,
    "idle_at": silence.on_idle_at,
    "warn_at": ending.on_warn_at,
    "quiet_at": sessions.on_quiet_at,
    "forced_at": sessions.on_forced_at,
    "text_by": sessions.on_text_by,
}

_times_of: Final = attrgetter(*_TIMERS)

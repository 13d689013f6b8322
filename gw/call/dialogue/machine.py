"""The dialogue's state, and its reaction to each input.

`Dialogue.on` takes one input and returns commands; `Dialogue.tick` does the same when `deadline_ms` has come. A handler records
the facts of its input. `_settle` then derives what follows from the facts: the call's end, a request for a response, the holding
sound, the idle limit, the swap of sessions. So no handler has to remember what another one left waiting.

All times are milliseconds of one clock, passed in. Every wait has a timer; `_TIMERS` lists them with their reactions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Command, Prompt, ToolOutcome
from gw.call.dialogue.inputs import Input, Trouble
from gw.call.dialogue.rules import Rules
from gw.call.digits import Collection, Shortfall
from gw.call.state import Reason

#: The time of a timer that is not set.
NEVER: Final = 1 << 60
#: Identifiers of dropped responses that are kept.
MAX_IDS: Final = 100
#: Ended responses kept: late audio belongs to the last one or two.
MAX_ENDED: Final = 4
#: Ends that the caller may take back by speaking.
_REVERSIBLE: Final = frozenset({Reason.AI_HANGUP, Reason.IDLE_LIMIT})
#: Ends before which the agent speaks.
_WITH_WORDS: Final = _REVERSIBLE | {Reason.DURATION_LIMIT, Reason.BUDGET}


class Phase(Enum):
    """Phase of a dialogue."""

    TALK = auto()
    CLOSING = auto()  # the end is decided; last words are requested or heard
    ENDED = auto()


class Response(Enum):
    """The response under way."""

    NONE = auto()
    REQUESTED = auto()  # by us; the AI has not begun it
    ACTIVE = auto()
    CUT = auto()  # cancelled or interrupted; the AI has not ended it


class Floor(Enum):
    """State of an interruption that the gateway judges."""

    OPEN = auto()
    HELD = auto()  # playout paused, the caller speaks
    JUDGED = auto()  # the caller stopped, the playout runs again; words that come now still decide


#: Whom a caller waits for who is owed an answer.
Party = Literal["ai", "tool", "gateway"]


class Successor(Enum):
    """A second session, to replace one that expires."""

    NONE = auto()
    OPENING = auto()
    READY = auto()


#: The response of tools that were called in an earlier stream.
EARLIER: Final = "earlier"


class OpenTool(NamedTuple):
    """A tool call that control has not settled. `by_ms`: its deadline; NEVER while it waits for the agent's words."""

    call_id: str
    response_id: str
    name: str
    by_ms: int


@dataclass(slots=True)
class Dialogue:
    """One call's dialogue, from the start of its first session's opening to the call's end."""

    rules: Rules
    phase: Phase = Phase.TALK
    # the session
    is_ready: bool = False
    has_greeted: bool = False
    opens: int = 0  # further attempts since a session lasted
    window_ms: int = 0  # left for attempts
    ready_ms: int = NEVER
    lost_ms: int = 0  # when the last session was lost, or the call began
    successor: Successor = Successor.NONE
    successor_lifetime_ms: int = 0
    unreadable: tuple[int, ...] = ()  # times
    # the caller
    speaks: bool = False
    item: str = ""  # the caller's last turn
    has_text: bool = False  # its words came
    floor: Floor = Floor.OPEN
    fills_silence: bool = False
    keys: str = ""
    held_keys: str = ""  # complete, but no session was ready
    sent_keys: str = ""  # not answered yet: another session needs them again
    # the answer that is owed
    debt: Prompt | None = None
    insists: bool = False  # a response that has begun cannot pay it
    survives: bool = False  # the response under way does not pay it
    attempts: int = 0
    # the response under way
    response: Response = Response.NONE
    response_id: str = ""
    asked: Prompt | None = None  # the debt it was requested for
    cut_requests: int = 0  # cancelled before the AI began them: it begins and ends them
    has_audio: bool = False
    has_tool: bool = False
    has_new_tool: bool = False  # one that no earlier response called
    ended: tuple[str, ...] = ()  # the last responses that the AI ended
    dropped: tuple[str, ...] = ()  # responses whose audio is not played
    # the caller's ear
    plays: bool = False
    held_at: int = NEVER  # since when a judged interruption holds the audio, as far as `heard_by` does not count it
    starved: bool = False  # what plays has fallen silent: the response is slower than its audio
    holds_sound: bool = False
    quiet_ms: int = NEVER  # since when the caller hears nothing and does not speak
    # tools
    open_tools: tuple[OpenTool, ...] = ()
    held_results: tuple[tuple[str, ToolOutcome], ...] = ()  # by call, settled while no session was ready
    answered: tuple[str, ...] = ()
    tools: int = 0
    leaving: str = ""  # the call that ends the stream, once all words are heard
    left_for: Reason | None = None  # control was asked to end the stream for it
    collection: Collection | None = None  # digits that the caller types for an open tool
    filling: str = ""  # the tool for which the agent was asked to say a filler; one filler bridges one wait
    # the end
    party: str = ""  # Twilio's first verdict: person, machine or fax
    closing: Reason | None = None
    has_spoken: bool = False  # the agent's last words were queued whole
    has_asked_goodbye: bool = False
    spent: bool = False  # a limit on cost is reached: the call ends
    taken_back: int = 0
    prompts: int = 0  # idle prompts in a row
    # timers
    ask_at: int = NEVER
    wait_by: int = NEVER  # the AI's rate limit: no request before
    answer_by: int = NEVER
    cancel_by: int = NEVER
    speech_by: int = NEVER
    heard_by: int = NEVER
    hold_at: int = NEVER
    filler_at: int = NEVER  # the same while a tool is all that is awaited
    protect_by: int = NEVER  # the greeting is not interrupted before
    open_by: int = NEVER
    cut_at: int = NEVER
    judge_at: int = NEVER
    resume_at: int = NEVER
    keys_at: int = NEVER
    tools_by: int = NEVER
    digits_at: int = NEVER
    idle_at: int = NEVER
    close_by: int = NEVER
    warn_at: int = NEVER
    limit_at: int = NEVER
    final_at: int = NEVER
    quiet_at: int = NEVER
    forced_at: int = NEVER
    text_by: int = NEVER  # a swap waits for the caller's words
    now: int = 0
    out: list[Command] = field(default_factory=list)

    # -- the three calls of an edge -------------------------------------------------------------------------------------

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
        self.heard_by = now_ms + queued_ms + self._heard_ms
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
        return min(earliest, self.ask_at) if self._may_ask() else earliest

    # -- what follows from the facts ------------------------------------------------------------------------------------

    def _settle(self) -> None:
        if self.phase is Phase.CLOSING and self._is_over():
            self._end()
        if self._has_ended():
            return
        if self.ask_at <= self.now and self._may_ask():
            self._ask()
        if self.leaving and self.left_for is None and self._may_leave():
            self._leave()
        self._update_hold_sound()
        self._update_idle()
        if self.successor is Successor.READY and self._may_swap() and not self._awaits_text():
            self._swap()

    def _is_over(self) -> bool:
        """The last words are heard, or none will come."""
        is_heard = not self.plays and self.floor is not Floor.JUDGED
        return is_heard and self.debt is None and self.response in (Response.NONE, Response.CUT)

    def _may_ask(self) -> bool:
        """A response may be requested: the caller is silent, and none is under way."""
        if self.debt is None or not self.is_ready or self.speaks or self.floor is not Floor.OPEN:
            return False
        if self.wait_by != NEVER:
            return False
        if self.plays and self.debt in (Prompt.CLOSING, Prompt.GOODBYE):
            return False  # after the sentence
        return self.response is Response.NONE

    def _ask(self) -> None:
        assert self.debt is not None
        self.asked, self.ask_at = self.debt, NEVER
        self.response, self.response_id = Response.REQUESTED, ""
        self.has_audio = self.has_tool = self.has_new_tool = self.survives = False
        self.answer_by = self.now + self.rules.answer_ms
        self.out.append(do.Create(self.debt, self.filling if self.debt is Prompt.FILLER else ""))

    @property
    def is_owing(self) -> bool:
        """The caller waits for the agent, or for a tool."""
        is_served = any(self._waits(tool) and not self.rules.tools[tool.name].collects for tool in self.open_tools)
        return self._awaits_agent() or is_served

    @property
    def waits_for(self) -> Party | None:
        """Whom the caller's next answer waits for; None if no answer is owed."""
        if self.floor is Floor.JUDGED:
            return "gateway"
        if not self.is_owing or self.phase is Phase.ENDED:
            return None
        if self._awaits_tool() and (self.filling or not self._awaits_agent()):
            return "tool"
        return "gateway" if self.is_heard else "ai"

    def _awaits_agent(self) -> bool:
        is_answering = self.response is Response.REQUESTED or (self.response is Response.ACTIVE and not self._has_called())
        return self.debt is not None or not self.is_ready or is_answering

    def _has_called(self) -> bool:
        """The response under way called a tool that is not settled: it ends now."""
        return self.has_new_tool and self._awaits_tool(self.response_id)

    def _awaits_tool(self, response_id: str | None = None) -> bool:
        """A tool is under way whose result an answer waits for. `response_id`: of this response's calls."""
        return any(self._waits(tool) and response_id in (None, tool.response_id) for tool in self.open_tools)

    def _waits(self, tool: OpenTool) -> bool:
        return self.rules.tools[tool.name].waits

    @property
    def is_heard(self) -> bool:
        """The caller hears the agent."""
        return self.plays and not self.starved

    def _update_hold_sound(self) -> None:
        """Play the holding sound while the caller waits and hears nothing."""
        is_silent = not (self.is_heard or self.speaks)
        self.quiet_ms = min(self.quiet_ms, self.now) if is_silent else NEVER
        if not is_silent or not self.is_owing or self.phase is Phase.CLOSING:
            self.hold_at = self.filler_at = NEVER
            if self.holds_sound:
                self.holds_sound = False
                self.out.append(do.HoldSound(False))
        elif self.holds_sound:
            pass
        elif self._awaits_agent():
            if self.hold_at == NEVER:
                self.hold_at = min(self.now + self.rules.hold_after_ms, self.filler_at)
            self.filler_at = NEVER
        else:
            self.hold_at, self.filler_at = NEVER, min((at_ms for at_ms, _ in self._fillers()), default=NEVER)

    def _on_hold_at(self) -> None:
        self.holds_sound = True
        self.out.append(do.HoldSound(True))

    def _fillers(self) -> list[tuple[int, str]]:
        """Tools whose wait is to be bridged, with the time: from the later of the call and the end of what is heard."""
        found = []
        for tool in self.open_tools:
            rules = self.rules.tools[tool.name]
            if rules.waits and rules.filler != "none" and tool.by_ms != NEVER:
                called_ms = tool.by_ms - rules.timeout_ms - limits.TOOL_MARGIN_MS
                found.append((max(called_ms, self.quiet_ms) + rules.filler_after_ms, tool.name))
        return found

    def _on_filler_at(self) -> None:
        """Bridge the wait for a tool: with a sentence once, else with the holding sound."""
        fillers = self._fillers()
        if not fillers:
            return
        _, name = min(fillers)
        may_speak = not self.filling and self.debt is None and self.wait_by == NEVER and self.response is Response.NONE
        if may_speak and self.rules.tools[name].filler == "say":
            self.filling = name
            self.debt, self.insists, self.attempts, self.ask_at = Prompt.FILLER, False, 0, self.now
        else:
            self._on_hold_at()

    def _is_quiet(self) -> bool:
        """Neither side speaks, is heard, or owes the other anything."""
        return (
            self.phase is Phase.TALK
            and self.is_ready
            and not (self.speaks or self.plays or self.keys)
            and self.floor is Floor.OPEN
            and self.response in (Response.NONE, Response.CUT)
            and self.debt is None
            and not self.open_tools
        )

    def _update_idle(self) -> None:
        if not self._is_quiet():
            self.idle_at = NEVER
        elif self.idle_at == NEVER:
            self.idle_at = self.now + self.rules.idle_ms

    # -- debts ----------------------------------------------------------------------------------------------------------

    def _owe(self, prompt: Prompt, after_ms: int, *, insists: bool = False) -> None:
        """Owe the caller an answer, and request it after `after_ms` unless the AI begins one itself."""
        if self.phase is not Phase.TALK:
            return
        self.insists = insists or (self.insists and self.debt is not None)
        self.debt, self.attempts = prompt, 0
        self.survives = self.response is Response.ACTIVE or (insists and self.response is Response.REQUESTED)
        ahead_at = self.heard_by - self._heard_ms - limits.AHEAD_MS if self.plays else 0
        self.ask_at = max(self.now + after_ms, ahead_at)

    def _retry(self, trouble: Trouble, wait_ms: int) -> None:
        """Request an answer that failed once more, or let the fallback speak."""
        if trouble is Trouble.RATE_LIMIT:
            self._wait(wait_ms)
        if self.debt is None:
            return
        self.attempts += 1
        if self.debt in (Prompt.ARE_YOU_THERE, Prompt.FILLER) and trouble is not Trouble.LASTING:
            self.debt = None  # a silent caller is owed nothing, and a tool is bridged by the holding sound
            return
        if trouble is Trouble.LASTING or self.attempts > len(limits.RETRY_PAUSES_MS):
            if self.phase is Phase.CLOSING:
                self.debt = None  # Twilio speaks
                return
            self._fall_back(_CAUSES.get(trouble, Reason.AI_NO_ANSWER))
            return
        self.ask_at = self.now + limits.RETRY_PAUSES_MS[self.attempts - 1]
        self.out.append(do.Note("answer_failed"))

    def _wait(self, wait_ms: int) -> None:
        """Request nothing for as long as the AI's rate limit asks."""
        self.wait_by = self.now + min(max(limits.RETRY_PAUSES_MS[-1], wait_ms), limits.MAX_WAIT_MS)

    # -- responses ------------------------------------------------------------------------------------------------------

    def _on_response_started(self, event: given.ResponseStarted) -> None:
        if event.response_id and event.response_id in self.dropped:
            return
        self.dropped = tuple(one for one in self.dropped if one)  # a response without an identifier is a new one
        if self.speaks or self.cut_requests or not self._accepts_words():
            cancel, self.cut_requests = not self.cut_requests, max(0, self.cut_requests - 1)
            self._take_response(event.response_id)
            self._drop_response(cancel=cancel)
            return
        self._take_response(event.response_id)
        if self.debt is None and self.phase is Phase.TALK:
            self.debt = Prompt.ANSWER  # if it fails, it is requested again

    def _take_response(self, response_id: str) -> None:
        if self.open_tools:
            self._yield_tools()
        if self.response is not Response.REQUESTED:
            self.asked, self.survives = None, self.insists
        self.response, self.response_id = Response.ACTIVE, response_id
        self.has_audio = self.has_tool = self.has_new_tool = False
        self.cancel_by = NEVER
        if not self.survives:
            self.ask_at = NEVER
        self.answer_by = self.now + self.rules.answer_ms

    def _drop_response(self, *, cancel: bool) -> None:
        """Play nothing more of the active response. The AI has to end it."""
        self.dropped = _kept(self.dropped, self.response_id)
        self.response, self.answer_by = Response.CUT, NEVER
        self.cancel_by = self.now + limits.CANCEL_MS
        if cancel:
            self.out.append(do.Cancel())

    def _on_cancel_by(self) -> None:
        """Take a response whose end never came for ended."""
        if self.response is Response.CUT:
            self.response = Response.NONE
            if self.debt is not None and self.ask_at == NEVER:
                self.ask_at = self.now

    def _on_wait_by(self) -> None:
        """The rate limit is over: `_settle` requests the owed answer."""

    def _on_protect_by(self) -> None:
        """From here on the greeting can be interrupted: `_on_speech_started` reads the timer."""

    def _accepts_words(self) -> bool:
        return self.phase is Phase.TALK or self.closing in _WITH_WORDS

    def _on_alive(self, _: given.Alive) -> None:
        if self.response is Response.ACTIVE and self.has_audio:
            self.answer_by = self.now + self.rules.stall_ms

    def _on_audio(self, event: given.Audio) -> None:
        if event.response_id in self.dropped or not self._accepts_words():
            return
        if self.speaks and self.floor is Floor.OPEN and not self.plays:
            if self.response is Response.ACTIVE and event.response_id == self.response_id:
                self._drop_response(cancel=True)  # it would begin in mid-sentence later
            return
        if self.response is Response.REQUESTED and event.response_id not in self.ended:
            self._take_response(event.response_id)  # its start was not reported
        if self.response is Response.ACTIVE and event.response_id == self.response_id:
            self._on_first_words()
        self.plays, self.starved = True, False
        self._expect_heard(event.queued_ms)
        self.out.append(do.Play())

    def _expect_heard(self, queued_ms: int) -> None:
        """Bound the time until the caller has heard what is queued."""
        self.heard_by = self.now + queued_ms + self._heard_ms
        if self.floor is Floor.HELD:
            self.heard_by += self.rules.resume_after_ms
            self.held_at = self.now
        if self.phase is Phase.CLOSING:
            self.close_by = self.heard_by + self.rules.goodbye_ms

    def _on_delayed(self, event: given.Delayed) -> None:
        if self.plays:
            self._expect_heard(event.queued_ms)

    @property
    def _heard_ms(self) -> int:
        return min(limits.HEARD_MS, self.rules.goodbye_ms)

    def _on_first_words(self) -> None:
        """The active response speaks: it pays the debt, unless it began before the reason for the debt."""
        if Prompt.GREETING in (self.asked, self.debt) and not self.has_audio:
            self._protect()
        self.has_audio = True
        self.answer_by = self.now + self.rules.stall_ms
        if not self.survives:
            self.debt, self.insists, self.sent_keys = None, False, ""
        if self.phase is Phase.CLOSING and (self.closing is Reason.AI_HANGUP or self.asked in (Prompt.CLOSING, Prompt.GOODBYE)):
            self.has_spoken = True

    def _on_response_done(self, event: given.ResponseDone) -> None:
        if event.response_id in self.dropped:
            if self.response is Response.CUT and event.response_id == self.response_id:
                self._clear_response()
                if self.debt is not None and self.ask_at == NEVER:
                    self.ask_at = self.now
            return
        if self.response not in (Response.ACTIVE, Response.REQUESTED) or event.response_id != self.response_id != "":
            return  # an older response
        has_audio, has_tool, has_new_tool = self.has_audio, self.has_tool, self.has_new_tool
        self._clear_response()
        self.ended = (*self.ended[-MAX_ENDED + 1 :], event.response_id)
        if has_tool:
            self._on_tools_called(event.response_id if has_new_tool else None)
        elif has_audio and event.completed:
            self.attempts = 0
            if self.debt is not None and self.ask_at == NEVER:
                self.ask_at = self.now  # the answer this response could not be
        elif has_audio:
            self.debt = self.debt or (Prompt.CONTINUE if self.phase is Phase.TALK else None)
            self.has_spoken = False
            self._retry(event.trouble, event.wait_ms)
        else:
            self._retry(event.trouble, event.wait_ms)

    def _clear_response(self) -> None:
        self.response, self.response_id, self.asked, self.answer_by, self.cancel_by = Response.NONE, "", None, NEVER, NEVER
        self.has_audio = self.has_tool = self.has_new_tool = self.survives = self.starved = False

    def _on_create_refused(self, event: given.CreateRefused) -> None:
        if event.trouble is Trouble.RATE_LIMIT:
            self._wait(event.wait_ms)
        if self.cut_requests:
            self.cut_requests -= 1
        elif event.trouble is Trouble.CROSSED and self.response is Response.ACTIVE:
            if self.insists and self.asked is not None:  # the response that the AI began itself is not the answer
                self.debt, self.survives = self.debt or self.asked, True
        elif self.response is Response.REQUESTED:
            self._clear_response()
            if event.trouble is Trouble.CROSSED:
                self.out.append(do.Cancel())  # a cut response continues
            self._retry(event.trouble, event.wait_ms)

    def _on_answer_by(self) -> None:
        """A response gave no sign for too long: the session is at fault."""
        self.attempts += 1
        if self.attempts > len(limits.RETRY_PAUSES_MS):
            self._fall_back(Reason.AI_STALLED)
        else:
            self._on_session_lost(given.SessionLost(Reason.AI_STALLED))

    # -- the caller -----------------------------------------------------------------------------------------------------

    def _on_speech_started(self, event: given.SpeechStarted) -> None:
        self.item, self.has_text, self.prompts = event.item_id, False, 0
        self.speaks, self.speech_by = True, self.now + limits.MAX_SPEECH_MS
        if self.phase is Phase.CLOSING and not self._may_take_back():
            return
        if self.rules.interruptions == "none" or self.protect_by != NEVER:
            self._take_back()
        elif self.rules.interruptions == "gateway" and self.plays:
            self._hold()
            self.cut_at, self.resume_at = self.now + self.rules.cut_after_ms, self.now + self.rules.resume_after_ms
        else:
            self._cut()

    def _hold(self) -> None:
        """Pause the playout while the caller speaks. The bound on hearing it moves along."""
        if self.floor is Floor.HELD:
            self.heard_by += self.now - self.held_at
        else:
            self.out.append(do.HoldAudio())
            self.heard_by += self.rules.resume_after_ms
        self.floor, self.held_at, self.judge_at = Floor.HELD, self.now, NEVER

    def _may_take_back(self) -> bool:
        """The end that was decided may be given up for a caller who speaks: within the longest call and the budget."""
        if self.closing not in _REVERSIBLE or not self.is_ready or self.limit_at == NEVER or self.spent:
            return False
        return self.closing is not Reason.AI_HANGUP or self.taken_back < limits.MAX_TAKEN_BACK

    def _take_back(self) -> None:
        """Return to the conversation: the caller speaks into the goodbye."""
        if self.phase is not Phase.CLOSING or not self._may_take_back():
            return
        self.taken_back += self.closing is Reason.AI_HANGUP
        self.phase, self.closing, self.close_by = Phase.TALK, None, NEVER
        self.has_spoken = self.has_asked_goodbye = False
        self.out.append(do.Note("goodbye_taken_back"))

    def _cut(self) -> None:
        """Give the caller the floor: what the agent has not said is not said."""
        self._take_back()
        for response_id in self.ended:  # their late audio too
            self.dropped = _kept(self.dropped, response_id)
        self.ended = ()
        if self.phase is Phase.TALK:
            self.debt, self.insists, self.attempts, self.ask_at, self.sent_keys = None, False, 0, NEVER, ""
        elif self.plays:
            self.has_spoken = False
        if self.response is Response.ACTIVE:
            self._drop_response(cancel=self.rules.interruptions == "gateway")
        elif self.response is Response.REQUESTED:
            self._cancel_request()
        self._discard()
        self._cancel_tools()

    def _cancel_request(self) -> None:
        """Give up a response that the AI has not begun: it begins and ends it."""
        self.response, self.answer_by, self.cancel_by = Response.CUT, NEVER, self.now + limits.CANCEL_MS
        self.cut_requests += 1
        self.out.append(do.Cancel())

    def _cancel_tools(self) -> None:
        """Give up the tools that an interruption ends."""
        for tool in self.open_tools:
            is_left = tool.call_id == self.leaving and self.left_for is not None
            if self.rules.tools[tool.name].cancels and self._waits(tool) and not is_left:
                self._close_tool(tool)
                self._answer_tool(tool.call_id, "cancelled")
                self.out.append(do.CancelTool(tool.call_id))

    def _discard(self) -> None:
        """Discard the audio that the caller has not heard."""
        if self.plays:
            self.out.append(do.Interrupt(_VERDICTS[self.floor]))
            self._on_heard_out()
        self._release()

    def _release(self) -> None:
        """End a judged interruption."""
        if self.floor is Floor.HELD:
            if self.plays:
                self.heard_by += self.now - self.held_at - self.rules.resume_after_ms
            self.held_at = NEVER
            self.out.append(do.ReleaseAudio())
        self.floor = Floor.OPEN
        self.cut_at = self.judge_at = self.resume_at = NEVER

    def _resume(self) -> None:
        """Return to the agent's words: the interruption was noise, or a sign of attention."""
        self.speaks, self.speech_by = False, NEVER
        self.out.append(do.DeleteItem(self.item))
        self._release()

    def _on_speech_stopped(self, event: given.SpeechStopped) -> None:
        if event.item_id != self.item:
            self._on_speech_started(given.SpeechStarted(event.item_id))  # its start was not reported
        if not self.speaks:
            return
        self.speaks, self.speech_by = False, NEVER
        if self.floor is Floor.HELD:  # silent for the AI's whole pause already: noise, as long as no words come
            self._release()
            self.floor, self.judge_at = Floor.JUDGED, self.now + limits.JUDGE_MS
        else:
            self._await_own_response()

    def _await_own_response(self) -> None:
        """Owe an answer to a turn. The AI begins it itself, unless the gateway judges, with the results so far."""
        if self.rules.interruptions == "gateway":
            self._owe(Prompt.ANSWER, 0)
            return
        has_result = self.debt is not None and self.insists
        self.insists = self.insists and bool(self.sent_keys)
        self._owe(Prompt.ANSWER, limits.AFTER_TOOL_MS if has_result else limits.OWN_RESPONSE_MS)

    def _on_speech_by(self) -> None:
        self._on_speech_stopped(given.SpeechStopped(self.item))

    def _on_caller_text(self, event: given.CallerText) -> None:
        if event.item_id != self.item:
            return
        self.has_text = True
        if self.floor is Floor.JUDGED and event.meaningful:
            self._cut()
            self._owe(Prompt.ANSWER, 0)
        elif self.floor is Floor.JUDGED:
            self._resume()

    def _on_heard_out(self, _: given.HeardOut | None = None) -> None:
        self.plays, self.starved, self.heard_by = False, False, NEVER

    def _on_all_heard(self, _: given.HeardOut) -> None:
        """Nothing is left that an interruption could cut: what the caller says is an ordinary turn."""
        self._on_heard_out()
        if self.floor is Floor.HELD:
            self._take_back()
            self._release()
            self._cancel_tools()
        elif self.floor is Floor.JUDGED and self.phase is Phase.TALK:
            self._release()
            self._cancel_tools()
            self._owe(Prompt.ANSWER, 0)

    def _on_heard_by(self) -> None:
        """The report that all was heard does not come: closing words may be lost with the stream."""
        if self.phase is Phase.CLOSING:
            self.has_spoken = False
        self._on_heard_out()

    def _on_starved(self, _: given.Starved) -> None:
        self.starved = self.plays and self.response is Response.ACTIVE

    def _on_key(self, event: given.Key) -> None:
        self.prompts = 0
        if self.phase is not Phase.TALK:
            return
        if self.collection is not None:
            self._collect(event.digit)
            return
        if event.digit != "#" or not self.rules.collect_keys:
            self.keys += event.digit
        if event.digit == "#" or len(self.keys) >= self.rules.max_keys or not self.rules.collect_keys:
            self._send_keys()
        else:
            self.keys_at = self.now + limits.KEYS_MS

    def _send_keys(self) -> None:
        keys, self.keys, self.keys_at = self.keys, "", NEVER
        if not keys:
            return
        if self.is_ready:
            self.out.append(do.SendKeys(keys))
            self.sent_keys = (self.sent_keys + keys)[-self.rules.max_keys :]
        else:
            self.held_keys = (self.held_keys + keys)[-self.rules.max_keys :]
        self._owe(Prompt.ANSWER, 0, insists=True)

    def _on_recorded(self, event: given.Recorded) -> None:
        """The caller is greeted without the AI, whose session may not be ready yet."""
        self.plays, self.has_greeted = True, self.has_greeted or event.greets
        self._expect_heard(event.length_ms)
        if event.greets:
            self._protect()
        if event.notice_ms:  # heard to its end, whatever the caller says
            self.protect_by = self.now + event.notice_ms + max(self._heard_ms, self.rules.protect_greeting_ms * event.greets)
        self.out.append(do.Play())

    def _on_notice_heard(self, _: given.NoticeHeard) -> None:
        self.protect_by = NEVER
        if self.has_greeted:
            self._protect()

    def _on_answered_by(self, event: given.AnsweredBy) -> None:
        """End a call that no person answered: after the message, if there is one. The first verdict counts."""
        if self.party:
            return
        self.party = event.party
        if event.party == "person":
            return
        if self.response is Response.ACTIVE:
            self._drop_response(cancel=True)
        elif self.response is Response.REQUESTED:
            self._cancel_request()
        if self.plays:
            self.out.append(do.Interrupt("machine"))
            self._on_heard_out()
        self._release()
        self._begin_closing(Reason.MACHINE, self.rules.goodbye_ms)
        if event.party == "machine" and event.message_ms:
            self.plays = True
            self._expect_heard(event.message_ms)
            self.out.append(do.Play())

    def _protect(self) -> None:
        if self.rules.protect_greeting_ms:
            self.protect_by = self.now + self.rules.protect_greeting_ms

    def _on_frames_missing(self, _: given.FramesMissing) -> None:
        if not self.fills_silence:
            self.fills_silence = True
            self.out.append(do.FillSilence(True))

    def _on_frames_back(self, _: given.FramesBack) -> None:
        if self.fills_silence:
            self.fills_silence = False
            self.out.append(do.FillSilence(False))

    # -- tools ----------------------------------------------------------------------------------------------------------

    def _on_tool_call(self, event: given.ToolCall) -> None:
        is_cut = event.response_id in self.dropped
        is_known = self._is_known(event.call_id)
        if self.response is Response.ACTIVE and not is_cut:
            self.has_tool, self.has_new_tool = True, self.has_new_tool or not is_known
            self.answer_by = self.now + self.rules.answer_ms
        if is_known:
            self.out.append(do.Note("tool_repeated"))
            return
        self.tools += 1
        if self.phase is Phase.CLOSING:
            self._answer_tool(event.call_id, "cancelled")
        elif event.name == self.rules.hang_up_tool:
            self._answer_tool(event.call_id, "ok")
            if not is_cut:
                self._hang_up()
        elif event.name not in self.rules.tools:
            self._answer_tool(event.call_id, "unknown_tool")
        elif not event.is_readable:
            self._answer_tool(event.call_id, "invalid_arguments")
        elif self._is_too_much(event.name) or self._is_collecting(event):
            self._answer_tool(event.call_id, "busy")
        else:
            self._open_tool(event)

    def _is_too_much(self, name: str) -> bool:
        """One more call is refused: the bounds are reached, or the call leaves the stream already."""
        leaves = bool(self.leaving) and self.rules.tools[name].leaves is not None
        return leaves or len(self.open_tools) >= limits.MAX_OPEN_TOOLS or self.tools > limits.MAX_TOOLS

    def _on_tool_resumed(self, event: given.ToolResumed) -> None:
        """Wait for a result that an earlier stream of the call did not receive. Before the first session."""
        rules = self.rules.tools.get(event.name)
        if rules is None or self._is_known(event.call_id) or len(self.open_tools) >= limits.MAX_OPEN_TOOLS:
            return
        self.tools += 1
        by_ms = self.now + max(0, min(event.left_ms, rules.timeout_ms)) + limits.TOOL_MARGIN_MS
        self.open_tools = (*self.open_tools, OpenTool(event.call_id, EARLIER, event.name, by_ms))
        self.tools_by = min(self.tools_by, by_ms)
        if not rules.waits:  # the earlier session has the first output
            self.answered = _kept(self.answered, event.call_id, limits.MAX_KNOWN_TOOLS)
        self.out.append(do.WantTool(event.call_id))

    def _is_known(self, call_id: str) -> bool:
        """The call came before. A call in the background is answered, and may be open."""
        if call_id in self.answered or any(call_id == one for one, _ in self.held_results):
            return True
        return any(tool.call_id == call_id for tool in self.open_tools)

    def _yield_tools(self) -> None:
        """Close what only waited for the AI to continue."""
        for tool in self.open_tools:
            if self.rules.tools[tool.name].yields:
                self._close_tool(tool)
                self._answer_tool(tool.call_id, "yielded")

    def _open_tool(self, event: given.ToolCall) -> None:
        self._yield_tools()
        rules = self.rules.tools[event.name]
        if rules.leaves is not None:
            self.open_tools = (*self.open_tools, OpenTool(event.call_id, event.response_id, event.name, NEVER))
            self.leaving = event.call_id  # `_settle` follows
            return
        tool = OpenTool(event.call_id, event.response_id, event.name, self.now + rules.timeout_ms + limits.TOOL_MARGIN_MS)
        self.open_tools = (*self.open_tools, tool)
        self.tools_by = min(self.tools_by, tool.by_ms)
        if rules.collects:
            self._open_collection(event)
            return
        self.out.append(do.WantTool(event.call_id))
        if not rules.waits:
            self._answer_tool(event.call_id, "started")

    def _may_leave(self) -> bool:
        """Nothing is being said, heard or owed, and no other tool is awaited."""
        if self.phase is not Phase.TALK or self.speaks or self.plays or self.keys or self.floor is not Floor.OPEN:
            return False
        if self.debt is not None or self.response not in (Response.NONE, Response.CUT):
            return False
        return not any(self._waits(tool) for tool in self.open_tools if tool.call_id != self.leaving)

    def _leave(self) -> None:
        """Have control end the stream. Its end is expected until the deadline of the call."""
        (tool,) = (one for one in self.open_tools if one.call_id == self.leaving)
        rules = self.rules.tools[tool.name]
        begun = tool._replace(by_ms=self.now + rules.timeout_ms + limits.TOOL_MARGIN_MS)
        self.open_tools = tuple(begun if one is tool else one for one in self.open_tools)
        self.tools_by = min(self.tools_by, begun.by_ms)
        self.left_for = rules.leaves
        self.out.append(do.WantTool(tool.call_id))

    def _close_tool(self, tool: OpenTool) -> None:
        if self.collection is not None and self.collection.call_id == tool.call_id:
            self._close_collection()
        self.open_tools = tuple(one for one in self.open_tools if one is not tool)
        if tool.call_id == self.leaving:
            self.leaving, self.left_for = "", None
        self.tools_by = min((one.by_ms for one in self.open_tools), default=NEVER)
        if not self._awaits_tool():
            self.filling = ""

    def _answer_tool(self, call_id: str, result: ToolOutcome) -> None:
        self.answered = _kept(self.answered, call_id, limits.MAX_KNOWN_TOOLS)
        self.out.append(do.ToolOutput(call_id, result))

    def _give_result(self, call_id: str, result: ToolOutcome) -> None:
        """Send the AI a result: as the call's output, or as a system item if the call was answered when it started."""
        if call_id in self.answered:
            self.out.append(do.ToolResult(call_id, result))
        else:
            self._answer_tool(call_id, result)

    def _on_tools_called(self, response_id: str | None) -> None:
        """A response that called tools ended: its answer follows once those are settled that it waits for.

        `response_id`: None if earlier responses made all its calls; then one answer is owed, unless their results still come.
        """
        self.attempts = 0
        waits = self._awaits_tool(response_id)
        if self.ask_at == NEVER and (waits or self.phase is Phase.CLOSING):
            self.debt = None
        if self.phase is Phase.CLOSING:
            self._ask_goodbye()
        elif not waits:
            self._owe(Prompt.ANSWER, 0, insists=True)

    def _on_tool_settled(self, event: given.ToolSettled) -> None:
        for tool in self.open_tools:
            if tool.call_id == event.call_id:
                self._settle_tool(tool, "settled")

    def _on_tools_by(self) -> None:
        """Control did not settle a tool in time: it may have been carried out."""
        for tool in self.open_tools:
            if tool.by_ms <= self.now:
                self._settle_tool(tool, "unknown_outcome")

    def _settle_tool(self, tool: OpenTool, result: ToolOutcome) -> None:
        """Pass a result on as it comes. The answer waits for the other calls of its response, and for its end."""
        self._close_tool(tool)
        if self.is_ready:
            self._give_result(tool.call_id, result)
        else:
            self.held_results = (*self.held_results, (tool.call_id, result))
        is_active = self.response is Response.ACTIVE and self.response_id == tool.response_id
        if is_active or (self._waits(tool) and self._awaits_tool(tool.response_id)):
            return
        own_ms = self.ask_at - self.now if self.debt is Prompt.ANSWER and self.ask_at != NEVER else 0
        self._owe(Prompt.ANSWER, max(0, min(own_ms, limits.AFTER_TOOL_MS)), insists=True)

    # -- digits ---------------------------------------------------------------------------------------------------------

    def _is_collecting(self, event: given.ToolCall) -> bool:
        """The call asks for digits while the caller types others."""
        return self.rules.tools[event.name].collects and self.collection is not None

    def _open_collection(self, event: given.ToolCall) -> None:
        """Collect digits. Keys that wait for their turn are the first. Sensitive ones count once the recording is paused."""
        assert event.asked is not None
        asked, (keys, self.keys, self.keys_at) = event.asked, (self.keys, "", NEVER)
        self.collection = Collection(event.call_id, asked, is_open=not asked.is_sensitive)
        self.out.append(do.Collect(event.call_id))
        if asked.is_sensitive:
            self.out.append(do.Conceal(True))
        self.digits_at = self.now + (limits.CONCEAL_MS if asked.is_sensitive else asked.pause_ms)
        self._collect(keys)

    def _collect(self, keys: str) -> None:
        """Add keys to the collection. What comes behind its end is dropped."""
        for key in keys:
            made = self.collection
            if made is None or made.is_taken:
                return
            if made.is_open and key == made.asked.finish_on:
                self._take_digits("too_few")
                continue
            self.collection = made = made._replace(digits=(made.digits + key)[: made.asked.most + 1])
            if made.is_open:
                self.digits_at = self.now + made.asked.pause_ms
                if made.is_full:
                    self._take_digits("too_few")

    def _on_concealed(self, event: given.Concealed) -> None:
        """Let the keys count. Those before were recorded with the caller's voice: the agent has to ask again."""
        made = self.collection
        if made is None or made.is_open:
            return
        early = made.digits
        self.collection = made._replace(digits="", is_open=True, is_partial=bool(early) and event.was_heard)
        self.digits_at = self.now + made.asked.pause_ms
        if not event.was_heard:
            self._collect(early)

    def _on_not_concealed(self, _: given.NotConcealed | None = None) -> None:
        if self.collection is not None and not self.collection.is_open:
            self._settle_collection("not_paused")

    def _on_digits_at(self) -> None:
        made = self.collection
        if made is None:
            return
        if not made.is_open:
            self._on_not_concealed()
        elif made.is_taken:
            self._settle_collection("unknown_outcome")
        else:
            heard_ms = self.now if self.plays or self.quiet_ms == NEVER else self.quiet_ms
            (tool,) = (one for one in self.open_tools if one.call_id == made.call_id)
            due = min(heard_ms + made.asked.pause_ms, tool.by_ms - limits.TOOL_MARGIN_MS) if not made.digits else self.now
            if due > self.now:
                self.digits_at = due  # a pause begins when the agent has asked
            else:
                self._take_digits("timeout")

    def _take_digits(self, why: Literal["timeout", "too_few"]) -> None:
        """End the collection. Control keeps sensitive digits that are whole, and then settles the call."""
        assert self.collection is not None
        made = self.collection = self.collection._replace(is_taken=True)
        shortfall: Shortfall = made.shortfall(why)
        keeps = made.asked.is_sensitive and bool(made.digits) and shortfall != "too_early"
        self.out.append(do.TakeDigits(made.call_id, made.digits, shortfall, made.asked.is_sensitive, keeps))
        self.digits_at = self.now + limits.CONCEAL_MS
        if not keeps:
            self._settle_collection("settled")

    def _settle_collection(self, result: ToolOutcome) -> None:
        assert self.collection is not None
        for tool in self.open_tools:
            if tool.call_id == self.collection.call_id:
                self._settle_tool(tool, result)
                return

    def _close_collection(self) -> None:
        if self.collection is not None and self.collection.asked.is_sensitive:
            self.out.append(do.Conceal(False))
        self.collection, self.digits_at = None, NEVER

    # -- sessions -------------------------------------------------------------------------------------------------------

    def _on_session_ready(self, event: given.SessionReady) -> None:
        if self.is_ready:
            return
        self.window_ms = max(0, self.window_ms - (self.now - self.lost_ms))
        self._use_session(event.lifetime_ms)
        if not self.has_greeted:
            self.has_greeted = True
            if self.debt is None and self.rules.returns:
                self._owe(Prompt.RETURNED, 0, insists=True)
            elif self.debt is None and (self.rules.resumes or self.rules.greets):
                self._owe(Prompt.RETURN if self.rules.resumes else Prompt.GREETING, 0)
        else:
            self._listen_first()

    def _listen_first(self) -> None:
        """Request the owed answer after a pause: the caller may be speaking already."""
        if self.debt is not None:
            self.ask_at = self.now + (limits.LISTEN_AGAIN_MS if self.debt is Prompt.REPEAT else limits.LISTEN_MS)

    def _use_session(self, lifetime_ms: int) -> None:
        """Hand the conversation over to a session."""
        self.is_ready, self.ready_ms, self.open_by, self.unreadable = True, self.now, NEVER, ()
        if lifetime_ms < limits.MIN_LIFETIME_MS:
            lifetime_ms = limits.LIFETIME_MS
        lifetime_ms = min(lifetime_ms, limits.LIFETIME_MS)
        self.quiet_at = self.now + max(lifetime_ms - limits.ROLLOVER_QUIET_MS, lifetime_ms // 2)
        self.forced_at = self.now + max(lifetime_ms - limits.ROLLOVER_FORCED_MS, lifetime_ms // 2)
        self.out.append(do.Restate())
        for call_id, result in self.held_results:
            self._give_result(call_id, result)
        self.held_results = ()
        if self.held_keys:
            self.out.append(do.SendKeys(self.held_keys))
            self.sent_keys, self.held_keys = self.held_keys, ""

    def _on_session_lost(self, event: given.SessionLost) -> None:
        if self.is_ready:
            if self.now - self.ready_ms >= limits.STABLE_MS:
                self.opens, self.window_ms = 0, self.rules.window_ms
            self.lost_ms = self.now
            self.out.append(do.Note("ai_leg_lost", event.reason))
            has_other = self.successor is Successor.READY
            self._leave_session()
            if has_other and self.phase is Phase.TALK:
                self._swap()
                return
        elif self.ready_ms == NEVER and not self.opens:
            self.out.append(do.Note("ai_leg_lost", event.reason))
        self.open_by, self.unreadable = NEVER, ()
        if self.phase is not Phase.TALK:
            return
        pause_ms = limits.OPEN_PAUSES_MS[min(self.opens, len(limits.OPEN_PAUSES_MS) - 1)]
        if event.trouble is Trouble.RATE_LIMIT:
            pause_ms = max(pause_ms, event.wait_ms)
        left_ms = self.window_ms - (self.now - self.lost_ms) - pause_ms
        if event.trouble is Trouble.LASTING or self.opens >= limits.MAX_OPENS or left_ms <= 0:
            self._fall_back(event.reason)
            return
        self.opens += 1
        self.open_by = self.now + pause_ms + min(self.rules.open_ms, left_ms)
        self.out.append(do.OpenSession(pause_ms))

    def _leave_session(self) -> None:
        """Take over what a session left open, for the next one."""
        if self.debt is Prompt.FILLER:
            self.debt = None
        if self.response is Response.ACTIVE and self.phase is Phase.TALK:
            if self.has_new_tool and not self._awaits_tool(self.response_id):
                self.debt, self.insists = Prompt.ANSWER, True  # to the results
            elif self.has_new_tool and self.ask_at == NEVER:
                self.debt = None  # until the results come
            elif self.has_audio:
                self.debt = self.debt or Prompt.CONTINUE
        if self.speaks or (self.debt is Prompt.ANSWER and not self.insists and not self.has_text):
            self.debt = Prompt.REPEAT if self.phase is Phase.TALK else None
        if self.phase is Phase.CLOSING:
            self.debt = None
            if self.response is Response.ACTIVE:
                self.has_spoken = False
        self.is_ready, self.speaks, self.speech_by = False, False, NEVER
        self.held_keys, self.sent_keys = self.sent_keys, ""
        self.successor, self.quiet_at, self.forced_at, self.text_by = Successor.NONE, NEVER, NEVER, NEVER
        self.ask_at, self.cut_requests = NEVER, 0
        self._clear_response()
        self._release()

    def _on_open_by(self) -> None:
        self._on_session_lost(given.SessionLost(Reason.AI_TIMEOUT))

    def _on_unreadable(self, event: given.Unreadable) -> None:
        recent = tuple(at for at in self.unreadable if self.now - at < limits.UNREADABLE_WINDOW_MS)
        if not self.unreadable:
            self.out.append(do.Note("ai_unreadable"))
        self.unreadable = (*recent, self.now)
        if len(self.unreadable) >= limits.MAX_UNREADABLE:
            self._on_session_lost(given.SessionLost(event.reason))

    def _on_quiet_at(self) -> None:
        if self.successor is Successor.NONE and self.is_ready and self.phase is Phase.TALK:
            self.successor = Successor.OPENING
            self.out.append(do.OpenSuccessor())

    def _on_successor_ready(self, event: given.SuccessorReady) -> None:
        if self.successor is Successor.OPENING:
            self.successor, self.successor_lifetime_ms = Successor.READY, event.lifetime_ms

    def _on_successor_failed(self, _: given.SuccessorFailed) -> None:
        if self.successor is not Successor.NONE:
            self.successor, self.quiet_at = Successor.NONE, self.now + limits.ROLLOVER_RETRY_MS

    def _may_swap(self) -> bool:
        """Between two utterances; shortly before the end also if something is owed."""
        if self._is_quiet():
            return True
        between = self.phase is Phase.TALK and not (self.speaks or self.plays) and self.response is Response.NONE
        return between and self.forced_at == NEVER and self.floor is Floor.OPEN

    def _awaits_text(self) -> bool:
        """The words of the caller's last turn are still to come from the present session, within their bound."""
        if not self.item or self.has_text:
            return False
        self.text_by = min(self.text_by, self.now + limits.TEXT_MS)
        return True

    def _on_text_by(self) -> None:
        self.item = ""

    def _on_forced_at(self) -> None:
        """From here on any moment between two utterances will do: `_may_swap` reads the timer."""

    def _swap(self) -> None:
        self.successor, self.text_by = Successor.NONE, NEVER
        self.response, self.cut_requests = Response.NONE, 0
        self.cancel_by = NEVER
        self.out.append(do.Swap())
        self._use_session(self.successor_lifetime_ms)
        self._listen_first()

    # -- the end --------------------------------------------------------------------------------------------------------

    def _hang_up(self) -> None:
        """End once the goodbye is heard, unless the caller speaks into it already."""
        if self.speaks and self.floor is Floor.OPEN and self.taken_back < limits.MAX_TAKEN_BACK:
            self.taken_back += 1
            self.out.append(do.Note("goodbye_taken_back"))
            return
        spoken = self.plays or self.has_audio
        self._begin_closing(Reason.AI_HANGUP, self.rules.goodbye_ms)
        self.has_spoken = spoken
        if self.response is not Response.ACTIVE:
            self._ask_goodbye()

    def _ask_goodbye(self) -> None:
        """Request a goodbye once, from an agent that hung up without a word."""
        if self.closing is Reason.AI_HANGUP and not self.has_spoken and not self.has_asked_goodbye and self.is_ready:
            self.has_asked_goodbye = True
            self.debt, self.insists, self.attempts, self.ask_at = Prompt.GOODBYE, False, 0, self.now

    def _begin_closing(self, reason: Reason, bound_ms: int) -> None:
        self.phase, self.closing, self.has_spoken = Phase.CLOSING, reason, False
        self.debt, self.insists, self.attempts, self.ask_at = None, False, 0, NEVER
        for tool in self.open_tools:
            if self.is_ready and tool.call_id not in self.answered:
                self._answer_tool(tool.call_id, "cancelled")
        self._close_collection()
        self.open_tools = tuple(tool for tool in self.open_tools if not self._waits(tool))
        self.tools_by = min((tool.by_ms for tool in self.open_tools), default=NEVER)
        self.filling, self.leaving, self.left_for = "", "", None
        self.keys, self.keys_at = "", NEVER
        self.close_by = max(self.now, self.heard_by if self.plays else 0) + bound_ms

    def _fall_back(self, reason: Reason) -> None:
        """Give up the AI: what is queued is heard, then Twilio speaks or transfers."""
        self.out.append(do.Note("fallback", reason))
        if self.response is Response.ACTIVE:
            self._drop_response(cancel=False)
        if self.floor is Floor.HELD:
            self._discard()
        self._begin_closing(Reason.FALLBACK_GOODBYE, self.rules.goodbye_ms)
        self._clear_response()

    def _on_idle_at(self) -> None:
        if self.prompts < self.rules.idle_prompts:
            self.prompts += 1
            self._owe(Prompt.ARE_YOU_THERE, 0)
        else:
            self._announce_end(Reason.IDLE_LIMIT)

    def _announce_end(self, reason: Reason) -> None:
        """Have the agent speak closing words, after the present sentence, then end."""
        if self.phase is not Phase.TALK:
            return
        self._begin_closing(reason, limits.CLOSING_MS)
        if self.is_ready:
            self.debt, self.ask_at = Prompt.CLOSING, self.now

    def _on_limit_at(self) -> None:
        self._announce_end(Reason.DURATION_LIMIT)

    def _on_final_at(self) -> None:
        self.closing = self.closing or Reason.DURATION_LIMIT
        self._end()

    def _on_warn_at(self) -> None:
        if self.is_ready and self.phase is Phase.TALK:
            self.out.append(do.WarnOfEnd())

    def _on_budget_near(self, _: given.BudgetNear) -> None:
        if self.is_ready and self.phase is Phase.TALK:
            self.out.append(do.WarnOfEnd("budget"))

    def _on_budget_spent(self, _: given.BudgetSpent) -> None:
        self.spent = True
        self._announce_end(Reason.BUDGET)

    def _on_stream_ended(self, event: given.StreamEnded) -> None:
        if self.left_for is not None and event.reason is Reason.CALLER_HANGUP:
            self.closing = self.left_for  # Twilio's `stop` is the same for both
        elif self.closing is None or (event.reason is Reason.CALLER_HANGUP and self.closing is not Reason.FALLBACK_GOODBYE):
            self.closing = event.reason
        self._end(hung_up=event.reason is Reason.CALLER_HANGUP)

    def _on_end_wanted(self, event: given.EndWanted) -> None:
        self.closing, self.has_spoken = event.reason, False
        self._end()

    def _end(self, *, hung_up: bool = False) -> None:
        assert self.closing is not None
        self._close_collection()
        self.phase = Phase.ENDED
        speak = not hung_up and self.closing is not Reason.MACHINE and not (self.has_spoken and not self.plays)
        self.out.append(do.End(self.closing, speak))


#: Causes of the fallback by the trouble of the last answer; AI_NO_ANSWER for every other.
_CAUSES: Final = {Trouble.LASTING: Reason.AI_REFUSED, Trouble.RATE_LIMIT: Reason.AI_RATE_LIMITED}

#: The cause of an interruption in each state of it.
_VERDICTS: Final[dict[Floor, do.Verdict]] = {Floor.OPEN: "model", Floor.HELD: "cut", Floor.JUDGED: "cut_words"}


def _kept(ids: tuple[str, ...], new: str, bound: int = MAX_IDS) -> tuple[str, ...]:
    """Append an identifier, within the bound."""
    return ids if new in ids else (*ids[-bound + 1 :], new)


_HANDLERS: Final[dict[type, Callable[[Dialogue, Any], None]]] = {
    given.SessionReady: Dialogue._on_session_ready,
    given.SessionLost: Dialogue._on_session_lost,
    given.SuccessorReady: Dialogue._on_successor_ready,
    given.SuccessorFailed: Dialogue._on_successor_failed,
    given.ResponseStarted: Dialogue._on_response_started,
    given.Alive: Dialogue._on_alive,
    given.Audio: Dialogue._on_audio,
    given.ResponseDone: Dialogue._on_response_done,
    given.CreateRefused: Dialogue._on_create_refused,
    given.SpeechStarted: Dialogue._on_speech_started,
    given.SpeechStopped: Dialogue._on_speech_stopped,
    given.CallerText: Dialogue._on_caller_text,
    given.ToolCall: Dialogue._on_tool_call,
    given.Unreadable: Dialogue._on_unreadable,
    given.HeardOut: Dialogue._on_all_heard,
    given.Starved: Dialogue._on_starved,
    given.Delayed: Dialogue._on_delayed,
    given.Key: Dialogue._on_key,
    given.Recorded: Dialogue._on_recorded,
    given.AnsweredBy: Dialogue._on_answered_by,
    given.NoticeHeard: Dialogue._on_notice_heard,
    given.FramesMissing: Dialogue._on_frames_missing,
    given.FramesBack: Dialogue._on_frames_back,
    given.StreamEnded: Dialogue._on_stream_ended,
    given.ToolSettled: Dialogue._on_tool_settled,
    given.Concealed: Dialogue._on_concealed,
    given.NotConcealed: Dialogue._on_not_concealed,
    given.ToolResumed: Dialogue._on_tool_resumed,
    given.BudgetNear: Dialogue._on_budget_near,
    given.BudgetSpent: Dialogue._on_budget_spent,
    given.EndWanted: Dialogue._on_end_wanted,
}


#: Each timer's reaction. The timer is unset first. `ask_at` has none: `_settle` reads it.
_TIMERS: Final[dict[str, Callable[[Dialogue], None]]] = {
    "final_at": Dialogue._on_final_at,
    "limit_at": Dialogue._on_limit_at,
    "close_by": Dialogue._end,
    "open_by": Dialogue._on_open_by,
    "answer_by": Dialogue._on_answer_by,
    "cancel_by": Dialogue._on_cancel_by,
    "wait_by": Dialogue._on_wait_by,
    "speech_by": Dialogue._on_speech_by,
    "heard_by": Dialogue._on_heard_by,
    "cut_at": Dialogue._cut,
    "judge_at": Dialogue._resume,
    "resume_at": Dialogue._resume,
    "keys_at": Dialogue._send_keys,
    "tools_by": Dialogue._on_tools_by,
    "digits_at": Dialogue._on_digits_at,
    "hold_at": Dialogue._on_hold_at,
    "filler_at": Dialogue._on_filler_at,
    "protect_by": Dialogue._on_protect_by,
    "idle_at": Dialogue._on_idle_at,
    "warn_at": Dialogue._on_warn_at,
    "quiet_at": Dialogue._on_quiet_at,
    "forced_at": Dialogue._on_forced_at,
    "text_by": Dialogue._on_text_by,
}

_times_of: Final = attrgetter(*_TIMERS)

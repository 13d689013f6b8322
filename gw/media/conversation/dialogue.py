"""One call's dialogue: passes inputs to the machine, and carries out its commands.

`gw.call.dialogue` decides what happens in a conversation; this edge decides nothing. Each input is one turn without a switch: the
machine's commands are carried out in sequence, each by the part of the call it concerns. A greenlet of its own waits for the
machine's one deadline.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from gw.call import prompts
from gw.call.answer_clock import NO_FRAME, AnswerClock
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Command, Prompt
from gw.call.dialogue.facts import NEVER, Phase, Response
from gw.call.dialogue.inputs import Input
from gw.call.dialogue.machine import Dialogue
from gw.call.dialogue.rules import rules_of
from gw.call.resume import LEFT
from gw.call.state import CallState, Event, Reason, State
from gw.call.turns import Turn, Turns
from gw.config import Agent
from gw.media.ai_side import AiSide
from gw.media.call_ending import CallEnding
from gw.media.call_events import CallEvents
from gw.media.conversation.digits import CallDigits
from gw.media.conversation.hold_sound import HoldSound
from gw.media.conversation.tools import CallTools
from gw.media.downlink import Downlink
from gw.media.hub.clock import Alarm, turn_loop
from gw.media.shared.context import MediaContext
from gw.protocol.parrot import PAUSE_MS

log = logging.getLogger(__name__)

_MS: Final = 1000
#: Silence while an answer is owed: a longer one is noted, and the call's result is not `success`.
DEAD_AIR_MS: Final = 5000
#: Signs of life closer together than this are not passed on.
ALIVE_MS: Final = 100
#: A timer this late means that the process was stopped, and the peers were not.
_STALL_MS: Final = 250
#: Longest wait of the timer greenlet: an end does not wait for it.
_LONGEST_WAIT_S: Final = 60.0
#: All calls of a failed AI must not return at the same moment: pauses are multiplied by a number from here to 1.
_LEAST_PAUSE: Final = 0.5

#: Steps of the call's state that follow from the machine's.
_STEPS: Final = {
    (State.CONNECTING, State.ACTIVE): Event.AI_READY,
    (State.ACTIVE, State.CONNECTING): Event.AI_LOST,
    (State.CONNECTING, State.CLOSING): Event.HANG_UP,
    (State.ACTIVE, State.CLOSING): Event.HANG_UP,
    (State.CLOSING, State.ACTIVE): Event.TAKEN_BACK,
}


class CallDialogue:
    """One call's dialogue."""

    def __init__(
        self,
        context: MediaContext,
        agent: Agent,
        state: CallState,
        events: CallEvents,
        side: AiSide,
        downlink: Downlink,
        turns: Turns,
        ending: CallEnding,
        tools: CallTools,
        digits: CallDigits,
        *,
        agent_name: str,
        elapsed_ms: int,
    ) -> None:
        """`elapsed_ms`: of the call, before this stream."""
        self._context = context
        self._agent = agent
        self._agent_name = agent_name
        self._state = state
        self._events = events
        self._side = side
        self._downlink = downlink
        self._turns = turns
        self._ending = ending
        self._tools = tools
        self._digits = digits
        self._hold_sound = HoldSound(downlink, context.holding)
        rules = rules_of(
            agent,
            context.config.media,
            context.config.tools,
            resumes=events.continues,
            returns=events.resumed is not None and events.resumed.after in LEFT,
            elapsed_ms=elapsed_ms,
        )
        self._machine = Dialogue.begin(rules, _now_ms())
        self._answers = AnswerClock(_pause_ms(agent))
        self._alarm = Alarm()
        self._due_ms = 0  # when the timer greenlet looks next
        self._is_expired = False
        self._end_reason: Reason | None = None  # of the stream, or of a wish from outside
        self._end_detail = ""
        self._was_ready = False
        self._follows: list[Input] = []  # inputs that follow from commands: calls of a session that is gone, a silence
        self._cause, self._cause_detail = Reason.AI_LOST, ""  # why the machine fell back
        self._lost = ""  # why the last session failed, a label of gw_ai_reconnects_total, until another is ready
        self._silent_since_ms: int | None = None  # the caller waits for an answer and hears nothing
        self.detail = ""  # of the last failure, for log and events

    @property
    def machine(self) -> Dialogue:
        """The machine, to look at."""
        return self._machine

    # -- inputs -----------------------------------------------------------------------------------------------------------

    def on(self, event: Input) -> None:
        """Pass an input to the machine, and carry out its commands. Never waits."""
        self._carry_out(self._machine.on(event, _now_ms()))

    def may_play(self, response_id: str, queued_ms: int, item_id: str = "") -> bool:
        """Pass the arrival of an item's audio to the machine. Returns whether the audio is played."""
        machine, now_ms = self._machine, _now_ms()
        if machine.plays_on(response_id, queued_ms, now_ms):  # nearly every chunk
            if machine.answer_by < self._due_ms or machine.heard_by < self._due_ms:
                self._alarm.set()
            return True
        plays = self._plays(given.Audio(response_id, queued_ms), now_ms)
        if plays and self._answers.is_answered and self._answers.frame == NO_FRAME:
            self._answers.on_queued(item_id, self._downlink.next_frame)
        return plays

    def may_play_recorded(self, length_ms: int, notice_ms: int = 0, *, greets: bool = True) -> bool:
        """Pass the recorded words to the machine. Returns whether they are played. Parameters as of `inputs.Recorded`."""
        return self._plays(given.Recorded(length_ms, notice_ms, greets), _now_ms())

    def may_play_message(self, party: given.Party, length_ms: int) -> bool:
        """Pass the party that answered to the machine. Returns whether the message for an answering machine is played."""
        return self._plays(given.AnsweredBy(party, length_ms), _now_ms())

    def _plays(self, event: Input, now_ms: int) -> bool:
        commands = self._machine.on(event, now_ms)
        self._carry_out(commands)
        return any(type(command) is do.Play for command in commands)

    def keep_alive(self) -> None:
        """Pass a sign of life of a response that speaks, at most ten a second."""
        machine = self._machine
        if machine.response is not Response.ACTIVE or not machine.has_audio:
            return
        if machine.answer_by < _now_ms() + machine.rules.stall_ms - ALIVE_MS:
            self.on(given.Alive())

    def run(self) -> None:
        """Tick at the machine's deadlines until the call's end. The body of the dialogue's greenlet."""
        while not self._state.has_ended:
            now_ms = _now_ms()
            self._due_ms = self._machine.deadline_ms
            is_late = now_ms - self._due_ms > _STALL_MS
            if is_late:
                turn_loop()  # what came during a stall of this process is read first
            if is_late or self._machine.heard_by <= now_ms:  # audio that a stall in its middle delayed is not heard yet
                queued_s = self._downlink.queued_s(monotonic())
                if queued_s > 0.0:
                    self.on(given.Delayed(round(queued_s * _MS)))
            if self._machine.deadline_ms <= now_ms:
                self.detail = ""  # the reason of what the machine finds by its timers is in _WHY
                self._carry_out(self._machine.tick(_now_ms()))
            else:
                self._alarm.wait(min((self._due_ms - now_ms) / _MS, _LONGEST_WAIT_S))

    def stop(self) -> None:
        """Let `run` end at its next turn."""
        self._hold_sound.stop()
        self._alarm.set()

    def lose_session(self, event: given.SessionLost, detail: str, *, is_expired: bool) -> None:
        """Pass the failure of the session, or of an attempt at one. `is_expired`: it reached its time limit."""
        self.detail, self._is_expired = detail, is_expired
        self.on(event)
        if self._machine.phase is Phase.ENDED and self._side.is_wanted:
            self._side.give_up()  # the caller is being transferred: nothing replaces the session

    def end(self, reason: Reason, detail: str) -> None:
        """Pass the end of the stream, or the wish to end the call."""
        self._end_reason, self._end_detail = reason, detail
        self.on(given.EndWanted(reason) if reason in _WISHES else given.StreamEnded(reason))

    def lifetime_ms(self) -> int:
        """Milliseconds until the present session expires; 0 without one."""
        machine = self._machine
        if not machine.is_ready or machine.forced_at == NEVER:
            return 0
        return max(0, machine.forced_at - _now_ms())

    def open_limit_s(self) -> float:
        """Seconds that the attempt under way has to open a session."""
        return max(0.0, (self._machine.open_by - _now_ms()) / _MS) if self._machine.open_by != NEVER else 0.0

    def check_heard(self, now_s: float) -> None:
        """Report when the caller has heard everything, or all that came so far."""
        self._report_answer()
        machine = self._machine
        if machine.plays and self._downlink.is_heard_out(now_s):
            self.on(given.HeardOut())
        elif machine.is_heard and self._downlink.is_starved(now_s):
            self.on(given.Starved())

    # -- commands ---------------------------------------------------------------------------------------------------------

    def _report_answer(self) -> None:
        """Report how long the caller waited, once the answer's first frame is sent."""
        answers = self._answers
        if answers.frame == NO_FRAME:
            return
        sent_s = self._downlink.pacer.sent_s(answers.frame)
        if sent_s is not None:
            wait = answers.on_sent(int(sent_s * _MS))
            parts = {f"{part}_ms": getattr(wait, f"{part}_ms") for part in ("pause", "ai", "tool", "gateway")}
            self._events.note("answered", ms=wait.total_ms, **parts, item=wait.item_id[:64], agent=self._agent_name)

    def _carry_out(self, commands: list[Command]) -> None:
        machine = self._machine
        self._report_answer()  # before an interruption
        self._answers.follow(machine)
        if machine.is_ready is not self._was_ready:
            self._was_ready = machine.is_ready
            if not machine.is_ready:
                self._end_session()
        if not machine.is_ready and machine.phase is not Phase.TALK and self._side.is_wanted:
            self._side.give_up()  # no other session follows, and what is left of this one is not read
        for command in commands:
            _ACTS[type(command)](self, command)
        self._update_state()
        self._measure_silence()
        if machine.deadline_ms < self._due_ms:
            self._alarm.set()
        while self._follows:
            self.on(self._follows.pop())

    def _update_state(self) -> None:
        now, machine = self._state.now, self._machine
        if machine.phase is Phase.CLOSING:
            wanted = State.CLOSING
        elif machine.phase is Phase.ENDED:
            return
        else:
            wanted = State.ACTIVE if machine.is_ready else State.CONNECTING
        if wanted is not now and (step := _STEPS.get((now, wanted))) is not None:
            self._state.on_event(step)

    def _measure_silence(self) -> None:
        machine = self._machine
        has_sound = machine.is_heard or machine.speaks or (machine.holds_sound and self._context.holding)
        if machine.is_owing and not has_sound and machine.phase is Phase.TALK:
            if self._silent_since_ms is None:
                self._silent_since_ms = machine.now
        elif self._silent_since_ms is not None:
            silent_ms, self._silent_since_ms = machine.now - self._silent_since_ms, None
            if silent_ms > DEAD_AIR_MS:
                self._ending.had_dead_air = True
                self._events.note("dead_air", ms=silent_ms)
                log.warning("the caller waited %.1f s in silence", silent_ms / _MS, extra={"call_sid": self._events.sid})

    def _end_session(self) -> None:
        """Close what a session left open: its response, its turns, what only its provider could settle."""
        self._follows += self._tools.on_session_lost()
        self._downlink.end_open_response()
        self.report_turns(self._turns.on_ai_lost())

    def report_turns(self, turns: list[Turn]) -> None:
        """Report finished turns, and keep them for later AI sessions.

        The present session is corrected if it believes more than was heard.
        """
        if not turns:
            return
        self._side.add_turns(turns)
        self._events.report_turns(turns)

    # to the AI

    def _open_session(self, command: do.OpenSession) -> None:
        log.warning("the AI leg failed, another is tried: %s", self.detail, extra={"call_sid": self._events.sid})
        pause_s = command.pause_ms / _MS * random.uniform(_LEAST_PAUSE, 1.0)
        self._side.reopen(monotonic() + pause_s)

    def _open_successor(self, _: do.OpenSuccessor) -> None:
        self._side.open_successor(self.on)

    def _swap(self, _: do.Swap) -> None:
        self._end_session()
        self._side.swap()
        if not self._lost:
            self._count_replaced("expiring")
        log.info("a new AI session replaces the old one before its end", extra={"call_sid": self._events.sid})

    def _restate(self, _: do.Restate) -> None:
        self._tools.calls.on_session()
        self._side.restate(self._turns.in_progress(), self._tools.calls, self._machine.leaving)
        if self._lost:
            self._count_replaced(self._lost)
            self._lost = ""

    def _count_replaced(self, why: str) -> None:
        self._context.cells.reconnects[why].add()
        self._events.note("ai_leg_replaced", reason=why)

    def _create(self, command: do.Create) -> None:
        if command.tool:
            self._side.create_response(self._tools.filler_of(command.tool), with_tools=False)
        else:
            words = self._agent.first_words
            is_told = command.prompt is Prompt.RETURNED and self._tools.is_back  # by the tool's output
            text = "" if is_told else prompts.text_of(command.prompt, words)
            self._side.create_response(text, with_tools=prompts.may_use_tools(command.prompt, words))
        if command.prompt is Prompt.ANSWER:
            return
        log.info("the agent is asked: %s", command.prompt.value, extra={"call_sid": self._events.sid})

    def _cancel(self, _: do.Cancel) -> None:
        self._side.cancel()

    def _tool_output(self, command: do.ToolOutput) -> None:
        self._tools.send_output(command)

    def _tool_result(self, command: do.ToolResult) -> None:
        self._tools.send_result(command)

    def _delete_item(self, command: do.DeleteItem) -> None:
        self._context.cells.interruptions["resumed"].add()
        self._side.delete_item(command.item_id)
        self._turns.on_caller_noise(command.item_id)

    def _send_keys(self, command: do.SendKeys) -> None:
        self._side.send_keys(command.keys)

    def _warn_of_end(self, command: do.WarnOfEnd) -> None:
        is_time = command.why == "time"
        self._side.say_system(prompts.warning_of(self._machine.rules.warn_ms) if is_time else prompts.budget_warning())

    # to the caller

    def _play(self, _: do.Play) -> None:
        """Nothing: `_plays` returns it, for its caller has the audio."""

    def _interrupt(self, command: do.Interrupt) -> None:
        begun_s = monotonic()
        cut = self._downlink.interrupt(begun_s, command.verdict)
        if cut is None:
            return
        self._side.truncate(cut.truncations)
        self._context.cells.bargein.observe(monotonic() - begun_s)
        self.report_turns(self._turns.on_interrupted(cut.outcomes))

    def _hold(self, _: do.HoldAudio) -> None:
        self._downlink.hold()

    def _release(self, _: do.ReleaseAudio) -> None:
        self._downlink.release()

    def _sound(self, command: do.HoldSound) -> None:
        if command.on:
            self._hold_sound.start()
        else:
            self._hold_sound.stop()

    def _fill_silence(self, command: do.FillSilence) -> None:
        self._side.uplink.fill(command.on)

    # to control

    def _want_tool(self, command: do.WantTool) -> None:
        self._tools.want(command)

    def _collect(self, command: do.Collect) -> None:
        self._tools.collect(command)

    def _take_digits(self, command: do.TakeDigits) -> None:
        self._tools.take_digits(command, self.on)

    def _conceal(self, command: do.Conceal) -> None:
        concealed = self._digits.conceal(command.on)
        if concealed is not None:
            self._follows.append(concealed)

    def _cancel_tool(self, command: do.CancelTool) -> None:
        self._tools.cancel(command)

    def _note(self, command: do.Note) -> None:
        name, reason = command.name, command.reason
        if name == "ai_leg_lost" and reason is not None:
            self._lost = "expiring" if self._is_expired else _LABELS.get(reason, "failed")
            self._is_expired = False
        text, has_detail = _NOTES[name]
        if reason is not None:
            self.detail = self.detail or _WHY.get(reason, "")
            if name == "fallback":
                self._cause, self._cause_detail = reason, self.detail
        data = {"reason": reason.value if reason is not None else "", "detail": self.detail[:500] if has_detail else ""}
        if self._events.note(name, **{key: value for key, value in data.items() if value}):
            words = ": ".join(word for word in (text, *data.values()) if word)
            log.warning("%s", words[:300], extra={"call_sid": self._events.sid})

    def _end(self, command: do.End) -> None:
        if command.reason is Reason.FALLBACK_GOODBYE:
            self._ending.fall_back(self._cause, self._cause_detail, then=self._end_reason, speak=command.speak)
        else:
            self._ending.end(command.reason, self._end_detail or _ENDS.get(command.reason, ""), speak=command.speak)


def _pause_ms(agent: Agent) -> int:
    """Return the silence after which the AI reports the end of the caller's words; 0 if it varies."""
    if agent.provider == "parrot":
        return PAUSE_MS
    return agent.turns.silence_ms if agent.turns.detection == "server_vad" else 0


def _now_ms() -> int:
    return int(monotonic() * _MS)


#: Texts of notes for the log, and whether the last failure's detail belongs to them.
_NOTES: Final = {
    "ai_leg_lost": ("the AI leg is lost", True),
    "fallback": ("the AI is given up", True),
    "answer_failed": ("an answer failed and is requested again", True),
    "ai_unreadable": ("an event of the AI is skipped", True),
    "tool_repeated": ("a tool call came twice and is answered once", False),
    "goodbye_taken_back": ("the caller speaks into the goodbye: the conversation continues", False),
}

#: Labels of gw_ai_reconnects_total; "failed" for all other reasons.
_LABELS: Final = {
    Reason.AI_CLOSED: "closed",
    Reason.AI_LOST: "lost",
    Reason.AI_UNREACHABLE: "lost",
    Reason.AI_STALLED: "stalled",
    Reason.AI_LEG_STALLED: "stalled",
    Reason.AI_TIMEOUT: "stalled",
    Reason.AI_RATE_LIMITED: "rate_limited",
}

#: Ends that come from outside the conversation.
_WISHES: Final = frozenset({Reason.ADMIN_HANGUP, Reason.SHUTDOWN})

#: Details of failures that the machine finds by its timers and counts.
_WHY: Final = {
    Reason.AI_TIMEOUT: "no session was confirmed in time",
    Reason.AI_STALLED: "nothing of a response came for too long",
    Reason.AI_BAD_JSON: "too many events cannot be read",
    Reason.AI_NO_ANSWER: "response after response ended without a word",
}

#: Details of ends that the machine decides.
_ENDS: Final = {
    Reason.AI_HANGUP: "the agent hung up",
    Reason.IDLE_LIMIT: "neither side spoke",
    Reason.DURATION_LIMIT: "the longest call",
    Reason.BUDGET: "a limit of [budget]",
    Reason.TRANSFERRED: "the agent transferred the caller",
    Reason.DIGITS_SENT: "the agent sends digits",
    Reason.MACHINE: "no person answered",
}

_ACTS: Final[dict[type, Callable[[CallDialogue, Any], None]]] = {
    do.OpenSession: CallDialogue._open_session,
    do.OpenSuccessor: CallDialogue._open_successor,
    do.Swap: CallDialogue._swap,
    do.Restate: CallDialogue._restate,
    do.Create: CallDialogue._create,
    do.Cancel: CallDialogue._cancel,
    do.ToolOutput: CallDialogue._tool_output,
    do.ToolResult: CallDialogue._tool_result,
    do.WantTool: CallDialogue._want_tool,
    do.CancelTool: CallDialogue._cancel_tool,
    do.DeleteItem: CallDialogue._delete_item,
    do.SendKeys: CallDialogue._send_keys,
    do.WarnOfEnd: CallDialogue._warn_of_end,
    do.Play: CallDialogue._play,
    do.Interrupt: CallDialogue._interrupt,
    do.HoldAudio: CallDialogue._hold,
    do.ReleaseAudio: CallDialogue._release,
    do.HoldSound: CallDialogue._sound,
    do.FillSilence: CallDialogue._fill_silence,
    do.Collect: CallDialogue._collect,
    do.TakeDigits: CallDialogue._take_digits,
    do.Conceal: CallDialogue._conceal,
    do.Note: CallDialogue._note,
    do.End: CallDialogue._end,
}

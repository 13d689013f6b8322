"""Laws of a conversation: apply the machine's commands to the truth, and find the rules they break.

The laws know the parties' truth only, and of the machine its phase and whether its session is ready. So a machine whose own
account is wrong is found out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Command, Prompt
from gw.call.dialogue.facts import Facts, Phase
from gw.call.dialogue.inputs import Input
from gw.call.dialogue.rules import HEARD_MS, MAX_TAKEN_BACK, MAX_UNREADABLE, MIN_LIFETIME_MS
from gw.call.resume import LEFT
from gw.call.state import Reason
from gw.verify.conversation import digits
from gw.verify.conversation.state import (
    AS_HEARD,
    DIGITS,
    ENDS,
    FAR_MS,
    GOODBYE,
    LIMIT_ANNOUNCED,
    NO_DEAD_AIR,
    NOT_OVER_THE_CALLER,
    NOTICE,
    ONE_EVENT,
    SESSION_LIVES,
    STREAM_IS_NOT_CALL,
    TOOL_ONCE,
    OpenCall,
    Scenario,
    Truth,
    awaits_tool,
    without_session,
)

#: Limits of the whole call.
_LIMITS: Final = frozenset({Reason.DURATION_LIMIT, Reason.BUDGET})
#: The number of the response of calls of an earlier stream: none of this one's, and the same for all of them.
_EARLIER: Final = -1
#: Ends that wait until the agent's last words are heard.
_WITH_WORDS: Final = _LIMITS | {Reason.AI_HANGUP, Reason.IDLE_LIMIT, Reason.MACHINE}


class Happening(NamedTuple):
    """One step: the input (None: time), the truth before it, and the machine's answer. `bounded`: the bound of closing came."""

    event: Input | None
    before: Truth
    machine: Facts
    out: list[Command]
    bounded: bool = False

    @property
    def comes_from_outside(self) -> bool:
        return isinstance(self.event, given.StreamEnded | given.EndWanted)


def judge(scenario: Scenario, step: Happening, truth: Truth) -> Truth:
    """Apply the step's commands. Returns the truth after them, with the rules that were broken."""
    broken: list[str] = []
    truth = _with_opened(scenario, step, truth)
    for command in step.out:
        if truth.ended:
            broken.append(ENDS)
        apply = _COMMANDS.get(type(command))
        if apply is not None:
            truth = apply(scenario, step, truth, command, broken)
    if _is_cut(scenario, step, truth) and isinstance(step.event, given.SpeechStarted):
        truth = truth._replace(cut_until=truth.responses)
    if isinstance(step.event, given.Audio) and not any(isinstance(one, do.Play) for one in step.out):
        truth = truth._replace(unplayed=step.event.response_id == truth.active)
    if truth.silent_ms and not waits_in_silence(scenario, truth, step.machine):
        truth = truth._replace(silent_ms=0)
    if step.machine.phase is not Phase.TALK:
        truth = truth._replace(typing=None, taken=None, unannounced=truth.unannounced or truth.session != "ready")
    if (truth.typing or step.before.typing or truth.taken or step.out) and digits.is_broken(
        scenario, step.before, step.out, truth
    ):
        broken.append(DIGITS)
    if truth.typing is not None and (truth.queued or truth.speaking):
        truth = digits.asked(truth)
    truth = truth._replace(taken=None)
    broken += [rule for rule, is_broken in _after(scenario, step, truth) if is_broken]
    return truth._replace(broken=tuple(broken)) if broken else truth


def _with_opened(scenario: Scenario, step: Happening, truth: Truth) -> Truth:
    """Add a call that control is not asked for: it collects digits, or it will end the stream."""
    event = step.event
    if not isinstance(event, given.ToolCall) or event.call_id in step.before.wanted or event.name not in scenario.rules.tools:
        return truth
    rules, call = scenario.rules.tools[event.name], OpenCall(event.call_id, int(event.response_id[1:]), event.name)
    if rules.collects and truth.typing is None and step.machine.phase is Phase.TALK:
        return digits.opened(scenario, truth, call)
    return truth if rules.leaves is None else truth._replace(open_tools=(*truth.open_tools, call))


def waits_in_silence(scenario: Scenario, truth: Truth, machine: Facts) -> bool:
    """The caller waits for the agent in a conversation, and hears nothing of it. A tool may have its own sound, or none."""
    has_called = truth.called_new and awaits_tool(scenario, truth, truth.responses)
    is_answering = truth.creates or (truth.active and not truth.cancelled and not has_called)
    waits = (truth.owed_ms >= 0 and not awaits_tool(scenario, truth)) or truth.session == "opening" or is_answering
    for call in truth.open_tools:
        rules = scenario.rules.tools[call.name]
        waits = waits or (rules.waits and rules.filler != "none")
    return bool(waits) and machine.phase is Phase.TALK and not (truth.speaking or (truth.queued and not truth.starved))


def silence_ms(scenario: Scenario) -> int:
    """Longest silence while the caller waits: that of an answer, or of a tool."""
    rules = scenario.rules
    return max([rules.hold_after_ms, *(tool.filler_after_ms for tool in rules.tools.values() if tool.filler != "none")])


def _after(scenario: Scenario, step: Happening, truth: Truth) -> tuple[tuple[str, bool], ...]:
    """The rules for the state after a step, each with whether it is broken."""
    event, machine = step.event, step.machine
    if truth.ended:
        answers_due = step.before.session == "ready" and machine.is_ready and not step.comes_from_outside
        waits = truth.ended in _WITH_WORDS and not step.bounded and not step.comes_from_outside
        return (
            (ENDS, machine.phase is not Phase.ENDED),
            (GOODBYE, waits and truth.queued),
            (STREAM_IS_NOT_CALL, isinstance(event, given.FramesMissing)),
            (TOOL_ONCE, answers_due and any(truth.answers.count(one) != 1 for one in truth.wanted if one != truth.leaves)),
        )
    speaks = isinstance(event, given.SpeechStarted)
    interrupts = speaks and machine.phase is Phase.TALK and truth.queued and not truth.held
    is_uncut = bool(truth.active) and not truth.cancelled
    return (
        (NOT_OVER_THE_CALLER, is_uncut and int(truth.active[1:]) <= truth.cut_until),
        (NOT_OVER_THE_CALLER, interrupts and scenario.rules.interruptions != "none" and not truth.protect_ms),
        (NOT_OVER_THE_CALLER, _has_words(event) and step.before.judged and truth.queued and machine.phase is Phase.TALK),
        (LIMIT_ANNOUNCED, truth.limited and machine.phase is Phase.TALK and not truth.leaves),
        (LIMIT_ANNOUNCED, _is_protected(step.before) and speaks and (truth.held or not truth.queued)),
        (NOT_OVER_THE_CALLER, isinstance(event, given.ResponseStarted) and truth.speaking and is_uncut),
        (STREAM_IS_NOT_CALL, isinstance(event, given.FramesMissing) and not truth.replaced),
        (STREAM_IS_NOT_CALL, isinstance(event, given.FramesBack) and truth.replaced),
        (TOOL_ONCE, bool(truth.due) and truth.session == "ready" and machine.phase is Phase.TALK),
        (TOOL_ONCE, isinstance(event, given.ResponseStarted | given.ToolCall) and _has_yielding(scenario, truth, event)),
        (TOOL_ONCE, bool(truth.open_tools) and _is_cut(scenario, step, truth) and _has_cancelled(scenario, truth)),
        (NOTICE, step.before.noticing and bool(step.before.protect_ms) and _is_cut_off(step)),
        (NOT_OVER_THE_CALLER, truth.toned and (truth.speaking or (truth.queued and not truth.starved))),
        (ENDS, step.comes_from_outside),
        (ENDS, is_machine(truth) and machine.phase is Phase.TALK),
        *_of_verdict(step, truth),
        (AS_HEARD, truth.session == "ready" and not truth.restated),
        (ONE_EVENT, isinstance(event, given.Unreadable) and len(truth.unreadable) >= MAX_UNREADABLE and truth.session == "ready"),
    )


def is_machine(truth: Truth) -> bool:
    """No person answered the call."""
    return truth.party in ("machine", "fax")


def _of_verdict(step: Happening, truth: Truth) -> tuple[tuple[str, bool], ...]:
    """The rules for the step in which Twilio's verdict comes."""
    event, before = step.event, step.before
    if not isinstance(event, given.AnsweredBy):
        return ()
    is_first = not before.party and is_machine(truth)
    plays = any(isinstance(one, do.Play) for one in step.out)
    clears = any(isinstance(one, do.Interrupt) for one in step.out)
    return (
        (ENDS, plays is not (is_first and event.party == "machine" and event.message_ms > 0)),
        (AS_HEARD, clears is not (is_first and before.queued)),
        (ENDS, bool(step.out) and not is_first),
        (ENDS, is_first and not plays),  # it ends in this step
    )


def _is_cut(scenario: Scenario, step: Happening, truth: Truth) -> bool:
    """The caller takes the floor in this step."""
    event, before = step.event, step.before
    if step.machine.phase is not Phase.TALK or scenario.rules.interruptions == "none" or truth.held:
        return False
    if isinstance(event, given.HeardOut):
        return before.held or before.judged
    speaks = isinstance(event, given.SpeechStarted) or (isinstance(event, given.SpeechStopped) and not before.speaking)
    return any(isinstance(one, do.Interrupt) for one in step.out) or (speaks and not truth.protect_ms)


def _is_protected(truth: Truth) -> bool:
    """The greeting plays, and is not to be interrupted yet."""
    return truth.protect_ms > 0 and truth.queued and not truth.noticing


def _is_cut_off(step: Happening) -> bool:
    """The audio is discarded or paused, though a person may hear it."""
    return not isinstance(step.event, given.AnsweredBy) and any(isinstance(one, do.Interrupt | do.HoldAudio) for one in step.out)


def _has_cancelled(scenario: Scenario, truth: Truth) -> bool:
    """A tool is still carried out that an interruption ends."""
    return any(_is_cancelled(scenario, call) for call in truth.open_tools if call.call_id != truth.leaves)


def _has_yielding(scenario: Scenario, truth: Truth, event: given.ResponseStarted | given.ToolCall) -> bool:
    """A call is open, not this one, that ends when the AI continues."""
    own = event.call_id if isinstance(event, given.ToolCall) else ""
    if own in truth.answers:  # a repetition
        return False
    return any(scenario.rules.tools[call.name].yields and call.call_id != own for call in truth.open_tools)


def _is_cancelled(scenario: Scenario, call: OpenCall) -> bool:
    rules = scenario.rules.tools[call.name]
    return rules.cancels and rules.waits


def _has_words(event: Input | None) -> bool:
    return isinstance(event, given.CallerText) and event.meaningful


# -- the commands -----------------------------------------------------------------------------------------------------


def _create(scenario: Scenario, step: Happening, truth: Truth, command: do.Create, broken: list[str]) -> Truth:
    before, prompt = step.before, command.prompt
    is_last = prompt in (Prompt.CLOSING, Prompt.GOODBYE)
    is_idle = prompt is Prompt.CLOSING and step.machine.closing is Reason.IDLE_LIMIT
    is_filler, awaits = prompt is Prompt.FILLER, awaits_tool(scenario, truth)
    is_early = awaits and truth.owed_ms < 0 and not (is_filler or is_last)
    is_early = is_early and prompt is not Prompt.RETURN  # words after a break of the line, whatever is awaited
    is_early = is_early and not step.machine.sent_keys  # which the AI's own answer to speech may have missed
    has_filled = truth.filled
    truth = truth._replace(
        filled=has_filled or is_filler,
        silent_ms=0 if is_filler else truth.silent_ms,
        creates=truth.creates + 1,
        owed_ms=min(truth.owed_ms, 0),
        waited_ms=0,
        closing_asked=truth.closing_asked or is_last,
        words_from=truth.responses + 1 if is_last else truth.words_from,
        crossed=truth.crossed and not is_last,
        goodbyes=truth.goodbyes + (prompt is Prompt.GOODBYE),
        prompts=truth.prompts + (prompt is Prompt.ARE_YOU_THERE),
        idle_asked=prompt is Prompt.ARE_YOU_THERE,
        greeting_asked=prompt is Prompt.GREETING and scenario.rules.protect_greeting_ms > 0,
    )
    rules = (
        (ENDS, is_machine(truth)),
        (NOT_OVER_THE_CALLER, truth.speaking or truth.held or truth.judged),
        (AS_HEARD, truth.session != "ready" or not truth.restated or truth.unsent_keys),
        (AS_HEARD, prompt is Prompt.GREETING and truth.greeted),
        (SESSION_LIVES, truth.wait_ms > 0),
        (NO_DEAD_AIR, truth.lasting),
        (LIMIT_ANNOUNCED, is_last and truth.queued),
        (LIMIT_ANNOUNCED, prompt is Prompt.CLOSING and bool(truth.leaves)),
        (LIMIT_ANNOUNCED, is_idle and (before.open_tools or before.queued or before.speaking)),
        (LIMIT_ANNOUNCED, prompt is Prompt.ARE_YOU_THERE and (truth.open_tools or truth.queued)),
        (LIMIT_ANNOUNCED, truth.prompts > scenario.rules.idle_prompts),
        (GOODBYE, truth.goodbyes > 1 + truth.taken_back),
        (TOOL_ONCE, is_early),
        (TOOL_ONCE, is_filler and (not awaits or has_filled or scenario.rules.tools[command.tool].filler != "say")),
    )
    broken += [rule for rule, is_broken in rules if is_broken]
    return truth


def _cancel(_: Scenario, __: Happening, truth: Truth, ___: do.Cancel, ____: list[str]) -> Truth:
    return truth._replace(cancelled=bool(truth.active), doomed=0 if truth.active else truth.creates)


def _play(scenario: Scenario, step: Happening, truth: Truth, __: do.Play, broken: list[str]) -> Truth:
    if isinstance(step.event, given.Recorded):
        return _recorded(scenario, truth, step.event)
    if isinstance(step.event, given.AnsweredBy):
        return truth._replace(queued=True, unconfirmed=False, starved=False)
    if is_machine(truth):
        broken.append(ENDS)
    assert isinstance(step.event, given.Audio)
    number = int(step.event.response_id[1:])
    if number <= truth.cut_until:
        broken.append(NOT_OVER_THE_CALLER)
    if truth.unplayed:
        broken.append(AS_HEARD)
    if truth.greeting_asked and step.event.response_id == truth.active:
        notice_ms = truth.protect_ms if truth.noticing else 0
        truth = truth._replace(greeting_asked=False, protect_ms=max(notice_ms, scenario.rules.protect_greeting_ms))
    if number >= truth.owed_from:
        truth = truth._replace(unanswered_keys=False)
    truth = truth._replace(idle_asked=False)
    worded = truth.worded or truth.hang_up or (truth.closing_asked and number >= truth.words_from)
    return truth._replace(
        queued=True, unconfirmed=False, starved=False, worded=worded, owed_ms=-1 if number >= truth.owed_from else truth.owed_ms
    )


def _recorded(scenario: Scenario, truth: Truth, event: given.Recorded) -> Truth:
    """Recorded words play: the notice of the recording, and the greeting."""
    protect_ms = scenario.rules.protect_greeting_ms * event.greets
    if event.notice_ms:
        protect_ms = event.notice_ms + max(protect_ms, min(HEARD_MS, scenario.rules.goodbye_ms))
    return truth._replace(greeted=event.greets, queued=True, noticing=event.notice_ms > 0, protect_ms=protect_ms)


def _conceal(_: Scenario, __: Happening, truth: Truth, command: do.Conceal, broken: list[str]) -> Truth:
    if command.on is truth.concealed:
        broken.append(DIGITS)
    return truth._replace(concealed=command.on)


def _collect(_: Scenario, step: Happening, truth: Truth, command: do.Collect, broken: list[str]) -> Truth:
    if step.before.typing is not None or command.call_id in step.before.wanted:
        broken.append(DIGITS)
    return truth


def _interrupt(_: Scenario, step: Happening, truth: Truth, command: do.Interrupt, broken: list[str]) -> Truth:
    if isinstance(step.event, given.AnsweredBy):
        if not truth.queued or command.verdict != "machine":
            broken.append(AS_HEARD)
        return truth._replace(queued=False, starved=False, worded=False, cut_until=truth.responses)
    verdict = "model" if not (truth.held or step.before.judged) else "cut" if truth.speaking else "cut_words"
    if not truth.queued or command.verdict != verdict:
        broken.append(AS_HEARD)
    return truth._replace(queued=False, starved=False, worded=False, cut_until=truth.responses, unanswered_keys=False)


def _release(_: Scenario, __: Happening, truth: Truth, ___: do.ReleaseAudio, broken: list[str]) -> Truth:
    if truth.speaking and truth.queued:
        broken.append(NOT_OVER_THE_CALLER)
    return truth._replace(held=False)


def _tool_output(scenario: Scenario, step: Happening, truth: Truth, command: do.ToolOutput, broken: list[str]) -> Truth:
    call_id, result = command.call_id, command.result
    is_due = call_id in truth.due
    if call_id in truth.answers or is_due is not (result in ("settled", "unknown_outcome", "not_paused")):
        broken.append(TOOL_ONCE)
    if (result == "not_paused") is not (call_id in truth.unpaused):
        broken.append(DIGITS)
    if result == "cancelled" and step.machine.phase is Phase.TALK and do.CancelTool(call_id) not in step.out:
        broken.append(TOOL_ONCE)
    if call_id == truth.leaves and not is_due:
        broken.append(STREAM_IS_NOT_CALL)  # control still ends the stream
    if result == "yielded" and not _yields(scenario, step, truth, call_id):
        broken.append(TOOL_ONCE)
    if result == "ok":
        truth = truth._replace(hang_up=True, worded=truth.queued or truth.sounded)
    if result == "started":
        if not any(one.call_id == call_id and not scenario.rules.tools[one.name].waits for one in truth.open_tools):
            broken.append(TOOL_ONCE)
        return truth._replace(answers=(*truth.answers, call_id))
    return _without(truth._replace(answers=(*truth.answers, call_id)), call_id)


def _yields(scenario: Scenario, step: Happening, truth: Truth, call_id: str) -> bool:
    """The AI continues, which was all that the call waited for."""
    continues = isinstance(step.event, given.ResponseStarted | given.ToolCall)
    return continues and any(one.call_id == call_id and scenario.rules.tools[one.name].yields for one in truth.open_tools)


def _tool_result(_: Scenario, __: Happening, truth: Truth, command: do.ToolResult, broken: list[str]) -> Truth:
    call_id = command.call_id
    if call_id not in truth.due or call_id not in truth.answers or call_id in truth.results:
        broken.append(TOOL_ONCE)
    return _without(truth._replace(results=(*truth.results, call_id)), call_id)


def _without(truth: Truth, call_id: str) -> Truth:
    """The AI has a call's result."""
    left = tuple(one for one in truth.open_tools if one.call_id != call_id)
    return truth._replace(
        open_tools=left,
        due=tuple(one for one in truth.due if one != call_id),
        filled=truth.filled and bool(left),
        leaves="" if truth.leaves == call_id else truth.leaves,
    )


def _want_tool(scenario: Scenario, step: Happening, truth: Truth, command: do.WantTool, broken: list[str]) -> Truth:
    event, call_id = step.event, command.call_id
    if isinstance(event, given.ToolResumed) and call_id not in step.before.wanted:
        return truth._replace(open_tools=(*truth.open_tools, OpenCall(call_id, _EARLIER, event.name)))
    leaving = [one for one in truth.open_tools if one.call_id == call_id]
    if leaving and scenario.rules.tools[leaving[0].name].leaves is not None:
        return _want_to_leave(scenario, truth, leaving[0], broken)
    if call_id in step.before.wanted or not isinstance(event, given.ToolCall) or event.name not in scenario.rules.tools:
        broken.append(TOOL_ONCE)
        return truth
    if not scenario.rules.tools[event.name].waits and do.ToolOutput(call_id, "started") not in step.out:
        broken.append(TOOL_ONCE)
    return truth._replace(open_tools=(*truth.open_tools, OpenCall(call_id, int(event.response_id[1:]), event.name)))


def _want_to_leave(scenario: Scenario, truth: Truth, call: OpenCall, broken: list[str]) -> Truth:
    """Control is to end the stream: nothing is left to say, to hear or to wait for."""
    others = [one for one in truth.open_tools if one is not call and scenario.rules.tools[one.name].waits]
    is_owed = truth.owed_ms >= 0 and truth.owed_from > call.response and truth.session == "ready"  # by a later response
    rules = (
        (TOOL_ONCE, bool(truth.leaves) or bool(others)),
        (GOODBYE, truth.queued or truth.held or truth.judged),
        (GOODBYE, bool(truth.active) and not truth.cancelled),
        (NOT_OVER_THE_CALLER, truth.speaking),
        (NO_DEAD_AIR, is_owed or bool(truth.pressed)),
    )
    broken += [rule for rule, is_broken in rules if is_broken]
    return truth._replace(leaves=call.call_id)


def _cancel_tool(scenario: Scenario, step: Happening, truth: Truth, command: do.CancelTool, broken: list[str]) -> Truth:
    was_open = [one for one in step.before.open_tools if one.call_id == command.call_id]
    if (
        not _is_cut(scenario, step, truth)
        or command.call_id not in truth.answers
        or command.call_id == step.before.leaves
        or not was_open
        or not _is_cancelled(scenario, was_open[0])
    ):
        broken.append(TOOL_ONCE)
    return truth


def _open_session(_: Scenario, step: Happening, truth: Truth, __: do.OpenSession, broken: list[str]) -> Truth:
    if not truth.excused:
        broken.append(ONE_EVENT if isinstance(step.event, given.Unreadable) else SESSION_LIVES)
    if truth.swap == "ready":
        broken.append(SESSION_LIVES)
    if truth.is_first and not any(isinstance(one, do.Note) and one.name == "ai_leg_lost" for one in step.out):
        broken.append(SESSION_LIVES)
    lost = without_session(truth)
    return lost._replace(swap="", is_first=False, excused=False, owed_ms=min(lost.owed_ms, 0), waited_ms=0)


def _open_successor(scenario: Scenario, _: Happening, truth: Truth, __: do.OpenSuccessor, broken: list[str]) -> Truth:
    if 0 < scenario.expires_ms < MIN_LIFETIME_MS:
        broken.append(SESSION_LIVES)
    return truth._replace(swap="opening")


def _swap(_: Scenario, step: Happening, truth: Truth, ___: do.Swap, broken: list[str]) -> Truth:
    is_lost = isinstance(step.event, given.SessionLost) or truth.excused
    in_use = truth.speaking or truth.queued or (truth.active and not truth.cancelled)
    if truth.swap != "ready" or (in_use and not is_lost):
        broken.append(SESSION_LIVES)
    if not truth.texted and not is_lost:
        broken.append(AS_HEARD)
    return without_session(truth)._replace(session="ready", swap="", restated=False, is_first=False, excused=False)


def _note(_: Scenario, step: Happening, truth: Truth, command: do.Note, broken: list[str]) -> Truth:
    if command.name == "ai_leg_lost":
        truth = without_session(truth) if truth.session == "ready" else truth
        return truth._replace(session="gone") if step.machine.phase is Phase.CLOSING else truth
    if command.name == "goodbye_taken_back":
        again = truth.taken_back + truth.hang_up
        if again > MAX_TAKEN_BACK or (truth.limited and not truth.leaves):
            broken.append(GOODBYE)
        return truth._replace(hang_up=False, closing_asked=False, worded=False, taken_back=again)
    return truth


def _end(scenario: Scenario, step: Happening, truth: Truth, end: do.End, broken: list[str]) -> Truth:
    event, reason = step.event, end.reason
    if isinstance(event, given.StreamEnded) and event.reason is Reason.CALLER_HANGUP:
        if end.speak:
            broken.append(ENDS)
        left = [scenario.rules.tools[one.name].leaves for one in truth.open_tools if one.call_id == truth.leaves]
        if (reason in LEFT or left) and reason not in left:
            broken.append(STREAM_IS_NOT_CALL)
        return truth._replace(ended="hung up", owed_ms=-1)
    if is_machine(truth) or reason is Reason.MACHINE:
        if end.speak or not is_machine(truth) or (reason is not Reason.MACHINE and not step.comes_from_outside):
            broken.append(ENDS)
        return truth._replace(ended=reason.value, owed_ms=-1)
    is_decided = truth.hang_up or truth.closing_asked or reason is Reason.FALLBACK_GOODBYE
    is_idle, is_hang_up = reason is Reason.IDLE_LIMIT, reason is Reason.AI_HANGUP
    may_take_back = truth.taken_back < MAX_TAKEN_BACK and step.machine.is_ready and not truth.limited
    may_ask = truth.session == "ready" and not (truth.unannounced or truth.lasting or step.bounded or step.comes_from_outside)
    is_leaving = any(one.call_id == truth.leaves for one in truth.open_tools)
    was_asked = truth.worded or truth.closing_asked or truth.active
    rules = (
        (STREAM_IS_NOT_CALL, isinstance(event, given.StreamEnded) and reason is not event.reason and not is_decided),
        (GOODBYE if is_hang_up else ENDS, not end.speak and (truth.queued or truth.unconfirmed or not truth.worded)),
        (GOODBYE, is_hang_up and may_take_back and end.speak and not was_asked),
        (GOODBYE, is_hang_up and may_take_back and (truth.speaking or (truth.judged and not step.bounded))),
        (LIMIT_ANNOUNCED, reason in _LIMITS and truth.speaking and step.before.held and not step.bounded),
        (LIMIT_ANNOUNCED, is_idle and (truth.speaking or truth.open_tools)),
        (LIMIT_ANNOUNCED, is_idle and truth.prompts < scenario.rules.idle_prompts),
        (LIMIT_ANNOUNCED, reason is Reason.FALLBACK_GOODBYE and truth.closing_asked),
        (STREAM_IS_NOT_CALL, is_leaving and not (step.bounded or step.comes_from_outside)),
        (LIMIT_ANNOUNCED, (is_idle or reason in _LIMITS) and not end.speak and not truth.closing_asked),
        (
            LIMIT_ANNOUNCED,
            (is_idle or reason in _LIMITS) and end.speak and (truth.crossed or not truth.closing_asked) and may_ask,
        ),
        (LIMIT_ANNOUNCED, reason is Reason.DURATION_LIMIT and scenario.rules.max_call_ms >= FAR_MS),
        (
            LIMIT_ANNOUNCED,
            reason is Reason.DURATION_LIMIT and scenario.rules.warn_ms and not truth.warned and step.machine.is_ready,
        ),
    )
    broken += [rule for rule, is_broken in rules if is_broken]
    return truth._replace(ended=reason.value, owed_ms=-1)


_Apply = Callable[[Scenario, Happening, Truth, Any, list[str]], Truth]

_COMMANDS: Final[dict[type, _Apply]] = {
    do.Create: _create,
    do.Cancel: _cancel,
    do.Play: _play,
    do.Interrupt: _interrupt,
    do.HoldAudio: lambda _, __, truth, ___, ____: truth._replace(held=True),
    do.ReleaseAudio: _release,
    do.HoldSound: lambda _, __, truth, command, ____: truth._replace(toned=command.on),
    do.SendKeys: lambda _, __, truth, ___, ____: truth._replace(unsent_keys=False, unanswered_keys=True),
    do.WarnOfEnd: lambda _, __, truth, ___, ____: truth._replace(warned=True),
    do.ToolOutput: _tool_output,
    do.ToolResult: _tool_result,
    do.WantTool: _want_tool,
    do.CancelTool: _cancel_tool,
    do.OpenSession: _open_session,
    do.OpenSuccessor: _open_successor,
    do.Swap: _swap,
    do.Restate: lambda _, __, truth, ___, ____: truth._replace(restated=True),
    do.Collect: _collect,
    do.Conceal: _conceal,
    do.FillSilence: lambda _, __, truth, command, ____: truth._replace(replaced=command.on),
    do.Note: _note,
    do.End: _end,
}

"""Model of one conversation; every decision is the production machine's.

The parties are the AI, the caller, the playout and control. Each may do, in any order, whatever its protocol allows; what a
protocol does not allow, and what happens seldom, spends one of the state's faults. Time passes by `tick`, to the machine's own
deadline: between two deadlines the machine does nothing. All times of a state are relative to now. `state` defines the truth
about the parties, `laws` judges each step, `check.GRANTED` lists the assumptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, Literal

from gw.call.dialogue import inputs as given
from gw.call.dialogue import silence
from gw.call.dialogue.commands import Command
from gw.call.dialogue.facts import NEVER, Facts
from gw.call.dialogue.inputs import Input, Trouble
from gw.call.dialogue.machine import Dialogue
from gw.call.dialogue.rules import MAX_UNREADABLE, STABLE_MS, UNREADABLE_WINDOW_MS
from gw.call.state import Reason
from gw.verify.conversation import digits
from gw.verify.conversation.laws import Happening, judge, silence_ms, waits_in_silence
from gw.verify.conversation.state import (
    ENDS,
    FAR_MS,
    NO_DEAD_AIR,
    NOT_OVER_THE_CALLER,
    SESSION_LIVES,
    Scenario,
    State,
    Truth,
    Typing,
    awaits_tool,
    owed,
    refused,
    settled,
    without_session,
)
from gw.verify.explorer import FREE, SURE, Step

#: Longest time an owed answer may be without audio, a bounded request, or closing words.
OWED_MS: Final = 1000
#: Wait that a rate limit asks for.
_LIMIT_MS: Final = 4000
#: Time that is left to a tool of an earlier stream.
_LEFT_MS: Final = 20_000

_FIELDS: Final = tuple(name for name in Facts.__slots__ if name not in ("out", "rules", "now"))
_read: Final = attrgetter(*_FIELDS)
_TIMERS: Final = tuple(n for n, name in enumerate(_FIELDS) if name.endswith(("_at", "_by")))
_PASTS: Final = tuple(_FIELDS.index(name) for name in ("ready_ms", "lost_ms", "quiet_ms"))
_UNREADABLE: Final = _FIELDS.index("unreadable")
_OPEN_TOOLS: Final = _FIELDS.index("open_tools")


def _filler_of(names: Sequence[str]) -> Callable[[Dialogue, tuple[object, ...]], None]:
    """Build the function that sets these fields. A loop over their names takes three times as long."""
    made: dict[str, Any] = {}
    exec(f"def fill(machine, values):\n    ({', '.join(f'machine.{name}' for name in names)},) = values", made)
    fill: Callable[[Dialogue, tuple[object, ...]], None] = made["fill"]
    return fill


_fill: Final = _filler_of(_FIELDS)

#: Kinds of a refused or failed answer: the fault's name, the AI's account of it, the wait it asks for.
_REFUSALS: Final = (
    ("refuse", Trouble.PASSING, 0),
    ("lasting", Trouble.LASTING, 0),
    ("limit", Trouble.RATE_LIMIT, _LIMIT_MS),
)
#: Faults that cost a session, whose age then counts. Without them a session is lost only to an AI that never acts again.
_LOSSES: Final = frozenset({"session", "stall", "unreadable"})
_FAILURES: Final = (("fail", Trouble.PASSING, 0), *_REFUSALS[1:])


class ConversationModel:
    """One scenario, as a model for `gw.verify.explorer`."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def first(self) -> State:
        """The call begins; its first session is being opened."""
        machine = Dialogue.begin(self.scenario.rules, 0)
        machine.taken_back = self.scenario.taken_back
        truth = Truth(taken_back=machine.taken_back)
        if self.scenario.recorded_ms or self.scenario.notice_ms:
            notice_ms = self.scenario.notice_ms
            length_ms = notice_ms + self.scenario.recorded_ms
            recorded = given.Recorded(length_ms, notice_ms, greets=bool(self.scenario.recorded_ms))
            truth = judge(self.scenario, Happening(recorded, truth, machine, machine.on(recorded, 0)), truth)
        if self.scenario.resumed:
            name, call_id = self.scenario.tools[0], "t1"
            is_started = not self.scenario.rules.tools[name].waits
            truth = truth._replace(tools=1, wanted=(call_id,), answers=(call_id,) if is_started else ())
            resumed = given.ToolResumed(call_id, name, _LEFT_MS)
            before = truth._replace(wanted=())
            truth = judge(self.scenario, Happening(resumed, before, machine, machine.on(resumed, 0)), truth)
        return _state(self.scenario, machine, truth, self.scenario.budget)

    def wrong(self, state: State) -> Iterable[str]:
        """The rules that this state violates."""
        return state.truth.broken

    def owing(self, state: State) -> Iterable[str]:
        """The rules that require this state to be left."""
        truth = state.truth
        if truth.ended:
            return ()
        if truth.held or truth.judged:
            return (NOT_OVER_THE_CALLER,)
        closes = self.scenario.rules.idle_ms < FAR_MS or truth.hang_up or truth.closing_asked
        waits = truth.owed_ms >= 0 or bool(truth.open_tools)
        owing = ((ENDS, closes), (NO_DEAD_AIR, waits), (SESSION_LIVES, truth.swap == "ready"))
        return [rule for rule, is_owed in owing if is_owed]

    def steps(self, state: State) -> Sequence[Step[State]]:
        """All steps out of a state."""
        if state.truth.ended or state.truth.broken:
            return ()
        moves = _Moves(self.scenario, state)
        moves.time()
        if not state.truth.dead:
            moves.session()
            moves.requests()
            moves.response()
            moves.caller()
            moves.phone()
            moves.control()
        return moves.found


class _Moves:
    """The steps out of one state."""

    def __init__(self, scenario: Scenario, state: State) -> None:
        self._scenario = scenario
        self._rules = scenario.rules
        self._state = state
        self._truth = state.truth
        self.found: list[Step[State]] = []

    def _may_fail(self, kind: str) -> bool:
        return self._state.faults > 0 and kind in self._scenario.faults

    def _machine(self, fields: tuple[object, ...]) -> Dialogue:
        machine: Dialogue = Dialogue.__new__(Dialogue)
        _fill(machine, fields)
        machine.rules, machine.now, machine.out = self._rules, 0, []
        return machine

    def _add(self, label: str, event: Input, truth: Truth, *, kind: str = FREE, cost: int = 0) -> None:
        """Add a step: this input, with the truth that comes with it."""
        machine, faults = self._machine(self._state.machine), self._state.faults - cost
        try:
            out = machine.on(event, 0)
        except Exception as error:  # noqa: BLE001  a defect of the machine is a violation, and has a transcript
            self.found.append(Step(f"{label} -> {error!r}", State((), truth._replace(broken=(ENDS,)), faults), kind))
            return
        after = judge(self._scenario, Happening(event, self._truth, machine, out), truth)
        self.found.append(Step(f"{label}{_text(out)}", _state(self._scenario, machine, after, faults), kind))

    # -- time -----------------------------------------------------------------------------------------------------------

    def time(self) -> None:
        """Let time pass to the machine's deadline, or until everything is heard."""
        truth = self._truth
        deadline_ms = max(0, self._machine(self._state.machine).deadline_ms)
        cancels = not truth.dead and (truth.doomed or truth.cancelled)
        if deadline_ms < FAR_MS and (truth.slow or not cancels):
            self._pass(truth, deadline_ms)
        elif deadline_ms < FAR_MS and self._may_fail("slow"):
            self._pass(truth._replace(slow=True), deadline_ms, cost=1)
        if truth.queued and truth.noticing:
            is_greeted = truth.greeted or truth.session == "ready" or not truth.is_first
            is_greeted = is_greeted and not (truth.held or truth.judged)
            noticed = truth._replace(noticing=False, protect_ms=self._rules.protect_greeting_ms * is_greeted)
            self._add("the caller has heard the notice", given.NoticeHeard(), noticed, kind=SURE)
        heard = truth._replace(queued=False, starved=False)
        if truth.queued and truth.held:  # all of it was at Twilio when the playout paused
            heard = heard._replace(owed_ms=-1 if truth.speaking else max(0, truth.owed_ms))
            self._add("the caller has heard everything", given.HeardOut(), heard)
        elif truth.queued and not truth.noticing:
            if truth.judged and not (truth.hang_up or truth.closing_asked):
                heard = _asked(heard)  # an ordinary turn
            self._add("the caller has heard everything", given.HeardOut(), heard, kind=SURE)
            if not truth.starved and self._may_fail("starve"):
                what = "the response is slower than its audio" if truth.active else "no mark returns that it is heard"
                self._add(what, given.Starved(), truth._replace(starved=True), cost=1)

    def _pass(self, truth: Truth, ms: int, *, cost: int = 0) -> None:
        machine = self._machine(_shifted(self._state.machine, ms))
        owed_ms = truth.owed_ms
        if owed_ms >= 0:
            owed_ms = 0 if self._is_covered(truth) else owed_ms + ms
        waits = truth.creates or truth.active or truth.session == "opening"
        closes = truth.hang_up or truth.closing_asked
        truth = truth._replace(
            owed_ms=owed_ms,
            unreadable=tuple(at + ms for at in truth.unreadable if at + ms < UNREADABLE_WINDOW_MS),
            waited_ms=truth.waited_ms + ms if waits else truth.waited_ms,
            wait_ms=max(0, truth.wait_ms - ms),
            protect_ms=max(0, truth.protect_ms - ms),
            judged=truth.judged and machine.judge_at > 0,
            texted=truth.texted or machine.text_by <= 0,  # they never come
            limited=truth.limited or machine.limit_at <= 0,
            queued=truth.queued and (truth.held or machine.heard_by > 0),
            unconfirmed=truth.unconfirmed or (closes and truth.queued and not truth.held and machine.heard_by <= 0),
            starved=truth.starved and (truth.held or machine.heard_by > 0),
            silent_ms=self._silent_ms(truth, ms),
        )
        faults = self._state.faults - cost
        stalled = machine.answer_by <= 0 or machine.open_by <= 0
        before = self._truth
        truth = digits.later(self._scenario, truth, ms, is_asked=before.queued or before.speaking)
        for tool in machine.open_tools:
            if tool.by_ms <= 0 and any(call.call_id == tool.call_id for call in truth.open_tools):
                truth = settled(self._scenario, truth, tool.call_id)
        if stalled or machine.tools_by <= 0 or machine.speech_by <= 0:  # a party gave no sign: a fault, or its last
            is_fault = faults > 0 and "stall" in self._scenario.faults
            faults, truth = faults - is_fault, truth._replace(dead=not is_fault)
        if machine.speech_by <= 0:
            truth = truth._replace(speaking=False, owed_ms=max(0, truth.owed_ms))
        if stalled and truth.waited_ms >= min(self._rules.answer_ms, self._rules.open_ms):
            truth = truth._replace(excused=True)
        if machine.silent_by <= 0 and truth.active:  # the AI that is slow to end what was cancelled gave no other sign either
            truth = truth._replace(excused=True)
        if machine.keys_at <= 0 and truth.pressed:
            truth = _turned(truth)
        bounded = machine.close_by <= 0 or machine.final_at <= 0
        label = f"{ms / 1000:g} s pass"
        try:
            out = machine.tick(0)
        except Exception as error:  # noqa: BLE001  as in `_add`
            self.found.append(Step(f"{label} -> {error!r}", State((), truth._replace(broken=(ENDS,)), faults), SURE))
            return
        after = judge(self._scenario, Happening(None, self._truth, machine, out, bounded), truth)
        stalls = after.session == "ready" and after.active and after.sounded and not (after.called or after.cancelled)
        is_silent = self._silent_ms(self._truth, ms) > silence_ms(self._scenario)
        if owed_ms > OWED_MS or is_silent or (stalls and after.waited_ms > self._rules.stall_ms):
            after = after._replace(broken=(*after.broken, NO_DEAD_AIR))
        self.found.append(Step(f"{label}{_text(out)}", _state(self._scenario, machine, after, faults), SURE))

    def _silent_ms(self, truth: Truth, ms: int) -> int:
        """Time that the caller has waited in silence, in scenarios with a holding sound."""
        if self._rules.hold_after_ms >= FAR_MS or truth.toned:
            return 0
        return truth.silent_ms + ms if waits_in_silence(self._scenario, truth, self._machine(self._state.machine)) else 0

    def _is_covered(self, truth: Truth) -> bool:
        """Something bounded is under way for the caller who waits."""
        machine = self._machine(self._state.machine)
        if truth.queued or truth.speaking or truth.held or truth.judged:
            return True
        if truth.leaves and machine.tools_by < FAR_MS:
            return True  # Twilio dials
        if truth.session == "opening":
            return machine.open_by < FAR_MS
        if truth.creates or (truth.active and not truth.cancelled):
            return machine.answer_by < FAR_MS
        if awaits_tool(self._scenario, truth):
            is_typing = machine.digits_at < FAR_MS or (bool(truth.pressed) and machine.keys_at < FAR_MS)
            return machine.tools_by < FAR_MS or is_typing
        return (truth.slow and machine.cancel_by < FAR_MS) or (truth.wait_ms > 0 and machine.ask_at < FAR_MS)

    # -- the AI ---------------------------------------------------------------------------------------------------------

    def session(self) -> None:
        """Sessions open, fail, expire, and send what cannot be read."""
        truth, expires_ms = self._truth, self._scenario.expires_ms
        if truth.session == "opening":
            ready = truth._replace(session="ready", restated=False, excused=False, unreadable=())
            if truth.owed_ms < 0 and truth.is_first and self._rules.greets and not truth.greeted:
                ready = owed(ready)
            self._add("AI: session ready", given.SessionReady(expires_ms), ready)
            excused = truth._replace(excused=True)
            if self._may_fail("session"):
                self._add("AI: cannot be reached", given.SessionLost(Reason.AI_UNREACHABLE), excused, cost=1)
            if self._may_fail("lasting"):
                self._add("AI: refuses permanently", given.SessionLost(Reason.AI_REFUSED, Trouble.LASTING), excused, cost=1)
            return
        if truth.session == "ready" and self._may_fail("session"):
            lost = without_session(truth)._replace(excused=True)
            self._add("AI: session lost", given.SessionLost(Reason.AI_LOST), lost, cost=1)
        if truth.swap == "opening":
            self._add("AI: successor ready", given.SuccessorReady(expires_ms), truth._replace(swap="ready"))
            if self._may_fail("successor"):
                self._add("AI: successor failed", given.SuccessorFailed(), truth._replace(swap=""), cost=1)
        if truth.session == "ready" and self._may_fail("unreadable"):
            times = (*truth.unreadable, 0)
            unread = truth._replace(unreadable=times, excused=truth.excused or len(times) >= MAX_UNREADABLE)
            self._add("AI: an unreadable event", given.Unreadable(), unread, cost=1)

    def requests(self) -> None:
        """The AI takes up a request, refuses it, or begins an unrequested response."""
        truth = self._truth
        if truth.session != "ready":
            return
        is_asked = truth.creates or truth.own
        if not truth.active and (is_asked or self._may_fail("unasked")):
            number = truth.responses + 1
            begun = truth._replace(
                active=f"r{number}",
                responses=number,
                sounded=False,
                called=False,
                called_new=False,
                waited_ms=0,
                cancelled=bool(truth.doomed),
                own=truth.own and bool(truth.doomed),
                creates=truth.creates - bool(truth.doomed or (truth.creates and not truth.own)),
                doomed=max(0, truth.doomed - 1),
                cut_until=number if truth.doomed else truth.cut_until,
            )
            kind, cost = SURE if truth.doomed else FREE, 0 if is_asked else 1
            self._add(f"AI: response r{number} begins", given.ResponseStarted(begun.active), begun, kind=kind, cost=cost)
        if truth.creates and truth.active:
            crossed = refused(truth)
            if truth.insists:
                crossed = crossed._replace(owed_from=max(crossed.owed_from, truth.responses + 1))
            if truth.closing_asked and not truth.hang_up:
                crossed = crossed._replace(worded=False, words_from=truth.responses + 1, crossed=True)
            self._add("AI: refused, a response is active", given.CreateRefused(Trouble.CROSSED), crossed, kind=SURE)
        elif truth.creates:
            for name, trouble, wait_ms in _REFUSALS:
                if self._may_fail(name):
                    label = f"AI: refused ({trouble.name.lower()})"
                    after = _told(refused(truth), trouble, wait_ms, heeded=not truth.doomed)
                    self._add(label, given.CreateRefused(trouble, wait_ms), after, cost=1)

    def response(self) -> None:
        """The active response sounds, calls tools and ends; late audio may follow."""
        truth, here = self._truth, self._truth.active
        if truth.session != "ready" or (truth.creates and here):
            return  # the refusal comes first
        if truth.trailing and self._may_fail("trailing"):
            self._add(f"AI: late audio of {truth.trailing}", given.Audio(truth.trailing), truth, cost=1)
        if not here:
            return
        if not truth.sounded and not truth.called:
            self._add(f"AI: audio of {here}", given.Audio(here), truth._replace(sounded=True, waited_ms=0))
        elif truth.sounded and self._may_fail("more"):
            self._add(f"AI: more audio of {here}", given.Audio(here), truth._replace(waited_ms=0), cost=1)
        self._tool_calls()
        done = truth._replace(active="", cancelled=False, trailing=here, unplayed=False)
        if truth.cancelled:
            ended = given.ResponseDone(here, completed=False)
            self._add(f"AI: {here} cancelled", ended, done._replace(goodbyes=0), kind=SURE)
            return
        if truth.sounded or truth.called:
            asks = truth.called and not awaits_tool(self._scenario, truth, truth.responses if truth.called_new else 0)
            after = owed(done) if asks else done  # a tool's result is owed an answer
            self._add(f"AI: {here} done", given.ResponseDone(here), after)
        elif self._may_fail("empty"):
            self._add(f"AI: {here} done, empty", given.ResponseDone(here), _failed(done), cost=1)
        for name, trouble, wait_ms in _FAILURES:
            if self._may_fail(name) and not truth.called:
                label = f"AI: {here} failed ({trouble.name.lower()})"
                after = _told(_failed(done), trouble, wait_ms, heeded=True)
                self._add(label, given.ResponseDone(here, False, trouble, wait_ms), after, cost=1)

    def _tool_calls(self) -> None:
        truth, names = self._truth, self._scenario.tools
        if truth.tools < len(names) and not truth.cancelled:
            name, call_id = names[truth.tools], f"t{truth.tools + 1}"
            called = truth._replace(
                called=True, called_new=True, tools=truth.tools + 1, wanted=(*truth.wanted, call_id), silent_ms=0
            )
            self._add(f"AI: calls {name} ({call_id})", self._tool_call(call_id, name), called)
        if truth.wanted and self._may_fail("repeat"):
            event = self._tool_call(truth.wanted[-1], names[truth.tools - 1])
            self._add(f"AI: repeats {truth.wanted[-1]}", event, truth._replace(called=True), cost=1)

    def _tool_call(self, call_id: str, name: str) -> given.ToolCall:
        collects = name in self._rules.tools and self._rules.tools[name].collects
        return given.ToolCall(self._truth.active, call_id, name, asked=self._scenario.asked if collects else None)

    # -- the caller -----------------------------------------------------------------------------------------------------

    def caller(self) -> None:
        """The caller speaks, is silent, and presses keys; a session reports the words."""
        truth, mode = self._truth, self._rules.interruptions
        if truth.session == "ready" and not truth.speaking and truth.speech < self._scenario.turns:
            item_id = f"c{truth.speech + 1}"
            cancels = bool(truth.active) if mode == "model" else truth.cancelled
            speaks = truth._replace(prompts=0, speaking=True, speech=truth.speech + 1, texted=False, own=False, cancelled=cancels)
            speaks = speaks._replace(greeting_asked=False, judged=False)
            if not (truth.queued and mode == "gateway"):
                speaks = speaks._replace(owed_ms=-1, unanswered_keys=False)
            self._add(f"caller: speaks ({item_id})", given.SpeechStarted(item_id), speaks)
            if self._may_fail("unreported"):
                judged = mode == "gateway" and truth.queued and not truth.protect_ms
                unseen = speaks._replace(speaking=False, own=mode != "gateway", judged=judged)
                if not judged:
                    unseen = unseen._replace(owed_ms=0, insists=False)
                self._add(f"caller: spoke ({item_id}), the start was not reported", given.SpeechStopped(item_id), unseen, cost=1)
        item_id = f"c{truth.speech}"
        if truth.session == "ready" and truth.speaking:
            silent = truth._replace(speaking=False, own=mode != "gateway", judged=truth.held)
            if not (truth.held or truth.closing_asked or truth.hang_up):
                silent = _asked(silent)
            if mode != "gateway":  # the AI's own answer has the tools' results so far
                silent = silent._replace(insists=silent.insists and silent.unanswered_keys)
            self._add("caller: is silent", given.SpeechStopped(item_id), silent)
        elif truth.session == "ready" and not truth.texted:
            texted = truth._replace(texted=True, judged=False)
            owed = texted._replace(owed_ms=max(0, truth.owed_ms)) if truth.judged else texted
            self._add("AI: the caller's words", given.CallerText(item_id), owed)
            if truth.judged:
                self._add('AI: the caller said "mhm"', given.CallerText(item_id, False), texted)
        if truth.keys < len(self._scenario.keys):
            digit = self._scenario.keys[truth.keys]
            pressed = truth._replace(prompts=0, keys=truth.keys + 1)
            if truth.typing is not None:
                pressed = digits.pressed(self._scenario, pressed, digit)
            elif digit != "#":
                pressed = pressed._replace(pressed=truth.pressed + digit)
            elif truth.pressed:
                pressed = _turned(pressed)
            self._add(f"caller: key {digit}", given.Key(digit), pressed)

    def phone(self) -> None:
        """Frames stop and come again; the stream breaks, or ends with the call."""
        truth = self._truth
        if truth.silent_frames:
            self._add("Twilio: frames come again", given.FramesBack(), truth._replace(silent_frames=False))
        elif self._may_fail("frames"):
            self._add("Twilio: frames stop", given.FramesMissing(), truth._replace(silent_frames=True), cost=1)
        if truth.leaves:
            self._add("Twilio: ends the stream", given.StreamEnded(Reason.CALLER_HANGUP), truth)
        if self._may_fail("stream"):
            self._add("Twilio: the socket breaks", given.StreamEnded(Reason.PHONE_LOST), truth, cost=1)
        if self._may_fail("hangup"):
            self._add("caller: hangs up", given.StreamEnded(Reason.CALLER_HANGUP), truth, cost=1)

    # -- control --------------------------------------------------------------------------------------------------------

    def control(self) -> None:
        """Tools are settled, also twice; the budget is spent; an operator hangs up."""
        truth = self._truth
        for call in truth.open_tools:
            rules = self._rules.tools[call.name]
            if rules.collects or (rules.leaves is not None and call.call_id != truth.leaves):
                continue  # control was not asked
            self._add(
                f"control: {call.call_id} settled", given.ToolSettled(call.call_id), settled(self._scenario, truth, call.call_id)
            )
        if truth.typing is not None:
            self._collection(truth, truth.typing)
        call_id = truth.answers[-1] if truth.answers else ""
        if call_id and self._may_fail("late") and not any(call.call_id == call_id for call in truth.open_tools):
            self._add(f"control: {call_id} settled again", given.ToolSettled(call_id), truth, cost=1)
        if self._may_fail("budget") and not truth.limited:
            self._add("control: the budget is spent", given.BudgetSpent(), truth._replace(limited=True), cost=1)
        for party in ("person", "machine", "fax") if self._may_fail("verdict") else ():
            for message_ms in (0, 3000) if party == "machine" else (0,):
                self._verdict(party, message_ms)
        if self._may_fail("operator"):
            self._add("operator: hangs up", given.EndWanted(Reason.ADMIN_HANGUP), truth, cost=1)

    def _collection(self, truth: Truth, typing: Typing) -> None:
        """The recording is paused, or cannot be; control keeps digits."""
        scenario = self._scenario
        if typing.is_kept:
            event = given.ToolSettled(typing.call_id)
            self._add("control: keeps the digits", event, digits.kept(scenario, truth))
        elif not typing.counts:
            self._add("control: the recording is paused", given.Concealed(), digits.paused(scenario, truth, was_heard=True))
            if self._may_fail("unrecorded"):
                after = digits.paused(scenario, truth, was_heard=False)
                self._add("no recording is running", given.Concealed(was_heard=False), after, cost=1)
            if self._may_fail("unpaused"):
                after = digits.not_paused(scenario, truth)
                self._add("control: the recording cannot be paused", given.NotConcealed(), after, cost=1)

    def _verdict(self, party: Literal["person", "machine", "fax"], message_ms: int) -> None:
        """Twilio's verdict comes: early, late, twice or wrong."""
        truth = self._truth
        if not truth.party:
            truth = truth._replace(party=party)
            if party != "person":
                session = "gone" if truth.session == "opening" else truth.session  # the edge gives it up
                truth = truth._replace(session=session, owed_ms=-1, closing_asked=True, judged=False, unconfirmed=False)
        label = f"Twilio: a {party} answered" + (", a message is left" if message_ms else "")
        self._add(label, given.AnsweredBy(party, message_ms), truth, cost=1)


def _asked(truth: Truth) -> Truth:
    """The caller waits for an answer, which is not what is being said."""
    is_saying = truth.active and not truth.cancelled
    return truth._replace(
        judged=False,
        owed_ms=max(0, truth.owed_ms),
        insists=truth.insists and truth.owed_ms >= 0,
        owed_from=truth.responses + 1 if is_saying else truth.owed_from,
    )


def _turned(truth: Truth) -> Truth:
    """The caller's keys are a turn."""
    turned = truth.turned + truth.pressed
    return owed(truth._replace(pressed="", turned=turned, unsent_keys=truth.session != "ready"))


def _failed(done: Truth) -> Truth:
    """An answer that failed is owed still; closing words that failed were not heard."""
    done = done._replace(goodbyes=0, worded=False)
    if done.hang_up or done.closing_asked or done.idle_asked:
        return done
    return done._replace(owed_ms=max(0, done.owed_ms), owed_from=done.responses + 1 + done.creates)


def _told(truth: Truth, trouble: Trouble, wait_ms: int, *, heeded: bool) -> Truth:
    """The AI said why it refuses, and how long to wait."""
    return truth._replace(wait_ms=max(truth.wait_ms, wait_ms), lasting=trouble is Trouble.LASTING and heeded)


def _state(scenario: Scenario, machine: Dialogue, truth: Truth, faults: int) -> State:
    """Make a state, without differences that no later decision depends on."""
    first = int((truth.trailing or truth.active or "r0")[1:]) or truth.responses + 1  # the response that events may still name
    if 0 < truth.owed_from <= first or 0 < truth.cut_until < first:
        owed_from = truth.owed_from if truth.owed_from > first else 0
        truth = truth._replace(owed_from=owed_from, cut_until=truth.cut_until if truth.cut_until >= first else 0)
    if machine.dropped or machine.ended:
        named = (truth.active, truth.trailing)
        machine.dropped = tuple(one for one in machine.dropped if one in named)
        machine.ended = tuple(one for one in machine.ended if one in named)
    if machine.quiet_ms != NEVER and not silence.fillers(machine) and machine.collection is None:
        machine.quiet_ms = 0
    if not machine.is_ready:
        machine.ready_ms = NEVER
    else:
        machine.lost_ms = 0
        machine.ready_ms = max(machine.ready_ms, -STABLE_MS) if scenario.faults & _LOSSES else -STABLE_MS
    return State(tuple(_read(machine)), truth, faults)


def _shifted(machine: tuple[Any, ...], ms: int) -> tuple[object, ...]:
    """The same fields `ms` later, with now at 0."""
    values = list(machine)
    for n in _TIMERS:
        if values[n] < FAR_MS:
            values[n] -= ms
    for n in _PASTS:
        if values[n] != NEVER:
            values[n] = max(values[n] - ms, -FAR_MS)
    if values[_OPEN_TOOLS]:
        values[_OPEN_TOOLS] = tuple(
            tool if tool.by_ms >= FAR_MS else tool._replace(by_ms=tool.by_ms - ms) for tool in values[_OPEN_TOOLS]
        )
    values[_UNREADABLE] = tuple(at - ms for at in values[_UNREADABLE] if at - ms > -FAR_MS)
    return tuple(values)


def _text(out: list[Command]) -> str:
    """Commands as a person reads them."""
    return "".join(f" -> {command}" for command in out[:1]) + "".join(f", {command}" for command in out[1:])

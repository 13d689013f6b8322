"""One call: its parts, and what concerns more than one of them.

| part | holds |
|---|---|
| `downlink` | what the caller hears: playout, AI-out, TX, interruptions |
| `uplink` | the caller's audio on its way to the AI |
| `ai` | the AI leg in place, what is sent to it |
| `tools` | tool calls on their way to control, and back |
| `digits` | sensitive digits that the caller types |
| `dialogue` | what happens in the conversation |
| `ending` | the one end |
| `events` | what control receives |
| `spending` | usage of AI models, and the budget |

The greenlets (RX, AI-in, the dialogue's, AI-out, TX) share these parts without a lock: whatever a method does, it does in one
turn, without a switch. No part refers to the call, so an ended call is freed with its last reference, without the collector.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from time import monotonic
from typing import Final

from gw import bus
from gw.call.audio.playout import MESSAGE, NOTICE, RECORDED
from gw.call.cost.budget import Level
from gw.call.dialogue import inputs as given
from gw.call.dialogue.inputs import Input
from gw.call.guard import HEARD, RecordingGuard, off_by
from gw.call.quality import Quality
from gw.call.resume import LEFT, TURNS_PER_STREAM
from gw.call.state import CallState, Reason, Result, result_of
from gw.call.turns import Turn, Turns
from gw.call.variables import carried
from gw.config import Agent, Route
from gw.media.ai_side import AiSide
from gw.media.call_ending import CallEnding
from gw.media.call_events import CallEvents
from gw.media.conversation.dialogue import CallDialogue
from gw.media.conversation.digits import CallDigits
from gw.media.conversation.spending import CallSpending
from gw.media.conversation.tools import CallTools
from gw.media.downlink import Downlink
from gw.media.shared.context import MediaContext
from gw.media.shared.routing import NO_ROUTE
from gw.media.transport.plain import Transport
from gw.protocol.ai import Tokens
from gw.protocol.audio import BYTES_PER_MS
from gw.protocol.twilio import Start

log = logging.getLogger(__name__)

_MS: Final = 1000.0
#: Bound on questions for the conversation of a resumed call: a restart of control. Its caller hears silence meanwhile, and
#: media.ai_connect_s has begun.
RESTORE_S: Final = 2.5
#: Longest verdict that is noted: Twilio's words are shorter.
MAX_VERDICT_CHARS: Final = 40


class Call:
    """A call from Twilio's `start` to its end."""

    def __init__(
        self,
        context: MediaContext,
        state: CallState,
        start: Start,
        agent_name: str,
        agent: Agent,
        transport: Transport,
        *,
        voice_at: float | None,
        route: Route = NO_ROUTE,
    ) -> None:
        """`voice_at`: when the voice webhook was answered, epoch seconds. `route`: the call's, with its variables."""
        self.context = context
        self.state = state
        self.sid = start.call_sid
        self.stream_sid = start.stream_sid
        self.agent = agent
        self.events = CallEvents(context, start, started_s=monotonic(), started_at=time.time())
        resumed = self.events.resumed
        self._began_ms = round((self.events.started_at - resumed.began_at) * _MS) if resumed else 0
        self.spending = CallSpending(context, self.events, start, agent_name, agent)
        self.turns = Turns(resumed.n * TURNS_PER_STREAM if resumed else 0)
        off = off_by(context.config, agent, route)
        notice = context.config.recording.notice
        is_announced = not notice.is_set or HEARD.items() <= start.parameters.items()
        guard = RecordingGuard(enabled=not off, is_announced=is_announced)
        self.downlink = Downlink(context, start.stream_sid, transport, self.events, guard=guard)
        self.ending = CallEnding(context, state, agent_name, agent, self.events, transport.wake)
        self._parked = context.parked.take(self.sid, resumed.left) if resumed and resumed.after in LEFT else None
        warm = self._parked or context.warm.take(self.sid, agent)
        self.ai = AiSide(context, agent, self._began_ms, self.events.started_s, self.ending.on_crash, warm)
        self.uplink = self.ai.uplink
        facts = self.events.facts(start, agent_name, voice_at, route.variables)
        self._now_ms = partial(_call_ms, self._began_ms, self.events)
        route_id, carries = start.parameters.get("route", ""), carried(start.parameters)
        self._kept = {**carries, **({"route": route_id} if route_id else {})}
        self.digits = CallDigits(context, self.events, self.uplink, guard, self.ending.on_crash)
        self.tools = CallTools(
            self.events,
            self.ai,
            self.digits,
            context.config.tools,
            facts,
            self._now_ms,
            agent,
            route_id,
            carries,
        )
        self.dialogue = CallDialogue(
            context,
            agent,
            state,
            self.events,
            self.ai,
            self.downlink,
            self.turns,
            self.ending,
            self.tools,
            self.digits,
            agent_name=agent_name,
            elapsed_ms=self._began_ms,
        )
        self.first_word_ms = -1  # how long the caller waited for the agent's first audio
        self.events.on_start(start, agent_name, voice_at, route.variables)
        if off and not self.events.continues:
            self.events.note("recording_off", by=off)

    def restore_conversation(self) -> None:
        """Load the conversation before this stream, and its open tools, for a resumed call. Waits for control, for RESTORE_S."""
        resumed = self.events.resumed
        if resumed is None or not resumed.was_heard:
            return
        more = {"key": resumed.left} if resumed.left else {}
        answer = self.context.ask_again(self.sid, "conversation", self.events.account_sid, RESTORE_S, **more)
        if answer is not None:
            self.ai.conversation.resume_from(answer.utterances)
            self.spending.earlier_usd = answer.spent_usd
            for tool in answer.tools:
                if (event := self.tools.resume(tool)) is not None:
                    self.dialogue.on(event)  # control sends the result here, once the job is wanted again
        if resumed.after in LEFT:
            parked, self._parked = self._parked, None
            self.tools.on_return(resumed, answer.left if answer is not None else "", parked.wish if parked else None)

    def now_ms(self) -> int:
        """Milliseconds since the call's first stream started."""
        return self._now_ms()

    def report_turns(self, turns: list[Turn]) -> None:
        """Keep finished turns for a replacement AI session, and report them."""
        self.dialogue.report_turns(turns)

    # -- the caller -------------------------------------------------------------------------------------------------------

    def on_mark_echo(self, name: str) -> None:
        """Handle Twilio's echo of a mark: the caller heard everything before it, or a clear returned it."""
        now_s = monotonic()
        frames = self.downlink.on_mark_echo(name, now_s)
        if frames is None:
            self.context.uplink_cells.by_reason["unknown_mark"].add()
            return
        outcomes = self.downlink.playout.outcomes(frames)
        if not self.downlink.guard.is_announced and any(one.item_id == NOTICE and one.whole for one in outcomes):
            self.downlink.guard.is_announced = True
            self.dialogue.on(given.NoticeHeard())
        self.report_turns(self.turns.on_heard(outcomes))
        self.dialogue.check_heard(now_s)

    def on_key(self, digit: str) -> None:
        """Handle a key the caller pressed. More keys than a person presses reach neither control nor the AI."""
        if self.events.note("keys", count=1):  # keys may be secret: never stored
            self.dialogue.on(given.Key(digit))

    def on_frames_missing(self) -> None:
        """Handle a pause in the caller's audio frames."""
        self.dialogue.on(given.FramesMissing())

    def on_frames_back(self) -> None:
        """Handle the end of such a pause."""
        self.dialogue.on(given.FramesBack())

    def on_answered_by(self, verdict: str) -> None:
        """Handle Twilio's verdict on the party that answered: a machine is left the message, and the call ends."""
        party = given.party_of(verdict)
        if party is None or not self.events.note("answered_by", verdict=verdict[:MAX_VERDICT_CHARS]):
            return
        path = self.context.config.outbound.voicemail
        audio = self.context.greetings.get(path, b"") if party == "machine" else b""
        log.info("the call was answered by: %s", verdict[:MAX_VERDICT_CHARS], extra={"call_sid": self.sid})
        if self.dialogue.may_play_message(party, len(audio) // BYTES_PER_MS):
            self.downlink.play(MESSAGE, MESSAGE, audio)
            self.downlink.end_response(MESSAGE)

    # -- the agent --------------------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Play the notice of the recording and the agent's recorded greeting, if there are: the AI leg may still be connecting.

        They are the agent's first turns, so each AI session receives their texts, cut to what was heard.
        """
        words, notice, guard = self.agent.first_words, self.context.config.recording.notice, self.downlink.guard
        greeting = b"" if self.events.continues else self.context.greetings.get(words.file, b"")
        announcement = self.context.greetings.get(notice.file, b"") if guard.enabled and not guard.is_announced else b""
        notice_ms, length_ms = len(announcement) // BYTES_PER_MS, (len(announcement) + len(greeting)) // BYTES_PER_MS
        if not length_ms or not self.dialogue.may_play_recorded(length_ms, notice_ms, greets=bool(greeting)):
            return
        self.on_first_word(monotonic())
        for item, audio, text in ((NOTICE, announcement, notice.text), (RECORDED, greeting, words.text)):
            if audio:
                self.turns.on_agent_audio(item, self.now_ms())
                self.turns.on_agent_text(item, text, self.now_ms())
                self.downlink.play(item, item, audio)
                self.downlink.end_response(item)

    def on_first_word(self, now_s: float) -> None:
        """Measure how long the caller waited for the agent's first audio.

        The wait for a greeting begins with the call. Without one the caller speaks first, and the wait begins with the request.
        The audio is received now and sent after the holding sound's rest.
        """
        is_greeted = self.agent.greeting and not self.events.continues
        since_s = self.events.started_s if is_greeted else self.ai.asked_s or now_s
        waited_s = max(0.0, now_s + self.downlink.unsent_s() - since_s)
        self.first_word_ms = round(waited_s * _MS)
        self.context.cells.first_audio.observe(waited_s)

    def on_tokens(self, model: str, tokens: Tokens) -> None:
        """Count the usage of a response, or of a transcription."""
        self.spending.add(model, tokens)
        if model == self.agent.model:
            self.context.token_minutes[model].on_used(self.sid, sum(tokens), monotonic())
        self.spending.check(self._on_standing)

    def _on_standing(self, level: Level) -> None:
        self.dialogue.on(given.BudgetSpent() if level is Level.SPENT else given.BudgetNear())

    def on_job_settled(self, settled: bus.JobSettled) -> None:
        """Take a job's result, once. Never waits."""
        event: Input | None = self.digits.on_settled(settled)
        if event is None:
            event = self.tools.on_settled(settled)
        if event is not None:
            self.dialogue.on(event)

    # -- the end ----------------------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        """Bound every wait of this call that has no timeout; called several times a second."""
        self.dialogue.check_heard(now_s)
        self.ending.check(now_s)
        self.spending.report_in_time(now_s)
        if self.dialogue.machine.is_ready and not self.state.has_ended:
            self.spending.check(self._on_standing)
            problem = self.ai.check(now_s)
            if problem is not None:
                self.dialogue.lose_session(given.SessionLost(problem[0]), problem[1], is_expired=False)

    def end(self, reason: Reason, detail: str = "", silent_s: float = 0.0) -> None:
        """End now, from outside the dialogue. Idempotent; never waits. `silent_s`: since Twilio left the stream."""
        self.ending.silent_s = silent_s
        if result_of(reason) is not Result.OWN_ERROR:  # whose cause may be the dialogue itself
            self.dialogue.end(reason, detail)
        self.ending.end(reason, detail)

    def expect_stop(self, for_s: float) -> dict[str, str]:
        """Expect Twilio's `stop` for an operator's transfer. Returns the parameters that every stream of the call has."""
        self.ending.expect_stop(for_s)
        return self._kept

    @property
    def has_left(self) -> bool:
        """True if the agent had the call leave its stream."""
        return self.state.reason in LEFT and not self.ending.is_transferred

    def park(self) -> bool:
        """Keep the AI's session if the agent had the call leave, for its return. Never waits."""
        wish = self.tools.leaves_for()
        if not self.has_left or wish is None or not self.context.parked.has_room:
            return False
        parked = self.ai.park(self.dialogue.lifetime_ms(), wish)
        if parked is None:
            return False
        self.context.parked.keep(self.sid, parked)
        return True

    def report_end(self) -> None:
        """Report how the call went, once its greenlets are gone."""
        ending, downlink = self.ending, self.downlink
        reason = self.state.reason or Reason.INTERNAL_ERROR
        self.tools.on_end(has_left=self.has_left)
        heard_frames = downlink.pacer.heard_frames(ending.ended_s)
        self.report_turns(self.turns.on_end(downlink.playout.outcomes(heard_frames)))
        self.uplink.on_end()
        left = downlink.playout.clear(downlink.pacer.sent_frames)
        self.context.cells.dropped["call_ended"].add(left)
        self.context.cells.ended[reason].add()
        guard = downlink.guard
        if guard.enabled and not guard.is_announced and downlink.tx.first_audio_sent:
            self.events.note("not_announced")
        result, detail, quality = ending.result, ending.detail[:500], self._quality(left)
        self.spending.report(ending.ended_s)
        used = self.spending.used()
        self.events.emit(
            bus.CallEnded(self.sid, ending.ended_at, reason, result, detail, quality, self.stream_sid, ending.speak, used)
        )
        level = logging.INFO if result is Result.SUCCESS else logging.WARNING
        log.log(level, "call ended: %s", ending.detail or reason, extra={"call_sid": self.sid, "reason": reason.value})

    def _quality(self, left_frames: int) -> Quality:
        downlink, tx, started_s = self.downlink, self.downlink.tx, self.events.started_s
        dropped = {"bargein": downlink.bargein_dropped, "overrun": downlink.playout.overrun_frames, "call_ended": left_frames}
        return Quality(
            frames_sent=tx.frames_sent,
            frames_expected=downlink.playout.expected_frames,
            send_p50_s=tx.send.percentile_s(0.5),
            send_p99_s=tx.send.percentile_s(0.99),
            send_p999_s=tx.send.percentile_s(0.999),
            send_max_s=tx.send.max_s,
            lateness_p50_s=tx.lateness.percentile_s(0.5),
            lateness_p99_s=tx.lateness.percentile_s(0.99),
            lateness_p999_s=tx.lateness.percentile_s(0.999),
            lateness_max_s=tx.lateness.max_s,
            underrun_ms=round(downlink.pacer.underrun_s * _MS),
            dropped_frames={why: frames for why, frames in dropped.items() if frames},
            uplink_dropped_frames=self.uplink.dropped,
            bargeins=downlink.interruptions,
            first_audio_ms=self.first_word_ms if tx.first_audio_sent else -1,
            ai_first_audio_ms=self.ai.first_audio_ms,
            hub_hold_max_s=self.context.hold_max_s(started_s),
        )


def _call_ms(began_ms: int, events: CallEvents) -> int:
    """Return the call's time, without a reference to the call."""
    return began_ms + int((monotonic() - events.started_s) * _MS)

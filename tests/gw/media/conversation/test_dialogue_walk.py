"""gw.media.conversation.dialogue in random conversations: the parts of the call follow the machine in each."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic

import gevent
import msgspec
import pytest

from gw import bus
from gw.call.dialogue.facts import Floor, Phase
from gw.call.state import Reason, State
from gw.config import Agent, Say, Tool, Turns
from gw.media.ai.leg import AiLegError
from gw.media.ai_in import AiIn
from gw.media.conversation import dialogue
from gw.protocol import ai
from tests.gw.call.dialogue import shortcut
from tests.gw.media.support import ContextMaker, FakeLeg, call_of, put_in_place, transport_and_peer

STEPS = 120
TOOLS = {
    "lookup": Tool(),
    "slow": Tool(filler=Say(say="One moment.")),
    "book": Tool(mode="background"),
    "search": Tool(on_interrupt="cancel"),
}


class Walk:
    """A call with a leg in memory, and the acts of everybody in it."""

    def __init__(self, contexts: ContextMaker, seed: int, clock: Callable[[int], None]) -> None:
        self.random = random.Random(seed)
        self.pass_ms = clock
        self.context, self.emitted = contexts.context(tools=TOOLS)
        self.transport, self.peer = transport_and_peer()
        interruptions = self.random.choice(("model", "gateway", "none"))
        turns = Turns(interruptions=interruptions, protect_greeting_ms=self.random.choice((0, 2000)))
        fallback = self.random.choice(("goodbye", "transfer"))
        agent = Agent(provider="openai", greeting="Hello", fallback=fallback, transfer_to="+15550100", turns=turns)
        agent = msgspec.structs.replace(agent, tools=("hang_up", *TOOLS))
        self.call = call_of(self.context, agent, self.transport)
        self.legs: list[FakeLeg] = []
        self.call.ai._new_leg = self.make_leg
        put_in_place(self.call, self.make_leg())
        self.ai_in = AiIn(self.call)
        self.responses = self.words = self.calls = 0

    def make_leg(self) -> FakeLeg:
        self.legs.append(FakeLeg())
        return self.legs[-1]

    def receive(self, *events: ai.AiEvent) -> None:
        self.ai_in._dispatch(list(events), self.call.ai.number)

    @property
    def response(self) -> str:
        return f"r{self.responses - (self.random.random() < 0.1)}"

    def ready(self) -> None:
        self.receive(ai.SessionCreated(0.0), ai.SessionReady())

    def begin(self) -> None:
        self.responses += 1
        self.receive(ai.ResponseStarted(f"r{self.responses}"))

    def sound(self) -> None:
        self.receive(ai.AudioDelta(self.response, f"i{self.responses}", bytes(self.random.randrange(1, 4000))))

    def done(self) -> None:
        self.receive(ai.ResponseDone(self.response, self.random.choice(("completed", "cancelled", "incomplete")), ""))

    def fail(self) -> None:
        trouble = self.random.choice(("passing", "passing", "rate_limit", "lasting"))
        self.receive(ai.ResponseDone(self.response, "failed", "why", trouble, 3000))

    def error(self) -> None:
        trouble, refuses = self.random.choice(("", "passing", "crossed", "rate_limit")), self.random.choice(("", "response"))
        self.receive(ai.AiError("odd", "why", False, trouble, 3000, refuses))

    def unreadable(self) -> None:
        self.receive(ai.Unreadable("bad_json", "cut"))

    def speak(self) -> None:
        self.words += 1
        self.receive(ai.SpeechStarted(f"c{self.words}", 0))

    def fall_silent(self) -> None:
        self.receive(ai.SpeechStopped(f"c{self.words}"))

    def transcribe(self) -> None:
        self.receive(ai.CallerTranscript(f"c{self.words}", self.random.choice(("mhm", "wait"))))

    def call_tool(self) -> None:
        self.calls += 1
        self.receive(
            ai.ToolCall(self.response, "", f"t{self.calls}", self.random.choice((*TOOLS, "lookup", "unknown", "hang_up")), "{}")
        )

    def settle(self) -> None:
        """Settle a job of this call, also one that was settled, or given up."""
        jobs = [event for event in self.emitted if isinstance(event, bus.JobWanted)]
        if jobs:
            job = self.random.choice(jobs)
            outcome, output = self.random.choice((("ok", "42"), ("refused", '{"error":"refused"}')))
            self.call.on_job_settled(bus.JobSettled(job.id, job.call_sid, outcome, output))

    def press(self) -> None:
        self.call.on_key(self.random.choice("1#"))

    def hear(self) -> None:
        while self.call.downlink.playout.pop() is not None:
            pass
        for name, _ in list(self.call.downlink.playout.marks_pending):
            self.call.on_mark_echo(name)
        self.call.check(monotonic())

    def pause(self) -> None:
        (self.call.on_frames_missing if self.random.random() < 0.5 else self.call.on_frames_back)()

    def lose(self) -> None:
        if self.random.random() < 0.2:
            self.ai_in._report(AiLegError(self.random.choice((Reason.AI_LOST, Reason.AI_RATE_LIMITED)), "gone", wait_ms=2000))

    def pass_time(self) -> None:
        machine = self.call.dialogue.machine
        self.pass_ms(min(max(0, machine.deadline_ms - dialogue._now_ms()), self.random.choice((300, 5000, 60_000))))
        if machine.deadline_ms <= dialogue._now_ms():
            self.call.dialogue._carry_out(machine.tick(dialogue._now_ms()))

    def succeed(self) -> None:
        if self.call.dialogue.machine.is_ready and self.random.random() < 0.1:
            self.call.dialogue.machine.quiet_at = 0
            self.pass_time()
        if (successor := self.call.ai.successor) is not None:
            successor.leg.put(ai.SessionCreated(0.0), ai.SessionReady())
            gevent.sleep(0)

    def judge(self) -> None:
        """Compare the parts of the call with the machine."""
        call, machine = self.call, self.call.dialogue.machine
        if machine.phase is Phase.TALK:
            assert call.state.now is (State.ACTIVE if machine.is_ready else State.CONNECTING)
            assert call.ai.is_wanted
        elif machine.phase is Phase.CLOSING:
            assert call.state.now is State.CLOSING
            assert call.ai.is_wanted or not machine.is_ready
        held = [call_id for call_id, result in machine.held_results if result == "unknown_outcome"]  # for the next session
        assert len(call.tools.open_jobs) == len(machine.open_tools) + len(held) or machine.phase is not Phase.TALK
        outputs = self.outputs()
        assert len(outputs) == len(set(outputs))
        assert (call.dialogue._hold_sound._player is not None) == machine.holds_sound
        assert call.downlink.tx.held == (machine.floor is Floor.HELD)
        assert call.uplink._ready <= machine.is_ready

    def outputs(self) -> list[tuple[int, str]]:
        """Return each output the AI was sent, with the number of its leg."""
        return [(n, sent[1]) for n, leg in enumerate(self.legs) for sent in leg.sent if sent[0] == "tool_output"]

    def close(self) -> None:
        self.call.dialogue.stop()
        gevent.killall(list(self.call.ai.greenlets))
        self.transport.shut()
        self.peer.close()


ACTS = (
    *[Walk.ready, Walk.begin, Walk.begin, Walk.sound, Walk.sound, Walk.sound, Walk.done, Walk.done, Walk.fail, Walk.error],
    *[Walk.unreadable, Walk.speak, Walk.fall_silent, Walk.transcribe, Walk.call_tool, Walk.press, Walk.hear, Walk.pause],
    *[Walk.call_tool, Walk.settle, Walk.settle],
    *[Walk.lose, Walk.pass_time, Walk.pass_time, Walk.succeed],
)


@pytest.mark.parametrize("seed", range(40))
def test_the_call_follows_its_machine(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    shortcut.compare(monkeypatch)
    passed_ms = [0]
    monkeypatch.setattr(dialogue, "_now_ms", lambda: int(monotonic() * 1000) + passed_ms[0])
    walk = Walk(contexts, seed, lambda ms: passed_ms.append(passed_ms.pop() + ms))
    acts = []
    try:
        for _ in range(STEPS):
            if walk.call.state.has_ended:
                break
            acts.append(walk.random.choice(ACTS))
            acts[-1](walk)
            walk.judge()
        walk.call.end(Reason.CALLER_HANGUP)
        walk.call.report_end()
    except Exception as error:
        error.add_note(" ".join(act.__name__ for act in acts))
        raise
    finally:
        walk.close()

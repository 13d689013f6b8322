"""Digits that callers type for a tool, in whole calls: collected, masked, and never recorded.

No file that the gateway wrote, no event, no log line and no message to the AI has a sensitive digit. The recording is paused
while they are typed, and continues afterwards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import gw.config
from gw.config import EventHook, Hooks, Tool
from gw.protocol.audio import SILENCE_BYTE
from gw.twin.ai.faults import Call
from gw.twin.hooks import HookRequest, HookTwin
from gw.twin.twilio.rest.recording import TwinRecording
from gw.twin.twilio.steps import Step
from tests.calls.gateway import HOOK_SECRET
from tests.calls.hearing import WORD
from tests.calls.held import NO_SOUND, Case, Held, hold_all, says
from tests.calls.shared import murmur

#: No other number of the test has these.
CARD: Final = "27182845"
PIN: Final = "31416"
LISTENS: Final = Step("hang_up", "quiet", 1.8, patience_s=12.0)


def types(keys: str, *, after_s: float = 1.5) -> tuple[Step, ...]:
    """Let the caller type keys in two halves, once the agent is silent."""
    half = len(keys) // 2
    return (
        Step("press", "quiet", after_s, keys=" ".join(keys[:half])),
        Step("press", "after", 0.4, keys=" ".join(keys[half:])),
    )


def collects(arguments: dict[str, Any], *steps: Step, then: tuple[Call, ...] = (), late: bool = False, **plan: Any) -> Case:
    """Return a case whose greeting asks for digits. The next response makes the calls of `then`.

    `late`: the caller is greeted and speaks first, so that the call is being recorded.
    """
    first = 2 if late else 1
    calls = {first: (Call("collect_digits", json.dumps(arguments)),), first + 1: then}
    script = says(0.6, 0.6, calls={number: made for number, made in calls.items() if made})
    steps = (Step("say", "quiet", 0.3, audio=WORD), *steps) if late else steps
    return Case(script, says(0.6, 0.6), steps=steps, agent={"tools": ("hang_up", "collect_digits", "pay", "echo")}, plan=plan)


PAYS: Final = (Call("pay", '{"card": {"ref": "d1"}, "amount": 5}'),)
CASES: Final = {
    "plain": collects({"min": 4, "max": 4}, *types("1234"), LISTENS),
    "terminated": collects({}, *types("12345#"), LISTENS),
    "timeout": collects(
        {"min": 4, "max": 4, "timeout_s": 2}, *types("12", after_s=0.4), Step("hang_up", "quiet", 2.5, patience_s=12.0)
    ),
    "nothing": collects({"timeout_s": 1}, LISTENS),
    "invalid": collects({"min": 9, "max": 4}, LISTENS),
    "secret": collects(
        {"sensitive": True},
        Step("say", "quiet", 0.3, audio=b"".join(murmur(3.0))),
        Step("press", "after", -1.2, keys=" ".join(CARD[:4])),
        Step("press", "after", 0.5, keys=" ".join(f"{CARD[4:]}#")),
        LISTENS,
        then=PAYS,
        late=True,
    ),
    "pin": collects(
        {"min": 5, "max": 5, "sensitive": True}, *types(PIN), LISTENS, then=(Call("echo", '{"pin": {"ref": "d1"}}'),), late=True
    ),
    "unknown_ref": collects({"sensitive": True}, *types(f"{CARD}#"), LISTENS, then=(Call("pay", '{"card": {"ref": "d7"}}'),)),
    "misfit": collects({"sensitive": True}, *types(f"{CARD}#"), LISTENS, then=(Call("pay", '{"amount": {"ref": "d1"}}'),)),
    "early": collects({"sensitive": True}, *types(f"{CARD}#"), LISTENS),
    "left": collects(
        {"sensitive": True}, Step("press", "quiet", 1.5, keys=" ".join(CARD[:4])), Step("hang_up", "after", 0.5), late=True
    ),
    "spoken": collects({"min": 4, "max": 4}, Step("say", "quiet", 0.3, audio=WORD), *types("1234"), LISTENS),
    "broken": collects(
        {"sensitive": True},
        Step("press", "quiet", 1.5, keys=" ".join(CARD[:4])),
        Step("reset", "after", 0.3),
        LISTENS,
        late=True,
    ),
}


@dataclass(frozen=True)
class Run:
    """The calls, and what everything else received and wrote."""

    held: dict[str, Held]
    hooks: HookTwin
    recordings: dict[str, list[TwinRecording]]
    folder: Path
    metrics: dict[str, float]

    def __getitem__(self, name: str) -> Held:
        return self.held[name]

    def requests(self, name: str, tool: str) -> list[HookRequest]:
        sid = self.held[name].call.call_sid
        return [one for one in self.hooks.requests if one.body.get("tool") == tool and one.body["call"]["sid"] == sid]

    def output(self, name: str, number: int = 0) -> dict[str, Any]:
        """Return the AI's output of a tool call."""
        outputs = [output["output"] for session in self.held[name].sessions for output in session.tool_outputs]
        found: dict[str, Any] = json.loads(outputs[number])
        return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("digits")
    recordings: dict[str, list[TwinRecording]] = {}
    metrics: dict[str, float] = {}

    def keep(world: Any, outcome: Any) -> None:
        world.twilio.rest.wait_callbacks()
        for name, call in outcome.calls.items():
            recordings[name] = world.twilio.rest.recordings_of(call.call_sid)
        world.gateway.until(lambda: not world.gateway.control._jobs.backlog().open, "every event is delivered")
        metrics.update(world.gateway.metrics())

    with HookTwin(HOOK_SECRET) as hooks:
        hooks.reply = lambda request: json.dumps({"done": request.body.get("arguments")}).encode()
        card = '{"type":"object","properties":{"card":{"type":"string"},"amount":{"type":"integer"}}}'
        tools = {
            "pay": Tool(description="Pays.", url=hooks.url("ok/pay"), parameters=card),
            "echo": Tool(description="Repeats.", url=hooks.url("ok/echo"), parameters='{"type":"object"}'),
        }
        events = EventHook(
            url=hooks.url("ok/events"), types=("call.started", "call.ended", "tool.called"), transcript="live", give_up_h=1
        )
        held = hold_all(
            folder,
            shared_store,
            NO_SOUND,
            CASES,
            head_start_s={},
            then=keep,
            tools=tools,
            events=(events,),
            hooks=Hooks(allow_networks=("127.0.0.1/32",)),
        )
        yield Run(held, hooks, recordings, folder, metrics)


def pressed_at(one: Held) -> list[float]:
    """Return when the caller typed, in epoch seconds."""
    offset = time.time() - time.monotonic()
    return [at_s + offset for at_s, step in one.call.done if step.kind == "press"]


@pytest.mark.parametrize("name", [name for name in CASES if name != "broken"])
def test_neither_twin_has_a_complaint(run: Run, name: str) -> None:
    one = run[name]
    assert (one.call.error, one.call.warnings) == ("", [])
    assert [session.violations for session in one.sessions] == [[] for _ in one.sessions]
    assert (one.row["reason"], one.row["result"]) == ("caller_hangup", "success"), one.row["detail"]


def test_digits_are_the_tools_output(run: Run) -> None:
    assert run.output("plain") == {"digits": "1234"}
    assert run.output("terminated") == {"digits": "12345"}
    assert run.output("timeout") == {"digits": "12", "error": "timeout"}
    assert run.output("nothing") == {"digits": "", "error": "timeout"}
    assert run.output("invalid")["error"] == "invalid_arguments"
    assert run.output("spoken") == {"digits": "1234"}


def test_an_answer_follows_the_digits(run: Run) -> None:
    for name in ("plain", "timeout", "secret"):
        assert run[name].is_whole(run[name].responses[1]), name


def test_sensitive_digits_are_masked_and_reach_the_tool_alone(run: Run) -> None:
    assert run.output("secret") == {"digits": "****2845", "ref": "d1"}
    (request,) = run.requests("secret", "pay")
    assert request.body["arguments"] == {"card": CARD, "amount": 5}
    assert run.output("secret", 1) == {"done": {"card": "****2845", "amount": 5}}


def test_a_short_secret_shows_nothing(run: Run) -> None:
    assert run.output("pin") == {"digits": "****", "ref": "d1"}
    (request,) = run.requests("pin", "echo")
    assert request.body["arguments"] == {"pin": PIN}
    assert run.output("pin", 1) == {"done": {"pin": "****"}}


def test_unknown_digits_and_digits_that_do_not_fit_are_an_error(run: Run) -> None:
    assert run.output("unknown_ref", 1)["error"] == "invalid_arguments"
    assert run.requests("unknown_ref", "pay") == []
    misfit = run.output("misfit", 1)
    assert misfit["error"] == "invalid_arguments"
    assert CARD not in json.dumps(misfit)


@pytest.mark.parametrize("name", ["secret", "pin", "left", "broken"])
def test_the_recording_is_paused_while_the_caller_types_and_continues(run: Run, name: str) -> None:
    (recording,) = run.recordings[name]
    typed = pressed_at(run[name])
    assert typed
    assert [recording.records(at) for at in typed] == [False] * len(typed)
    assert [status for _, status in recording.changes] == ["paused", "in-progress"][: len(recording.changes)]
    assert recording.pause_behavior == "silence"
    if name != "left":
        assert recording.changes[-1][1] == "in-progress"
    assert recording.status == "completed"


def test_no_recording_starts_while_the_caller_types(run: Run) -> None:
    (recording,) = run.recordings["early"]
    assert recording.started_at > max(pressed_at(run["early"]))
    assert recording.changes == []


@pytest.mark.parametrize("name", ["secret", "pin"])
def test_a_calls_events_report_the_pause(run: Run, name: str) -> None:
    kinds = [event["kind"] for event in run[name].row["events"] if event["kind"].startswith("recording_")]
    assert kinds == ["recording_paused", "recording_resumed"]


def test_digits_that_are_not_sensitive_pause_nothing(run: Run) -> None:
    (recording,) = run.recordings["plain"]
    assert recording.changes == []


def test_the_ai_hears_silence_from_the_call_to_its_output(run: Run) -> None:
    one = run["secret"]
    (session,) = one.sessions
    (call, *_) = session.calls
    output_s = next(item.at_s for item in session.items if item.kind == "function_call_output")
    spoken = [at_s for at_s, frame in zip(one.call.sent_s, frames_of(one), strict=True) if set(frame) != {SILENCE_BYTE}]
    concealed = [at_s for at_s in spoken if call.at_s + 0.2 < at_s < output_s - 0.2]
    assert len(concealed) > 20, "the caller's line is noisy meanwhile"
    heard = bytes(session.uplink)
    missing = [frame for at_s, frame in zip(one.call.sent_s, frames_of(one), strict=True) if at_s in set(concealed)]
    assert [frame for frame in missing if frame in heard] == []


def frames_of(one: Held) -> list[bytes]:
    audio = bytes(one.call.sent_speech)
    return [audio[n : n + 160] for n in range(0, len(audio), 160)]


def test_no_file_no_event_no_log_and_no_message_has_a_sensitive_digit(run: Run) -> None:
    secrets = [CARD.encode(), PIN.encode(), CARD[:4].encode() + b'"']
    found = []
    for path in run.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found += [(str(path), secret) for secret in secrets if secret in content]
    for request in run.hooks.requests:
        if request.body.get("tool") not in ("pay", "echo"):
            found += [(request.path, secret) for secret in secrets if secret in request.content]
    for one in run.held.values():
        rows = json.dumps(one.row).encode()
        found += [("the store", secret) for secret in secrets if secret in rows]
        for session in one.sessions:
            for event in session.events:
                found += [(event.kind, secret) for secret in secrets if secret in json.dumps(event.body).encode()]
    for line in run["secret"].log:
        found += [(str(line), secret) for secret in secrets if secret.decode() in str(line)]
    assert found == []


def test_pauses_are_counted(run: Run) -> None:
    metrics = run.metrics
    changes = [status for kept in run.recordings.values() for recording in kept for _, status in recording.changes]
    assert metrics['gw_recording_pauses_total{outcome="paused"}'] == changes.count("paused") >= 4
    assert metrics['gw_recording_pauses_total{outcome="pause_failed"}'] == 0.0

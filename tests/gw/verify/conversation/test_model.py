"""The model of a conversation: random walks far beyond the explored scenarios keep the rules; a crash is a violation."""

from __future__ import annotations

import random

import pytest

from gw.call.dialogue.machine import Dialogue
from gw.call.dialogue.rules import COLLECT_MS, Interruptions, Rules, ToolRules
from gw.call.digits import Asked
from gw.verify.conversation.model import ConversationModel
from gw.verify.conversation.state import ENDS, Scenario, State
from tests.gw.call.dialogue import shortcut

FAULTS = frozenset(
    (
        *("fail", "lasting", "limit", "empty", "refuse", "session", "successor", "stall", "slow"),
        *(
            "repeat",
            "late",
            "trailing",
            "unreadable",
            "unasked",
            "unreported",
            "starve",
            "frames",
            "stream",
            "more",
            "unrecorded",
            "unpaused",
        ),
    )
)


TOOLS = {
    "lookup": ToolRules(),
    "slow": ToolRules(filler="say"),
    "silent": ToolRules(filler="none"),
    "book": ToolRules(waits=False),
    "search": ToolRules(cancels=True),
    "collect": ToolRules(timeout_ms=COLLECT_MS, filler="none", collects=True),
}


def walk(scenario: Scenario, seed: int, steps: int) -> tuple[State, list[str]]:
    """Take random steps. Returns the last state and the transcript."""
    model, chance = ConversationModel(scenario), random.Random(seed)
    state, transcript = model.first(), []
    for _ in range(steps):
        moves = model.steps(state)
        if not moves:
            break
        step = chance.choice(moves)
        state = step.state
        transcript.append(step.label)
    return state, transcript


@pytest.mark.parametrize("interruptions", ["model", "gateway", "none"])
@pytest.mark.parametrize("seed", range(40))
def test_long_conversations_keep_the_rules(seed: int, interruptions: Interruptions, monkeypatch: pytest.MonkeyPatch) -> None:
    shortcut.compare(monkeypatch)
    rules = Rules(tools=TOOLS, interruptions=interruptions, max_call_ms=300_000)
    rules = rules._replace(protect_greeting_ms=seed % 2 * 900)
    chance = random.Random(seed)
    tools = tuple(chance.choice((*TOOLS, "unknown", "hang_up")) for _ in range(7))
    scenario = Scenario("long", rules, turns=8, tools=tools, keys="12#3", faults=FAULTS, budget=6, expires_ms=200_000)
    asked = Asked(least=2, most=3, pause_ms=4000, is_sensitive=seed % 4 < 2)
    recorded_ms, notice_ms = 3000 if seed % 3 == 0 else 0, 2000 if seed % 5 == 0 else 0
    scenario = scenario._replace(recorded_ms=recorded_ms, notice_ms=notice_ms, asked=asked)
    state, transcript = walk(scenario, seed, 200)
    assert not state.truth.broken, "\n".join([*transcript, *state.truth.broken])


def test_a_crash_of_the_machine_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Dialogue, "_settle", crash)
    model = ConversationModel(Scenario("plain", Rules()))
    steps = model.steps(model.first())
    assert steps
    assert all("a defect" in step.label and list(model.wrong(step.state)) == [ENDS] for step in steps)

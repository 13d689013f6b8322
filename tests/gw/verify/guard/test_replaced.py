"""A naive guard as a model: the checker finds each of its three bugs, alone and together.

The naive guard asks only when a further chunk of AI audio arrives, keeps its flag in the stream, so that a resumed stream lacks
it, and sets the flag before Twilio answered, so that no retry runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from gw.control.recording.lifecycle import Leave, Lifecycle
from gw.verify.explorer import Explored, Explorer
from gw.verify.guard.claim_row import ABSENT, ClaimRow, Operation, RowStore, Written
from gw.verify.guard.model import ASKED_ONCE, ONE, PROMPT, STARTED, TRUE, GuardModel, Scenario
from gw.verify.guard.parts import AiOutTurn, Parts


class AsksOnChunks(Parts):
    """AI-out reads the flag only when it has a chunk."""

    def turn(self, *, flag: bool, started: bool, room: bool, chunk: bool, announced: bool = True) -> AiOutTurn:
        asked = super().turn(flag=flag, started=started, room=room, chunk=chunk, announced=announced)
        return asked if chunk else AiOutTurn(0, started, asked.wait_ms, blocked=False)

    def last_turn(self, *, flag: bool, started: bool, room: bool, announced: bool = True) -> AiOutTurn:
        return AiOutTurn(0, started, -1, blocked=False)


class RetriesNothing(Parts):
    """The flag is set before Twilio answers: there is no retry."""

    def answered(self, lifecycle: Lifecycle, answer: object, owned: bool) -> Lifecycle:
        after = super().answered(lifecycle, answer, owned)
        return after if str(answer).startswith("started") else msgspec.structs.replace(after, action=Leave("taken"))


class AllOfIt(AsksOnChunks, RetriesNothing):
    pass


class NoRow(RowStore):
    """The flag is in the stream: without a row, every worker may start a recording."""

    def apply(self, form: int, operation: Operation) -> Written:
        return Written(ABSENT, isinstance(operation, ClaimRow), moved=False)


@pytest.fixture(scope="module")
def no_row() -> Iterator[RowStore]:
    made = NoRow()
    yield made
    made.close()


def explore(parts: Parts, faults: str = "", *, budget: int = 1, chunks: int = 1) -> Explored:
    scenario = Scenario("replaced", frozenset(filter(None, faults.split(","))), budget if faults else 0, chunks=chunks)
    seen = Explorer(GuardModel(scenario, parts.row_store, parts), max_states=60_000).run()
    assert seen.complete
    return seen


def violations(seen: Explored) -> dict[str, tuple[str, ...]]:
    return {violation.invariant: violation.steps for violation in seen.violations}


def test_a_short_greeting_is_never_recorded(rows: RowStore) -> None:
    found = violations(explore(AsksOnChunks(rows)))
    assert set(found) == {PROMPT, STARTED, ASKED_ONCE}
    assert found[STARTED][0] == "worker 1: TX's first frame reaches the kernel"
    assert not any("AI-out takes a turn" in step for step in found[PROMPT])
    assert sum(step.endswith(" pass") for step in found[PROMPT]) == len([step for step in found[PROMPT] if "pass" in step])


def test_a_resumed_stream_is_recorded_twice(no_row: RowStore) -> None:
    found = violations(explore(Parts(no_row), "stream drops"))
    assert set(found) == {ONE, TRUE}, "without a row, no state agrees with Twilio"
    way = found[ONE]
    assert way.count("control asks Twilio to create: it is made") == 2
    assert "the call's stream comes back at another worker" in way


@pytest.mark.parametrize("refusal", ["20429", "503"])
def test_a_refused_start_is_never_tried_again(rows: RowStore, refusal: str) -> None:
    found = violations(explore(RetriesNothing(rows), refusal))
    assert STARTED in found
    assert any(refusal in step for step in found[STARTED])


def test_the_three_are_found_in_one_model(no_row: RowStore) -> None:
    found = violations(explore(AllOfIt(no_row), "stream drops,20429", budget=2))
    assert {PROMPT, STARTED} <= set(found)
    assert ONE in violations(explore(RetriesNothing(no_row), "stream drops,20429", budget=2))


def test_the_production_guard_has_none_of_them(rows: RowStore) -> None:
    assert violations(explore(Parts(rows), "stream drops,20429,503,21220", budget=2)) == {}

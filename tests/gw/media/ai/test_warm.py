"""gw.media.ai.warm: a leg is taken by its call, or closed; each outcome is counted once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from gw.call.state import Reason
from gw.config import Agent
from gw.media.ai.leg import AiLegError
from gw.media.ai.warm import UNUSED_S, WarmLegs
from gw.protocol import ai
from metrics.page import Page
from tests.gw.media.support import FakeLeg, until

CALL = "CA" + "1" * 32
WARM = Agent(warm=True)


def ready() -> tuple[ai.AiEvent, ...]:
    """Return the events of a session that lasts an hour from now."""
    return (ai.SessionCreated(time.time() + 3600.0), ai.SessionReady())


class Rig:
    """Warm legs whose AI is in memory."""

    def __init__(self, page: Page, slots: int = 20) -> None:
        self.made: list[FakeLeg] = []
        self.script: tuple[ai.AiEvent, ...] = ready()
        self.expected = True
        self.legs = WarmLegs(page, self._make, lambda call_sid: self.expected, slots, 1.0)

    def _make(self, agent: Agent) -> Any:
        self.made.append(FakeLeg(*self.script))
        return self.made[-1]

    def open(self, call_sid: str = CALL, agent: Agent | None = WARM) -> None:
        self.legs.open(call_sid, agent)
        gevent.sleep(0)

    @property
    def outcomes(self) -> dict[str, int]:
        return {outcome: int(cell.value) for outcome, cell in self.legs._cells.items() if cell.value}


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    made = Page.claim(tmp_path, "worker-0")
    yield made
    made.close()


@pytest.fixture
def rig(page: Page) -> Rig:
    return Rig(page)


def is_closed(leg: FakeLeg) -> bool:
    return ("close",) in leg.sent


def test_a_session_that_is_ready_is_taken_with_its_leg(rig: Rig) -> None:
    rig.open()
    warm = rig.legs.take(CALL, WARM)
    assert warm is not None
    lifetime_ms = warm.take(1.0)
    assert lifetime_ms is not None
    assert 3_500_000 < lifetime_ms <= 3_600_000
    assert warm.leg is rig.made[0]
    rig.made[0].put(ai.SpeechStarted("c1", 0))
    gevent.sleep(0.01)
    assert rig.made[0].read() == [ai.SpeechStarted("c1", 0)], "nothing else reads it"
    assert not is_closed(rig.made[0])
    assert rig.outcomes == {"used": 1}
    assert rig.legs.take(CALL, WARM) is None, "a call has one"


def test_a_session_that_is_not_ready_yet_is_awaited(rig: Rig) -> None:
    rig.script = ()
    rig.open()
    warm = rig.legs.take(CALL, WARM)
    assert warm is not None
    gevent.spawn_later(0.02, rig.made[0].put, *ready())
    assert warm.take(1.0) is not None
    assert rig.outcomes == {"used": 1}


@pytest.mark.parametrize("fault", ["refused", "late"])
def test_a_session_that_is_not_confirmed_is_closed(rig: Rig, fault: str) -> None:
    rig.script = ()
    rig.open()
    warm = rig.legs.take(CALL, WARM)
    assert warm is not None
    if fault == "refused":
        gevent.spawn_later(0.02, rig.made[0].fail, AiLegError(Reason.AI_REFUSED, "no"))
    assert warm.take(0.1) is None
    until(lambda: is_closed(rig.made[0]), "the leg is closed")
    assert rig.outcomes == {"failed": 1}


def test_a_call_that_ends_while_it_waits_closes_the_leg(rig: Rig) -> None:
    rig.script = ()
    rig.open()
    warm = rig.legs.take(CALL, WARM)
    assert warm is not None
    waiting = gevent.spawn(warm.take, 10.0)
    gevent.sleep(0.01)
    waiting.kill()
    until(lambda: is_closed(rig.made[0]), "the leg is closed")
    assert rig.outcomes == {"failed": 1}


def test_a_leg_that_no_stream_takes_is_closed(rig: Rig) -> None:
    rig.open()
    now_s = time.monotonic()
    rig.legs.check(now_s + UNUSED_S - 1.0)
    assert rig.outcomes == {}
    rig.legs.check(now_s + UNUSED_S + 0.1)
    until(lambda: is_closed(rig.made[0]), "the leg is closed")
    assert rig.outcomes == {"unused": 1}
    assert rig.legs.take(CALL, WARM) is None


def test_a_leg_whose_stream_came_to_another_worker_is_closed(rig: Rig) -> None:
    """In the first check this worker's own call may be about to take it."""
    rig.open()
    rig.expected = False
    rig.legs.check(time.monotonic())
    assert rig.outcomes == {}
    rig.legs.check(time.monotonic())
    until(lambda: is_closed(rig.made[0]), "the leg is closed")
    assert rig.outcomes == {"elsewhere": 1}


def test_a_leg_that_fails_is_counted_once(rig: Rig) -> None:
    rig.open()
    rig.made[0].fail(AiLegError(Reason.AI_CLOSED, "idle"))
    until(lambda: is_closed(rig.made[0]), "the leg is closed")
    for _ in range(2):
        rig.legs.check(time.monotonic())
    assert rig.outcomes == {"failed": 1}


def test_a_tenth_of_the_slots_may_have_one(rig: Rig, page: Page) -> None:
    for n in range(3):
        rig.open(f"CA{n}")
    assert (len(rig.made), rig.outcomes) == (2, {"full": 1})
    assert Rig(page, slots=3).legs.most == 1, "a small machine has one"


def test_only_a_warm_agent_has_one(rig: Rig) -> None:
    rig.open(agent=Agent())
    rig.open(agent=None)
    assert (rig.made, rig.outcomes) == ([], {})


def test_a_repeated_webhook_opens_none(rig: Rig) -> None:
    rig.open()
    rig.open()
    assert (len(rig.made), rig.outcomes) == (1, {})


def test_a_stream_of_another_agent_takes_none(rig: Rig) -> None:
    rig.open()
    assert rig.legs.take(CALL, Agent(warm=True, voice="cedar")) is None
    until(lambda: is_closed(rig.made[0]), "the leg is closed")
    assert rig.outcomes == {"unused": 1}


def test_a_worker_that_ends_closes_all(rig: Rig) -> None:
    rig.open()
    rig.open("CA2")
    rig.legs.close()
    until(lambda: all(map(is_closed, rig.made)), "the legs are closed")
    assert rig.outcomes == {"unused": 2}

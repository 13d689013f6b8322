"""gw.twin.twilio.steps: when a step is due, and the notation."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from gw.twin.twilio.steps import BACKCHANNEL, COUGH, NETWORK_FAULTS, Step, StepClock, parse_step


def times(steps: tuple[Step, ...], audible: Iterable[tuple[float, float]] = (), until_s: float = 10.0) -> list[float]:
    """Return when each step is due, on a clock of 20 ms; `audible`: spans in which the caller hears the agent."""
    clock, found = StepClock(steps), []
    spans = list(audible)
    for n in range(int(until_s * 50)):
        now_s = n / 50
        if clock.due(now_s, any(begin_s <= now_s < end_s for begin_s, end_s in spans)):
            found.append(now_s)
    assert clock.is_over == (len(found) == len(steps))
    return found


def test_steps_follow_each_other_in_time() -> None:
    assert times((Step("press", keys="1"), Step("press", wait_s=1.0), Step("hang_up", wait_s=0.5))) == [0.0, 1.0, 1.5]


def test_the_next_step_waits_for_the_end_of_the_words() -> None:
    assert times((Step("say", wait_s=1.0, audio=bytes(8000)), Step("hang_up", wait_s=0.5))) == [1.0, 2.5]


def test_an_interruption_waits_for_the_agents_voice() -> None:
    heard = (Step("say", "heard", 1.0),)
    assert times(heard, [(2.0, 5.0)]) == [3.0]
    assert times(heard, [(2.0, 2.5), (4.0, 6.0)]) == [5.0], "a pause begins anew"
    assert times((Step("press"), *heard), [(0.0, 6.0)]) == [0.0, 1.0], "what was heard before does not count"


def test_an_answer_waits_for_the_agents_silence() -> None:
    quiet = (Step("say", audio=bytes(8000)), Step("say", "quiet", 1.0))
    assert times(quiet, [(3.0, 5.0)]) == [0.0, 6.0]
    assert times(quiet, [(0.0, 0.5), (3.0, 5.0)]) == [0.0, 6.0], "the voice that was interrupted is not the answer"


def test_patience_ends() -> None:
    step = (Step("hang_up", "quiet", 1.0, patience_s=4.0),)
    assert times(step) == [4.0]
    assert times(step, [(0.0, 9.0)]) == [4.0]
    assert times((Step("say", "heard", 1.0, patience_s=2.0),)) == [2.0]


def test_noises_have_the_length_of_their_kind() -> None:
    assert (len(COUGH), len(BACKCHANNEL)) == (2400, 2080)


def test_the_notation_of_steps() -> None:
    def audio_of(name: str) -> bytes:
        return name.encode()

    said = parse_step("say=weasels", audio_of)
    assert (said.kind, said.when, said.audio) == ("say", "quiet", b"weasels")
    assert parse_step("interrupt=a.wav", audio_of).when == "heard"
    assert parse_step("press=12#", audio_of).keys == "1 2 #"
    assert parse_step("wait=1.5", audio_of) == Step("say", wait_s=1.5)
    assert parse_step("hang_up", audio_of).kind == "hang_up"
    assert [parse_step(f"{kind}=2", audio_of) for kind in NETWORK_FAULTS] == [Step(kind, lasts_s=2.0) for kind in NETWORK_FAULTS]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("shout=weasels", "is not a step; expected one of: say=PHRASE"),
        ("say", "expected say=PHRASE"),
        ("hang_up=1", "expected hang_up"),
        ("press=1x", "invalid key"),
        ("wait=soon", "expected seconds"),
        ("wait=nan", "expected seconds"),
        ("reset=601", "expected seconds"),
    ],
)
def test_an_invalid_step_names_the_expected_form(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)):
        parse_step(text, lambda name: b"")

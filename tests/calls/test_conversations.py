"""Eight seeded conversations with faults: every law holds. More: `python -m tests.calls.conversations`."""

from __future__ import annotations

from pathlib import Path

from gw.twin.twilio.steps import NETWORK_FAULTS
from tests.calls.conversations.laws import broken
from tests.calls.conversations.run import hold
from tests.calls.conversations.scripts import CONNECT_FAULTS, HABITS, LASTING, PASSING, conversation

CALLS = 8


def test_the_same_seed_gives_the_same_conversation() -> None:
    assert conversation(7) == conversation(7)
    assert conversation(7).script(1) == conversation(7).script(1)


def test_frames_of_the_voice_are_unique_within_a_conversation() -> None:
    made = conversation(3)
    scripts = [made.script(0), made.script(1)]
    voices = b"".join(one for script in scripts for one in (script.greeting, *script.answers, script.goodbye))
    frames = [voices[at : at + 160] for at in range(0, len(voices), 160)]
    assert len(set(frames)) == len(frames)


def test_every_fault_occurs() -> None:
    found = {fault for seed in range(4000) for fault in conversation(seed).faults} - {"every_time"}
    assert found == {*CONNECT_FAULTS, *HABITS, *LASTING, *NETWORK_FAULTS, *PASSING}


def test_first_words_of_each_kind_occur() -> None:
    made = [conversation(seed) for seed in range(1, CALLS + 1)]
    assert {bool(one.recorded) for one in made} == {one.warm for one in made} == {True, False}


def test_the_laws_hold(tmp_path: Path) -> None:
    made = [conversation(seed) for seed in range(1, CALLS + 1)]
    results = hold(made, tmp_path, at_once=CALLS)
    assert sorted(held.made.seed for held in results) == [one.seed for one in made]
    found = [f"seed {held.made.seed} {held.made.faults}: {law}: {text}" for held in results for law, text in broken(held)]
    assert not found, "\n".join(found)

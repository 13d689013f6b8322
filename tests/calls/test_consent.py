"""The notice of the recording in whole calls: heard to its end before the recording starts, once a call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

import gw.config
from gw.config import Consent, Recording
from gw.twin.twilio.rest.recording import TwinRecording
from gw.twin.twilio.steps import Step
from tests.calls.conversations.scripts import voice
from tests.calls.hearing import WORD
from tests.calls.held import LISTENS, NO_SOUND, Case, Held, hold_all, restated, says
from tests.gw.protocol.test_wav import wav

TEXT: Final = "This call is recorded."
NOTICE_S: Final = 1.2
NOTICE: Final = voice(9, 0, NOTICE_S)
SPEAKS: Final = Step("say", "quiet", 0.3, audio=WORD)


def case(*steps: Step, **agent: Any) -> Case:
    return Case(says(0.6, 0.6), says(0.6, 0.6), steps=steps, agent=agent)


CASES: Final = {
    "heard": case(LISTENS),
    "interrupted": case(Step("say", "heard", 0.3, audio=WORD), LISTENS),
    "left": case(Step("hang_up", "heard", 0.5)),
    "broken": case(Step("reset", "heard", 0.5, lasts_s=0.2), LISTENS),
    "returns": case(SPEAKS, Step("reset", "quiet", 0.3, lasts_s=0.2), LISTENS),
    "off": case(LISTENS, recording=False),
}


@dataclass(frozen=True)
class Run:
    """The calls, and their recordings at Twilio."""

    held: dict[str, Held]
    recordings: dict[str, list[TwinRecording]]

    def __getitem__(self, name: str) -> Held:
        return self.held[name]


def hold(folder: Any, store: gw.config.Store, cases: dict[str, Case], notice: Consent | str) -> Run:
    recordings: dict[str, list[TwinRecording]] = {}

    def keep(world: Any, outcome: Any) -> None:
        world.twilio.rest.wait_callbacks()
        recordings.update((name, world.twilio.rest.recordings_of(call.call_sid)) for name, call in outcome.calls.items())
        recorded = [outcome.calls[name].call_sid for name, made in recordings.items() if made]
        store = world.gateway.store
        world.gateway.until(
            lambda: all(store.recording(sid).state == "completed" for sid in recorded), "the recordings' ends are stored"
        )
        outcome.keep(world)

    held = hold_all(folder, store, NO_SOUND, cases, head_start_s={}, then=keep, recording=Recording(consent=notice))
    return Run(held, recordings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Run:
    folder = tmp_path_factory.mktemp("consent")
    path = folder / "notice.wav"
    path.write_bytes(wav(NOTICE, code=7, bits=8))
    return hold(folder, shared_store, CASES, Consent(file=str(path), text=TEXT))


def times_heard(one: Held) -> int:
    """Return how often the caller heard the whole notice."""
    return bytes(one.call.heard_audio).count(NOTICE[160:-160])


@pytest.mark.parametrize("name", ["heard", "interrupted", "returns"])
def test_the_recording_starts_once_the_notice_is_heard(run: Run, name: str) -> None:
    one = run[name]
    (recording,) = run.recordings[name]
    assert times_heard(one) == 1
    assert one.call.answered_at is not None
    assert recording.started_at - one.call.answered_at > NOTICE_S
    assert one.row["recording"]["state"] == "completed"
    assert (one.call.error, one.call.warnings) == ("", [])


def test_a_caller_who_leaves_before_is_not_recorded(run: Run) -> None:
    assert run.recordings["left"] == []
    assert run["left"].row["recording"] is None
    assert run["left"].events("not_announced") == [{}]


def test_a_stream_that_breaks_in_the_notice_plays_it_again(run: Run) -> None:
    (recording,) = run.recordings["broken"]
    one = run["broken"]
    assert times_heard(one) == 1
    assert len(one.call.streams_s) == 2
    assert recording.status == "completed"


def test_a_call_that_is_not_recorded_has_no_notice(run: Run) -> None:
    assert run.recordings["off"] == []
    assert times_heard(run["off"]) == 0
    assert run["off"].events("recording_off") == [{"by": "agent"}]
    assert run["off"].events("not_announced") == []


def test_the_agent_greets_behind_the_notice_and_has_its_words(run: Run) -> None:
    one = run["heard"]
    assert one.is_whole(one.responses[0])
    assert ("assistant", TEXT) in restated(one.sessions[0])
    assert one.turns("agent")[0]["text"] == TEXT


def test_words_without_a_file_are_spoken_by_twilio_before_the_stream(tmp_path: Path, mariadb_config: gw.config.Store) -> None:
    cases = {name: CASES[name] for name in ("heard", "returns", "off")}
    run = hold(tmp_path, mariadb_config, cases, TEXT)
    assert {name: run[name].call.spoken for name in cases} == {"heard": [TEXT], "returns": [TEXT], "off": []}
    assert {name: len(run.recordings[name]) for name in cases} == {"heard": 1, "returns": 1, "off": 0}

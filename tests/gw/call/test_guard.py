"""gw.call.guard: one yes, at the first turn with audio sent and room in the pool."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.guard import RecordingGuard, is_unrecorded, off_by
from gw.config import Agent, Config, Recording, Route, Secrets, Twilio

turns = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30)


@given(turns)
def test_exactly_one_yes_at_the_first_turn_that_has_audio_and_room(asked: list[tuple[bool, bool]]) -> None:
    guard = RecordingGuard(enabled=True)
    answers = [guard.may_start(first_audio_sent=audio, pool_has_room=room) for audio, room in asked]
    first = asked.index((True, True)) if (True, True) in asked else None
    assert [n for n, yes in enumerate(answers) if yes] == ([] if first is None else [first])
    assert guard.recording_started == (first is not None)


@given(turns)
def test_a_disabled_guard_never_allows_a_recording(asked: list[tuple[bool, bool]]) -> None:
    guard = RecordingGuard(enabled=False)
    assert not any(guard.may_start(first_audio_sent=audio, pool_has_room=room) for audio, room in asked)
    assert not guard.recording_started


def test_a_full_pool_leaves_it_armed() -> None:
    guard = RecordingGuard(enabled=True)
    for _ in range(1000):
        assert not guard.may_start(first_audio_sent=True, pool_has_room=False)
    assert not guard.recording_started
    assert guard.may_start(first_audio_sent=True, pool_has_room=True)


def test_a_turn_without_new_audio_can_start_the_recording() -> None:
    """A short greeting: every frame was sent before the guard was asked, and no audio follows."""
    guard = RecordingGuard(enabled=True)
    assert not guard.may_start(first_audio_sent=False, pool_has_room=True)
    assert guard.may_start(first_audio_sent=True, pool_has_room=True)


def test_the_flag_is_set_before_the_caller_acts() -> None:
    guard = RecordingGuard(enabled=True)
    assert guard.may_start(first_audio_sent=True, pool_has_room=True)
    assert guard.recording_started
    assert not guard.may_start(first_audio_sent=True, pool_has_room=True)


def test_a_guard_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        RecordingGuard(enabled=True).retries = 1  # type: ignore[attr-defined]


def test_a_recording_waits_for_its_notice_and_for_a_caller_who_types() -> None:
    guard = RecordingGuard(enabled=True, is_announced=False)
    assert not guard.may_start(first_audio_sent=True, pool_has_room=True)
    guard.is_announced, guard.is_concealed = True, True
    assert not guard.may_start(first_audio_sent=True, pool_has_room=True)
    assert not guard.recording_started
    guard.is_concealed = False
    assert guard.may_start(first_audio_sent=True, pool_has_room=True)
    assert not guard.may_start(first_audio_sent=True, pool_has_room=True)


def test_a_variable_turns_the_recording_off() -> None:
    off = [value for value in ("false", "No", " off ", "0", "true", "", "yes") if is_unrecorded({"recording": value})]
    assert off == ["false", "No", " off ", "0"]
    assert not is_unrecorded({})


@pytest.mark.parametrize(
    ("config", "agent", "route", "by"),
    [
        ({}, {}, {}, ""),
        ({"secrets": Secrets()}, {}, {}, "no_credentials"),
        ({"recording": Recording(enabled=False)}, {"recording": False}, {}, "disabled"),
        ({}, {"recording": False}, {"record": False}, "agent"),
        ({}, {}, {"variables": {"recording": "No"}, "record": False}, "variable"),
        ({}, {}, {"record": False}, "route"),
    ],
)
def test_the_first_reason_against_a_recording(
    config: dict[str, Any], agent: dict[str, Any], route: dict[str, Any], by: str
) -> None:
    signed = {"twilio": Twilio(account_sid="AC" + "0" * 32), "secrets": Secrets(twilio_auth_token="x")}
    assert off_by(Config(**{**signed, **config}), Agent(**agent), Route(**route)) == by

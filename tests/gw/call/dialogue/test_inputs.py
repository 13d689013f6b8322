"""gw.call.dialogue.inputs: the party that Twilio's verdict names, and the defaults of inputs."""

from __future__ import annotations

import pytest

from gw.call.dialogue import inputs as given
from gw.call.dialogue.inputs import Party, Trouble, party_of
from gw.call.state import Reason


@pytest.mark.parametrize(
    ("verdict", "party"),
    [
        ("human", "person"),
        ("unknown", "person"),
        ("machine_start", None),
        ("machine_end_beep", "machine"),
        ("machine_end_silence", "machine"),
        ("machine_end_other", "machine"),
        ("fax", "fax"),
    ],
)
def test_a_verdict_names_a_party_once_the_announcement_is_over(verdict: str, party: Party | None) -> None:
    """Source: Twilio, Answering Machine Detection, AnsweredBy."""
    assert party_of(verdict) == party


def test_inputs_have_ordinary_defaults() -> None:
    assert given.SessionReady() == given.SessionReady(0) != given.SuccessorReady() == given.SuccessorReady(0)
    assert given.SessionLost(Reason.AI_LOST) == given.SessionLost(Reason.AI_LOST, Trouble.PASSING, 0)
    assert given.Audio("r1") == given.Audio("r1", 0)
    assert given.ResponseDone("r1") == given.ResponseDone("r1", True, Trouble.NONE, 0)
    assert given.CreateRefused(Trouble.CROSSED) == given.CreateRefused(Trouble.CROSSED, 0)
    assert given.CallerText("c1") == given.CallerText("c1", True)
    assert given.ToolCall("r1", "t1", "lookup") == given.ToolCall("r1", "t1", "lookup", True, None)
    assert given.Unreadable() == given.Unreadable(Reason.AI_BAD_JSON)
    assert given.Recorded(2000) == given.Recorded(2000, 0, True)
    assert given.AnsweredBy("machine") == given.AnsweredBy("machine", 0)
    assert given.Concealed() == given.Concealed(True)

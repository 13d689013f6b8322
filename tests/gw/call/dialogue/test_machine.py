"""gw.call.dialogue.machine: the doors of the dialogue. `tests/gw/verify/conversation` explores orders of inputs."""

from __future__ import annotations

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_nothing_follows_the_end() -> None:
    talk = Talk()
    assert talk.on(given.StreamEnded(Reason.PHONE_LOST)) == [do.End(Reason.PHONE_LOST, True)]
    assert talk.on(given.SessionReady()) == []
    assert talk.machine.tick(10**9) == []

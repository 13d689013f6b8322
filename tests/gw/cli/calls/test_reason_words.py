"""gw.cli.calls.reason_words: every reason has an explanation."""

from __future__ import annotations

from gw.call.state import Reason
from gw.cli.calls.reason_words import ENDINGS, REPLACED
from metrics import declare


def test_every_reason_has_an_explanation() -> None:
    assert set(ENDINGS) == {str(reason) for reason in Reason}
    assert set(REPLACED) == set(declare.AI_RECONNECTS.labels["reason"])

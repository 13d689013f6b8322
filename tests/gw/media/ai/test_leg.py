"""gw.media.ai.leg: one error for every failure, and the interface that each kind of leg has."""

from __future__ import annotations

import inspect

import pytest

from gw.call.state import Reason
from gw.media.ai.leg import AiLeg, AiLegError
from gw.media.ai.openai_leg import OpenAiLeg
from gw.media.ai.parrot_leg import ParrotLeg


def test_an_error_has_a_reason_and_is_neither_permanent_nor_an_expiry_by_default() -> None:
    error = AiLegError(Reason.AI_LOST, "the socket broke")
    assert (error.reason, error.detail, str(error)) == (Reason.AI_LOST, "the socket broke", "the socket broke")
    assert (error.permanent, error.expired, error.wait_ms) == (False, False, 0)
    error = AiLegError(Reason.AI_REFUSED, "", permanent=True, expired=True, wait_ms=5)
    assert (error.permanent, error.expired, error.wait_ms) == (True, True, 5)


@pytest.mark.parametrize("kind", [OpenAiLeg, ParrotLeg])
def test_each_kind_of_leg_has_the_same_methods(kind: type) -> None:
    names = [name for name, value in vars(AiLeg).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert len(names) > 8
    for name in names:
        wanted = list(inspect.signature(getattr(AiLeg, name)).parameters)
        assert list(inspect.signature(getattr(kind, name)).parameters) == wanted, name

"""Each defect put into the dialogue is found."""

from __future__ import annotations

import pytest

from gw.verify.conversation.mutants import MUTANTS, Caught, hunt
from gw.verify.conversation.state import RULES


@pytest.fixture(scope="module")
def caught() -> list[Caught]:
    return hunt(MUTANTS)


def test_each_defect_is_found(caught: list[Caught]) -> None:
    assert [one.mutant.name for one in caught if not one.rules] == []
    assert [one.mutant.name for one in caught if not one.transcript] == ["the first session has no deadline"]


def test_each_rule_finds_a_defect_that_no_other_finds(caught: list[Caught]) -> None:
    assert {one.rules[0] for one in caught if len(one.rules) == 1} == set(RULES)

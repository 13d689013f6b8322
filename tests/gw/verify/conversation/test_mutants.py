"""Each defect put into the dialogue is found."""

from __future__ import annotations

import pytest

from gw.verify.conversation.mutants import MUTANTS, Mutant, hunt
from gw.verify.conversation.state import RULES


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_defect_is_found(mutant: Mutant) -> None:
    (caught,) = hunt([mutant])
    assert caught.rules
    assert set(caught.rules) <= set(RULES)
    assert caught.transcript or "deadline" in mutant.name  # without any step: the first state is never left


def test_each_rule_has_defects_that_it_alone_finds() -> None:
    alone = {caught.rules[0] for caught in hunt(MUTANTS) if len(caught.rules) == 1}
    assert alone == set(RULES)

"""Every mutant of TX and the code it calls is caught for the expected reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from gw import ROOT
from gw.verify.purity.check import read
from tests.gw.verify.purity.mutants import MUTANTS, Mutant


def mutated(mutant: Mutant) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path, old, new in mutant.edits:
        text = texts.get(path) or (Path(ROOT) / path).read_text()
        assert text.count(old) == 1, f"{mutant.name}: {old!r} stands {text.count(old)} times in {path}"
        texts[path] = text.replace(old, new)
    return texts


def test_there_are_a_hundred_mutants_with_unique_names():
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_source_reveals_the_mutant(mutant: Mutant):
    problems = read(mutated(mutant)).problems
    assert any(mutant.expected in problem for problem in problems), "\n".join(problems) or "nothing was found"

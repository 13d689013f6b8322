"""tests.mutants: one change per mutant, chosen by the seed; texts for people are left alone."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest

from tests import mutants

SOURCE = '''"""A docstring of 3 words."""
LIMIT: Final[int] = 5


class Box:
    """Another."""

    __slots__ = ("_a", "_b")

    def __init__(self, a: int, b: str = "b") -> None:
        self._a = a
        self._b = b  # 7

    def get(self, n: int) -> int:
        """And one more."""
        if n <= LIMIT and not self._b:
            raise ValueError(f"no {n}", "two words")
        log.info("1 of %d", n)
        return min(self._a + 1, n)
'''


def changes() -> list[tuple[str, str]]:
    source = SOURCE.encode()
    finder = mutants._Finder("box.py", source, random.Random(1))
    finder.visit(ast.parse(source))
    for mutant in finder.mutants:
        ast.parse(mutant.apply(source))
    return [(source[mutant.start : mutant.end].decode(), mutant.text) for mutant in finder.mutants]


def test_every_kind_of_change_is_made() -> None:
    assert {
        *(("5", "6"), ("5", "(4)"), ("1", "2"), ("1", "(0)"), ('"b"', '""')),
        *(("<=", "<"), ("and", "or"), ("not ", ""), ("+", "-"), ("min", "max")),
        *(("a", "b"), ("b", "a"), ("self._a", "self._b"), ("self._b", "self._a")),
        *(("self._a = a", "pass"), ("self._b = b", "pass"), ('raise ValueError(f"no {n}", "two words")', "pass")),
    } == set(changes())


def test_the_seed_chooses_the_mutants() -> None:
    paths = ["gw/call/guard.py", "gw/protocol"]
    assert mutants.find(paths, 20, 1) == mutants.find(paths, 20, 1) != mutants.find(paths, 20, 2)
    assert {mutant.path for mutant in mutants.find(["gw/call/guard.py"], 1000, 1)} == {"gw/call/guard.py"}


def test_a_survivor_is_printed_as_the_changed_line() -> None:
    assert mutants.Mutant("a.py", 6, 7, "(1)").diff(b"x = 1\ny = 2\n") == "a.py:2: y = 2  ->  (1) = 2"


def test_a_modules_own_test() -> None:
    assert mutants.test_of(Path("gw/call/guard.py")) == Path("tests/gw/call/test_guard.py")
    assert mutants.test_of(Path("gw/bus.py")) == Path("tests/gw/test_bus.py")


def test_a_caught_mutant_and_a_survivor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is restored after each."""
    for name in ("gw", "metrics", "deploy", "tests"):
        (tmp_path / "root" / name).mkdir(parents=True)
    root = tmp_path / "root"
    (root / "pyproject.toml").touch()
    (root / "gw" / "box.py").write_text("x = 1\ny = 2\n")
    (root / "tests" / "gw").mkdir()
    (root / "tests" / "gw" / "test_box.py").touch()
    (root / "tests" / "run.py").write_text("import runpy\nassert runpy.run_path('gw/box.py')['x'] == 1\n")
    monkeypatch.setattr(mutants, "ROOT", root)
    tried = [
        mutants.Mutant("gw/box.py", 4, 5, "2"),
        mutants.Mutant("gw/box.py", 10, 11, "3"),
        mutants.Mutant("gw/box.py", 4, 5, "3"),
    ]
    assert mutants.try_all(tried) == [True, False, True]
    (root / "gw" / "box.py").write_text("x = 5\n")
    with pytest.raises(ValueError, match="test_box"):
        mutants.try_all(tried)
    assert (root / "gw" / "box.py").read_text() == "x = 5\n"

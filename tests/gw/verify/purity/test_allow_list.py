"""gw.verify.purity.allow_list: every entry has a place, a reason and a measured cost, and is listed once."""

from __future__ import annotations

import ast
import builtins
import importlib
from pathlib import Path

import pytest

from gw import ROOT
from gw.verify.purity.allow_list import ALLOWED, FORBIDDEN, KINDS, LIMIT_NS
from gw.verify.purity.check import read

#: Kinds whose cost is that of the statement they are part of.
FREE = {"while", "try", "except", "hand"}
#: Names of the evaluator that cannot be imported: the import statement, the type of a lock, the result of a call.
MADE_UP = {"import", "_thread.lock", "gevent.get_hub.threadpool"}


def test_every_entry_has_place_reason_and_cost():
    for entry in ALLOWED:
        assert entry.kind in KINDS
        assert entry.where, entry
        assert len(entry.why) > 5, entry
        assert 0 < entry.cost_ns <= LIMIT_NS or entry.kind in FREE, entry


def test_every_entry_is_unique():
    keys = [(entry.kind, entry.name) for entry in ALLOWED]
    assert len(set(keys)) == len(keys)


def test_nothing_forbidden_is_allowed():
    for entry in ALLOWED:
        for what, marks in FORBIDDEN.items():
            assert not entry.name.startswith(marks), f"{entry.name} is of the kind: {what}"


def exists(prefix: str) -> bool:
    """True if a prefix of FORBIDDEN names a module or an attribute of a module."""
    name = prefix.removesuffix(".")
    if hasattr(builtins, name):
        return True
    parts = name.split(".")
    for known in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:known]))
        except ModuleNotFoundError:
            continue
        for part in parts[known:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("prefix", sorted({mark for marks in FORBIDDEN.values() for mark in marks} - MADE_UP))
def test_every_forbidden_prefix_names_something(prefix: str):
    assert exists(prefix), f"{prefix} names nothing, so its line of the report would always be empty"


def test_the_bench_measures_every_entry_that_costs():
    tree = ast.parse((Path(ROOT) / "tests/bench/operations/allow_list.py").read_text())
    statements = next(
        node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "STATEMENTS"
    )
    assert isinstance(statements.value, ast.Dict)
    measured = {ast.literal_eval(key) for key in statements.value.keys if key is not None}
    wanted = {"write" if entry.kind == "write" else f"{entry.kind} {entry.name}" for entry in ALLOWED if entry.cost_ns}
    assert measured == wanted


def test_the_source_uses_each_entry_in_each_of_its_places():
    static = read()
    assert static.problems == ()
    used = {(operation.kind, operation.name, operation.place.function) for operation in static.operations}
    assert used == {(entry.kind, entry.name, place) for entry in ALLOWED for place in entry.where}


def test_without_an_entry_an_operation_is_refused():
    for left_out in ("time.monotonic", "gw.media.tx.Tx.first_audio_sent", "gw.media.transport.plain.Transport.write"):
        problems = read(allowed=[entry for entry in ALLOWED if entry.name != left_out]).problems
        assert any(left_out in problem and "is not on the allow-list" in problem for problem in problems), left_out


def test_in_another_place_an_operation_is_refused():
    moved = [entry._replace(where=("Tx._count",)) if entry.name == "collections.deque.popleft" else entry for entry in ALLOWED]
    problems = read(allowed=moved).problems
    assert any(problem.startswith("call collections.deque.popleft is allowed elsewhere") for problem in problems)
    assert any("allows call collections.deque.popleft in Tx._count, which no longer does it" in problem for problem in problems)


def test_an_entry_that_breaks_the_rules_is_refused():
    dear = [entry._replace(cost_ns=LIMIT_NS + 1) if entry.name == "gevent.sleep" else entry for entry in ALLOWED]
    assert any("breaks its own rules" in problem for problem in read(allowed=dear).problems)

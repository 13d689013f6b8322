"""gw.media.admission.budget_board: what control reported last, of this day."""

from __future__ import annotations

import time

import pytest

from gw import bus
from gw.call.cost.budget import Left
from gw.call.cost.usage import day_of
from gw.config import Budget
from gw.media.admission import budget_board
from gw.media.admission.budget_board import BudgetBoard

TODAY = day_of(time.time())
ALL = Budget(day_usd=10.0, caller_day_usd=2.0)


def test_before_a_report_nothing_is_known() -> None:
    board = BudgetBoard(ALL)
    assert board.left("+1") == Left()
    assert not board.is_spent("+1")


def test_the_last_report_counts() -> None:
    board = BudgetBoard(ALL)
    board.on_budget(bus.Budget(TODAY, 5.0, {"+1": 1.5, "+2": 0.5}))
    board.on_budget(bus.Budget(TODAY, 4.0, {"+1": 0.0}))
    assert [board.left(caller) for caller in ("+1", "+2", "+3", "")] == [
        Left(4.0, 0.0), Left(4.0, 0.5), Left(4.0, 2.0), Left(4.0, None)
    ]  # fmt: skip
    assert [board.is_spent(caller) for caller in ("+1", "+2", "")] == [True, False, False]
    board.on_budget(bus.Budget(TODAY, -0.1))
    assert board.is_spent("")


def test_a_day_that_is_over_is_void() -> None:
    board = BudgetBoard(ALL)
    board.on_budget(bus.Budget("2026-01-01", 0.0, {"+1": 0.0}))
    assert not board.is_spent("+1")
    board.on_budget(bus.Budget(TODAY, 10.0))
    assert board.left("+1") == Left(10.0, 2.0)


def test_a_limit_that_is_not_configured_does_not_count() -> None:
    board = BudgetBoard(Budget(day_usd=1.0))
    board.on_budget(bus.Budget(TODAY, 1.0, {"+1": 0.0}))
    assert board.left("+1") == Left(1.0, None)
    assert BudgetBoard(Budget(call_usd=1.0)).left("+1") == Left()


def test_callers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_board, "MAX_CALLERS", 2)
    board = BudgetBoard(ALL)
    board.on_budget(bus.Budget(TODAY, 5.0, {"+1": 0.0, "+2": 0.0}))
    board.on_budget(bus.Budget(TODAY, 5.0, {"+1": 0.0, "+3": 0.0}))
    assert [board.is_spent(caller) for caller in ("+1", "+2", "+3")] == [True, False, True]

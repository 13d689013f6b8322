"""gw.twin.polling: a condition that comes to hold, and one that does not."""

from __future__ import annotations

from gw.twin.polling import wait_until


def test_a_condition_is_checked_until_it_holds() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), 5.0)
    assert list(answers) == []


def test_a_condition_that_never_holds_is_bounded() -> None:
    checks: list[None] = []
    assert not wait_until(lambda: bool(checks.append(None)), 0.02, 0.01)
    assert len(checks) >= 2

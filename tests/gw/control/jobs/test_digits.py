"""gw.control.jobs.digits: kept by call and reference, bounded, dropped with the call."""

from __future__ import annotations

from gw import bus
from gw.control.jobs import digits as digits_module
from gw.control.jobs.digits import MAX_REFS, Digits


def test_digits_are_kept_under_their_reference() -> None:
    digits = Digits(60.0)
    answer = digits.answer(bus.Ask(7, "CA1", "digits", fields={"d1": "1234"}))
    assert answer == bus.Answer(7, step=bus.KEPT)
    assert digits.of_call("CA1") == {"d1": "1234"}
    digits.answer(bus.Ask(8, "CA1", "digits", fields={"d1": "9999"}))
    assert digits.of_call("CA1") == {"d1": "1234"}, "a repeated question changes nothing"
    assert digits.of_call("CA2") == {}
    assert "1234" not in repr(digits)


def test_digits_go_with_their_call_and_with_time(monkeypatch) -> None:
    digits = Digits(60.0)
    digits.keep("CA1", "d1", "1", 0.0)
    digits.keep("CA2", "d1", "2", 50.0)
    digits.on_call_over("CA2")
    assert digits.of_call("CA2") == {}
    digits.keep("CA3", "d1", "3", 61.0)
    assert digits.of_call("CA1") == {}
    monkeypatch.setattr(digits_module, "MAX_CALLS", 2)
    digits.keep("CA4", "d1", "4", 62.0)
    digits.keep("CA5", "d1", "5", 63.0)
    assert [digits.of_call(sid) for sid in ("CA3", "CA4", "CA5")] == [{}, {"d1": "4"}, {"d1": "5"}]


def test_a_call_has_so_many() -> None:
    digits = Digits(1e9)
    kept = [digits.keep("CA1", f"d{n}", "1", 0.0) for n in range(MAX_REFS + 1)]
    assert kept == [True] * MAX_REFS + [False]
    assert digits.answer(bus.Ask(1, "CA1", "digits", fields={"d999": "1"})).step == ""

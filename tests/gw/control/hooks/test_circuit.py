"""gw.control.hooks.circuit: five failures in 30 s hold requests back for 15 s, then one is tried."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gw.control.hooks.circuit import OPEN_AFTER, OPEN_S, PROBE_S, WINDOW_S, Circuit


def failed(at_s: float = 100.0, every_s: float = 1.0) -> tuple[Circuit, float]:
    """An open circuit, and the time of its last failure."""
    circuit = Circuit()
    for number in range(OPEN_AFTER):
        assert circuit.may_send(at_s + number * every_s)
        circuit.on_failure(at_s + number * every_s)
    return circuit, at_s + (OPEN_AFTER - 1) * every_s


def test_the_fifth_failure_opens_it_for_15_s() -> None:
    circuit, last_s = failed()
    assert (OPEN_AFTER, OPEN_S, WINDOW_S) == (5, 15.0, 30.0)
    assert circuit.is_open(last_s)
    assert not circuit.may_send(last_s + 14.9)
    assert circuit.may_send(last_s + 15)


def test_failures_further_apart_do_not_open_it() -> None:
    circuit, last_s = failed(every_s=8.0)
    assert circuit.may_send(last_s)
    circuit, last_s = failed(every_s=7.5)
    assert not circuit.may_send(last_s)


def test_an_answer_between_failures_starts_the_count_again() -> None:
    circuit = Circuit()
    for number in range(20):
        circuit.on_failure(number / 10)
        if number % 4 == 3:
            circuit.on_answer()
        assert circuit.may_send(number / 10)


def test_one_probe_at_a_time() -> None:
    circuit, last_s = failed()
    assert circuit.may_send(last_s + 20)
    assert not circuit.may_send(last_s + 20)
    circuit.on_answer()
    assert circuit.may_send(last_s + 20)
    circuit.on_failure(last_s + 20)
    assert circuit.may_send(last_s + 20), "one failure does not open a closed circuit"


def test_a_failed_probe_opens_it_again() -> None:
    circuit, last_s = failed()
    assert circuit.may_send(last_s + 20)
    circuit.on_failure(last_s + 25)
    assert not circuit.may_send(last_s + 39)
    assert circuit.may_send(last_s + 40)


def test_a_probe_without_verdict_lets_the_next_one_go() -> None:
    circuit, last_s = failed()
    assert circuit.may_send(last_s + 20)
    circuit.on_nothing(last_s + 21)
    assert circuit.may_send(last_s + 21)
    assert circuit.is_open(last_s + 22)
    assert circuit.may_send(last_s + 21 + PROBE_S), "a probe that never ends"


def test_late_failures_of_older_requests_do_not_prolong_it() -> None:
    circuit, last_s = failed()
    circuit.on_failure(last_s + 10)
    circuit.on_nothing(last_s + 10)
    assert circuit.may_send(last_s + 15)


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "failure", "nothing"]), st.floats(0, 40)), max_size=60))
def test_it_never_stays_open_for_longer_than_a_probe(steps: list[tuple[str, float]]) -> None:
    circuit, now_s = Circuit(), 0.0
    for step, pause_s in steps:
        now_s += pause_s
        if step == "ask":
            circuit.may_send(now_s)
        elif step == "answer":
            circuit.on_answer()
        elif step == "failure":
            circuit.on_failure(now_s)
        else:
            circuit.on_nothing(now_s)
        assert not circuit.is_open(now_s + PROBE_S)

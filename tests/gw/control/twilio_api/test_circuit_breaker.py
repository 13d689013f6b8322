"""Requests that are sent or held back, in each state of the circuit."""

from __future__ import annotations

import pytest

from gw.control.twilio_api.answers import Kind
from gw.control.twilio_api.circuit_breaker import OPEN_AFTER, PAUSE_FIRST_S, PAUSE_LAST_S, CircuitBreaker

PROBE_S = 10.0


def opened(at_s: float = 100.0) -> CircuitBreaker:
    breaker = CircuitBreaker(PROBE_S)
    for _ in range(OPEN_AFTER):
        assert breaker.may_ask(at_s)
        breaker.on_error("server", "HTTP 503", at_s)
    return breaker


def test_a_few_failures_do_not_open_it() -> None:
    breaker = CircuitBreaker(PROBE_S)
    for _ in range(3):
        for _ in range(OPEN_AFTER - 1):
            breaker.on_error("timeout", "no answer", 100.0)
        breaker.on_answer()
    assert (breaker.state, breaker.opened, breaker.last_problem) == ("closed", 0, "")


@pytest.mark.parametrize("kind", ["busy", "gone", "rejected", "not_in_progress"])
def test_a_refusal_is_an_answer(kind: Kind) -> None:
    breaker = CircuitBreaker(PROBE_S)
    for _ in range(OPEN_AFTER):
        breaker.on_error(kind, "no", 100.0)
    assert not breaker.is_open


def test_refused_credentials_open_it() -> None:
    breaker = CircuitBreaker(PROBE_S)
    for _ in range(OPEN_AFTER):
        breaker.on_error("unauthorized", "20003", 100.0)
    assert (breaker.is_open, breaker.last_problem) == (True, "20003")


def test_it_opens_pauses_and_permits_one_probe() -> None:
    breaker = opened()
    assert (breaker.state, breaker.opened, breaker.last_problem) == ("open", 1, "HTTP 503")
    assert not breaker.may_ask(100.0 + PAUSE_FIRST_S / 2)
    assert breaker.may_ask(100.0 + PAUSE_FIRST_S)
    assert breaker.state == "half-open"
    assert not breaker.may_ask(100.0 + PAUSE_FIRST_S), "one"


def test_an_answer_closes_it() -> None:
    breaker = opened()
    assert breaker.may_ask(102.0)
    breaker.on_answer()
    assert breaker.may_ask(102.0)
    assert (breaker.state, breaker.last_problem) == ("closed", "")


def test_each_further_pause_is_longer_up_to_the_last() -> None:
    breaker, now_s, pauses = opened(), 100.0, []
    for _ in range(8):
        began_s = now_s
        while not breaker.may_ask(now_s):
            now_s += 0.25
        pauses.append(now_s - began_s)
        breaker.on_error("unreachable", "refused", now_s)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0]
    assert pauses[-1] == PAUSE_LAST_S
    assert breaker.opened == 1


def test_a_late_failure_of_an_older_request_lengthens_no_pause() -> None:
    breaker = opened()
    breaker.on_error("timeout", "no answer", 100.5)
    assert breaker.may_ask(100.0 + PAUSE_FIRST_S)


def test_a_probe_without_a_result_is_given_up() -> None:
    breaker = opened()
    assert breaker.may_ask(102.0)
    assert not breaker.may_ask(102.0 + PROBE_S - 0.1)
    assert breaker.may_ask(102.0 + PROBE_S)

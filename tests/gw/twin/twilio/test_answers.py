"""gw.twin.twilio.answers: what a client of the REST API reads."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gw.twin.twilio.answers import call_resource, error_answer, form, page


@dataclass
class Call:
    call_sid: str = "CA1"
    account_sid: str = "AC1"
    status: str = "queued"
    answered_at: float | None = None
    ended_at: float | None = None

    def hang_up(self, by: str) -> None:
        raise AssertionError(by)

    def redirect(self, document: str) -> None:
        raise AssertionError(document)


def test_a_form_keeps_repeated_names_and_blank_values() -> None:
    assert form("a=1&b=&a=2") == {"a": ("1", "2"), "b": ("",)}


def test_an_error_says_its_own_words_or_twilios() -> None:
    own, twilios, unknown = error_answer(21220, "not now"), error_answer(20404), error_answer(1)
    assert [answer.status for answer in (own, twilios, unknown)] == [400, 404, 400]
    assert [json.loads(answer.body)["message"] for answer in (own, twilios)] == [
        "not now",
        "The requested resource was not found",
    ]


def test_a_list_is_one_page() -> None:
    assert [page("calls", [{}] * n)["end"] for n in (0, 1, 60)] == [0, 0, 59]
    assert page("calls", [{}] * 60)["page_size"] == 60


def test_a_call_has_a_duration_once_it_is_over() -> None:
    assert call_resource(Call())["start_time"] is None
    assert call_resource(Call(answered_at=10.0))["duration"] is None
    over = call_resource(Call(answered_at=10.0, ended_at=13.2))
    assert (over["duration"], over["uri"]) == ("3", "/2010-04-01/Accounts/AC1/Calls/CA1.json")

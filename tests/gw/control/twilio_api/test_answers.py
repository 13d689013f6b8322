"""Kinds of errors, the bound on their text, and counts that Twilio sends as text."""

from __future__ import annotations

import pytest

from gw.control.twilio_api.answers import MAX_RETRY_AFTER_S, MAX_TEXT, Kind, RestError, classify, parse_count, parse_retry_after


def test_the_text_is_bounded() -> None:
    assert len(RestError("rejected", 1, 400, "x" * 10_000).text) == MAX_TEXT


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, 21220, "not_in_progress"),
        (400, 20429, "busy"),
        (599, 0, "server"),
        (404, 0, "gone"),
        (400, 20404, "gone"),
        (403, 0, "unauthorized"),
        (400, 20003, "unauthorized"),
        (429, 0, "busy"),
        (400, 16114, "busy"),
        (400, 0, "rejected"),
    ],
)
def test_the_code_precedes_the_status(status: int, code: int, kind: Kind) -> None:
    assert classify(status, code) == kind


@pytest.mark.parametrize(
    ("error", "label", "text"),
    [
        (RestError("gone", 20404, 404, "none"), "20404", "gone (20404): none"),
        (RestError("server", 0, 503, "down"), "server", "server (503): down"),
        (RestError("timeout", 0, 0, "no answer"), "timeout", "timeout: no answer"),
    ],
)
def test_an_error_is_named_by_its_number_or_its_kind(error: RestError, label: str, text: str) -> None:
    assert (error.label, str(error)) == (label, text)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("12", 12),
        (12, 12),
        ("0", 0),
        (None, None),
        ("", None),
        ("-1", None),
        (-1, None),
        ("two", None),
        ("9" * 10, None),
        ("١", None),
    ],
)
def test_a_count_has_digits_only(value: object, count: int | None) -> None:
    assert parse_count(value) == count


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("3600", MAX_RETRY_AFTER_S),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 9.0),
        ("Fri, 31 Dec 1999 23:59:40 GMT", 0.0),
        ("Fri, 31 Dec 2999 23:59:59 GMT", MAX_RETRY_AFTER_S),
        ("", 0.0),
        ("-3", 0.0),
        ("soon", 0.0),
        ("Fri, 99 Dec 1999 23:59:59 GMT", 0.0),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert parse_retry_after(value, 946_684_790.0) == seconds

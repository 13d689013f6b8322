"""What the Twilio twin's REST API says: answers, errors and resources in Twilio's words, and a request's form.

Pure; which answer a request gets is decided in `gw.twin.twilio.rest` and `gw.twin.twilio.resources`.

Source: Twilio API 2010-04-01, Call resource, paging, error codes 20003, 20404, 20429, 21220.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal, NamedTuple, Protocol
from urllib.parse import parse_qsl

from gw.twin.twilio.fields import rfc2822

ACCOUNTS: Final = "/2010-04-01/Accounts/"
_ERRORS: Final = {
    20003: (401, "Authenticate"),
    20404: (404, "The requested resource was not found"),
    20429: (429, "Too Many Requests"),
    20004: (405, "Method not allowed"),
    21220: (400, "Requested resource is not eligible for recording"),
    20001: (400, "Invalid parameter"),
}


class Call(Protocol):
    """What REST needs of a call."""

    call_sid: str
    account_sid: str
    status: str
    answered_at: float | None
    ended_at: float | None

    def hang_up(self, by: Literal["rest"]) -> None: ...

    def redirect(self, document: str) -> None: ...


class AnswerError(Exception):
    """Ends a request with one of Twilio's errors."""

    def __init__(self, code: int, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Answer(NamedTuple):
    """What a request is answered with; status 0: nothing, its connection is held."""

    status: int
    body: bytes
    content_type: str = "application/json"


def form(text: str) -> dict[str, tuple[str, ...]]:
    """A form with repeated names kept."""
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        fields[name] = (*fields.get(name, ()), value)
    return fields


def json_answer(status: int, body: object) -> Answer:
    """An answer of JSON."""
    return Answer(status, json.dumps(body).encode())


def error_answer(code: int, detail: str = "") -> Answer:
    """One of Twilio's errors."""
    status, message = _ERRORS.get(code, (400, "Bad request"))
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return json_answer(status, {"code": code, "message": detail or message, "more_info": more_info, "status": status})


def page(name: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    """All of a list as its only page."""
    ends = {"first_page_uri": "", "next_page_uri": None, "previous_page_uri": None, "uri": ""}
    return {
        name: resources,
        "page": 0,
        "page_size": max(50, len(resources)),
        "start": 0,
        "end": max(0, len(resources) - 1),
        **ends,
    }


def call_resource(call: Call) -> dict[str, Any]:
    """A call as the API shows it."""
    started = rfc2822(call.answered_at) if call.answered_at else None
    ended = rfc2822(call.ended_at) if call.ended_at else None
    seconds = round(call.ended_at - call.answered_at) if call.answered_at and call.ended_at else None
    return {
        "sid": call.call_sid,
        "account_sid": call.account_sid,
        "api_version": "2010-04-01",
        "status": call.status,
        "direction": "inbound",
        "start_time": started,
        "end_time": ended,
        "duration": None if seconds is None else str(seconds),
        "price": None,
        "price_unit": "USD",
        "uri": f"{ACCOUNTS}{call.account_sid}/Calls/{call.call_sid}.json",
    }

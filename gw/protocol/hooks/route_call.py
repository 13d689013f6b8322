"""The question who answers a call: the request to the user's endpoint, and its answer. Pure.

    {"v":1, "type":"call.route", "id":"CA...", "twilio":{"From":"+1...", "To":"+1...", ...}}

    {"agent":"sales", "variables":{"name":"Ann"}, "greeting":"Greet {{name}}.", "record":false}
    {"refuse":"busy"} | {"refuse":"We are closed."} | {"dial":"+15550001111"}

A field that is null counts as absent, an unknown one is ignored. Each value is checked as in a static route: a wrong one makes
the whole answer invalid, because a part of it could connect a caller wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gw.config import (
    CALL_VARIABLES,
    CONTROL_CHARACTER,
    DIALLED,
    MAX_REFUSE_CHARS,
    MAX_VARIABLE_CHARS,
    MAX_VARIABLES,
    VARIABLE_NAME,
)
from gw.errors import ProtocolError
from gw.protocol.wire import decode, decode_text, refuse, short

#: Longest answer: all variables in the longest escapes.
MAX_ANSWER_BYTES: Final = 128 << 10
MAX_GREETING_CHARS: Final = 1000
MAX_AGENT_CHARS: Final = 200


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A valid answer. `agent` empty: the default one. `greeting` None: the agent's own."""

    agent: str = ""
    variables: dict[str, str] = {}
    greeting: str | None = None
    record: bool = True
    refuse: str = ""
    dial: str = ""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    agent: str | None = None
    variables: dict[str, str] | None = None
    greeting: str | None = None
    record: bool | None = None
    refuse: str | None = None
    dial: str | None = None


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    v: int = 1
    type: str = "call.route"
    id: str
    twilio: Mapping[str, str]


_REQUEST: Final = msgspec.json.Decoder(_Request)
_ANSWER: Final = msgspec.json.Decoder(_Answer)
_DECISION: Final = msgspec.json.Decoder(Decision)
_ENCODER: Final = msgspec.json.Encoder()


def request_body(call_sid: str, form: Mapping[str, str]) -> bytes:
    """Return the body of a request. `form`: every field of the voice webhook."""
    whole = {name: value.encode("utf-8", "replace").decode() for name, value in form.items()}
    return _ENCODER.encode(_Request(id=call_sid, twilio=whole))


def call_sid_of(body: bytes) -> str:
    """Return the call of a request's body. Raises ProtocolError."""
    try:
        return decode(_REQUEST, body).id
    except msgspec.ValidationError as error:
        refuse(error)


def read_answer(status: int, body: bytes) -> Decision:
    """Return the decision in an endpoint's answer.

    Raises: ProtocolError(bad_type, oversize_message, bad_utf8, bad_json); its detail names the fault.
    """
    if 300 <= status < 400:
        raise ProtocolError("bad_type", f"it is a redirect, HTTP {status}, which is not followed")
    if not 200 <= status < 300:
        raise ProtocolError("bad_type", f"HTTP {status}")
    if len(body) > MAX_ANSWER_BYTES:
        raise ProtocolError("oversize_message", f"it is longer than {MAX_ANSWER_BYTES} bytes")
    try:
        answer = decode(_ANSWER, decode_text(body))
    except msgspec.ValidationError as error:
        refuse(error)
    variables = answer.variables or {}
    if problem := _problem(answer) or _variables_problem(variables):
        raise ProtocolError("bad_type", problem)
    return Decision(
        agent=answer.agent or "",
        variables=variables,
        greeting=answer.greeting,
        record=answer.record is not False,
        refuse=answer.refuse or "",
        dial=answer.dial or "",
    )


def encode_decision(decision: Decision) -> str:
    """Return a decision as a job's result."""
    return _ENCODER.encode(decision).decode()


def decode_decision(text: str) -> Decision:
    """Return the decision in a job's result. Raises ProtocolError."""
    try:
        return decode(_DECISION, text)
    except msgspec.ValidationError as error:
        refuse(error)


def _problem(answer: _Answer) -> str:
    ways = [name for name in ("agent", "refuse", "dial") if getattr(answer, name)]
    if len(ways) > 1:
        return f"it has {' and '.join(ways)}; expected one of agent, refuse and dial"
    if answer.dial and not DIALLED.fullmatch(answer.dial):
        return f'dial = "{short(answer.dial)}"; expected a number such as +15551234567, or sip:user@host'
    for name, text, most in (
        ("agent", answer.agent, MAX_AGENT_CHARS),
        ("refuse", answer.refuse, MAX_REFUSE_CHARS),
        ("greeting", answer.greeting, MAX_GREETING_CHARS),
    ):
        if text is not None and (problem := _text_problem(text, most)):
            return f"{name} {problem}"
    return ""


def _variables_problem(variables: Mapping[str, str]) -> str:
    if len(variables) > MAX_VARIABLES:
        return f"it has {len(variables)} variables; at most {MAX_VARIABLES} are allowed"
    for name, value in variables.items():
        if not re.fullmatch(VARIABLE_NAME, name):
            return f"{name[:40]!r} is not a variable's name; expected at most 32 lower-case letters and _"
        if name in CALL_VARIABLES:
            return f"the variable {name} is set by the gateway; use another name"
        if problem := _text_problem(value, MAX_VARIABLE_CHARS):
            return f"the variable {name} {problem}"
        if "{{" in value:
            return f"the variable {name} contains {{{{; a value is not searched for variables"
    return ""


def _text_problem(text: str, most: int) -> str:
    if len(text) > most:
        return f"has {len(text)} characters; at most {most} are allowed"
    return "contains a control character, for example a line break" if CONTROL_CHARACTER.search(text) else ""

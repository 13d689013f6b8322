"""A call that leaves its stream, and comes back: the wish of the agent, and how it ended. Pure.

    transfer      Twilio dials another party, and whispers to it first. The caller returns unless the two were connected.
    send_digits   Twilio plays tones. The caller returns afterwards.

The wish is the body of a job of control, and the job's result once Twilio has the new instructions. Its key names it in the URLs
of Twilio's webhooks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from gw.errors import ProtocolError
from gw.protocol.wire import decode, refuse

#: The tools that leave the stream.
TRANSFER: Final = "transfer"
SEND_DIGITS: Final = "send_digits"
LEAVING_TOOLS: Final = (TRANSFER, SEND_DIGITS)
#: The kind of the jobs of control.
KIND: Final = "leave"

#: Ends of transfers, and of digits. ended: the callee's leg is over; `Dial` did not report whether the two were connected.
Outcome = Literal["completed", "no-answer", "busy", "declined", "failed", "canceled", "sent", "ended"]
OUTCOMES: Final[frozenset[str]] = frozenset({"completed", "no-answer", "busy", "declined", "failed", "canceled", "sent"})
#: Outcomes by Twilio's DialCallStatus. Source: Twilio, TwiML `<Dial>`, "DialCallStatus values".
_OF_STATUS: Final[dict[str, Outcome]] = {
    "completed": "completed",
    "answered": "completed",
    "no-answer": "no-answer",
    "busy": "busy",
    "failed": "failed",
    "canceled": "canceled",
}

#: The same of a leg that is over, by DialBridged.
_OF_BRIDGED: Final[dict[str, Outcome]] = {"true": "completed", "false": "declined"}

#: Characters of a summary that the callee hears: about a minute.
MAX_SUMMARY_CHARS: Final = 600
#: Digits of one call of the tool. `w` pauses for half a second.
MAX_DIGITS: Final = 64
_DIGITS: Final = re.compile(r"[0-9*#wW]{1,64}")
_KEY: Final = re.compile(r"[0-9a-f]{32}")


class Leave(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A wish to leave the stream."""

    key: str
    tool: str
    account_sid: str = ""
    route: str = ""  # of the call
    carried: dict[str, str] = {}  # what else all its streams have: the dial and the variables of an outbound call
    call_id: str = ""  # of the AI's tool call; empty: an operator's
    arguments: str = "{}"  # for a later AI session; without digits
    target: str = ""  # its name
    to: str = ""  # a number, or a SIP address
    whisper: str = ""  # for the callee, who has to accept; empty: connected as it answers
    ring_s: int = 25
    digits: str = ""


class _Transfer(msgspec.Struct, frozen=True):
    target: str
    summary: Annotated[str, Meta(max_length=16_384)] = ""


class _Digits(msgspec.Struct, frozen=True):
    digits: str


_LEAVES: Final = msgspec.json.Decoder(Leave)
_TRANSFERS: Final = msgspec.json.Decoder(_Transfer)
_DIGIT_CALLS: Final = msgspec.json.Decoder(_Digits)
_ENCODER: Final = msgspec.json.Encoder()


def is_key(text: str) -> bool:
    """Return whether a text may be the key of a wish."""
    return _KEY.fullmatch(text) is not None


def encode_leave(leave: Leave) -> str:
    """Return a wish as a job's body or result."""
    return _ENCODER.encode(leave).decode()


def decode_leave(text: str) -> Leave:
    """Return the wish in a job's body or result. Raises ProtocolError."""
    try:
        return decode(_LEAVES, text)
    except msgspec.ValidationError as error:
        refuse(error)


def without_digits(leave: Leave) -> Leave:
    """Return what is kept of a wish that was carried out: no digits, which may be secret."""
    return msgspec.structs.replace(leave, digits="")


def transfer_of(wish: Leave, arguments: str, targets: Mapping[str, str], *, accept: str) -> Leave:
    """Return the whole wish of a call of `transfer`.

    `wish`: what does not depend on the arguments. `targets`: numbers by name. `accept`: the words that ask the callee for a key;
    empty: without a whisper.

    Raises: ProtocolError for arguments that name no target.
    """
    try:
        given = _TRANSFERS.decode(arguments or "{}")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolError("bad_json", f"The arguments are invalid: {error}."[:300]) from error
    to = targets.get(given.target)
    if to is None:
        raise ProtocolError("bad_type", f"There is no such target; use one of: {', '.join(targets)}.")
    summary = given.summary.strip()[:MAX_SUMMARY_CHARS]
    return msgspec.structs.replace(
        wish,
        arguments=_json({"target": given.target, "summary": summary}),
        target=given.target,
        to=to,
        whisper=f"{summary} {accept}".strip() if accept else "",
    )


def digits_of(wish: Leave, arguments: str) -> Leave:
    """Return the whole wish of a call of `send_digits`. Raises ProtocolError for arguments without digits."""
    try:
        given = _DIGIT_CALLS.decode(arguments or "{}")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolError("bad_json", f"The arguments are invalid: {error}."[:300]) from error
    if not _DIGITS.fullmatch(given.digits):
        raise ProtocolError("bad_type", f"Expected 1 to {MAX_DIGITS} of 0 to 9, *, # and w, which pauses for half a second.")
    hidden = _json({"digits": f"[{len(given.digits)} digits]"})
    return msgspec.structs.replace(wish, arguments=hidden, digits=given.digits)


def outcome_of(fields: Mapping[str, str]) -> Outcome:
    """Return how a wish ended, by the fields of Twilio's webhook after it.

    A callee that declines, or leaves during the whisper, has completed a leg that was never connected.
    """
    status = fields.get("DialCallStatus")
    if status is None:
        return "sent"
    outcome = _OF_STATUS.get(status, "failed")
    return _OF_BRIDGED.get(fields.get("DialBridged", ""), "ended") if outcome == "completed" else outcome


def settled_outcome(outcome: str, leave: Leave | None, *, accepted: bool) -> str:
    """Return the outcome of a leg that ended without a report on its connection. `accepted`: the callee pressed the key."""
    if outcome != "ended":
        return outcome
    return "completed" if accepted or leave is None or not leave.whisper else "declined"


def caller_outcome(outcome: str, *, is_over: bool) -> str:
    """Return the outcome, corrected if the caller left before the connection. `is_over`: the caller's call has ended.

    Twilio reports the ringing that a caller ends as canceled or as no-answer, and a whisper as an unconnected leg.
    """
    return "canceled" if is_over and outcome in ("no-answer", "declined") else outcome


def output_of(outcome: str) -> str:
    """Return the tool's output for the AI."""
    return _json({"status": outcome})


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False)

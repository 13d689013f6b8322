"""Calls of a user's tools: the request to the endpoint, and the output for the AI.

    Idempotency-Key: CA...%2F2%2Fcall_x
    {"v":1, "type":"tool.call", "id":"CA.../2/call_x", "tool":..., "arguments":{}, "attempt":1, "deadline_ms":8000, "call":{...}}

The body of a 2xx answer is the tool's output, verbatim. Anything else becomes `{"error": <a word>, "detail": <a sentence>}`. What
is checked is what is sent: arguments are written anew from the value that was checked, so that an endpoint cannot read a doubled
name or an odd number differently. Pure.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn
from urllib.parse import quote

import msgspec
from msgspec import Meta

from gw.errors import ProtocolError
from gw.protocol.wire import decode, refuse, short

#: Why a tool has no result: `error` in the output.
ErrorWord = Literal[
    "timeout",  # no whole answer within timeout_s
    "refused",  # not sent because of its address or scheme, or answered 4xx
    "unavailable",  # no connection, TLS, a redirect, 5xx, not UTF-8
    "busy",  # held back: the circuit is open, the queue full, too many calls
    "too_large",  # an answer beyond max_result_bytes
    "invalid_arguments",  # against the schema, not an object, or no such tool
    "unknown_outcome",  # sent, then the connection or control was lost, and the tool is not idempotent
    "cancelled",  # the caller spoke, and on_interrupt is "cancel"
]
#: The outcome of a call, for notes and metrics.
Status = Literal["ok", ErrorWord]

#: The header that names a request; the same for each attempt.
KEY_HEADER: Final = "Idempotency-Key"
#: Longest arguments of one call, as the model wrote them.
MAX_ARGUMENTS_BYTES: Final = 16 << 10
#: Nested arrays and objects in arguments. Checking a schema recurses.
MAX_DEPTH: Final = 32
#: Characters of the body of a 4xx answer that the AI is given.
MAX_DETAIL_CHARS: Final = 500
#: Bytes of a body that hold so many characters.
DETAIL_BYTES: Final = 4 * MAX_DETAIL_CHARS

_HALF: Final = re.compile("[\ud800-\udfff]")


class CallFacts(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """Facts of the telephone call that each request names."""

    sid: str
    agent: str
    direction: str
    from_: str
    to: str
    started_at: str  # ISO 8601, UTC, with Z
    variables: dict[str, str] = {}


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool wanted by the AI: the body of a job of kind `tool`.

    `id`: `<CallSid>/<number of the AI session that first sent it, from 1>/<call_id>`. `arguments`: as the model wrote them.
    """

    id: Annotated[str, Meta(min_length=1, max_length=1100)]  # a call_id has 1,024 at most
    tool: str
    arguments: str
    call: CallFacts


class ToolAnswer(NamedTuple):
    """The output for the AI, and how the call ended."""

    output: str
    status: Status


class Arguments(NamedTuple):
    """Arguments as a value, and the JSON that is sent."""

    value: dict[str, Any]
    json: bytes


#: A reference to sensitive digits.
_REF: Final = re.compile("d[1-9][0-9]{0,8}")
#: Digits shorter than this are not replaced in texts: they would be found by chance.
_LEAST_MASKED: Final = 4


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    v: int = 1
    type: str = "tool.call"
    id: str
    tool: str
    arguments: msgspec.Raw
    attempt: int
    deadline_ms: int
    call: CallFacts


_DECODER: Final = msgspec.json.Decoder(ToolCall)
_ENCODER: Final = msgspec.json.Encoder()


def encode_call(call: ToolCall) -> str:
    """Return a call as a job's body. Half surrogates become U+FFFD."""
    try:
        return _ENCODER.encode(call).decode()
    except UnicodeEncodeError:
        return _whole(json.dumps(msgspec.to_builtins(call), ensure_ascii=False))


def decode_call(text: str) -> ToolCall:
    """Return the call in a job's body. Raises ProtocolError."""
    try:
        return decode(_DECODER, text)
    except msgspec.ValidationError as error:
        refuse(error)


def idempotency_key(call_id: str) -> str:
    """Return the value of Idempotency-Key: the id, percent-encoded."""
    return quote(call_id, safe="", errors="replace")


def read_arguments(text: str) -> Arguments:
    """Return the arguments that a model wrote; empty text means none.

    Raises: ProtocolError(bad_json, bad_type, oversize_message) for anything but one object: also for doubled names, NaN,
    numbers beyond a double, and more than MAX_DEPTH levels.
    """
    if len(text.encode("utf-8", "replace")) > MAX_ARGUMENTS_BYTES:
        raise ProtocolError("oversize_message", f"the arguments are longer than {MAX_ARGUMENTS_BYTES} bytes")
    try:
        value = json.loads(
            text if text.strip() else "{}",
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError as error:
        raise ProtocolError("bad_json", "the arguments are nested too deeply") from error
    except ValueError as error:
        raise ProtocolError("bad_json", short(f"the arguments are not JSON: {error}")) from error
    if not isinstance(value, dict):
        raise ProtocolError("bad_type", "the arguments are not a JSON object")
    if _deeper(value, MAX_DEPTH):
        raise ProtocolError("bad_json", f"the arguments are nested deeper than {MAX_DEPTH} levels")
    return Arguments(value, _json_of(value))


def refs_of(value: object) -> list[str]:
    """Return the references to sensitive digits in arguments: each value that is `{"ref":"dN"}`."""
    if _is_ref(value):
        return [value["ref"]]  # type: ignore[index]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [ref for one in inner for ref in refs_of(one)]


def with_digits(arguments: Arguments, digits: Mapping[str, str]) -> Arguments:
    """Return arguments with sensitive digits in place of the references to them.

    Raises: ProtocolError(bad_type) for a reference that is not among `digits`.
    """
    if not (refs := [ref for one in arguments.value.values() for ref in refs_of(one)]):
        return arguments
    if missing := [ref for ref in refs if ref not in digits]:
        raise ProtocolError("bad_type", f"the digits {short(missing[0])} are not known any more; collect them again")
    value = {name: _with_digits(one, digits) for name, one in arguments.value.items()}
    return Arguments(value, _json_of(value))


def without_digits(text: str, digits: Iterable[str], masked: Callable[[str], str]) -> str:
    """Return a text in which sensitive digits are masked, the longest first."""
    for one in sorted(set(digits), key=len, reverse=True):
        if len(one) >= _LEAST_MASKED:
            text = text.replace(one, masked(one))
    return text


def _is_ref(value: object) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ref = value.get("ref")
    return isinstance(ref, str) and _REF.fullmatch(ref) is not None


def _with_digits(value: Any, digits: Mapping[str, str]) -> Any:
    if _is_ref(value):
        return digits[value["ref"]]
    if isinstance(value, dict):
        return {name: _with_digits(one, digits) for name, one in value.items()}
    return [_with_digits(one, digits) for one in value] if isinstance(value, list) else value


def request_body(call: ToolCall, arguments: bytes, *, attempt: int, deadline_ms: int) -> bytes:
    """Return the body of a request. `arguments`: JSON, see `read_arguments`. `deadline_ms`: this attempt's."""
    body = _Request(
        id=_whole(call.id),
        tool=call.tool,
        arguments=msgspec.Raw(arguments),
        attempt=attempt,
        deadline_ms=deadline_ms,
        call=call.call,
    )
    return _ENCODER.encode(body)


def read_answer(status: int, body: bytes, *, max_bytes: int) -> ToolAnswer:
    """Return the output that an endpoint's answer becomes.

    `body`: the whole body, or its first bytes if it is longer: more than `max_bytes`, and at least DETAIL_BYTES.
    """
    if 200 <= status < 300:
        if len(body) > max_bytes:
            return failed("too_large", f"The tool's answer is longer than {max_bytes} bytes.")
        try:
            return ToolAnswer(body.decode(), "ok")
        except UnicodeDecodeError:
            return failed("unavailable", "The tool's answer is not UTF-8 text.")
    if 400 <= status < 500:
        text = body[:DETAIL_BYTES].decode("utf-8", "replace")[:MAX_DETAIL_CHARS].strip()
        return failed("refused", text or f"The tool's endpoint refused the request: HTTP {status}.")
    if 300 <= status < 400:
        return failed("unavailable", f"The tool's endpoint answered with a redirect, HTTP {status}, which is not followed.")
    return failed("unavailable", f"The tool's endpoint failed: HTTP {status}.")


def failed(word: ErrorWord, detail: str) -> ToolAnswer:
    """Return the output of a call without a result."""
    return ToolAnswer(_whole(json.dumps({"error": word, "detail": detail}, ensure_ascii=False)), word)


def _json_of(value: dict[str, Any]) -> bytes:
    return _whole(json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()


def _whole(text: str) -> str:
    """Replace half surrogates, which UTF-8 cannot express, by U+FFFD."""
    return _HALF.sub("\ufffd", text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value


def _int(text: str) -> int:
    """A schema's `multipleOf` divides it by a double."""
    value = int(text)
    if abs(value) > sys.float_info.max:
        raise ValueError("a number is too large")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Return whether a value has more than `levels` levels of arrays and objects."""
    row = [value]
    for _ in range(levels + 1):
        row = [inner for one in row if isinstance(one, dict | list) for inner in (one.values() if isinstance(one, dict) else one)]
        if not row:
            return False
    return True

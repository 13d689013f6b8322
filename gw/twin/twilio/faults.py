"""Faults of a phone leg, by name.

A fault replaces, or adds to, the messages of a correct stream. It changes a call's plan, so it works with any speech.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from gw.twin.sound import SILENT_FRAME
from gw.twin.twilio.messages import CONNECTED
from gw.twin.twilio.stream import CallPlan, Hook, StreamedCall

#: Above the gateway's bound of 64 KiB on a message from Twilio.
OVERSIZE_BYTES: Final = (64 << 10) + 1024
#: A fault in the middle of a call occurs before this frame.
_FRAME: Final = 10


def _says(*build: Callable[[StreamedCall], bytes]) -> Hook:
    """Send text messages."""

    def hook(call: StreamedCall) -> None:
        for one in build:
            call.send_text(one(call))

    return hook


def _text(data: bytes) -> Hook:
    return _says(lambda call: data)


def _first(**changes: object) -> Hook:
    """Begin normally, except for these fields of `start`."""

    def prelude(call: StreamedCall) -> None:
        call.send_text(CONNECTED)
        call.send_start(**changes)

    return prelude


def _connected_only(call: StreamedCall) -> None:
    """Send neither `start` nor anything after it."""
    call.send_text(CONNECTED)
    call.mute()


def _media_first(call: StreamedCall) -> None:
    call.send_text(CONNECTED)
    call.send_media()
    call.send_start()


def _with_token(call: StreamedCall, token: str | None) -> None:
    parameters = {name: value for name, value in call.parameters.items() if name != "token"}
    call.parameters = parameters if token is None else {**parameters, "token": token}
    _first()(call)


def _forged(call: StreamedCall) -> None:
    """Change the token's last character."""
    token = call.parameters.get("token", "no-token-was-given")
    _with_token(call, token[:-1] + ("A" if token[-1] != "A" else "B"))


def _media(call: StreamedCall, payload: str, stream_sid: str = "") -> bytes:
    body = f'{{"track":"inbound","chunk":"1","timestamp":"1","payload":"{payload}"}}'
    return f'{{"event":"media","sequenceNumber":"9","media":{body},"streamSid":"{stream_sid or call.stream_sid}"}}'.encode()


#: Faults at the stream's beginning: they replace `connected` and `start`.
PRELUDES: Final[Mapping[str, Hook]] = MappingProxyType(
    {
        "no_start": _connected_only,
        "media_before_start": _media_first,
        "wrong_account": _first(accountSid="AC" + "f" * 32),
        "wrong_format": _first(mediaFormat={"encoding": "audio/x-l16", "sampleRate": 16000, "channels": 2}),
        "token_missing": lambda call: _with_token(call, None),
        "token_forged": _forged,
        "start_without_body": _says(
            lambda call: CONNECTED,
            lambda call: f'{{"event":"start","sequenceNumber":"1","streamSid":"{call.stream_sid}"}}'.encode(),
        ),
    }
)
#: Faults in the middle of a call: they occur before its tenth frame.
HOOKS: Final[Mapping[str, Hook]] = MappingProxyType(
    {
        "second_start": lambda call: call.send_start(),
        "wrong_stream": _says(lambda call: _media(call, "//8=", "MZ" + "e" * 32)),
        "bad_json": _text(b'{"event":"media",'),
        "not_an_object": _text(b"[1,2,3]"),
        "bad_type": _says(lambda call: f'{{"event":"media","media":5,"streamSid":"{call.stream_sid}"}}'.encode()),
        "missing_field": _says(
            lambda call: f'{{"event":"media","sequenceNumber":"9","media":{{}},"streamSid":"{call.stream_sid}"}}'.encode()
        ),
        "bad_utf8": _text(b'{"event":"mark\xff\xfe"}'),
        "bad_base64": _says(lambda call: _media(call, "!not base64!")),
        "binary_message": lambda call: call.send_binary(SILENT_FRAME),
        "oversize_message": _says(lambda call: _media(call, "A" * OVERSIZE_BYTES)),
        "bad_websocket": lambda call: call.send_raw(b"\x81\x02{}"),  # a client's frame without a mask
        "unknown_event": _text(b'{"event":"telepathy","thought":{"deep":[null]}}'),
        "reset": lambda call: call.abort(),
        "silent": lambda call: call.mute(),
        "half_open": lambda call: call.freeze(),
        "stalled": lambda call: call.stop_reading(),
    }
)


def with_fault(plan: CallPlan, name: str) -> CallPlan:
    """Return the plan with that fault. The caller never hangs up: the gateway has to end the call."""
    if name in PRELUDES:
        return replace(plan, prelude=PRELUDES[name], hang_up=False)
    small = 4096 if name == "stalled" else None
    return replace(plan, hooks={**plan.hooks, _FRAME: HOOKS[name]}, hang_up=False, receive_buffer_bytes=small)

"""TwiML: what a voice webhook is answered with.

Written by the twilio package's builder, which knows the verbs and escapes; this module only says which documents we send.
Every document that opens a stream ends in a hang-up: after our socket closed Twilio goes on with the next verb. Text that XML
cannot carry, which a caller's number or name might hold, is replaced, so that no caller can spoil the document. 0.05 ms each.
"""

from __future__ import annotations

import re
from typing import Final

from twilio.twiml.voice_response import Connect, Dial, VoiceResponse  # type: ignore[import-untyped]

#: Twilio refuses a parameter whose name and value together are this long (docs, "TwiML <Parameter>").
PARAMETER_LIMIT_CHARS: Final = 500
#: Everything outside the characters of XML 1.0 §2.2.
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def connect_stream(stream_url: str, action_url: str, status_url: str, parameters: dict[str, str]) -> str:
    """Open a bidirectional stream, and hang up when it is over.

    Shape: `stream_url` is wss and has no query; the parameters arrive in the stream's `start`.
    Raises: ValueError for a parameter too long for Twilio.
    """
    response = VoiceResponse()
    connect = Connect(action=action_url)
    stream = connect.stream(url=stream_url, status_callback=status_url)
    for name, value in parameters.items():
        if len(name) + len(value) >= PARAMETER_LIMIT_CHARS:
            raise ValueError(
                f"the parameter {name[:40]} has {len(name) + len(value)} characters, {PARAMETER_LIMIT_CHARS} are too many"
            )
        stream.parameter(name=_xml(name), value=_xml(value))
    response.append(connect)
    response.hangup()
    return str(response)


def busy(text: str) -> str:
    """Say why the call cannot be taken, and hang up."""
    return _say_and_hang_up(text)


def enqueue(text: str, queue: str) -> str:
    """Say something, or nothing, and let the caller wait in a queue of the account."""
    response = VoiceResponse()
    if text:
        response.say(_xml(text))
    response.enqueue(_xml(queue))
    return str(response)


def dial(target: str) -> str:
    """Connect the caller to a number, or to a SIP address, and hang up when that is over."""
    response = VoiceResponse()
    dialled = Dial()
    if target.startswith(("sip:", "sips:")):
        dialled.sip(_xml(target))
    else:
        dialled.number(_xml(target))
    response.append(dialled)
    response.hangup()
    return str(response)


def say_goodbye(text: str) -> str:
    """The last words to a call whose stream is over, and hang up."""
    return _say_and_hang_up(text)


def hangup() -> str:
    """Hang up."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def _say_and_hang_up(text: str) -> str:
    response = VoiceResponse()
    response.say(_xml(text))
    response.hangup()
    return str(response)


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)

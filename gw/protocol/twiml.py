"""TwiML: the answers to voice webhooks.

The twilio package's builder writes and escapes the verbs; this module defines the documents. A document that opens a stream ends
in a hang-up, because Twilio continues with the next verb after our socket closed. Characters that XML cannot carry, possible in a
caller's number or name, are replaced, so that no caller can spoil the document. 0.05 ms each. Every webhook that a document
names is idempotent, and Twilio is to repeat it.
"""

from __future__ import annotations

import re
from typing import Final

from twilio.twiml.voice_response import Connect, Dial, Gather, VoiceResponse  # type: ignore[import-untyped]

from gw.config import REPEATED

#: Twilio refuses a parameter whose name and value reach this length together (docs, "TwiML <Parameter>").
PARAMETER_LIMIT_CHARS: Final = 500
#: Everything outside the characters of XML 1.0 §2.2.
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def connect_stream(stream_url: str, action_url: str, status_url: str, parameters: dict[str, str], *, before: str = "") -> str:
    """Open a bidirectional stream; hang up after its end. `before`: words that Twilio speaks first.

    Shape: `stream_url` is wss without a query; the parameters arrive in the stream's `start`.
    Raises: ValueError for a parameter too long for Twilio.
    """
    response = VoiceResponse()
    if before:
        response.say(_xml(before))
    connect = Connect(action=action_url + REPEATED)
    stream = connect.stream(url=stream_url, status_callback=status_url + REPEATED)
    for name, value in parameters.items():
        if len(name) + len(value) >= PARAMETER_LIMIT_CHARS:
            raise ValueError(
                f"the stream parameter {name[:40]} and its value have {len(name) + len(value)} characters;"
                f" Twilio accepts at most {PARAMETER_LIMIT_CHARS - 1}"
            )
        stream.parameter(name=_xml(name), value=_xml(value))
    response.append(connect)
    response.hangup()
    return str(response)


def enqueue(text: str, queue: str) -> str:
    """Say a text, unless empty, and put the caller in a queue of the account."""
    response = VoiceResponse()
    if text:
        response.say(_xml(text))
    response.enqueue(_xml(queue))
    return str(response)


def dial(target: str) -> str:
    """Connect the caller to a number or SIP address; hang up after that call."""
    response = VoiceResponse()
    response.append(_dialled(Dial(), target))
    response.hangup()
    return str(response)


def transfer(target: str, *, ring_s: int, action_url: str, whisper_url: str = "") -> str:
    """Dial a party while the caller hears ringing; then request `action_url`.

    `whisper_url`: TwiML that runs on the callee's leg before the two are connected; empty: none.
    """
    response = VoiceResponse()
    more = {"url": whisper_url + REPEATED} if whisper_url else {}
    response.append(_dialled(Dial(answer_on_bridge=True, timeout=ring_s, action=action_url + REPEATED), target, **more))
    return str(response)


def whisper(text: str, accept_url: str, *, timeout_s: int) -> str:
    """Say a text to a callee, send the pressed key to `accept_url`, else hang up."""
    response = VoiceResponse()
    gather = Gather(num_digits=1, timeout=timeout_s, action=accept_url + REPEATED)
    gather.say(_xml(text))
    response.append(gather)
    response.hangup()
    return str(response)


def play_digits(digits: str, next_url: str) -> str:
    """Play tones to the other end, then continue with the TwiML of `next_url`."""
    response = VoiceResponse()
    response.play(digits=digits)
    response.redirect(next_url + REPEATED)
    return str(response)


def connect_callee() -> str:
    """End a whisper: Twilio connects the two legs."""
    return str(VoiceResponse())


def _dialled(dial: Dial, target: str, **attributes: str) -> Dial:
    """Add a number or SIP address to a dial."""
    if target.startswith(("sip:", "sips:")):
        dial.sip(_xml(target), **attributes)
    else:
        dial.number(_xml(target), **attributes)
    return dial


def say_and_hang_up(text: str) -> str:
    """Say a text and hang up."""
    response = VoiceResponse()
    response.say(_xml(text))
    response.hangup()
    return str(response)


def reject_busy() -> str:
    """Refuse the call with the busy tone."""
    response = VoiceResponse()
    response.reject(reason="busy")
    return str(response)


def hangup() -> str:
    """Hang up."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)

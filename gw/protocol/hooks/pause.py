"""Bodies of the jobs that pause a call's recording, and let it continue. Pure.

    {"account_sid":"AC...", "pause":"1"}

`pause` names a pause within its call: the job `CA.../resume/1` ends what `CA.../pause/1` began.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gw.protocol.wire import decode, refuse


class Pause(msgspec.Struct, frozen=True):
    """One pause of a call's recording."""

    account_sid: str
    pause: str


_DECODER: Final = msgspec.json.Decoder(Pause)


def encode_pause(account_sid: str, pause: str) -> str:
    """Return a pause as a job's body."""
    return msgspec.json.encode(Pause(account_sid, pause)).decode()


def decode_pause(text: str) -> Pause:
    """Return the pause in a job's body. Raises ProtocolError."""
    try:
        return decode(_DECODER, text)
    except msgspec.ValidationError as error:
        refuse(error)

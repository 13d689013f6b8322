"""gw.protocol.hooks.pause: the bodies of the jobs that pause a recording."""

from __future__ import annotations

import pytest

from gw.errors import ProtocolError
from gw.protocol.hooks.pause import Pause, decode_pause, encode_pause


def test_a_body_is_read_back() -> None:
    assert decode_pause(encode_pause("AC1", "3")) == Pause("AC1", "3")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pause":"1"}', '{"account_sid":1,"pause":"1"}'])
def test_another_body_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode_pause(text)

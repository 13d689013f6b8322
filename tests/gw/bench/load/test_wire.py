"""gw.bench.load.wire: message boundaries, upgrades, audio lengths."""

from __future__ import annotations

import base64

import pytest

from gw.bench.load.wire import WireError, accept_key, audio_bytes, header, masked_text, spans, text, upgrade_answer


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_messages_of_every_length_are_cut_at_their_ends(size: int) -> None:
    body = bytes(n & 0x7F for n in range(size))
    data = masked_text(body) + text(body)
    found, rest = spans(data + b"\x81")
    assert rest == len(data)
    assert [data[start:end] for _, _, start, end in found] == [body, body]
    (_, mask_at, start, _), (_, no_mask, _, _) = found
    assert data[mask_at:start] == b"\0\0\0\0"
    assert no_mask == 0


def test_an_incomplete_message_waits_for_its_rest() -> None:
    for body in (b"hello", b"x" * 300, b"x" * 70_000):
        whole = masked_text(body)
        for cut in sorted({0, 1, 2, 3, 5, 9, 10, len(whole) - 1}):
            assert spans(whole[:cut]) == ([], 0)


def test_an_upgrade_is_answered_with_its_key() -> None:
    request = b"GET /media HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3
    assert header(upgrade_answer(request), b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    with pytest.raises(WireError):
        upgrade_answer(b"GET / HTTP/1.1\r\nHost: x")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 159, 160, 161])
def test_the_length_of_audio_is_computed_from_base64(size: int) -> None:
    data = b'"' + base64.b64encode(bytes(size)) + b'"}='
    assert audio_bytes(data, 1, data.index(b'"', 1)) == size

"""gw.protocol.audio: constants, G.711 in both directions, levels, base64."""

from __future__ import annotations

import base64
import itertools
import json

import pytest

from gw.errors import ProtocolError
from gw.protocol import audio

NOT_BASE64 = [
    "A",
    "AA",
    "AAA",
    "A===",
    "====",
    "=AAA",
    "AA=A",
    "AAAA=",
    "AAAA==",
    "AAAA====",
    "AA==AAAA",
    "AAA=AAA=",
    "AAAA\n",
    " AAAA",
    "AA-_",
    'AAA"',
    "AAA\\",
    "AAAé",
    "\ud800AAA",
]


def test_numbers_derive_from_rate_and_ptime() -> None:
    assert (audio.RATE_HZ, audio.PTIME_MS, audio.PTIME_S) == (8000, 20, 0.02)
    assert (audio.FRAME_BYTES, audio.BYTES_PER_MS, audio.SILENCE_BYTE) == (160, 8, 0xFF)


@pytest.mark.parametrize(
    ("code", "sample"),
    # The ends and the segment borders of ITU-T G.711 table 2a, in the 16-bit scale.
    [(0xFF, 0), (0x7F, 0), (0x80, 32124), (0x00, -32124), (0xFE, 8), (0x7E, -8), (0xF0, 120), (0xEF, 132), (0x8F, 16764)],
)
def test_expand(code: int, sample: int) -> None:
    assert audio.ULAW_TO_LINEAR[code] == sample


def test_every_code_survives_both_ways() -> None:
    for code, sample in enumerate(audio.ULAW_TO_LINEAR):
        expected = 0xFF if code == 0x7F else code  # negative zero has the sample of positive zero
        assert audio.linear_to_ulaw(sample) == expected


def test_compression_is_within_half_a_step_and_clips() -> None:
    for sample in range(-32635, 32636, 7):
        code = audio.linear_to_ulaw(sample)
        step = 8 << (~code >> 4 & 0x07)
        assert abs(audio.ULAW_TO_LINEAR[code] - sample) <= step // 2
    assert audio.linear_to_ulaw(1_000_000) == audio.linear_to_ulaw(32767) == 0x80
    assert audio.linear_to_ulaw(-1_000_000) == audio.linear_to_ulaw(-32768) == 0x00


def test_energy_is_the_mean_magnitude() -> None:
    assert audio.energy(b"") == 0
    assert audio.energy(b"\xff\x7f" * 80) == 0
    assert audio.energy(b"\x00\x80" * 80) == 32124
    every = bytes(range(256))
    assert audio.energy(every) == sum(abs(sample) for sample in audio.ULAW_TO_LINEAR) // 256
    assert audio.energy(b"\xff\xef") == 66


@pytest.mark.parametrize(("n_bytes", "frames"), [(0, 0), (1, 1), (159, 1), (160, 1), (161, 2), (320, 2)])
def test_frames_of(n_bytes: int, frames: int) -> None:
    assert audio.frames_of(n_bytes) == frames


@pytest.mark.parametrize("length", [0, 1, 2, 3, 160, 161, 4000])
def test_base64_round_trip(length: int) -> None:
    data = bytes(i * 31 & 0xFF for i in range(length))
    text = base64.b64encode(data).decode()
    assert audio.is_base64(text)
    assert audio.decode_base64(text) == data
    assert audio.decode_base64(text.encode()) == data


@pytest.mark.parametrize("text", NOT_BASE64)
def test_invalid_base64(text: str) -> None:
    assert not audio.is_base64(text)
    with pytest.raises(ProtocolError) as caught:
        audio.decode_base64(text)
    assert caught.value.code == "bad_base64" and "not base64" in caught.value.detail


def test_valid_base64_can_be_pasted_into_json() -> None:
    for code in range(0x250):
        text = "AAA" + chr(code)
        if audio.is_base64(text):
            assert json.loads(f'"{text}"') == text


def test_the_nearest_code_is_taken_on_each_side_of_a_border() -> None:
    magnitudes = [abs(audio.ULAW_TO_LINEAR[code]) for code in range(0xFF, 0x7F, -1)]  # 0 to 32124
    for n, (low, high) in enumerate(itertools.pairwise(magnitudes)):
        for sample in (low, high):
            assert audio.linear_to_ulaw(sample) == 0xFF - n - (sample == high)
    assert [audio.linear_to_ulaw(sample) for sample in (32634, 32635, 32636)] == [0x80] * 3
    assert [audio.linear_to_ulaw(sample) for sample in (3, 4, -3, -4, -1)] == [0xFF, 0xFE, 0x7F, 0x7E, 0x7F]


def test_a_level_uses_both_bytes_of_a_magnitude() -> None:
    for code in range(256):
        assert audio.energy(bytes([code])) == abs(audio.ULAW_TO_LINEAR[code])

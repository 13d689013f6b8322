"""gw.twin.speech, and the gateway's prompts: present, loud enough, short enough, trimmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gw import ROOT
from gw.twin import sound, speech

PROMPTS = ROOT / "gw" / "media" / "ai" / "prompts"


def judged(audio: bytes, shortest_s: float, longest_s: float) -> None:
    assert len(audio) % sound.FRAME_BYTES == 0
    assert shortest_s <= len(audio) / sound.RATE_HZ <= longest_s
    assert 0.3 < sound.peak(audio) <= 1.0
    loud = [sound.level(frame) > 0.004 for frame in sound.frames(audio)]
    assert any(loud[:10]), "silence at the beginning"
    assert any(loud[-15:]), "silence at the end"
    pauses = "".join("x" if one else "." for one in loud).split("x")
    assert max(map(len, pauses)) * sound.PTIME_MS < 500, "a long pause inside"


@pytest.mark.parametrize("name", speech.names())
def test_recording(name: str) -> None:
    judged(speech.load(name), 1.2, 6.0)


@pytest.mark.parametrize("name", ["greeting", "goodbye"])
def test_prompt(name: str) -> None:
    judged((PROMPTS / f"{name}.ulaw").read_bytes(), 1.0, 3.0)


def test_every_recording_has_words() -> None:
    there = {path.stem for path in Path(speech.__file__).parent.glob("*.ulaw")}
    assert there == set(speech.names()) >= set(speech.CALLER_PHRASES)
    with pytest.raises(KeyError):
        speech.load("../sound")


def test_script() -> None:
    spoken = speech.script(40, "weasels", b"\x10", 20)
    assert spoken[:2] == [sound.SILENT_FRAME] * 2
    assert b"".join(spoken[2:-2]) == speech.load("weasels")
    assert spoken[-2] == b"\x10".ljust(160, b"\xff")
    assert spoken[-1] == sound.SILENT_FRAME

"""Every sample of Twilio's documentation parses, and built messages equal the samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gw.protocol import twilio

SAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("twilio_media_streams.json").read_text(encoding="utf-8"))
STREAM = "MZ" + "0" * 32
CALL = "CA" + "0" * 32
EXPECTED: dict[str, twilio.TwilioEvent] = {
    "connected": twilio.Connected(),
    "start": twilio.Start(STREAM, "AC" + "0" * 32, CALL, {"token": "abc"}),
    "media": twilio.Media(STREAM, "//////////8="),
    "dtmf": twilio.Dtmf(STREAM, "1"),
    "mark": twilio.Mark(STREAM, "my label"),
    "stop": twilio.Stop(STREAM),
}
BUILT = {
    "media": twilio.media_prefix(STREAM) + b"//////////8=" + twilio.MEDIA_SUFFIX,
    "mark": twilio.build_mark(STREAM, "my label"),
    "clear": twilio.build_clear(STREAM),
}


def test_the_file_names_its_source() -> None:
    assert "twilio.com/docs" in SAMPLES["source"]


def test_no_sample_is_left_out() -> None:
    assert SAMPLES["from_twilio"].keys() == EXPECTED.keys()
    assert SAMPLES["to_twilio"].keys() == BUILT.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_from_twilio(name: str) -> None:
    assert twilio.parse(json.dumps(SAMPLES["from_twilio"][name])) == EXPECTED[name]


@pytest.mark.parametrize("name", BUILT)
def test_to_twilio(name: str) -> None:
    assert json.loads(BUILT[name]) == SAMPLES["to_twilio"][name]

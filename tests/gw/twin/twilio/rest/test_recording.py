"""gw.twin.twilio.rest.recording: validated parameters, states, callbacks."""

from __future__ import annotations

import pytest

from gw.twin.twilio.rest.recording import Fields, TwinRecording, problem_of

URL = ("https://voice.example.com/twilio/recording",)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 0),
        (
            {
                "RecordingChannels": ("dual",),
                "RecordingStatusCallback": URL,
                "RecordingStatusCallbackEvent": ("absent completed",),
            },
            0,
        ),
        ({"Colour": ("red",)}, 20001),
        ({"RecordingChannels": ("triple",)}, 20001),
        ({"RecordingTrack": ("both", "inbound")}, 20001),
        ({"RecordingStatusCallback": ("ftp://voice.example.com",)}, 13256),
        ({"RecordingStatusCallback": ("https://",)}, 13256),
        ({"RecordingStatusCallbackEvent": ("paused",)}, 13621),
    ],
)
def test_parameters_of_a_start(fields: Fields, code: int) -> None:
    assert problem_of(fields)[0] == code


def test_a_recording_ends_completed_or_absent() -> None:
    fields = {"RecordingChannels": ("dual",), "RecordingStatusCallback": URL, "RecordingStatusCallbackEvent": ("absent",)}
    completed, absent = (TwinRecording.of("AC1", "CA1", fields, 100.0) for _ in range(2))
    assert completed.is_open and not completed.wants_callback
    assert completed.resource()["duration"] is None
    completed.finish(112.4, absent=False)
    absent.finish(112.4, absent=True)
    assert not completed.is_open and not completed.wants_callback and absent.wants_callback
    assert (completed.resource()["duration"], completed.resource()["channels"]) == ("12", 2)
    callback = absent.callback_fields("http://api")
    assert (callback["RecordingStatus"], callback["RecordingDuration"], callback["ErrorCode"]) == ("absent", "0", "0")
    assert callback["RecordingUrl"] == f"http://api/2010-04-01/Accounts/AC1/Recordings/{absent.sid}"


def test_completed_is_the_default_callback_event() -> None:
    recording = TwinRecording.of("AC1", "CA1", {"RecordingStatusCallback": URL}, 0.0)
    assert not recording.wants_callback
    recording.finish(1.0, absent=False)
    assert recording.wants_callback

"""gw.twin.twilio.rest.resources: operations on calls and recordings, requested by the real twilio package."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest
import requests
from twilio.base.exceptions import TwilioRestException

from gw.twin.twilio.rest.resources import call_resource, error_answer, form, page
from gw.twin.twilio.webhooks import sign
from tests.gw.twin.twilio.rest_account import ACCOUNT, CALL, Account


def test_a_recording_from_start_to_end(account: Account) -> None:
    recording = (
        account.client()
        .calls(CALL)
        .recordings.create(
            recording_channels="dual",
            recording_status_callback=account.callback,
            recording_status_callback_event=["in-progress", "completed", "absent"],
        )
    )
    assert (recording.status, recording.channels, recording.source) == ("in-progress", 2, "StartCallRecordingAPI")
    assert recording.start_time is not None
    starts = account.rest.starts[CALL]
    assert [(start.status, start.code, start.recorded) for start in starts] == [(201, 0, True)]
    assert starts[0].fields["RecordingStatusCallbackEvent"] == ("in-progress", "completed", "absent")
    account.phone.status, account.phone.ended_at = "completed", time.time() + 12
    account.rest.on_call_ended(account.phone)
    account.rest.wait_callbacks()
    path = "/twilio/recording"
    posted = account.gateway.fields_of(path)
    assert [fields["RecordingStatus"] for fields in posted] == ["in-progress", "completed"]
    assert posted[1]["RecordingDuration"] == "12"
    assert posted[1]["RecordingChannels"] == "2"
    _, headers, fields = account.gateway.posts[-1]
    assert headers["x-twilio-signature"] == sign("secret", account.callback, fields)
    assert account.client().calls(CALL).recordings(recording.sid).fetch().duration == "12"
    account.rest.on_call_ended(account.phone)
    account.rest.wait_callbacks()
    assert len(account.gateway.fields_of(path)) == 2
    assert account.rest.complaints == []


def test_only_requested_callbacks_are_posted(account: Account) -> None:
    account.client().calls(CALL).recordings.create(recording_status_callback=account.callback)
    account.rest.absent_calls.add(CALL)
    account.rest.on_call_ended(account.phone)
    account.rest.wait_callbacks()
    assert account.gateway.posts == []
    assert account.client().recordings.list()[0].status == "absent"


def test_an_absent_recording_is_reported(account: Account) -> None:
    account.client().calls(CALL).recordings.create(
        recording_status_callback=account.callback, recording_status_callback_event=["absent"]
    )
    account.rest.absent_calls.add(CALL)
    account.rest.on_call_ended(account.phone)
    account.rest.wait_callbacks()
    assert [fields["RecordingStatus"] for fields in account.gateway.fields_of("/twilio/recording")] == ["absent"]


def test_a_second_start_answers_success_and_records_nothing(account: Account) -> None:
    calls = account.client().calls(CALL)
    first, second = calls.recordings.create(), calls.recordings.create()
    assert first.sid != second.sid
    assert [start.recorded for start in account.rest.starts[CALL]] == [True, False]
    assert [one.sid for one in calls.recordings.list()] == [first.sid]
    assert [one.sid for one in account.client().recordings.list(call_sid=CALL)] == [first.sid]


def test_pause_resume_stop_delete(account: Account) -> None:
    calls = account.client().calls(CALL)
    made = calls.recordings.create()
    assert calls.recordings("Twilio.CURRENT").update(status="paused").status == "paused"
    assert calls.recordings(made.sid).update(status="in-progress").status == "in-progress"
    assert calls.recordings(made.sid).update(status="stopped").status == "completed"
    with pytest.raises(TwilioRestException) as error:
        calls.recordings(made.sid).update(status="stopped")
    assert error.value.code == 21220
    assert account.client().recordings(made.sid).delete()
    with pytest.raises(TwilioRestException) as error:
        account.client().recordings(made.sid).fetch()
    assert error.value.code == 20404


@pytest.mark.parametrize("status", ["queued", "ringing", "completed"])
def test_only_a_call_in_progress_is_recorded(account: Account, status: str) -> None:
    account.phone.status = status
    with pytest.raises(TwilioRestException) as error:
        account.client().calls(CALL).recordings.create()
    assert (error.value.status, error.value.code) == (400, 21220)
    assert account.rest.recordings == {}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"RecordingChannels": "stereo"}, 20001),
        ({"RecordChannels": "dual"}, 20001),
        ({"RecordingStatusCallback": "not a url"}, 13256),
        ({"RecordingStatusCallbackEvent": "completed done"}, 13621),
    ],
)
def test_form_fields_are_checked(account: Account, fields: dict[str, str], code: int) -> None:
    url = f"{account.rest.url}/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}/Recordings.json"
    answer = requests.post(url, fields, auth=(ACCOUNT, "secret"), timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert account.rest.starts[CALL][0].code == code


def test_calls_are_listed_fetched_and_ended(account: Account) -> None:
    client = account.client()
    assert [call.sid for call in client.calls.list(status="in-progress")] == [CALL]
    assert client.calls.list(status="completed") == []
    assert client.calls(CALL).update(status="completed").status == "completed"
    assert account.phone.ended_by == "rest"
    account.phone.status, account.phone.ended_at = "completed", 1_700_000_007.0
    fetched = client.calls(CALL).fetch()
    assert (fetched.status, fetched.duration) == ("completed", "7")
    with pytest.raises(TwilioRestException):
        client.calls(CALL).update(status="completed")
    with pytest.raises(TwilioRestException):
        client.calls(CALL).update(status="busy")


@dataclass
class PlainCall:
    call_sid: str = "CA1"
    account_sid: str = "AC1"
    status: str = "queued"
    answered_at: float | None = None
    ended_at: float | None = None

    def hang_up(self, by: str) -> None:
        raise AssertionError(by)

    def redirect(self, document: str) -> None:
        raise AssertionError(document)


def test_a_form_keeps_repeated_names_and_blank_values() -> None:
    assert form("a=1&b=&a=2") == {"a": ("1", "2"), "b": ("",)}


def test_an_error_has_its_own_message_or_twilios() -> None:
    own, twilios, unknown = error_answer(21220, "not now"), error_answer(20404), error_answer(1)
    assert [answer.status for answer in (own, twilios, unknown)] == [400, 404, 400]
    assert [json.loads(answer.body)["message"] for answer in (own, twilios)] == [
        "not now",
        "The requested resource was not found",
    ]


def test_a_list_is_one_page() -> None:
    assert [page("calls", [{}] * n)["end"] for n in (0, 1, 60)] == [0, 0, 59]
    assert page("calls", [{}] * 60)["page_size"] == 60


def test_a_call_has_a_duration_once_it_is_over() -> None:
    assert call_resource(PlainCall())["start_time"] is None
    assert call_resource(PlainCall(answered_at=10.0))["duration"] is None
    over = call_resource(PlainCall(answered_at=10.0, ended_at=13.2))
    assert (over["duration"], over["uri"]) == ("3", "/2010-04-01/Accounts/AC1/Calls/CA1.json")

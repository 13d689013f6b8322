"""The REST twin, driven by the real twilio package with its base URL rewritten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pytest
import requests
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from gw.twin.twilio_http import Webhooks, sign
from gw.twin.twilio_rest import RestFault, TwilioRest
from tests.gw.twin.tiny_gateway import TinyGateway

ACCOUNT = "AC" + "1" * 32
CALL = "CA" + "2" * 32


@dataclass
class Phone:
    """A call, as far as REST is concerned."""

    call_sid: str = CALL
    account_sid: str = ACCOUNT
    status: str = "in-progress"
    answered_at: float | None = 1_700_000_000.0
    ended_at: float | None = None
    ended_by: str = ""

    def hang_up(self, by: str) -> None:
        self.ended_by = by


class Rewriting(TwilioHttpClient):
    """The package's own client, pointed elsewhere."""

    def __init__(self, base: str, timeout_s: float = 5.0) -> None:
        super().__init__(timeout=timeout_s)
        self._base = urlsplit(base)

    def request(self, method: str, uri: str, *arguments: object, **named: object) -> object:  # type: ignore[override]
        uri = urlunsplit(urlsplit(uri)._replace(scheme=self._base.scheme, netloc=self._base.netloc))
        return super().request(method, uri, *arguments, **named)  # type: ignore[arg-type]


@dataclass
class Account:
    rest: TwilioRest
    gateway: TinyGateway
    phone: Phone

    def client(self, token: str = "secret", timeout_s: float = 5.0) -> Client:
        return Client(ACCOUNT, token, http_client=Rewriting(self.rest.url, timeout_s))

    @property
    def callback(self) -> str:
        return f"{self.gateway.url}/twilio/recording"


@pytest.fixture
def account() -> Iterator[Account]:
    with TinyGateway() as gateway:
        phone = Phone()
        rest = TwilioRest(ACCOUNT, "secret", {CALL: phone}, Webhooks(gateway.url, gateway.url, "secret")).start()
        try:
            yield Account(rest, gateway, phone)
        finally:
            rest.stop()


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
    told = account.gateway.fields_of(path)
    assert [fields["RecordingStatus"] for fields in told] == ["in-progress", "completed"]
    assert told[1]["RecordingDuration"] == "12"
    assert told[1]["RecordingChannels"] == "2"
    _, headers, fields = account.gateway.posts[-1]
    assert headers["x-twilio-signature"] == sign("secret", account.callback, fields)
    assert account.client().calls(CALL).recordings(recording.sid).fetch().duration == "12"
    account.rest.on_call_ended(account.phone)
    account.rest.wait_callbacks()
    assert len(account.gateway.fields_of(path)) == 2
    assert account.rest.complaints == []


def test_only_what_was_asked_is_told(account: Account) -> None:
    account.client().calls(CALL).recordings.create(recording_status_callback=account.callback)
    account.rest.absent_calls.add(CALL)
    account.rest.on_call_ended(account.phone)
    account.rest.wait_callbacks()
    assert account.gateway.posts == []
    assert account.client().recordings.list()[0].status == "absent"


def test_absent_is_told(account: Account) -> None:
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


def test_pause_go_on_stop_delete(account: Account) -> None:
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


def test_who_and_what_is_unknown(account: Account) -> None:
    with pytest.raises(TwilioRestException) as error:
        account.client().calls("CA" + "9" * 32).recordings.create()
    assert (error.value.status, error.value.code) == (404, 20404)
    with pytest.raises(TwilioRestException) as error:
        account.client(token="wrong").calls(CALL).recordings.create()
    assert (error.value.status, error.value.code) == (401, 20003)
    with pytest.raises(TwilioRestException) as error:
        Client("AC" + "8" * 32, "secret", http_client=Rewriting(account.rest.url)).calls(CALL).fetch()
    assert error.value.status == 401
    base = f"{account.rest.url}/2010-04-01/Accounts"
    login = (ACCOUNT, "secret")
    assert requests.get(f"{base}/{ACCOUNT}/Nothing.json", auth=login, timeout=5).status_code == 404
    assert requests.get(f"{base}/AC{'7' * 32}/Calls.json", auth=login, timeout=5).status_code == 404
    assert requests.put(f"{base}/{ACCOUNT}/Calls.json", auth=login, timeout=5).status_code == 405


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


def test_another_content_type_is_complained_of(account: Account) -> None:
    url = f"{account.rest.url}/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}/Recordings.json"
    requests.post(url, json={}, auth=(ACCOUNT, "secret"), timeout=5)
    assert "application/json" in account.rest.complaints[0]
    assert requests.post(url, b"x" * 70_000, auth=(ACCOUNT, "secret"), timeout=5).status_code == 400


@pytest.mark.parametrize(
    ("fault", "status", "code"), [("21220", 400, 21220), ("20404", 404, 20404), ("20429", 429, 20429), ("503", 503, 503)]
)
def test_failures_on_demand(account: Account, fault: RestFault, status: int, code: int) -> None:
    account.rest.fail(fault, times=2)
    account.rest.fail("20404", call_sid="CAother")
    create = account.client().calls(CALL).recordings.create
    for _ in range(2):
        with pytest.raises(TwilioRestException) as error:
            create()
        assert (error.value.status, error.value.code) == (status, code)
    assert create().status == "in-progress"
    assert [start.recorded for start in account.rest.starts[CALL]] == [False, False, True]
    assert account.client().calls(CALL).fetch().status == "in-progress"


@pytest.mark.parametrize("fault", ["html_200", "not_json"])
def test_answers_that_are_none(account: Account, fault: RestFault) -> None:
    account.rest.fail(fault)
    with pytest.raises(ValueError):
        account.client().calls(CALL).recordings.create()
    assert account.rest.recordings == {}


@pytest.mark.parametrize(("fault", "recorded"), [("timeout_with_effect", 1), ("timeout_without_effect", 0)])
def test_answers_that_never_come(account: Account, fault: RestFault, recorded: int) -> None:
    account.rest.fail(fault)
    with pytest.raises(requests.exceptions.ReadTimeout):
        account.client(timeout_s=0.1).calls(CALL).recordings.create()
    assert account.rest.wait_for(lambda rest: len(rest.starts[CALL]) == 1)
    assert len(account.client().calls(CALL).recordings.list()) == recorded


def test_it_heals(account: Account) -> None:
    account.rest.fail("503", times=1000)
    with pytest.raises(TwilioRestException):
        account.client().calls(CALL).recordings.create()
    account.rest.heal()
    account.client().calls(CALL).recordings.create()
    assert [start.recorded for start in account.rest.starts[CALL]] == [False, True]


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


def test_failures_of_other_requests(account: Account) -> None:
    account.rest.fail("503", operation="list")
    account.rest.fail("20429", operation="call_update", call_sid=CALL)
    with pytest.raises(TwilioException):
        account.client().calls(CALL).recordings.list()
    with pytest.raises(TwilioRestException):
        account.client().calls(CALL).update(status="completed")
    assert account.phone.ended_by == ""

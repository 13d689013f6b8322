"""gw.twin.twilio.rest.server: authentication and faults, as the real twilio package sees them."""

from __future__ import annotations

import pytest
import requests
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.rest import Client

from gw.twin.twilio.rest.server import RestFault, RestTwin
from tests.gw.twin.twilio.rest_account import ACCOUNT, CALL, Account, Phone, Rewriting


def test_unknown_accounts_and_resources(account: Account) -> None:
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


def test_two_accounts_on_one_server(account: Account) -> None:
    """Each has its own resources, and refuses the other's credentials."""
    sid, call = "AC" + "5" * 32, Phone(call_sid="CA" + "5" * 32)
    beside = RestTwin(sid, "another secret", {call.call_sid: call}, account.rest._webhooks, beside=account.rest).start()
    assert beside.url == account.rest.url
    other = Client(sid, "another secret", http_client=Rewriting(beside.url))
    assert other.calls(call.call_sid).fetch().status == "in-progress"
    assert len(beside.requests) == 1
    base = f"{beside.url}/2010-04-01/Accounts"
    for path, login in ((sid, (ACCOUNT, "secret")), (ACCOUNT, (sid, "another secret")), (sid, (sid, "secret"))):
        assert requests.get(f"{base}/{path}/Calls.json", auth=login, timeout=5).status_code == 401
    with pytest.raises(TwilioRestException) as error:
        other.calls(CALL).fetch()
    assert error.value.status == 404
    beside.stop()
    assert account.client().calls(CALL).fetch().status == "in-progress", "the server is the first account's"


def test_another_content_type_is_a_complaint(account: Account) -> None:
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
def test_answers_that_are_not_valid(account: Account, fault: RestFault) -> None:
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


def test_a_failure_that_had_its_effect(account: Account) -> None:
    account.rest.fail("503_with_effect")
    with pytest.raises(TwilioRestException) as error:
        account.client().calls(CALL).recordings.create()
    assert error.value.status == 503
    assert len(account.client().calls(CALL).recordings.list()) == 1


def test_faults_can_be_cancelled(account: Account) -> None:
    account.rest.fail("503", times=1000)
    with pytest.raises(TwilioRestException):
        account.client().calls(CALL).recordings.create()
    account.rest.heal()
    account.client().calls(CALL).recordings.create()
    assert [start.recorded for start in account.rest.starts[CALL]] == [False, True]


def test_failures_of_other_requests(account: Account) -> None:
    account.rest.fail("503", operation="list")
    account.rest.fail("20429", operation="call_update", call_sid=CALL)
    with pytest.raises(TwilioException):
        account.client().calls(CALL).recordings.list()
    with pytest.raises(TwilioRestException):
        account.client().calls(CALL).update(status="completed")
    assert account.phone.ended_by == ""


def test_a_recording_is_downloaded_in_parts_and_deleted(account: Account) -> None:
    client = account.client()
    sid = client.calls(CALL).recordings.create(recording_channels="dual").sid
    url, login = f"{account.rest.url}/2010-04-01/Accounts/{ACCOUNT}/Recordings/{sid}.wav", (ACCOUNT, "secret")
    assert requests.get(url, auth=login, timeout=5).status_code == 404, "it is being recorded"
    account.rest.on_call_ended(account.phone)
    whole = requests.get(f"{url}?RequestedChannels=2", auth=login, timeout=5)
    assert (whole.status_code, whole.headers["Content-Type"], whole.content[:4]) == (200, "audio/x-wav", b"RIFF")
    size = len(whole.content)
    rest = requests.get(f"{url}?RequestedChannels=2", auth=login, headers={"Range": "bytes=100-"}, timeout=5)
    assert (rest.status_code, rest.headers["Content-Range"]) == (206, f"bytes 100-{size - 1}/{size}")
    assert rest.content == whole.content[100:]
    beyond = requests.get(f"{url}?RequestedChannels=2", auth=login, headers={"Range": f"bytes={size}-"}, timeout=5)
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert len(requests.get(url, auth=login, timeout=5).content) < size, "mono, unless requested otherwise"
    mono = client.calls(CALL).recordings.create().sid
    account.rest.on_call_ended(account.phone)
    refused = requests.get(f"{url.replace(sid, mono)}?RequestedChannels=2", auth=login, timeout=5)
    assert (refused.status_code, refused.json()["code"]) == (400, 16113)
    account.rest.fail("cut", operation="media")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = requests.get(url, auth=login, timeout=5).content
    assert client.recordings(sid).delete()
    assert requests.get(url, auth=login, timeout=5).status_code == 404

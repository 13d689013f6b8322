"""A live call is redirected, with a second try where that cannot dial twice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest

from gw import bus
from gw.config import Config
from gw.control.twilio_api import transfers
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.rest import TwilioRest
from gw.control.twilio_api.transfers import Transfers
from tests.gw.control.scripted_rest import CALL, OTHER_ACCOUNT, Answer, ScriptedRest, refusal
from tests.timing import scaled

WANTED = bus.CallEvent(CALL, "transfer_wanted", 0.0, {"to": "+15005550009"})
REDIRECTED = Answer(200, {"sid": CALL, "status": "in-progress"})


@pytest.fixture
def server() -> Iterator[ScriptedRest]:
    server = ScriptedRest()
    yield server
    server.stop()


def transfer(server: ScriptedRest, event: bus.Event = WANTED) -> list[str]:
    """Return the transferred calls. Those left to the webhook follow `refused`."""
    seen: list[str] = []
    made = Transfers(Accounts(server.config()), done=seen.append, refused=lambda call_sid: seen.append(f"refused {call_sid}"))
    made.on_event(event)
    assert made._pool.join(scaled(20))
    return seen


def test_a_call_is_redirected_after_a_second_try(server: ScriptedRest) -> None:
    server.posts.extend([refusal(429, 20429), REDIRECTED])
    assert transfer(server) == [CALL]
    assert len(server.seen) == 2
    assert "<Dial><Number>+15005550009</Number></Dial>" in server.seen[1].form["Twiml"][0]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_request_that_twilio_may_have_carried_out_is_not_repeated(server: ScriptedRest, status: int) -> None:
    """The second one would end the ringing of the first one's telephone, and dial it anew."""
    server.posts.extend([refusal(status, 0), REDIRECTED])
    assert transfer(server) == []
    assert len(server.seen) == 1


def test_a_final_refusal_leaves_the_call_to_the_webhook(server: ScriptedRest) -> None:
    server.posts.append(refusal(404, 20404))
    assert transfer(server) == [f"refused {CALL}"]
    assert len(server.seen) == 1


@pytest.mark.parametrize("account", [OTHER_ACCOUNT, "AC" + "3" * 32])
def test_a_transfer_uses_the_account_of_its_call(server: ScriptedRest, account: str) -> None:
    """That of an account that is not configured is left to the webhook."""
    server.posts.append(REDIRECTED)
    refused: list[str] = []
    made = Transfers(Accounts(server.config(other=True)), done=lambda call_sid: None, refused=refused.append)
    made.on_event(bus.CallEvent(CALL, "transfer_wanted", 0.0, {"to": "+15005550009", "account": account}))
    assert made._pool.join(scaled(20))
    paths = [f"/2010-04-01/Accounts/{OTHER_ACCOUNT}/Calls/{CALL}.json"] if account == OTHER_ACCOUNT else []
    assert [request.path for request in server.seen] == paths
    assert refused == ([] if paths else [CALL])


def test_tries_end_with_the_bound(server: ScriptedRest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "TRANSFER_S", 0.45)
    server.posts.append(refusal(429, 20429))
    assert transfer(server) == [f"refused {CALL}"]
    assert len(server.seen) == 1


def test_an_unexpected_failure_is_logged(
    server: ScriptedRest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no document")

    monkeypatch.setattr(TwilioRest, "redirect_call", fail)
    assert transfer(server) == []
    assert "could not be transferred by REST" in caplog.text


@pytest.mark.parametrize("event", [bus.CallEvent(CALL, "resumed", 0.0, {"n": 1}), bus.FirstAudio(CALL, time.time())])
def test_other_events_are_ignored(server: ScriptedRest, event: bus.Event) -> None:
    assert transfer(server, event) == []
    assert server.seen == []


def test_without_credentials_no_call_is_transferred() -> None:
    refused: list[str] = []
    made = Transfers(Accounts(Config()), done=lambda call_sid: None, refused=refused.append)
    made.on_event(WANTED)
    assert (len(made._pool), refused) == (0, [CALL])


def test_transfers_under_way_are_bounded(
    server: ScriptedRest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transfers, "MAX_TRANSFERS", 1)
    monkeypatch.setattr(TwilioRest, "redirect_call", lambda *_, **__: gevent.sleep(10))
    refused: list[str] = []
    made = Transfers(Accounts(server.config()), done=lambda call_sid: None, refused=refused.append)
    made.on_event(WANTED)
    made.on_event(WANTED)
    assert "too many are under way" in caplog.text
    assert refused == [CALL]
    assert len(made._pool) == 1
    made.stop()
    assert len(made._pool) == 0

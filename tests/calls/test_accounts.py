"""Several Twilio accounts on one gateway: each request, signature and recording uses the account of its call."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from gw.bench.gateway_process import GatewayProcess
from gw.control.admin.client import AdminClient, NotReachable
from gw.control.calls.status_callbacks import GRACE_S
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from tests import schema
from tests.calls.hearing import until
from tests.calls.test_secrets import reload
from tests.program import program
from tests.timing import scaled

SIDS = {"": "AC" + "0" * 31 + "1", "support": "AC" + "a" * 32, "sales": "AC" + "b" * 32}


class Accounts:
    """A gateway of real processes with two accounts; a third one is not configured yet."""

    def __init__(self, folder: Path) -> None:
        self.credentials = folder / "credentials"
        self.credentials.mkdir(0o700)
        tables = {"twilio.accounts.support": f'account_sid = "{SIDS["support"]}"\n', "server": "workers = 2\n"}
        self.gateway = GatewayProcess(program(), folder / "gateway", tables)
        schema.prepare(self.gateway)
        self.admin = AdminClient(self.gateway.admin_socket, timeout_s=scaled(20.0))
        main = TwilioTwin(self.gateway.url, account_sid=SIDS[""], auth_token=self.token(""))
        self.twilio = {"": main}
        for name in ("support", "sales"):
            self.twilio[name] = TwilioTwin(self.gateway.url, account_sid=SIDS[name], auth_token=self.token(name), beside=main)
        for name in ("", "support"):
            self.put_token(name)

    def token(self, name: str) -> str:
        return f"the token of {name or 'the main account'}"

    def put_token(self, name: str) -> None:
        (self.credentials / f"TWILIO_AUTH_TOKEN{f'_{name.upper()}' if name else ''}").write_text(self.token(name))

    def place(self, name: str) -> TwinCall:
        return self.twilio[name].place_call(speech.script(50), hang_up=False, max_s=scaled(60.0))

    def row(self, call: TwinCall) -> dict[str, Any]:
        """Return a call's row; empty while the store has none or control is away."""
        try:
            return self.admin.request("call", call_sid=call.call_sid) or {}
        except NotReachable:
            return {}

    def recording(self, call: TwinCall) -> dict[str, Any]:
        return self.row(call).get("recording") or {}

    def check_recorded(self, name: str, call: TwinCall) -> None:
        """Check that the call has one recording, in its own account."""
        until(lambda: self.recording(call).get("state") == "completed", f"the call of {name!r} was recorded")
        row = self.recording(call)
        assert row["account_sid"] == SIDS[name]
        made = {other: [one.sid for one in twin.rest.recordings_of(call.call_sid)] for other, twin in self.twilio.items()}
        assert made == {other: [row["recording_sid"]] if other == name else [] for other in self.twilio}

    def statuses(self, name: str, after: int = 0) -> set[int]:
        """Return the statuses of the account's requests `after` so many."""
        return {status for _, _, _, status in list(self.twilio[name].rest.requests)[after:]}


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    """One gateway for all tests: a start takes two seconds of CPU. Each leaves it serving; the last adds an account."""
    made = Accounts(tmp_path_factory.mktemp("accounts"))
    twins = made.twilio.values()
    with AiTwin(AiScript(greeting=lasting(60))) as ai:
        try:
            for twin in twins:
                twin.start()
            made.gateway.start(
                account_sid=SIDS[""],
                auth_token="stale",
                api_base=made.twilio[""].rest.url,
                ai_url=ai.url,
                credentials=made.credentials,
            )
            until(lambda: made.admin.request("status")["workers"], "a worker is connected")
            yield made
        finally:
            for twin in reversed(twins):
                twin.stop()
            made.gateway.stop()


def test_an_operators_acts_use_the_calls_account(accounts: Accounts) -> None:
    support = accounts.twilio["support"]
    placed = accounts.admin.request("dial", to="+15551234567", caller="+15557654321", account="support")
    call = support.calls[placed["call_sid"]]
    until(lambda: accounts.recording(call).get("state") == "started", "it is recorded")
    accounts.admin.request("transfer", call_sid=call.call_sid, to="+15550001111")
    assert call.wait(scaled(20.0))
    assert call.dialled == ["+15550001111"]
    other = accounts.place("support")
    until(lambda: accounts.recording(other).get("state") == "started", "it is recorded")
    assert accounts.admin.request("hangup", call_sid=other.call_sid)["rest"] == "requested"
    assert other.wait(scaled(20.0))
    accounts.check_recorded("support", other)
    sid = accounts.recording(other)["recording_sid"]
    assert accounts.admin.request("forget", call_sid=other.call_sid, twilio=True)["twilio"] == [sid]
    assert sid not in support.rest.recordings
    assert accounts.twilio[""].rest.requests == type(support.rest.requests)(), "nothing was asked of the main account"
    assert accounts.statuses("support") <= {200, 201, 204, 400}


def test_an_account_acts_on_no_call_of_another(accounts: Accounts) -> None:
    """The main account's token signs reports about the other's call. They reach both workers; only one has the call's stream."""
    call = accounts.place("support")
    until(lambda: accounts.recording(call).get("state") == "started", "it is recorded")
    webhooks, started = accounts.twilio[""].webhooks, accounts.recording(call)
    reports = {
        "status": {"CallStatus": "completed"},
        "recording": {
            "RecordingSid": started["recording_sid"],
            "RecordingStatus": "absent",
            "RecordingUrl": "https://example.com",
        },
        "action": {"CallStatus": "in-progress"},
    }
    posts = dict.fromkeys(reports, 0)
    answers = []

    def reach_both() -> bool:
        """Another worker than the call's does not know its account."""
        for kind, fields in reports.items():
            more = {"CallSid": call.call_sid, "AccountSid": SIDS[""], "From": "+1", "To": "+2", "X": str(posts[kind])}
            answers.append(webhooks.post(webhooks.absolute(f"/twilio/{kind}"), {**fields, **more}))
            posts[kind] += 1
        return {answer.status for answer in answers} >= {403, 204, 200}

    until(reach_both, "both workers were asked")
    assert all("<Response><Hangup /></Response>" in answer.body for answer in answers if answer.status == 200)

    def counted() -> dict[str, int]:
        lines = [line for line in accounts.gateway.metrics().splitlines() if 'outcome="wrong_account"' in line]
        found = {kind: sum(float(line.rpartition(" ")[2]) for line in lines if f'kind="{kind}"' in line) for kind in reports}
        return {kind: int(value) for kind, value in found.items()}

    until(lambda: counted() == posts, "each is counted once")
    gevent.sleep(GRACE_S + 0.5)
    assert not call.is_over
    row = accounts.recording(call)
    assert (row["state"], row["recording_sid"]) == ("started", started["recording_sid"])
    call.hang_up()
    accounts.check_recorded("support", call)
    assert accounts.row(call)["reason"] == "caller_hangup"


def test_a_fault_of_one_account_delays_no_other(accounts: Accounts) -> None:
    del accounts.twilio["support"].rest.auth_tokens[:]  # every request of this account is refused with 401
    failing = [accounts.place("support") for _ in range(2)]
    until(lambda: accounts.admin.request("status")["twilio"]["accounts"]["support"]["circuit"] == "open", "its circuit opens")
    assert "for the account support" in accounts.admin.request("status")["readiness"]["reasons"][0]
    call = accounts.place("")
    until(lambda: accounts.recording(call).get("state") == "started", "the main account's call is recorded")
    assert accounts.admin.request("status")["twilio"]["circuit"] == "closed"
    accounts.twilio["support"].rest.auth_tokens.append(accounts.token("support"))
    for one in (*failing, call):
        until(lambda one=one: accounts.recording(one).get("state") == "started", "then the others are")  # type: ignore[misc]
        one.hang_up()


def test_recordings_of_two_accounts_outlive_control(accounts: Accounts) -> None:
    """While Twilio fails, control is killed: the next one finds the account of each recording in its row."""
    before = {name: len(accounts.twilio[name].rest.requests) for name in ("", "support")}
    calls = {name: accounts.place(name) for name in ("", "support")}
    for twin in accounts.twilio.values():
        twin.rest.fail("503", 1000)
        twin.rest.fail("503", 1000, operation="list")
    for name, call in calls.items():
        until(lambda call=call: accounts.recording(call).get("state") == "claimed", f"{name!r} is claimed")  # type: ignore[misc]
        until(lambda name=name: 503 in accounts.statuses(name, before[name]), f"{name!r} was asked for")  # type: ignore[misc]
    os.kill(accounts.admin.request("status")["pid"], signal.SIGKILL)
    for twin in accounts.twilio.values():
        twin.rest.heal()
    for name, call in calls.items():
        until(lambda call=call: accounts.recording(call).get("state") == "started", f"{name!r} is recorded")  # type: ignore[misc]
        call.hang_up()
        accounts.check_recorded(name, call)
    asked = set().union(*(accounts.statuses(name, count) for name, count in before.items()))
    assert asked <= {200, 201, 503}, "no request with another's credentials"


def test_a_reload_adds_an_account(accounts: Accounts) -> None:
    before = accounts.place("sales")
    assert before.wait(scaled(20.0))
    assert before.voice is not None
    assert (before.voice.status, "is not configured" in before.voice.body) == (403, True)
    with accounts.gateway.config_path.open("a") as file:
        file.write(f'\n[twilio.accounts.sales]\naccount_sid = "{SIDS["sales"]}"\n')
    accounts.put_token("sales")
    present = accounts.place("support")
    until(lambda: accounts.recording(present).get("state") == "started", "it is recorded")
    reload(accounts.gateway)
    calls = {"sales": accounts.place("sales"), "support": present}
    for name, call in calls.items():
        until(lambda call=call: accounts.recording(call).get("state") == "started", f"{name} is recorded")  # type: ignore[misc]
        call.hang_up()
        accounts.check_recorded(name, call)

"""gw.control.twilio_api.accounts: each account has its own client and limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from gw.config import Config
from gw.control.twilio_api.accounts import Account, Accounts
from gw.control.twilio_api.answers import RestError
from gw.control.twilio_api.rest import TwilioRest
from tests.gw.control.scripted_rest import ACCOUNT, CALL, OTHER_ACCOUNT, ScriptedRest, listing


@pytest.fixture
def server() -> Iterator[ScriptedRest]:
    server = ScriptedRest()
    yield server
    server.stop()


def known(account: Account | None) -> Account:
    assert account is not None
    return account


def test_accounts_are_found_by_sid_and_by_name(server: ScriptedRest) -> None:
    accounts = Accounts(server.config(other=True))
    assert [(account.name, account.sid) for account in accounts] == [("", ACCOUNT), ("other", OTHER_ACCOUNT)]
    assert accounts.of("") is accounts.of(ACCOUNT) is accounts.named("")
    assert accounts.of(OTHER_ACCOUNT) is accounts.named("other")
    assert accounts.of("AC" + "3" * 32) is accounts.named("sales") is None


def test_without_credentials_it_is_empty() -> None:
    accounts = Accounts(Config())
    assert not accounts
    assert accounts.of("") is accounts.named("") is accounts.of_call(CALL, lambda _: ACCOUNT) is None


def test_each_sends_its_own_credentials(server: ScriptedRest) -> None:
    for account in Accounts(server.config(other=True)):
        server.gets.append(listing())
        account.rest.list_recordings(CALL)
    first, second = server.seen
    assert [request.path.split("/")[3] for request in server.seen] == [ACCOUNT, OTHER_ACCOUNT]
    assert first.authorization != second.authorization


def test_the_account_of_a_call_is_looked_up_only_among_several(server: ScriptedRest) -> None:
    def fail(call_sid: str) -> str:
        raise AssertionError(call_sid)

    alone, several = Accounts(server.config()), Accounts(server.config(other=True))
    assert known(alone.of_call(CALL, fail)).sid == ACCOUNT
    assert known(several.of_call(CALL, {CALL: OTHER_ACCOUNT}.get)).sid == OTHER_ACCOUNT
    for unknown in ({}, {CALL: "AC" + "3" * 32}):
        assert several.of_call(CALL, unknown.get) is None


def fail(error: RestError, _rest: TwilioRest) -> None:
    raise error


def test_an_error_holds_back_one_account(server: ScriptedRest) -> None:
    main, other = Accounts(server.config(other=True))
    errors = [
        RestError("busy", 20429, 429, "too many", retry_after_s=30.0),
        *[RestError("unauthorized", 20003, 401, "refused")] * 20,
    ]
    for error in errors:
        with pytest.raises(RestError):
            other.ask(partial(fail, error))
    now_s = time.monotonic()
    assert now_s + 20 < other.hold_until_s < now_s + 31, "an error without a Retry-After does not shorten another's"
    assert other.problem == "recordings wait, Twilio's REST API is down for the account other: unauthorized (20003): refused"
    assert (main.problem, main.hold_until_s, main.breaker.is_open) == ("", 0.0, False)

"""gw.control.jobs.leave: Twilio's new instructions for a call, sent at most once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from gw.call.leave import Leave, decode_leave, encode_leave
from gw.control.jobs import leave as module
from gw.control.jobs import lifecycle
from gw.control.jobs.leave import LeaveHandler, wish_of
from gw.control.jobs.lifecycle import Ended, Job
from gw.control.twilio_api.accounts import Accounts
from tests.gw.control.scripted_rest import CALL, Answer, ScriptedRest, refusal

KEY = "ab" * 16
TRANSFER = Leave(key=KEY, tool="transfer", call_id="c", target="sales", to="+15550001", whisper="Anna. Press 1.", route="r 1")
DIGITS = Leave(key=KEY, tool="send_digits", call_id="c", digits="12#")
REDIRECTED = Answer(200, {"sid": CALL, "status": "in-progress"})


@pytest.fixture
def server() -> Iterator[ScriptedRest]:
    server = ScriptedRest()
    yield server
    server.stop()


def job(leave: Leave, left_s: float = 5.0) -> Job:
    now = time.time()
    return lifecycle.want("1", module.KIND, CALL, encode_leave(leave), deadline_at=now + left_s, now=now)


def run(
    server: ScriptedRest,
    leave: Leave,
    attempt: int = 1,
    *,
    began_at: float | None = 0.0,
    left_s: float = 5.0,
    expected: list[bool] | None = None,
) -> Ended:
    config = server.config()

    def expect_stop(call_sid: str, on: bool) -> dict[str, str]:
        if expected is not None:
            expected.append(on)
        return {"route": "r 2", "dial": "list/1", "var_who": "Ann"} if on else {}

    handler = LeaveHandler(config.server, Accounts(config), lambda call_sid: began_at, expect_stop)
    assert handler.repeats(job(leave)) is not None
    return handler.run(job(leave, left_s), attempt)


def test_a_transfer_rings_with_a_whisper_and_asks_what_follows(server: ScriptedRest) -> None:
    server.posts.append(REDIRECTED)
    ended = run(server, TRANSFER)
    assert (ended.cause, ended.outcome, decode_leave(ended.result)) == ("done", "ok", TRANSFER)
    document = server.seen[0].form["Twiml"][0]
    base = server.config().server.public_base
    for piece in (
        f'<Dial action="{base}/twilio/action?left={KEY}&amp;route=r%201#rc=2&amp;rp=all" answerOnBridge="true" timeout="25">',
        f'<Number url="{base}/twilio/whisper?call={CALL}&amp;key={KEY}#rc=2&amp;rp=all">+15550001</Number>',
    ):
        assert piece in document


OPERATORS = Leave(key=KEY, tool="transfer", to="+15550001", whisper="Press 1.")


def test_an_operators_transfer_is_announced_and_keeps_what_all_streams_have(server: ScriptedRest) -> None:
    server.posts.append(REDIRECTED)
    expected: list[bool] = []
    assert run(server, OPERATORS, expected=expected).outcome == "ok"
    assert expected == [True]
    assert f"left={KEY}&amp;route=r%202&amp;dial=list%2F1&amp;var_who=Ann" in server.seen[0].form["Twiml"][0]


@pytest.mark.parametrize(
    ("leave", "answer", "announced"),
    [
        (OPERATORS, refusal(404, 20404), [True, False]),
        (OPERATORS, refusal(500, 0), [True]),  # the stream may end
        (TRANSFER, refusal(404, 20404), []),  # the agent has asked for it
    ],
)
def test_a_refused_transfer_is_taken_back(server: ScriptedRest, leave: Leave, answer: Answer, announced: list[bool]) -> None:
    server.posts.append(answer)
    expected: list[bool] = []
    run(server, leave, expected=expected)
    assert expected == announced


def test_digits_are_played_and_not_kept(server: ScriptedRest) -> None:
    server.posts.append(REDIRECTED)
    ended = run(server, DIGITS)
    assert '<Play digits="ww12#" />' in server.seen[0].form["Twiml"][0]
    assert "12#" not in ended.result


@pytest.mark.parametrize(("status", "code"), [(503, 0), (500, 0)])
def test_an_unclear_outcome_is_not_repeated(server: ScriptedRest, status: int, code: int) -> None:
    server.posts.append(refusal(status, code))
    ended = run(server, TRANSFER)
    assert (ended.cause, ended.outcome, len(server.seen)) == ("unclear", "unknown_outcome", 1)
    assert decode_leave(ended.result).key == KEY


def test_a_request_that_twilio_did_not_process_is_sent_again(server: ScriptedRest) -> None:
    server.posts.extend([refusal(429, 20429), REDIRECTED])
    assert run(server, TRANSFER).outcome == "ok"
    assert len(server.seen) == 2


@pytest.mark.parametrize(("answer", "word"), [(refusal(404, 20404), "refused"), (refusal(400, 21218), "unavailable")])
def test_a_refusal_is_the_tools_error(server: ScriptedRest, answer: Answer, word: str) -> None:
    server.posts.append(answer)
    ended = run(server, TRANSFER)
    assert (ended.cause, ended.outcome) == ("failed", word)
    assert msgspec.json.decode(ended.result)["error"] == word


def test_a_repetition_asks_twilio_only_while_the_call_has_its_stream(
    server: ScriptedRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.1)
    assert run(server, TRANSFER, 2, began_at=None).outcome == "ok"
    assert run(server, TRANSFER, 2, began_at=time.time() + 60.0).outcome == "ok", "the call has returned since"
    assert server.seen == []
    server.posts.append(REDIRECTED)
    assert run(server, TRANSFER, 2).outcome == "ok"
    assert len(server.seen) == 1


def test_another_account_and_an_unreadable_body_are_refused(server: ScriptedRest) -> None:
    foreign = msgspec.structs.replace(TRANSFER, account_sid="AC" + "9" * 32)
    assert run(server, foreign).outcome == "refused"
    handler = LeaveHandler(server.config().server, Accounts(server.config()), lambda call_sid: None)
    broken = msgspec.structs.replace(job(TRANSFER), body="{}")
    assert handler.run(broken, 1).outcome == "invalid_arguments"


def test_a_wish_is_found_in_an_open_job_and_in_a_settled_one() -> None:
    opened = job(TRANSFER)
    settled = msgspec.structs.replace(opened, state="done", body="", result=encode_leave(DIGITS))
    failed = msgspec.structs.replace(opened, state="failed", body="", result='{"error":"refused"}')
    assert wish_of([failed, opened], KEY) == TRANSFER
    assert wish_of([settled], KEY) == DIGITS
    assert wish_of([failed, settled], "cd" * 16) is None

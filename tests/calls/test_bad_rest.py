"""A REST API that keeps failing costs a call its recording, but no audio.

Row, log and metrics show the failure. Every call here is heard byte for byte, whatever Twilio answers. The failures here are
permanent; `test_recording` covers single ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

import gw.config
from gw.control.admin.client import AdminClient
from gw.twin.sound import SILENT_FRAME
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World, free_port
from tests.calls.shared import Outcome, end_good, padded, place_good, run_world, speaking
from tests.timing import scaled

RECORDING: Final = gw.config.Recording(retry_s=scaled(2.0))
AGENT_S: Final = 2.0
#: Four times as long as a start is retried: the last failure comes within the call.
CALL_FRAMES: Final = round(scaled(8.0) * 50)


class Case(NamedTuple):
    """Permanent failures of starts and lists, and the row's code: Twilio's number or our reason."""

    starts: str
    lists: str = ""
    error_code: int | None = None
    word: str = "call_ended"  # Twilio lists no recording, and the call is over
    last_code: int | None = None  # instead of the word, if a start was under way when the call ended

    @property
    def state(self) -> str:
        """Without a readable list it stays unknown whether a recording exists."""
        return "claimed" if self.lists else "failed"


CASES: Final[Mapping[str, Case]] = {
    "a proxy's page": Case("503"),
    "a page with status 200": Case("html_200"),
    "half an answer": Case("not_json"),
    "pages everywhere": Case("503", "html_200"),
    "no list": Case("html_200", "503"),
    "no answer": Case("timeout_without_effect"),
    "too many requests": Case("20429", last_code=20429),
    "never in progress": Case("21220", error_code=21220),
    "no such call": Case("20404", error_code=20404),
    "wrong credentials": Case("20003", last_code=20003),
    "an invalid parameter": Case("20001", error_code=20001),
}


def _place_calls(world: World, outcome: Outcome) -> None:
    rest = world.twilio.rest
    place_good(world, outcome)
    for name, case in CASES.items():
        call = world.twilio.place(CallPlan(speech=(SILENT_FRAME,) * CALL_FRAMES))
        rest.fail(case.starts, 1000, call.call_sid)  # type: ignore[arg-type]
        if case.lists:
            rest.fail(case.lists, 1000, call.call_sid, "list")  # type: ignore[arg-type]
        outcome.calls[name] = call
    hung_up = outcome.calls["hung up"] = world.twilio.place(CallPlan(hang_up=False))
    rest.fail("html_200", 1000, hung_up.call_sid, "call_update")
    world.gateway.until(lambda: len(hung_up.received_audio) >= AGENT_S * 8000, "the caller has heard the agent")
    admin = AdminClient(world.gateway.config.ops.admin_socket)
    outcome.seen["answer"] = admin.request("hangup", call_sid=hung_up.call_sid)
    for name, call in outcome.calls.items():
        assert name == "good" or call.wait(scaled(30)), f"{name} did not end"
    end_good(world, outcome)

    def all_final() -> bool:
        rows = [world.gateway.store.recording(outcome.calls[name].call_sid) for name in CASES]
        return all(row and row.state == case.state for row, case in zip(rows, CASES.values(), strict=True))

    world.gateway.until(all_final, "every recording is failed, or claimed", 60)
    rest.wait_callbacks()
    good_sid = outcome.calls["good"].call_sid
    world.gateway.until(lambda: world.gateway.store.recording(good_sid).state == "completed", "the good one is recorded")
    world.gateway.until(
        lambda: any(line.text.startswith("Twilio did not end a call") for line in outcome.log.lines),
        "REST did not end the call",
    )
    for call in outcome.calls.values():
        world.gateway.ended(call.call_sid)
    outcome.keep(world)
    outcome.seen["made"] = {name: rest.recordings_of(call.call_sid) for name, call in outcome.calls.items()}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Outcome:
    """Place every call above at the same time, beside a good one."""
    return run_world(tmp_path_factory.mktemp("rest"), shared_store, speaking(AGENT_S), _place_calls, recording=RECORDING)


@pytest.mark.parametrize("name", CASES)
def test_a_call_that_cannot_be_recorded(outcome: Outcome, name: str) -> None:
    case, call, row = CASES[name], outcome.calls[name], outcome.rows[name]
    outcome.check_ended(name, "caller_hangup")
    assert call.received_audio == padded(outcome.sessions[name].responses[0].audio)
    assert (call.error, call.warnings, call.closed_by) == ("", [], "caller")
    assert row is not None
    recording = row["recording"]
    assert (recording["state"], recording["recording_sid"]) == (case.state, None)
    assert outcome.seen["made"][name] == []
    logged = [line for line in outcome.log.lines if line.call_sid == call.call_sid and line.text.startswith("no recording after")]
    if case.state == "claimed":
        assert (recording["reason"], logged) == (None, [])
        return
    code = case.last_code if recording["error_code"] is not None and case.last_code else case.error_code
    why = str(code or case.word)
    assert (recording["error_code"], recording["reason"]) == (code, None if code else case.word)
    assert "<" not in recording["error_text"]  # no text of an HTML page
    shown = "twilio_error" if why.isdecimal() else why  # the number is in the text
    assert [(line.level, line.reason) for line in logged] == [(logging.ERROR, shown)]


def test_a_hang_up_whose_rest_request_fails(outcome: Outcome) -> None:
    assert outcome.seen["answer"] == {"call_sid": outcome.calls["hung up"].call_sid, "worker": True, "rest": "requested"}
    outcome.check_ended("hung up", "admin_hangup")
    assert outcome.calls["hung up"].closed_by == "gateway"


def test_the_metrics_count_each_end_once(outcome: Outcome) -> None:
    outcomes = {name: value for name, value in outcome.metrics.items() if name.startswith("gw_recordings_total") and value}
    assert outcomes == {
        'gw_recordings_total{outcome="failed"}': sum(case.state == "failed" for case in CASES.values()),
        'gw_recordings_total{outcome="started"}': 2,
        'gw_recordings_total{outcome="completed"}': 2,
    }
    assert outcome.ended == {"caller_hangup": len(CASES) + 1, "admin_hangup": 1}


def test_the_good_call_beside_them_is_undisturbed(outcome: Outcome) -> None:
    outcome.check_good()
    assert len(outcome.seen["made"]["good"]) == 1


def test_no_greenlet_descriptor_or_open_call_remains(outcome: Outcome) -> None:
    outcome.check_nothing_left()


# -- addresses without an API -------------------------------------------------------------------------------------------


def _greet(sock: socket.socket, address: tuple[str, int]) -> None:
    sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    gevent.sleep(scaled(0.2))
    sock.close()


@pytest.mark.parametrize(("server", "word"), [("none", "unreachable"), ("not HTTP", "timeout")])
def test_an_address_without_an_api(tmp_path: Path, server: str, word: str) -> None:
    def place_calls(world: World, outcome: Outcome) -> None:
        outcome.calls["one"] = call = world.twilio.place(CallPlan(speech=(SILENT_FRAME,) * 150))
        assert call.wait(scaled(10))
        world.gateway.ended(call.call_sid)
        world.gateway.until(
            lambda: any(line.reason == word for line in outcome.log.lines if "waits for the reconcile pass" in line.text),
            "the recording waits for Twilio",
            20,
        )
        outcome.keep(world)

    ssh = StreamServer(("127.0.0.1", 0), _greet)
    ssh.start()
    port = free_port() if server == "none" else ssh.server_port
    store = gw.config.Store(url=f"sqlite:///{tmp_path}/store.db")
    try:
        outcome = run_world(
            tmp_path,
            store,
            speaking(1.0),
            place_calls,
            recording=gw.config.Recording(retry_s=1.0),
            api_base=f"http://127.0.0.1:{port}",
        )
    finally:
        ssh.stop(timeout=0.1)
    outcome.check_ended("one", "caller_hangup")
    assert outcome.calls["one"].received_audio == padded(outcome.sessions["one"].responses[0].audio)
    row = outcome.rows["one"]
    assert row is not None
    assert (row["recording"]["state"], row["recording"]["reason"]) == ("claimed", None), "Twilio never answered"
    outcome.check_nothing_left()

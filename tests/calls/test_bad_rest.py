"""A REST API that goes on failing: it costs its call the recording, says so in row, log and metrics, and is never heard.

Every call here talks to its end, bit by bit, whatever Twilio answers about it meanwhile. What one failure alone brings about is
`test_recording`'s to show; these do not pass.
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
from tests.mariadb import MariaDB
from tests.timing import scaled

RECORDING: Final = gw.config.Recording(retry_s=scaled(2.0))
AGENT_S: Final = 2.0


class Case(NamedTuple):
    """Which requests fail how, for as long as anybody asks, and Twilio's number or our word in the row."""

    starts: str
    lists: str = ""
    error_code: int | None = None
    word: str = "call_ended"  # Twilio's list says that there is none, and the call is over

    @property
    def state(self) -> str:
        """A list that cannot be read says neither that there is a recording nor that there is none."""
        return "claimed" if self.lists else "failed"


CASES: Final[Mapping[str, Case]] = {
    "a proxy's page": Case("503"),
    "a page that says 200": Case("html_200"),
    "half an answer": Case("not_json"),
    "pages everywhere": Case("503", "html_200"),
    "no list": Case("html_200", "503"),
    "no answer": Case("timeout_without_effect"),
    "too many at once": Case("20429"),
    "never in progress": Case("21220", error_code=21220),
    "no such call": Case("20404", error_code=20404),
    "wrong credentials": Case("20003", error_code=20003),
    "an invalid parameter": Case("20001", error_code=20001),
}


def _happen(world: World, outcome: Outcome) -> None:
    rest = world.twilio.rest
    place_good(world, outcome)
    for name, case in CASES.items():
        call = world.twilio.place(CallPlan(speech=(SILENT_FRAME,) * 250))
        rest.fail(case.starts, 1000, call.call_sid)  # type: ignore[arg-type]
        if case.lists:
            rest.fail(case.lists, 1000, call.call_sid, "list")  # type: ignore[arg-type]
        outcome.calls[name] = call
    hung_up = outcome.calls["hung up"] = world.twilio.place(CallPlan(hang_up=False))
    rest.fail("html_200", 1000, hung_up.call_sid, "call_update")
    world.gateway.until(lambda: len(hung_up.received_audio) >= AGENT_S * 8000, "it has heard the agent")
    admin = AdminClient(world.gateway.config.ops.admin_socket)
    outcome.seen["answer"] = admin.request("hangup", call_sid=hung_up.call_sid)
    for name, call in outcome.calls.items():
        assert name == "good" or call.wait(scaled(30)), f"{name} did not end"
    end_good(world, outcome)

    def settled() -> bool:
        rows = [world.gateway.store.recording(outcome.calls[name].call_sid) for name in CASES]
        return all(row and row.state == case.state for row, case in zip(rows, CASES.values(), strict=True))

    world.gateway.until(settled, "every recording is given up, or waits", 30)
    rest.wait_callbacks()
    good_sid = outcome.calls["good"].call_sid
    world.gateway.until(lambda: world.gateway.store.recording(good_sid).state == "completed", "the good one is recorded")
    world.gateway.until(
        lambda: any(line.text.startswith("Twilio, asked to end a call") for line in outcome.log.lines),
        "REST did not end the call",
    )
    for call in outcome.calls.values():
        world.gateway.ended(call.call_sid)
    outcome.keep(world)
    outcome.seen["made"] = {name: rest.recordings_of(call.call_sid) for name, call in outcome.calls.items()}


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory, mariadb_server: MariaDB) -> Outcome:
    """Everything above at once, and a good call."""
    mariadb_server.start()
    store = gw.config.Store(url=mariadb_server.fresh())
    return run_world(tmp_path_factory.mktemp("rest"), store, speaking(AGENT_S), _happen, recording=RECORDING)


@pytest.mark.parametrize("name", CASES)
def test_a_call_that_cannot_be_recorded(happened: Outcome, name: str) -> None:
    case, call, row = CASES[name], happened.calls[name], happened.rows[name]
    happened.check_ended(name, "caller_hangup")
    assert call.received_audio == padded(happened.said[name].responses[0].audio)
    assert (call.error, call.warnings, call.closed_by) == ("", [], "caller")
    assert row is not None
    recording = row["recording"]
    assert (recording["state"], recording["recording_sid"]) == (case.state, None)
    assert happened.seen["made"][name] == []
    told = [line for line in happened.log.lines if line.call_sid == call.call_sid and line.text.startswith("no recording after")]
    if case.state == "claimed":
        assert (recording["reason"], told) == (None, [])
        return
    why = str(case.error_code or case.word)
    assert (recording["error_code"], recording["reason"]) == (case.error_code, None if case.error_code else case.word)
    assert "<" not in recording["error_text"]  # a page is no explanation
    shown = "twilio_error" if why.isdecimal() else why  # the number stands beside it
    assert [(line.level, line.reason) for line in told] == [(logging.ERROR, shown)]


def test_a_hang_up_that_rest_does_not_carry_out(happened: Outcome) -> None:
    assert happened.seen["answer"] == {"call_sid": happened.calls["hung up"].call_sid, "worker": True, "rest": "requested"}
    happened.check_ended("hung up", "admin_hangup")
    assert happened.calls["hung up"].closed_by == "gateway"


def test_the_metrics_count_each_once(happened: Outcome) -> None:
    outcomes = {name: value for name, value in happened.metrics.items() if name.startswith("gw_recordings_total") and value}
    assert outcomes == {
        'gw_recordings_total{outcome="failed"}': sum(case.state == "failed" for case in CASES.values()),
        'gw_recordings_total{outcome="started"}': 2,
        'gw_recordings_total{outcome="completed"}': 2,
    }
    assert happened.ended == {"caller_hangup": len(CASES) + 1, "admin_hangup": 1}


def test_the_call_beside_them_did_not_notice(happened: Outcome) -> None:
    happened.check_good()
    assert len(happened.seen["made"]["good"]) == 1


def test_nothing_is_left(happened: Outcome) -> None:
    happened.check_nothing_left()


# -- where no API is at all ---------------------------------------------------------------------------------------------


def _greet(sock: socket.socket, address: tuple[str, int]) -> None:
    sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    gevent.sleep(scaled(0.2))
    sock.close()


@pytest.mark.parametrize(("stranger", "word"), [("nobody", "unreachable"), ("no HTTP", "timeout")])
def test_an_api_that_is_none(tmp_path: Path, stranger: str, word: str) -> None:
    def happen(world: World, outcome: Outcome) -> None:
        outcome.calls["one"] = call = world.twilio.place(CallPlan(speech=(SILENT_FRAME,) * 150))
        assert call.wait(scaled(10))
        world.gateway.ended(call.call_sid)
        world.gateway.until(
            lambda: any(line.reason == word for line in outcome.log.lines if "waits for the reconcile pass" in line.text),
            "it waits for Twilio",
            20,
        )
        outcome.keep(world)

    server = StreamServer(("127.0.0.1", 0), _greet)
    server.start()
    port = free_port() if stranger == "nobody" else server.server_port
    store = gw.config.Store(url=f"sqlite:///{tmp_path}/store.db")
    try:
        happened = run_world(
            tmp_path,
            store,
            speaking(1.0),
            happen,
            recording=gw.config.Recording(retry_s=1.0),
            api_base=f"http://127.0.0.1:{port}",
        )
    finally:
        server.stop(timeout=0.1)
    happened.check_ended("one", "caller_hangup")
    assert happened.calls["one"].received_audio == padded(happened.said["one"].responses[0].audio)
    row = happened.rows["one"]
    assert row is not None
    assert (row["recording"]["state"], row["recording"]["reason"]) == ("claimed", None), "Twilio never said that there is none"
    happened.check_nothing_left()

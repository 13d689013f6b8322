"""A gateway of real processes under calls: reload, drain, too many callers, and a killed supervisor.

The tests of `r` share one gateway of two workers: a start takes five seconds of CPU. They leave it serving, with its first file.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
from sqlalchemy.engine import make_url

from gw.config import Agent
from gw.control.calls import lost_calls
from gw.twin.twilio.caller import TwinCall
from tests.calls import hurried
from tests.calls.hearing import until
from tests.calls.test_restart import AUTH_TOKEN, NEVER_ENDS, SCRIPT, TALKS, Running, running
from tests.gw.control.store.test_outages import Line
from tests.mariadb import MariaDB
from tests.timing import scaled

#: A gateway that looks for lost calls sooner; the one-file binary cannot.
HURRIED = SCRIPT if os.environ.get("SUBMILLI_BINARY") else [sys.executable, hurried.__file__]
GRACE_S = lost_calls.GRACE_S if HURRIED is SCRIPT else hurried.GRACE_S


@pytest.fixture(autouse=True)
def ignore_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge only that all audio is heard, not its gaps.

    Eight starting processes on a small machine delay the twins too. `tests/bench/reload.py` measures gaps on an idle machine.
    """
    monkeypatch.setattr("tests.calls.test_restart.JITTER_MS", 60_000)


@pytest.fixture(scope="module")
def r(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("reload"), TALKS, workers=2) as made:
        yield made


@contextlib.contextmanager
def edited(path: Path) -> Iterator[str]:
    """Yield a file's text, and restore it afterwards."""
    before = path.read_text()
    try:
        yield before
    finally:
        path.write_text(before)


def command(r: Running, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a gateway command, as an operator does."""
    argv = [*SCRIPT, "--config", str(r.gateway.config_path), *words]
    environ = {**os.environ, "TWILIO_AUTH_TOKEN": AUTH_TOKEN, "OPENAI_API_KEY": "none"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=scaled(60.0), env=environ)


def arrive(r: Running, seconds: float) -> list[TwinCall]:
    """Place a call every half second, for `seconds`."""
    calls = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        calls += r.place(1)
        gevent.sleep(0.5)
    return calls


def check_accepts(r: Running) -> None:
    """Place one more call, which must be accepted."""
    (call,) = r.place(1)
    until(lambda: call.received_audio or call.spoken, "the caller is answered")
    assert call.spoken == []


def ended(r: Running) -> int:
    """Return the count of calls that the AI ended, over all processes past and present."""
    line = next(line for line in r.gateway.metrics().splitlines() if 'calls_ended_total{reason="ai_hangup"}' in line)
    return int(float(line.split()[-1]))


def test_a_reload_that_would_fail_changes_nothing(r: Running) -> None:
    """`config check` cannot find a taken port. The workers were replaced before control refused it."""
    path = r.gateway.config_path
    with edited(path) as text, socket.create_server(("127.0.0.1", 0)) as taken:
        before = r.pids()
        assert "gw_reload_failed 0.0" in r.gateway.metrics()
        done = command(r, "reload", "--check", "--json")
        assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "done"), "the running control has the present port"
        port = taken.getsockname()[1]
        path.write_text(re.sub(r'(\[ops\]\nlisten = )"[^"]*"', rf'\1"127.0.0.1:{port}"', text))
        for words in (("reload", "--check"), ("reload",)):
            failed = command(r, *words)
            assert failed.returncode == 1
            assert f"ops.listen = 127.0.0.1:{port} cannot be used: Address already in use" in failed.stderr
            assert r.pids() == before, "no process was replaced"
        until(lambda: "gw_reload_failed 1.0" in r.gateway.metrics(), "the failed reload raises an alert")
        check_accepts(r)


def test_a_reload_under_calls_loses_none(r: Running) -> None:
    """Every process is replaced under twelve calls, while callers keep arriving: all calls are whole.

    Counters continue. A configuration with an error changes nothing, and the command names the error.
    """
    first = r.place(3)
    for call in first:
        r.check_whole(call)
    before, counted = r.pids(), ended(r)
    live = r.place(12)
    until(lambda: all(call.received_audio for call in live), "every agent talks")
    arriving = gevent.spawn(arrive, r, 3.0)
    done = command(r, "reload")
    assert done.returncode == 0, done.stderr
    assert "Reloaded: new calls go to 2 new workers" in done.stdout
    until(lambda: "gw_reload_failed 0.0" in r.gateway.metrics(), "the alert of an earlier failure ends")
    until(lambda: len(r.pids()) >= 3, "the new ones are on the bus")
    assert not {before["control"]} & set(r.pids().values())
    for call in [*live, *arriving.get()]:
        r.check_whole(call)
        assert [one for one in call.spoken if one] == []
    until(lambda: set(before.values()).isdisjoint(r.gateway.pids()), "the former processes have ended")
    assert ended(r) == counted + len(live) + len(arriving.value)

    after = r.pids()
    with edited(r.gateway.config_path) as text:
        r.gateway.config_path.write_text(text.replace("[media]\n", "[media]\nlead = 1\n"))
        failed = command(r, "reload")
        assert failed.returncode == 1
        assert "media.lead is unknown" in failed.stderr
        os.kill(after["worker 0"], signal.SIGKILL)  # its successor gets the file that was accepted
        until(lambda: r.pids().get("worker 0") not in (None, after["worker 0"]), "the worker is replaced")
        check_accepts(r)


def test_a_call_that_outlasts_the_reload_hears_a_goodbye(tmp_path: Path) -> None:
    """The agent is heard until reload_timeout_s, then Twilio speaks the goodbye; the former worker ends.

    The rest is asked of the new processes, so the timeout is longer than the replacement of control takes.
    """
    with running(tmp_path, NEVER_ENDS, workers=1, server="reload_timeout_s = 5\n") as r:
        live = r.place(2)
        until(lambda: all(call.received_audio for call in live), "the agents talk")
        before = r.pids()
        assert command(r, "reload").returncode == 0
        for call in live:
            assert call.wait(scaled(20.0))
            assert (call.closed_by, call.close_code, call.close_reason) == ("gateway", 1000, "shutdown")
            assert call.heard_audio.startswith(NEVER_ENDS.greeting[:8000])
            assert call.spoken == [Agent().goodbye]
            assert not call.error
            until(lambda call=call: r.row(call).get("ended_at"), "its end is stored")  # type: ignore[misc]
            assert (r.row(call)["reason"], r.row(call)["result"]) == ("shutdown", "success")
        until(lambda: set(before.values()).isdisjoint(r.gateway.pids()), "the former processes have ended")
        check_accepts(r)


def bus_away_s(log_path: Path) -> float:
    """Return the time without a bus; 0.0 before it ended.

    Of the last replacement of control.
    """
    lines = [json.loads(line) for line in log_path.read_text().splitlines() if '"process":"control"' in line]
    times = [datetime.datetime.fromisoformat(line["ts"]).timestamp() for line in lines]
    ended = max(n for n, line in enumerate(lines) if line["message"] == "control stops")
    back = [times[n] for n, line in enumerate(lines) if n > ended and "connected" in line["message"]]
    return min(back) - times[ended] if back else 0.0


@contextlib.contextmanager
def store_that_fails(
    folder: Path, mariadb: MariaDB, *, sqlite: bool
) -> Iterator[tuple[str, Callable[[str], None], Callable[[], None]]]:
    """Yield the URL of a store, and functions that begin and end an outage."""
    if sqlite:
        path = folder / "var" / "submilli.db"
        locks: list[sqlite3.Connection] = []

        def lock(_: str) -> None:
            locks.append(sqlite3.connect(path, isolation_level=None))
            locks[0].execute("BEGIN EXCLUSIVE")

        try:
            yield f"sqlite:///{path}", lock, lambda: locks[0].close()
        finally:
            for one in locks:
                one.close()
        return
    url, line = make_url(mariadb.fresh()), Line(mariadb.port)
    mariadb.execute("CREATE USER IF NOT EXISTS nopassword@'127.0.0.1'")  # the gateway's processes are given none
    mariadb.execute(f"GRANT ALL ON {url.database}.* TO nopassword@'127.0.0.1'")

    def change(outage: str) -> None:
        line.dead = outage == "mute"
        line.delay_s = 0.25 if outage == "slow" else 0.0
        line.port = 9 if outage == "refuses" else mariadb.port
        line.drop()

    try:
        yield f"mysql+pymysql://nopassword@127.0.0.1:{line.listens}/{url.database}", change, lambda: change("")
    finally:
        line.close()


@pytest.mark.parametrize("outages", [("refuses", "mute", "slow"), ("locked",)], ids=["mariadb", "sqlite"])
def test_control_is_replaced_quickly_in_every_outage_of_the_store(
    tmp_path: Path, mariadb: MariaDB, outages: tuple[str, ...]
) -> None:
    """Calls end in the outage, and control is replaced in it: each call is counted once.

    Measured: 0.8 to 1.6 s without a bus on a busy machine: 0.1 s for the end of the former control, the rest for the start of a
    process. A locked SQLite file took 10.6 s, and a mute MariaDB 0.8 s more, when control waited for the store. The bound grows
    with the time of the gateway's first start, which is longer on a busier machine.
    """
    began_s = time.monotonic()
    with (
        store_that_fails(tmp_path, mariadb, sqlite=outages == ("locked",)) as (url, begin, end),
        running(tmp_path, NEVER_ENDS, workers=1, store_url=url, program=HURRIED) as r,
    ):
        start_s = time.monotonic() - began_s
        for outage in outages:
            calls = r.place(3)
            until(lambda calls=calls: all(call.received_audio and r.row(call) for call in calls), "the store has the calls")  # type: ignore[misc]
            begin(outage)
            for call in calls:
                call.hang_up()
            assert all(call.wait(scaled(20.0)) for call in calls)
            done = command(r, "reload")
            assert done.returncode == 0, done.stderr
            until(lambda: bus_away_s(r.gateway.log_path), f"{outage}: the bus is back")
            assert bus_away_s(r.gateway.log_path) < scaled(5.0) + start_s, outage
            if outage in ("mute", "slow"):
                gevent.sleep(GRACE_S + 1.0)  # the next control looks for calls without a worker
            end()
            until(lambda calls=calls: all(r.row(call).get("ended_at") for call in calls), f"{outage}: the ends are stored")  # type: ignore[misc]
            assert {r.row(call)["reason"] for call in calls} == {"caller_hangup"}, outage
        gevent.sleep(2 * lost_calls.RETRY_S)
        page = r.gateway.metrics()
        assert f'gw_calls_ended_total{{reason="caller_hangup"}} {3.0 * len(outages)}' in page
        assert 'gw_calls_ended_total{reason="worker_lost"} 0.0' in page


def test_more_callers_than_slots(tmp_path: Path) -> None:
    """Six slots on two workers: six calls are whole, the others hear a sentence, and slots are reused."""
    with running(tmp_path, TALKS, workers=2, server="max_calls_per_worker = 3\n") as r:
        calls = r.place(10)
        until(lambda: all(call.received_audio or call.spoken for call in calls), "every caller is answered")
        taken = [call for call in calls if call.received_audio]
        assert len(taken) == 6
        assert {text for call in calls if call not in taken for text in call.spoken} == {
            "All our lines are busy. Please call again in a few minutes."
        }
        status = r.status()
        assert status is not None
        assert (status["machine"]["calls"], status["machine"]["capacity"], status["machine"]["reserved"]) == (6, 6, 0)
        assert "every slot is taken: 6 calls of 6" in status["readiness"]["reasons"]
        assert [one["calls"] for one in status["machine"]["processes"][1:]] == [3, 3]
        for call in taken:
            r.check_whole(call)

        def is_free() -> bool:
            """On a busy machine, full workers were late too, until the second after their calls."""
            status = r.status()
            return status is not None and not status["readiness"]["reasons"]

        until(is_free, "slots are free, and no worker is late")
        check_accepts(r)


def test_a_drained_machine_refuses_callers_and_keeps_its_calls(r: Running) -> None:
    live = r.place(2)
    until(lambda: all(call.received_audio for call in live), "the agents talk")
    waiting = gevent.spawn(command, r, "drain", "--wait")
    until(lambda: (r.status() or {})["machine"]["drained"], "the machine is drained")
    turned_away = r.place(1)[0]
    assert turned_away.wait(scaled(10.0))
    assert turned_away.spoken
    for name in ("worker 0", "worker 1"):
        os.kill(r.pids()[name], 0)
    for call in live:
        r.check_whole(call)
    done = waiting.get()
    assert (done.returncode, done.stdout) == (0, "Drained: new calls are refused, and no call is left.\n")
    assert command(r, "undrain").returncode == 0
    until(lambda: (r.status() or {})["readiness"]["ready"], "the machine is ready again")
    check_accepts(r)


def test_a_supervisor_is_killed_and_another_takes_over(r: Running, tmp_path: Path) -> None:
    """The port is free immediately, and the calls end normally on the bus of the next gateway."""
    live = r.place(3)
    until(lambda: all(call.received_audio for call in live), "the agents talk")
    until(lambda: all((r.row(call).get("recording") or {}).get("recording_sid") for call in live), "they are recorded")
    before = r.pids()
    supervisor = r.gateway.pids()[0]
    os.kill(supervisor, signal.SIGKILL)
    began_s = time.monotonic()
    r.gateway.log_path.rename(tmp_path / "killed.log")
    r.gateway.stop()  # collects the dead process
    r.gateway.start(account_sid=r.twilio.account_sid, auth_token=AUTH_TOKEN, api_base=r.twilio.rest.url, ai_url=r.ai.url)
    assert time.monotonic() - began_s < scaled(15.0)
    until(lambda: len(r.pids()) >= 3, "the new ones are on the bus")
    assert before["control"] != r.pids()["control"]
    for call in [*live, *r.place(2)]:
        r.check_whole(call)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before.values()), "the former workers have ended")

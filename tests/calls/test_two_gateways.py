"""Gateways of real processes on one store: each continues its own calls and recordings, and no others.

Two have one hostname and one path of `var_dir`, as two containers of one image; one comes back with another hostname. Needs root,
for private mounts and hostnames.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

import gw.config
from gw.bench.gateway_process import GatewayProcess
from gw.control.admin.client import AdminClient
from gw.control.calls.lost_calls import GRACE_S
from gw.control.recording.reconcile import FIRST_PASSES_S
from gw.control.rows import CallDetails
from gw.control.store import Store
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.stream import CallPlan
from tests.calls.hearing import until
from tests.mariadb import PASSWORD, MariaDB
from tests.program import program
from tests.timing import scaled

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests as root for mounts and hostnames")

AUTH_TOKEN = "an auth token of the tests"
#: Makes the folder `$0` appear as `$1`, on a machine named `$2`, and becomes the rest.
_MACHINE = 'mount --bind "$0" "$1" && mount -t tmpfs tmpfs /dev/shm && hostname "$2" && shift 2 && exec "$@"'


class Machine(GatewayProcess):
    """A gateway on a private machine, where `var_dir` has the path `seen`."""

    def __init__(self, folder: Path, seen: Path, store_url: str) -> None:
        super().__init__([], folder, {"server": "workers = 1\n"}, store_url)
        self._seen = seen
        seen.mkdir(exist_ok=True)
        self.var_dir.mkdir()
        self.rename("voice")

    def rename(self, hostname: str) -> None:
        """Give the machine another hostname, from the next start on."""
        machine = ["unshare", "--mount", "--uts", "sh", "-c", _MACHINE, str(self.var_dir), str(self._seen), hostname]
        self._command = [*machine, *program(), "--config", str(self.config_path), "serve"]

    def configuration(self, account_sid: str, api_base: str, ai_url: str) -> str:
        return super().configuration(account_sid, api_base, ai_url).replace(str(self.var_dir), str(self._seen))

    def lose_power(self) -> None:
        """End every process, without a word to anyone."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Site:
    """Machines between the twins, on one store."""

    def __init__(self, folder: Path, server: MariaDB, up: contextlib.ExitStack) -> None:
        self._folder = folder
        self._up = up
        self._url = server.fresh()
        self._credentials = folder / "credentials"
        self._credentials.mkdir()
        (self._credentials / "SUBMILLI_DB_PASSWORD").write_text(PASSWORD)
        self._ai = up.enter_context(AiTwin(AiScript(greeting=lasting(120))))
        self.machines = [Machine(folder / name, folder / "var", self._url) for name in ("a", "b")]
        self.twilio = up.enter_context(TwilioTwin(self.machines[0].url, auth_token=AUTH_TOKEN))
        self.store = Store(gw.config.Store(url=self._url), PASSWORD)
        up.callback(self.store.close)

    def start(self, machine: Machine) -> None:
        self._up.callback(machine.stop)
        machine.start(
            account_sid=self.twilio.account_sid,
            auth_token=AUTH_TOKEN,
            api_base=self.twilio.rest.url,
            ai_url=self._ai.url,
            credentials=self._credentials,
        )

    def call(self, machine: Machine, recording_state: str) -> TwinCall:
        """Place a long call; wait for its row and for the state of its recording."""
        plan = CallPlan(hang_up=False, max_s=scaled(120.0))
        call = self.twilio.place(plan, voice_url=f"{machine.url}/twilio/voice", status_url=f"{machine.url}/twilio/status")

        def has_state() -> bool:
            row = self.store.recording(call.call_sid)
            return row is not None and row.state == recording_state and self.store.call(call.call_sid) is not None

        until(has_state, f"the recording of {call.call_sid} is {recording_state}")
        return call

    def row(self, call: TwinCall) -> CallDetails:
        row = self.store.call(call.call_sid)
        assert row is not None
        return row

    def owner(self, call: TwinCall) -> str | None:
        row = self.store.recording(call.call_sid)
        return None if row is None else row.owner


@pytest.fixture
def site(tmp_path: Path, mariadb: MariaDB) -> Iterator[Site]:
    with contextlib.ExitStack() as up:
        yield Site(tmp_path, mariadb, up)


def test_a_gateway_leaves_the_calls_and_claims_of_its_twin_alone(site: Site) -> None:
    """One hostname, one path, one store. While Twilio refuses, the first one's claim is not the second's to continue."""
    first, second = site.machines
    site.start(first)
    alive = site.call(first, "started")
    site.twilio.rest.fail("20429", 1_000_000)
    claimed = site.call(first, "claimed")
    owner = site.owner(claimed)
    site.start(second)
    ready_s = time.monotonic()
    gevent.sleep(sum(FIRST_PASSES_S[:3]) + 1.0)
    assert site.owner(claimed) == owner, "its process is alive, on the other machine"
    site.twilio.rest.heal()
    until(lambda: site.row(claimed).recording.state == "started", "the second recording")  # type: ignore[union-attr]
    gevent.sleep(max(0.0, ready_s + GRACE_S + 2.0 - time.monotonic()))
    assert [site.row(call).ended_at for call in (alive, claimed)] == [None, None], "ended by the machine that does not have them"
    assert [sum(start.recorded for start in site.twilio.rest.starts[call.call_sid]) for call in (alive, claimed)] == [1, 1]
    for call in (alive, claimed):
        call.hang_up()
    until(lambda: all(site.row(call).ended_at for call in (alive, claimed)), "both calls end")
    assert {site.row(call).reason for call in (alive, claimed)} == {"caller_hangup"}


def test_a_machine_that_lost_power_ends_its_calls_under_a_new_hostname(site: Site) -> None:
    machine = site.machines[0]
    site.start(machine)
    call = site.call(machine, "started")
    machine.lose_power()
    assert call.wait(scaled(20.0))
    assert site.row(call).ended_at is None
    machine.rename("voice-2")
    site.start(machine)
    until(lambda: site.row(call).ended_at, "the call is ended", GRACE_S + 20.0)
    row = site.row(call)
    assert (row.reason, row.host) == ("worker_lost", "voice")
    assert {one.machine for one in site.store.gateways()[1]} == {"voice-2"}


def test_an_operator_of_another_gateway_transfers_a_call_and_ends_one(site: Site) -> None:
    """Twilio ends the stream as if the caller had hung up, and the gateway that has the call expects nothing else."""
    first, second = site.machines
    site.start(first)
    moved, ended = (site.call(first, "started") for _ in range(2))
    site.start(second)
    operator = AdminClient(second.admin_socket, scaled(10.0))
    operator.request("transfer", call_sid=moved.call_sid, to="+15550009999")
    operator.request("hangup", call_sid=ended.call_sid)
    assert moved.wait(scaled(20.0))
    assert ended.wait(scaled(20.0))
    until(lambda: site.row(moved).reason == "transferred", "the end is a transfer")
    until(lambda: site.row(ended).reason == "admin_hangup", "the end is an operator's")
    row = site.row(moved)
    assert (row.result, row.detail) == ("success", "an operator transferred the caller")
    assert "transferred" in [event.kind for event in row.events]
    assert moved.dialled == ["+15550009999"]

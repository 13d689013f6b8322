"""A gateway of real processes with a proxy on each of its links: what a scenario is done to.

    Twilio twin --phone--> gateway.py serve --ai--> AI twin         each link passes the proxy
    (callers, REST) <-rest-- control --store--> MariaDB
                       workers --bus--> control

Proxy, AI and MariaDB are separate processes; the Twilio twin runs in the bench's. The gateway is observed only from outside: its
sockets, its admin socket, /proc. Every wait is bounded.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import gevent
import pymysql

import gw.config
from gw.bench.gateway_process import GatewayProcess, wait_until_gone
from gw.control.admin.client import AdminClient, NotReachable
from gw.control.store import Store
from gw.twin.twilio.account import TwilioTwin
from tests.faults.links.orders import Helper
from tests.faults.records.ledger import Census, StoreReturn, Struck
from tests.mariadb import PASSWORD, USER, MariaDB
from tests.timing import scaled

AUTH_TOKEN: Final = "an auth token of the tests"
WORKERS: Final = 2
#: Timeouts that a fault of seconds exceeds, and two busy cores do not.
SETTINGS: Final = {
    "server": f"workers = {WORKERS}\n",
    "media": "ai_connect_s = 4.0\nai_stall_s = 3.0\nphone_silence_s = 3.0\nmax_call_s = 40.0\n",
    "agents.default": "",
}
TWILIO_TIMEOUT_S: Final = 2.0
SERVE: Final = [sys.executable, str(Path(__file__).with_name("serve.py"))]
_SAMPLE_S: Final = 0.1
#: Waits below this, in one sample, are normal on a shared core, and far from 60 ms.
_STALL_S: Final = 0.03
#: Events of a second of calls: under calls, a spool is seldom empty.
CAUGHT_UP_EVENTS: Final = 10
#: Duration of watching the spool after the store's return.
_WATCH_S: Final = 60.0


class _Gateway(GatewayProcess):
    """The demo's gateway with the bench's store and timeouts."""

    store_url = ""

    def configuration(self, account_sid: str, api_base: str, ai_url: str) -> str:
        whole = super().configuration(account_sid, api_base, ai_url)
        lines = [
            f'url = "{self.store_url}"\nconnect_timeout_s = 1.0\nstatement_timeout_s = 2.0' if line.startswith("url = ") else line
            for line in whole.splitlines()
        ]
        at = lines.index("[twilio]")
        lines.insert(at + 1, f"timeout_s = {TWILIO_TIMEOUT_S}")
        return "\n".join(lines) + "\n"


class World:
    """Context manager that starts everything and stops everything."""

    def __init__(self, folder: Path, seed: str, mariadb: MariaDB) -> None:
        """`folder` must have a short path, for Unix sockets. `mariadb` is running."""
        self.folder = folder
        self.seed = seed
        self.mariadb = mariadb
        self.began_s, self.began_at = time.monotonic(), time.time()
        self.seen: dict[int, str] = {}  # role of every process of the gateway, past ones included
        self.stalls: list[tuple[float, float]] = []  # stalls of the machine: time, seconds
        self.returns: list[StoreReturn] = []
        self.errors: list[str] = []
        self.met: list[
            tuple[Struck, list[dict[str, Any]], dict[int, int]]
        ] = []  # faults of single connections, with callers() at that time
        self.fresh: dict[str, tuple[int, int]] = {}  # descriptors and greenlets of a process at rest, by role
        self._sampling: gevent.Greenlet[..., None] | None = None
        self._watching: gevent.Greenlet[..., None] | None = None

    def begin(self) -> None:
        """Start the run's clock."""
        self.began_s, self.began_at = time.monotonic(), time.time()

    def now_s(self) -> float:
        """Return the seconds since the start of the run."""
        return time.monotonic() - self.began_s

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> World:
        with contextlib.ExitStack() as up:
            url = self.mariadb.fresh()
            self.database = url.rpartition("/")[2]
            os.environ["FAULTS_FOLDER"] = str(self.folder)
            os.environ["FAULTS_DB_PASSWORD"] = PASSWORD
            self.proxy = Helper("tests.faults.links.proxy", self.folder / "p")
            up.callback(self.proxy.stop)
            self.ai = Helper("tests.faults.links.ai", self.folder / "a", self.seed)
            up.callback(self.ai.stop)
            self.gateway = _Gateway(SERVE, self.folder, SETTINGS)
            up.callback(self.gateway.stop)
            port = self._link("store", f"127.0.0.1:{self.mariadb.port}").rpartition(":")[2]
            self.gateway.store_url = f"mysql+pymysql://{USER}@127.0.0.1:{port}/{self.database}"
            phone = self._link("phone", self.gateway.url.removeprefix("http://"))
            self.twilio = TwilioTwin(f"http://{phone}", public_url=self.gateway.url, auth_token=AUTH_TOKEN)
            self.twilio.start()
            up.callback(self.twilio.stop)
            rest = self._link("rest", self.twilio.rest.url.removeprefix("http://"))
            ai_url = str(self.ai.ask("url"))
            ai = self._link("ai", ai_url.removeprefix("ws://").partition("/")[0])
            self._link("bus", str(self.gateway.var_dir / "bus.sock"), str(self.folder / "bus"), tapped=True)
            self.gateway.start(
                account_sid=self.twilio.account_sid,
                auth_token=AUTH_TOKEN,
                api_base=f"http://{rest}",
                ai_url=f"ws://{ai}/v1/realtime",
            )
            self.admin = AdminClient(self.gateway.admin_socket, timeout_s=scaled(5.0))
            self._sampling = gevent.spawn(self._sample)
            up.callback(self._sampling.kill)
            self.wait(lambda: self.is_calm() and len(self.pids("worker")) == WORKERS, "the gateway is up", 20.0)
            self._up = up.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._up.close()

    def _link(self, name: str, target: str, listen: str = "127.0.0.1:0", tapped: bool = False) -> str:
        return str(self.proxy.ask("link", name=name, listen=listen, target=target, seed=self.seed, tapped=tapped))

    # -- observing ----------------------------------------------------------------------------------------------------

    def wait(self, holds: Any, what: str, timeout_s: float) -> bool:
        """Wait until `holds()`. A timeout is an error of the bench."""
        until_s = time.monotonic() + scaled(timeout_s)
        while time.monotonic() < until_s:
            if holds():
                return True
            gevent.sleep(0.1)
        self.errors.append(f"not reached within {timeout_s:g} s: {what}")
        return False

    def status(self) -> dict[str, Any] | None:
        """Return the gateway's status; None while control does not answer."""
        try:
            answer: dict[str, Any] = self.admin.request("status")
        except (NotReachable, OSError):
            return None
        return answer

    def is_calm(self) -> bool:
        """Return whether all workers are connected, no call is alive and all events are stored."""
        status = self.status()
        if status is None or status["calls"] or status["backlog"] or not status["store"]["reachable"]:
            return False
        connected = [one for one in status["workers"] if one["connected"]]
        return len(connected) == len(status["workers"]) == WORKERS and not any(one["unacked"] for one in connected)

    def pids(self, role: str) -> list[int]:
        """Return the pids of the gateway's running processes of this role."""
        found = []
        for pid in self.gateway.pids()[1:]:
            if role_of(pid) == role:
                found.append(pid)
        return sorted(found)

    def callers(self) -> dict[int, int]:
        """Return the number of each call with an open stream, by its client port."""
        found = {}
        for call in self.twilio.calls.values():
            websocket = call._websocket
            if websocket is not None and not call.is_over and websocket.is_open:
                with contextlib.suppress(OSError):  # the call is ending
                    found[websocket._socket.getsockname()[1]] = call.number
        return found

    def _sample(self) -> None:
        """Record the gateway's processes, and times in which the machine did not run a worker; body of a greenlet."""
        waited: dict[int, float] = {}
        while True:
            pids = self.gateway.pids()
            for pid in pids:
                if pid not in self.seen or not self.seen[pid]:
                    self.seen[pid] = "supervisor" if pid == pids[0] else role_of(pid)
                if self.seen[pid] != "worker":
                    continue
                with contextlib.suppress(OSError, ValueError, IndexError):  # the process is ending
                    now_s = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
                    since_s = now_s - waited.get(pid, now_s)
                    waited[pid] = now_s
                    if since_s > _STALL_S:
                        self.stalls.append((time.monotonic(), since_s))
            gevent.sleep(_SAMPLE_S)

    def census(self) -> list[Census]:
        """Return descriptors and greenlets of each running process."""
        found = []
        for role in ("control", "worker"):
            for pid in self.pids(role):
                kinds = self._greenlets(pid)
                descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                at_first = self.fresh.get(role, (descriptors, sum(kinds.values())))
                found.append(Census(role, pid, descriptors, at_first[0], sum(kinds.values()), at_first[1], kinds))
        return found

    def note_fresh(self) -> None:
        """Record descriptors and greenlets at rest, as the allowance for the end."""
        most: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for one in self.census():
            most[one.role] = (max(most[one.role][0], one.descriptors), max(most[one.role][1], one.greenlets))
        self.fresh = dict(most)

    def _greenlets(self, pid: int) -> dict[str, int]:
        answer = self.folder / f"greenlets.{pid}"
        answer.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        if not self.wait(answer.exists, f"process {pid} counts its greenlets", 10.0):
            return {}
        counted: dict[str, int] = json.loads(answer.read_text())
        return counted

    # -- the store ----------------------------------------------------------------------------------------------------

    def connect_to_store(self) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
        """Open a connection to the store that bypasses the proxy."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.mariadb.port,
            user=USER,
            password=PASSWORD,
            database=self.database,
            ssl_disabled=True,
            read_timeout=scaled(20.0),
        )

    def open_store(self) -> Store:
        url = f"mysql+pymysql://{USER}@127.0.0.1:{self.mariadb.port}/{self.database}"
        return Store(gw.config.Store(url=url, statement_timeout_s=20.0), PASSWORD)

    def bring_store_back(self) -> None:
        """Bring the database back, and watch how long the spool takes to empty."""
        self.mariadb.revive()
        back_s = self.now_s()

        def watch() -> None:
            backlog = -1
            until_s = time.monotonic() + _WATCH_S
            while time.monotonic() < until_s:
                status = self.status()
                if status is not None:
                    backlog = max(backlog, status["backlog"])
                    if status["backlog"] <= CAUGHT_UP_EVENTS:
                        self.returns.append(StoreReturn(back_s, backlog, self.now_s() - back_s))
                        return
                gevent.sleep(0.1)
            self.returns.append(StoreReturn(back_s, backlog, None))

        if self._watching is None or self._watching.ready():
            self._watching = gevent.spawn(watch)

    def end(self) -> list[int]:
        """Stop the gateway. Returns the processes that remained."""
        if self._watching is not None:
            self._watching.join(scaled(_WATCH_S))
        self.gateway.stop()
        return wait_until_gone(sorted(self.seen), scaled(5.0))


def role_of(pid: int) -> str:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return "control" if b"control" in argv else "worker" if b"worker" in argv else ""

"""A gateway with good calls, and one attack after the other beside them.

Core use as in a bench: the worker alone on the last core, everything else on the others. Each round measures the good calls
without the attack first, in the same gateway, so that its own figures are what the attack is held against.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gevent

from gw.bench import machine
from gw.bench.gateway_process import GatewayProcess, free_ports, wait_until_gone
from gw.bench.load.wire import WireError
from gw.bench.load_process import LoadProcess
from gw.bench.result import MEDIA_ROLES, MetricsPage, PageDelta
from gw.verify.budget.chance import Base
from tests.hostile.attacker import Attacker, Target
from tests.hostile.attacks import ATTACKS
from tests.hostile.judge import Round, ours

ACCOUNT: Final = "AC" + "b" * 32
#: Before a rig pins this process to some of them.
_CORES: Final = machine.cores()
#: No server listens there: calls are not recorded.
_NO_REST: Final = "http://127.0.0.1:9"
#: A page is cached for a second; a page read after that is new.
_PAGE_S: Final = 1.1
#: Longest wait for the metrics page: an attack on the operator's port may still hold it.
_METRICS_S: Final = 40.0
_DIAL_S: Final = 60.0
#: After the last call was placed, as in a bench.
_WARM_S: Final = 2.0
#: After the attack: what it left must be over.
_SETTLE_S: Final = 0.5
#: The least that a pipe has: full after some twenty log lines.
_PIPE_BYTES: Final = 4096
#: Interval of the newcomers' calls.
_NEWCOMER_S: Final = 0.4


class Rig:
    """One gateway with its load. Construct chooses ports, `start` places the calls, `stop` ends everything."""

    def __init__(self, command: Sequence[str], out: Path, calls: int, *, size: float = 1.0, is_log_read: bool = True) -> None:
        """`size`: share of an attack's connections. Without `is_log_read` its log is a pipe that nothing reads."""
        self._calls = calls
        self._out = out
        self._is_log_read = is_log_read
        ais = [name for name in ATTACKS if name.startswith("ai-")]
        self._ai_ports = dict(zip(ais, free_ports(len(ais)), strict=True))
        settings = {
            "recording": "enabled = false\n",
            "ops": 'log_level = "info"\nhold_monitor = "always"\n',
            **{
                f"agents.{name}": f'provider = "openai"\nbase_url = "ws://127.0.0.1:{port}/v1/realtime"\n'
                for name, port in self._ai_ports.items()
            },
        }
        self.gateway = GatewayProcess(command, out / "gateway", settings)
        self._token = secrets.token_hex(16)
        self._size = size
        self._pipe = -1
        self.base = Base()
        self._pinning = machine.plan(_CORES, 1)

    def start(self) -> None:
        """Start the AI, the gateway and the callers. Raises GatewayError."""
        machine.pin(os.getpid(), self._pinning.others)
        self.gateway.log_path.unlink(missing_ok=True)  # it may be a pipe, whose opening would wait for a reader
        if not self._is_log_read:
            os.mkfifo(self.gateway.log_path)
            self._pipe = os.open(self.gateway.log_path, os.O_RDWR | os.O_NONBLOCK)
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.ai = LoadProcess("gw.bench.load.ai", log=self._out / "ai.log")
        self.gateway.start(
            account_sid=ACCOUNT,
            auth_token=self._token,
            api_base=_NO_REST,
            ai_url=f"ws://127.0.0.1:{self.ai.ready['port']}/v1/realtime",
        )
        arguments = ("--url", self.gateway.url, "--account-sid", ACCOUNT)
        self.callers = LoadProcess("gw.bench.load.callers", *arguments, first_line=self._token, log=self._out / "callers.log")
        self.roles = {pid: machine.role_of(pid) for pid in self.gateway.pids()}
        for pid, role in self.roles.items():
            machine.pin(pid, self._pinning.measured if role in MEDIA_ROLES else self._pinning.others)
        for process in (self.ai, self.callers):
            machine.pin(process.pid, self._pinning.others)
        public = self.gateway.url.rpartition(":")[2]
        ops = tomllib.loads(self.gateway.config_path.read_text())["ops"]["listen"].rpartition(":")[2]
        self.target = Target("127.0.0.1", int(public), int(ops), ACCOUNT, self._token, self._size)
        self.callers.order("dial", _DIAL_S, calls=self._calls, path="/twilio/voice")
        gevent.sleep(_WARM_S)
        self._page = self._metrics()

    def stop(self) -> None:
        """End all processes."""
        for name in ("callers", "ai"):
            if process := self.__dict__.get(name):
                process.stop()
        pids = self.gateway.pids()
        self.gateway.stop()
        wait_until_gone(pids, 2.0)
        if self._pipe >= 0:
            os.close(self._pipe)
        machine.pin(os.getpid(), _CORES)

    @property
    def worker(self) -> int:
        return next(pid for pid, role in self.roles.items() if role == "worker")

    def round(self, names: Sequence[str], seconds: float, base_s: float) -> Round:
        """Measure the calls without attacks for `base_s`, then beside all of these."""
        targets = {name: vars(replace(self.target, agent=name, ai_port=self._ai_ports.get(name, 0))) for name in names}
        attack = LoadProcess("tests.hostile.attacks", first_line=json.dumps(targets), log=self._out / "attack.log")
        try:
            machine.pin(attack.pid, self._pinning.others)
            base = self.measure_base(base_s) if base_s else {}
            log_at = self._log_bytes()
            before, began_s = self._usage(), time.monotonic()
            newcomers = Newcomers(self.target)
            reports: list[dict[str, Any]] = []

            def beside() -> None:
                with newcomers.calling():
                    reports.extend(attack.order("run", seconds + 60.0, seconds=seconds)["reports"])
                gevent.sleep(_SETTLE_S)

            window = self._window(beside)
        finally:
            attack.stop()
        after, took_s = self._usage(), time.monotonic() - began_s
        page: PageDelta = window["page"]
        return Round(
            name=" + ".join(names),
            seconds=took_s,
            calls=self._calls,
            alive=window["callers"]["alive"],
            base_late_ms=_late_ms(base),
            late_ms=_late_ms(window),
            far_base_ms=base["callers"]["lateness"]["p99"] if base else None,
            far_late_ms=window["callers"]["lateness"]["p99"],
            underruns=window["callers"]["underruns"],
            gap_ms=window["callers"]["gap_ms"],
            broken_frames=sum(window["callers"][key] for key in ("lost", "disorder", "unexpected")),
            newcomers_ms=newcomers.took_ms,
            newcomers_lost=newcomers.lost,
            ready_ms=newcomers.ready_ms,
            seen=dict(sum((Counter(report["seen"]) for report in reports), Counter())),
            stopped="; ".join(report["stopped"] for report in reports if report["stopped"]),
            refused=page.by_label("gw_requests_refused_total", "reason"),
            ended=page.by_label("gw_calls_ended_total", "reason"),
            connections={dict(labels)["state"]: value for labels, value in page.after.series("gw_connections").items()},
            holds=int(page.total("gw_hub_hold_cpu_seconds_count")),
            long_holds=page.over("gw_hub_hold_cpu_seconds", 0.001, "greenlet"),
            base=self.base,
            cpu_s=after["cpu"] - before["cpu"],
            worst_hold_ms=_highest_ms(page, "gw_hub_hold_cpu_seconds"),
            kernel_sends=_kernel_sends(page),
            lost_processes=[role for pid, role in self.roles.items() if pid not in self.gateway.pids()],
            grown_mb=(after["memory"] - before["memory"]) / 2**20,
            worker_share=(after["cpu"] - before["cpu"]) / took_s,
            other_share=max(0.0, after["core"] - before["core"] - after["cpu"] + before["cpu"]) / took_s,
            shared_cores=self._pinning.shared,
            load_late_ms={key: window[key]["own"]["p99"] or 0.0 for key in ("callers", "ai")},
            log_bytes=self._log_bytes() - log_at,
            printed=self._printed(log_at),
        )

    def measure_base(self, seconds: float) -> dict[str, Any]:
        """Measure the calls without an attack, and add the time to the base. Returns the window."""
        cpu_s = machine.cpu_s(self.worker)
        window = self._window(lambda: gevent.sleep(seconds))
        long = ours(window["page"].over("gw_hub_hold_cpu_seconds", 0.001, "greenlet"), _kernel_sends(window["page"]))
        self.base += Base(machine.cpu_s(self.worker) - cpu_s, long)
        return window

    def is_whole(self, result: Round) -> bool:
        """Return True if the next round can use this gateway."""
        return result.alive == self._calls and not result.lost_processes

    # -- measuring ------------------------------------------------------------------------------------------------------

    def _window(self, beside: Callable[[], None]) -> dict[str, Any]:
        before = self._page
        for process in (self.callers, self.ai):
            process.order("begin")
        began_s = time.monotonic()
        beside()
        gevent.sleep(max(0.0, _PAGE_S - (time.monotonic() - began_s)))
        for process in (self.callers, self.ai):
            process.order("end")
        self._page = self._metrics()
        return {
            "page": PageDelta(before, self._page),
            "callers": self.callers.order("report"),
            "ai": self.ai.order("report"),
        }

    def _metrics(self) -> MetricsPage:
        until_s = time.monotonic() + _METRICS_S
        while True:
            try:
                return MetricsPage(self.gateway.metrics())
            except OSError:
                if time.monotonic() > until_s:
                    raise
                gevent.sleep(0.5)

    def _usage(self) -> dict[str, float]:
        busy = sum(machine.core_times()[core].busy_s for core in self._pinning.measured)
        try:
            return {"memory": machine.memory(self.worker).rss_bytes, "cpu": machine.cpu_s(self.worker), "core": busy}
        except ProcessLookupError:
            return {"memory": 0.0, "cpu": 0.0, "core": busy}

    def _log_bytes(self) -> int:
        return self.gateway.log_path.stat().st_size

    def _printed(self, since: int) -> list[str]:
        """Return the log's lines since then that are not JSON, or have a traceback."""
        if not self._is_log_read:
            return []
        with self.gateway.log_path.open("rb") as log:
            log.seek(since)
            lines = log.read().splitlines()
        found = []
        for line in lines:
            record = None
            with suppress(ValueError):
                record = json.loads(line)
            if not isinstance(record, dict):
                found.append(line.decode(errors="replace"))
            elif record.get("traceback"):
                found.append(f"traceback: {record.get('message')}")
        return found


class Newcomers:
    """Signed calls that come during the attack: the webhook, and the upgrade."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.took_ms: list[float] = []
        self.ready_ms: list[float] = []
        self.lost: list[str] = []

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Let one call after the other come, until the context's end."""
        greenlets = [gevent.spawn(self._run), gevent.spawn(self._ask)]
        try:
            yield
        finally:
            gevent.killall(greenlets, timeout=5.0)

    def _run(self) -> None:
        client = Attacker(self._target)
        while True:
            began_s = time.monotonic()
            try:
                sock, writer = client.place("default")
                client.hang_up(sock, writer)
            except (OSError, WireError, LookupError) as error:
                self.lost.append(f"{type(error).__name__}: {error}"[:100])
            finally:  # also one that still waits at the end
                self.took_ms.append((time.monotonic() - began_s) * 1000)
            gevent.sleep(_NEWCOMER_S)

    def _ask(self) -> None:
        """Ask the operator's port whether the gateway is ready."""
        while True:
            began_s = time.monotonic()
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self._target.ops_port}/readyz", timeout=40) as answer,
            ):
                answer.read()
            self.ready_ms.append((time.monotonic() - began_s) * 1000)
            gevent.sleep(1.0)


def _late_ms(window: dict[str, Any]) -> float | None:
    if not window:
        return None
    histogram = window["page"].histogram("gw_tx_lateness_seconds", float("inf"))
    late: float | None = None if histogram is None else histogram.quantile_ms(0.99)
    return late


def _kernel_sends(page: PageDelta) -> int:
    """Return how many sends took the kernel over 1 ms."""
    return int(page.total("gw_tx_send_seconds_count") - page.total("gw_tx_send_seconds_bucket", le="0.001"))


def _highest_ms(page: PageDelta, name: str) -> float:
    histogram = page.histogram(name, float("inf"))
    return 0.0 if histogram is None else round(histogram.max_s * 1000, 3)

"""One measurement: start the subject and two load processes, place calls, warm up, measure a window, end everything.

Each measured process has its own core; the load and the control process share the others. Figures are read at the
window's edges only, apart from one histogram in shared memory each second, so that reading does not disturb the window.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

import gevent

from gw.bench import machine
from gw.bench.certificate import Certificate, make_certificate
from gw.bench.histogram import LatencyHistogram
from gw.bench.load.loop import summary
from gw.bench.load_process import LoadProcess
from gw.bench.result import MEDIA_ROLES, Measured, MetricsPage, PageDelta, Process, highest_edge_s, match_bargeins
from gw.bench.subject import BenchError, Floor, Gateway, Subject
from gw.control.admin.client import AdminClient, NotReachable, Refused
from metrics.declare import BOUNDS, TX_LATENESS
from metrics.page import Page, PageError

#: After the last call was placed: talkspurt clocks, allocators and caches settle.
WARM_S: Final = 3.0
_ACCOUNT: Final = "AC" + "b" * 32
_DIAL_S: Final = 120.0
_SETTLE_S: Final = 20.0
#: The machine is quiet when no core was busier than this share during _LOOK_S.
_QUIET: Final = 0.05
_LOOK_S: Final = 1.0


@dataclass(frozen=True)
class Load:
    """Load to put on a subject, and how to measure it."""

    calls: int
    seconds: float
    pattern: str = "steady"
    workers: int = 1
    lead_ms: int = 100
    watched: bool = False  # watch the hub's holds all the time
    maxima: bool = True  # read each call's maxima from the store: finer than a bucket's edge
    patience_s: float = 0.0  # longest wait for a quiet machine
    tls: bool = False  # between gateway and AI, as with OpenAI; other subjects have no TLS
    tool_every_s: float = 0.0  # between two tool calls of a session; 0: none
    pinned: bool = True  # each measured process has its own core; else the kernel chooses
    callers_nice: int = 0  # of the callers: they share a core with control


OnStep = Callable[[str], None]


class SideLoad(Protocol):
    """Activity beside the measured calls."""

    def on_calls_placed(self) -> None:
        """Called when all calls are placed, before the warm-up."""

    def around_window(self) -> AbstractContextManager[None]:
        """Return a context manager that surrounds the measured window."""


def measure_gateway(command: Sequence[str], out: Path, load: Load, on_step: OnStep) -> Measured:
    """Measure a gateway. Raises GatewayError."""
    subject = Gateway(command, out / "gateway", workers=load.workers, calls=load.calls, watched=load.watched)
    return measure_with(subject, None, out, load, on_step)


def measure_with(subject: Gateway, side_load: SideLoad | None, out: Path, load: Load, on_step: OnStep) -> Measured:
    """Measure a gateway and a side load. Raises GatewayError."""
    with TemporaryDirectory(prefix="submilli-bench-") as folder:
        certificate = make_certificate(Path(folder)) if load.tls else None
        subject.trusted = None if certificate is None else certificate.chain
        return _Run(subject, out, load, on_step, subject.pages, subject.admin_socket, side_load, certificate).run()


def measure_floor(out: Path, load: Load, on_step: OnStep) -> Measured:
    """Measure the floor. Raises BenchError."""
    return measure_subject(Floor(out / "floor", load.lead_ms), out, load, on_step)


def measure_subject(subject: Subject, out: Path, load: Load, on_step: OnStep) -> Measured:
    """Measure a subject without gateway metrics. Raises GatewayError."""
    return _Run(subject, out, load, on_step).run()


@dataclass
class _Run:
    subject: Subject
    out: Path
    load: Load
    on_step: OnStep
    pages: Path | None = None
    admin_socket: Path | None = None
    side_load: SideLoad | None = None
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        self._pinning = machine.plan(machine.cores(), self.load.workers)

    def run(self) -> Measured:
        load, subject = self.load, self.subject
        self.out.mkdir(parents=True, exist_ok=True)
        self._wait_until_quiet()
        token = secrets.token_hex(16)
        with ExitStack() as ending:
            allowed = machine.cores()
            machine.pin(os.getpid(), self._pinning.others)
            ending.callback(machine.pin, os.getpid(), allowed)
            self._report_step("starting")
            shown = self.certificate
            tls = () if shown is None else ("--certificate", str(shown.chain), "--key", str(shown.key))
            tools = ("--tool-every", str(load.tool_every_s)) if load.tool_every_s else ()
            ai = LoadProcess("gw.bench.load.ai", "--pattern", load.pattern, *tools, *tls, log=self.out / "twin-ai.log")
            ending.callback(ai.stop)
            ending.callback(subject.stop)
            ai_url = f"{'wss' if tls else 'ws'}://127.0.0.1:{ai.ready['port']}/v1/realtime"
            subject.start(account_sid=_ACCOUNT, auth_token=token, ai_url=ai_url)
            log = self.out / "twin-callers.log"
            arguments = ("--url", subject.url, "--account-sid", _ACCOUNT, *(() if subject.marked else ("--unmarked",)))
            callers = LoadProcess("gw.bench.load.callers", *arguments, first_line=token, log=log)
            ending.callback(callers.stop)
            roles = subject.processes()
            self._pin(roles, [ai.pid, callers.pid])
            if load.callers_nice:
                os.setpriority(os.PRIO_PROCESS, callers.pid, load.callers_nice)
            empty = {pid: machine.memory(pid).pss_bytes for pid in roles}
            self._report_step(f"placing {load.calls} calls")
            sids = callers.order("dial", _DIAL_S, calls=load.calls, path="/twilio/voice")["sids"]
            if self.side_load is not None:
                self.side_load.on_calls_placed()
            self._report_step("warming up")
            gevent.sleep(WARM_S)
            return self._measure(callers, ai, roles, empty, sids)

    def _wait_until_quiet(self) -> None:
        """Wait for other programs to finish, at most `patience_s`; the window shows whether they did."""
        until_s = time.monotonic() + self.load.patience_s
        while time.monotonic() < until_s:
            before = machine.core_times()
            gevent.sleep(_LOOK_S)
            after = machine.core_times()
            if all(after[core].busy_s - before[core].busy_s < _QUIET * _LOOK_S for core in after):
                return
            self._report_step("waiting for a quiet machine")

    def _pin(self, roles: dict[int, str], load_pids: Sequence[int]) -> None:
        """Put each measured process on its own core, everything else on the others."""
        n = 0
        for pid, role in roles.items():
            if role not in MEDIA_ROLES:
                machine.pin(pid, self._pinning.others)
            elif not self.load.pinned:
                machine.pin(pid, (*self._pinning.others, *self._pinning.measured))
            else:
                machine.pin(pid, (self._pinning.measured[n % len(self._pinning.measured)],))
                n += 1
        for pid in load_pids:
            machine.pin(pid, self._pinning.others)

    def _measure(
        self, callers: LoadProcess, ai: LoadProcess, roles: dict[int, str], empty: dict[int, int], sids: Sequence[str]
    ) -> Measured:
        load, subject = self.load, self.subject
        watched = [*roles, callers.pid, ai.pid]
        before = MetricsPage(subject.metrics())  # rendered now: the page is cached for a second, and nothing else reads it
        callers.order("begin")  # before the AI's: each interruption's clear falls into the callers' window
        ai.order("begin")
        cpu = {pid: machine.cpu_s(pid) for pid in watched}
        cores = machine.core_times()
        began_s = time.monotonic()
        with nullcontext() if self.side_load is None else self.side_load.around_window():
            over_time = self._watch(began_s)
        seconds = time.monotonic() - began_s
        cpu = {pid: machine.cpu_s(pid) - cpu[pid] for pid in watched}
        after_cores = machine.core_times()
        memory = {pid: machine.memory(pid) for pid in roles}
        for process in (ai, callers):
            process.order("end")
        after = MetricsPage(subject.metrics())
        caller_report, ai_report = (
            callers.order("report"),
            ai.order("report"),
        )  # counting stops the load: nothing is measured any more
        self._report_step("hanging up")
        callers.order("stop")
        worst = self._worst(sids) if load.maxima else {}
        if subject.name == "floor":
            worst = {name: after.value(f"floor_{name}_seconds") for name in ("send_max", "lateness_max")}
        window = PageDelta(before, after)
        measured = self._pinning.measured
        busy_s = sum(after_cores[core].busy_s - cores[core].busy_s for core in measured)
        ours_s = sum(cpu[pid] for pid, role in roles.items() if role in MEDIA_ROLES)
        return Measured(
            subject=subject.name,
            calls=load.calls,
            alive=min(caller_report["alive"], ai_report["alive"]),
            seconds=seconds,
            pattern=load.pattern,
            tls=self.certificate is not None,
            processes=[
                Process(role, cpu[pid], memory[pid].rss_bytes, memory[pid].pss_bytes, empty[pid]) for pid, role in roles.items()
            ],
            send=window.histogram("gw_tx_send_seconds", worst.get("send_max", float("inf"))),
            lateness=window.histogram("gw_tx_lateness_seconds", worst.get("lateness_max", float("inf"))),
            far=caller_report,
            uplink=ai_report,
            bargein=_bargein(ai_report, caller_report) if load.pattern == "bargein" else {},
            load_processes={
                process.name: {"own": answer["own"], "steps": answer["steps"], "cpu_share": cpu[process.pid] / seconds}
                for process, answer in ((callers, caller_report), (ai, ai_report))
            },
            other_cpu=0.0 if self._pinning.shared else max(0.0, busy_s - ours_s) / seconds / len(measured),
            steal=sum(after_cores[core].steal_s - cores[core].steal_s for core in measured) / seconds / len(measured),
            shared_cores=self._pinning.shared,
            holds_over_1ms=window.over("gw_hub_hold_seconds", 0.001, "greenlet"),
            cpu_holds_over_1ms=window.over("gw_hub_hold_cpu_seconds", 0.001, "greenlet"),
            holds=int(window.total("gw_hub_hold_seconds_count")),
            gc_over_1ms=window.over("gw_gc_pause_seconds", 0.001).get("all", 0),
            underrun_ms=window.total("gw_tx_underrun_seconds_total") * 1000,
            drops={
                **window.by_label("gw_tx_dropped_frames_total", "reason"),
                **window.by_label("gw_rx_dropped_frames_total", "reason"),
            },
            ended=window.by_label("gw_calls_ended_total", "reason"),
            over_time=over_time,
            lead_ms=load.lead_ms,
        )

    def _watch(self, began_s: float) -> list[list[float]]:
        """Wait for the window's end. Returns each second's lateness: second, p99 ms, highest edge ms."""
        rows: list[list[float]] = []
        pages = self._open_pages()
        known = _lateness(pages)
        try:
            second = 0
            while (left_s := began_s + self.load.seconds - time.monotonic()) > 0:
                self._report_step(f"measuring, {left_s:.0f} s left")
                gevent.sleep(min(left_s, began_s + second + 1 - time.monotonic()))
                counts = _lateness(pages)
                grown = [int(now - then) for now, then in zip(counts, known, strict=True)]
                known = counts
                histogram = _cumulative(grown)
                if histogram.total:
                    rows.append([second, histogram.quantile_ms(0.99) or 0.0, round(histogram.max_s * 1000, 3)])
                second += 1
        finally:
            for page in pages:
                page.close()
        return rows

    def _open_pages(self) -> list[Page]:
        found = []
        for path in [] if self.pages is None else sorted(self.pages.glob("worker-*.page")):
            try:
                found.append(Page.open(path))
            except PageError as error:
                raise BenchError(f"the worker's page cannot be read: {error}") from error
        return found

    def _worst(self, sids: Sequence[str]) -> dict[str, float]:
        """Read the calls' own maxima from the store, once all have ended; empty if that takes too long."""
        if self.admin_socket is None:
            return {}
        self._report_step("reading the calls' reports")
        client = AdminClient(self.admin_socket)
        deadline_s = time.monotonic() + _SETTLE_S
        worst = {"send_max": 0.0, "lateness_max": 0.0}
        for sid in sids:
            while True:
                if time.monotonic() > deadline_s:
                    return {}
                try:
                    quality = (client.request("call", call_sid=sid) or {}).get("quality")
                except (NotReachable, Refused) as error:
                    raise BenchError(f"the gateway does not show its calls: {error}") from error
                if quality:
                    break
                gevent.sleep(0.1)
            for name in worst:
                worst[name] = max(worst[name], quality[f"{name}_s"] or 0.0)
        return worst

    def _report_step(self, step: str) -> None:
        self.on_step(f"{self.subject.name}, {self.load.calls} calls: {step}")


def _bargein(ai_report: dict[str, Any], caller_report: dict[str, Any]) -> dict[str, Any]:
    took_s = match_bargeins(ai_report["interruptions"], caller_report["clears"], caller_report["until_s"])
    good_s = [took for took in took_s if took != float("inf")]
    return {**summary(good_s), "missed": len(took_s) - len(good_s)}


def _lateness(pages: Sequence[Page]) -> list[float]:
    counts = [0.0] * (len(BOUNDS) + 1)
    for page in pages:
        for i, value in enumerate(page.values(TX_LATENESS, ())[: len(counts)]):
            counts[i] += value
    return counts


def _cumulative(counts: Sequence[int]) -> LatencyHistogram:
    """Build a histogram from counts by bucket."""
    sums, total = [], 0
    for count in counts:
        total += count
        sums.append(total)
    edges = (*BOUNDS, float("inf"))
    return LatencyHistogram(edges, tuple(sums), highest_edge_s(edges, sums))

"""Rolling deploy and death of a machine under calls, with a ledger of every call.

    .venv/bin/python tests/vms/run.py [--calls 100] [--workers 2] [--on-lost goodbye] [--cut] [--json]

1. Callers keep arriving while vm-1 is drained, stopped and started, then vm-2 is drained, reloaded and undrained, then control is
   killed on both machines at the same time. The workers continue, so no webhook may be refused.
2. `--calls` endless calls are placed, and every process of vm-1 is killed. HAProxy and vm-2 take over its callers. With --cut the
   network link of vm-1 is taken down instead: no connection is closed or refused.
3. vm-1 is switched on again, and all callers hang up. The data of Twilio, HAProxy and the store are written to one ledger,
   out/vms/ledger.json, and judged by `broken`. Exit code 1: something was lost that must not be lost.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Final  # noqa: E402

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import gevent  # noqa: E402
import msgspec  # noqa: E402

from gw.config import Agent  # noqa: E402
from gw.twin.ai.script import AiScript, lasting  # noqa: E402
from gw.twin.twilio.caller import TwinCall  # noqa: E402
from tests.mariadb import MariaDB  # noqa: E402
from tests.timing import scaled  # noqa: E402
from tests.vms.net import refusal  # noqa: E402
from tests.vms.world import Vm, World  # noqa: E402

#: Agent of the deploy's calls: speaks for this many seconds and hangs up.
BRIEF_S: Final = 4.0
BRIEF: Final = AiScript(greeting=lasting(BRIEF_S), hang_up_after=1, speed=2.0)
#: Agent of the calls during a restart of control: a call that ends before control is back cannot be recorded.
PATIENT_S: Final = 10.0
PATIENT: Final = AiScript(greeting=lasting(PATIENT_S), hang_up_after=1, speed=2.0)
#: Agent of the calls that meet the kill: speaks longer than the run lasts.
LONG: Final = AiScript(greeting=lasting(300.0), speed=1.1)
#: Limit until a caller whose machine died hears an agent again.
_BACK_S: Final = 15.0
#: With fewer calls, most of the traffic is not that of calls.
_MEASURED_CALLS: Final = 40
_MEASURED_S: Final = 10.0
#: A recording's state reaches the store with the webhook that a machine accepts; nothing waits for a later reconciliation.
_STORED_S: Final = 30.0
#: Slots of a worker for each call of the run. A worker that uses less than a quarter of its slots accepts calls even while it is
#: late. This run judges loss, and one machine that carries callers, balancer, database and gateways is late anyway.
_SLOTS_PER_CALL: Final = 8
_BUSY: Final = "All our lines are busy"


@dataclasses.dataclass
class Line:
    """One call, as seen by Twilio and the store."""

    number: int
    call_sid: str
    phase: str  # deploy | kill
    host: str = ""  # of its first stream, from the store
    met_kill: bool = False
    back_s: float | None = None  # from the kill to the agent's next audio
    streams: int = 0
    hosts: list[str] = dataclasses.field(default_factory=list)
    end: str = ""  # whole | undisturbed | resumed | goodbye | refused | lost
    refused: list[str] = dataclasses.field(default_factory=list)  # webhooks without an answer, or answered with an error
    reason: str = ""
    closed_by: str = ""
    recordings: int = 0
    starts: int = 0
    recording_state: str = ""
    error: str = ""


@dataclasses.dataclass
class Ledger:
    """Result of one run."""

    calls: int
    workers: int
    on_lost: str
    cut: bool = False
    killed: str = ""
    killed_processes: int = 0
    steps: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    lines: list[Line] = dataclasses.field(default_factory=list)
    haproxy: dict[str, float] = dataclasses.field(default_factory=dict)
    open_rows: list[str] = dataclasses.field(default_factory=list)
    refused_calls: dict[str, int] = dataclasses.field(default_factory=dict)  # calls refused by a machine, by reason
    figures: dict[str, float] = dataclasses.field(default_factory=dict)


def broken(ledger: Ledger) -> list[str]:
    """Return the violated conditions; empty when all hold."""
    found = []
    lost_ends = {"resume": {"resumed"}, "goodbye": {"goodbye"}}[ledger.on_lost]
    for line in ledger.lines:
        name = f"call {line.number} ({line.phase}, {line.host or 'no host'})"
        if line.refused:
            found.append(f"{name}: webhooks refused: {', '.join(line.refused)}")
        wanted = lost_ends if line.met_kill else {"whole"} if line.phase == "deploy" else {"undisturbed"}
        if line.end not in wanted:
            found.append(f"{name}: {line.end}, wanted {' or '.join(sorted(wanted))}: {line.error}")
        if line.recordings != 1:
            found.append(f"{name}: {line.recordings} recordings")
        if line.recording_state != "completed":
            found.append(f"{name}: its recording is {line.recording_state or 'nowhere'} in the store")
        if line.met_kill and line.host != ledger.killed:
            found.append(f"{name}: met a kill of {ledger.killed}")
    found += [f"{sid} is open in the store" for sid in ledger.open_rows]
    return found


class Run:
    """The scenario on one world."""

    def __init__(self, world: World, calls: int, workers: int, on_lost: str, cut: bool, say: Callable[[str], object]) -> None:
        self._world = world
        self._calls = calls
        self._say = say
        self._began_s = time.monotonic()
        self.ledger = Ledger(calls, workers, on_lost, cut)
        self._lines: dict[str, Line] = {}
        _, self._resident = world.balancer_usage()  # before the first call

    def deploy(self) -> None:
        """Deploy both machines, one after the other, while callers arrive."""
        world = self._world
        world.script = BRIEF
        every_s = max(0.05, BRIEF_S / self._calls)
        arriving = gevent.spawn(self._arrive, every_s)
        first, second = world.vms
        try:
            world.wait(lambda: sum(1 for call in self._live() if call.received_audio) >= self._calls // 2, "calls are up", 30.0)
            self._step("vm-1: drain --wait")
            first.operate("drain", "--wait", timeout_s=120.0)
            self._step("vm-1: stop and start")
            first.stop()
            first.serve()
            world.wait(lambda: first.is_ready() and world.servers_up() == {"vm-1", "vm-2"}, "vm-1 is back", 40.0)
            self._step("vm-2: drain --wait")
            second.operate("drain", "--wait", timeout_s=120.0)
            self._step("vm-2: reload")
            second.operate("reload", timeout_s=120.0)
            self._step("vm-2: undrain")
            second.operate("undrain")
            world.wait(lambda: world.servers_up() == {"vm-1", "vm-2"}, "vm-2 is back", 20.0)
            arriving.kill()
            brief = list(self._live())
            world.script = PATIENT
            arriving = gevent.spawn(self._arrive, every_s * PATIENT_S / BRIEF_S)
            world.wait(lambda: all(self._is_recorded(call) for call in brief), "the brief calls are recorded", 20.0)
            world.wait(lambda: any(call.received_audio for call in self._live()), "a patient call is up", 20.0)
            self._step("vm-1 and vm-2: control is killed")
            for vm in world.vms:
                vm.kill_control()
            world.wait(lambda: all(vm.is_ready() for vm in world.vms), "control is back on both", 20.0)
            world.wait(lambda: world.servers_up() == {"vm-1", "vm-2"}, "HAProxy sees it", 20.0)
        finally:
            arriving.kill()
        self._step("deployed")
        if not world.twilio.wait(scaled(60.0)):
            raise RuntimeError("calls of the deploy did not end")

    def kill(self) -> None:
        """Kill one machine under calls."""
        world = self._world
        world.script = LONG
        calls: list[TwinCall] = []
        for _ in range(self._calls):
            calls.append(self._place("kill"))  # one after the other: HAProxy counts a call once its stream is open
            world.wait(lambda: bool(calls[-1].received_audio), "the agent talks", 60.0)
        world.wait(lambda: all(self._host(call) for call in calls), "the store has every call", 30.0)
        if self._calls >= _MEASURED_CALLS:
            self._measure()
        victim = world.vms[0]
        owned = [call for call in calls if self._host(call) == victim.name]
        for call in owned:
            self._lines[call.call_sid].met_kill = True
        how = "network cut" if self.ledger.cut else "kill -9"
        self._step(f"{victim.name}: {how}, {len(owned)} of {len(calls)} calls are on it")
        streams = {call.call_sid: call.stream_sid for call in owned}
        killed_s = time.monotonic()
        self.ledger.killed = victim.name
        if self.ledger.cut:
            victim.machine.cut()
        else:
            self.ledger.killed_processes = victim.kill()
        waiting = set(streams)
        heard: dict[str, int] = {}  # bytes received when the call's new stream was first seen
        until_s = killed_s + scaled(_BACK_S)
        while waiting and time.monotonic() < until_s:
            for call in owned:
                if call.call_sid not in waiting:
                    continue
                talks = False
                if call.stream_sid != streams[call.call_sid]:
                    bytes_heard = len(call.received_audio)
                    talks = bytes_heard > heard.setdefault(call.call_sid, bytes_heard)
                if call.is_over or talks:
                    self._lines[call.call_sid].back_s = round(time.monotonic() - killed_s, 3)
                    waiting.discard(call.call_sid)
            gevent.sleep(0.02)
        gevent.sleep(1.0)  # an undisturbed call continues
        for call in calls:
            self._lines[call.call_sid].end = self._end_of(call, streams.get(call.call_sid))
        self._step(f"{len(owned) - len(waiting)} of {len(owned)} hear an agent again or have ended")
        self._switch_on_again(victim)
        for call in calls:
            call.hang_up()
        if not world.twilio.wait(scaled(30.0)):
            raise RuntimeError("calls did not end")
        world.twilio.rest.wait_callbacks()

    def collect(self) -> Ledger:
        """Wait until the store has every call's end and recording; fill the ledger."""
        world = self._world
        with world.store() as store:
            until_s = time.monotonic() + scaled(_STORED_S)
            while time.monotonic() < until_s:
                rows = {sid: msgspec.to_builtins(store.call(sid)) for sid in self._lines}
                if all(row and row["ended_at"] and (row["recording"] or {}).get("state") == "completed" for row in rows.values()):
                    break
                gevent.sleep(0.5)
        self._step("all ends are in the store")
        for call in world.twilio.calls.values():
            self._fill(self._lines[call.call_sid], call, rows.get(call.call_sid) or {})
        self.ledger.lines = list(self._lines.values())
        self.ledger.open_rows = [sid for sid, row in rows.items() if row is None or row["ended_at"] is None]
        self.ledger.refused_calls = dict(sum((vm.refused_calls() for vm in world.vms), Counter()))
        self.ledger.haproxy = {name: value for name, value in world.metrics().items() if _is_reported(name) and value}
        return self.ledger

    def _measure(self) -> None:
        """Measure HAProxy's CPU and memory and the bytes on the wire per call."""
        world = self._world
        began_s, (cpu_s, resident) = time.monotonic(), world.balancer_usage()
        carried = sum(vm.machine.carried_bytes() for vm in world.vms)
        gevent.sleep(_MEASURED_S)
        call_seconds = self._calls * (time.monotonic() - began_s)
        self.ledger.figures = {
            "haproxy_cpu_ms_per_call_s": round(1000 * (world.balancer_usage()[0] - cpu_s) / call_seconds, 3),
            "haproxy_bytes_per_call": round((resident - self._resident) / self._calls),
            "machine_bytes_per_call_s": round((sum(vm.machine.carried_bytes() for vm in world.vms) - carried) / call_seconds),
        }

    # -- inside -------------------------------------------------------------------------------------------------------

    def _step(self, what: str) -> None:
        at_s = round(time.monotonic() - self._began_s, 1)
        self.ledger.steps.append((at_s, what))
        self._say(f"{at_s:6.1f} s  {what}")

    def _arrive(self, every_s: float) -> None:
        chance = random.Random("vms")
        while True:
            self._place("deploy")
            gevent.sleep(every_s * chance.uniform(0.5, 1.5))

    def _place(self, phase: str) -> TwinCall:
        call = self._world.twilio.place_call(hang_up=False, max_s=scaled(300.0))
        self._lines[call.call_sid] = Line(call.number, call.call_sid, phase)
        return call

    def _live(self) -> Iterator[TwinCall]:
        return (call for call in self._world.twilio.calls.values() if not call.is_over)

    def _is_recorded(self, call: TwinCall) -> bool:
        """Return whether the call is being recorded, or is over."""
        return call.is_over or any(start.recorded for start in self._world.twilio.rest.starts.get(call.call_sid, ()))

    def _host(self, call: TwinCall) -> str:
        """Return the host of a call's first stream; empty until it is in the store."""
        line = self._lines[call.call_sid]
        if not line.host:
            with self._world.store() as store:
                for row in store.calls(open_only=True, limit=1000):
                    if row.call_sid in self._lines:
                        self._lines[row.call_sid].host = row.host or ""
        return line.host

    def _end_of(self, call: TwinCall, stream_sid: str | None) -> str:
        """Return how the kill affected a call."""
        if any(_BUSY in text for text in call.spoken):
            return "refused"
        if call.spoken == [Agent().goodbye]:
            return "goodbye"
        if call.is_over or call.closed_by:
            return "lost"
        if stream_sid is None:
            return "undisturbed"
        return "resumed" if call.stream_sid != stream_sid else "lost"

    def _switch_on_again(self, vm: Vm) -> None:
        """Start the dead machine with the files of its disk."""
        if self.ledger.cut:
            self.ledger.killed_processes = vm.kill()
            vm.machine.reconnect()
        vm.boot()
        vm.serve()
        self._world.wait(vm.is_ready, f"{vm.name} is ready again", 40.0)
        self._step(f"{vm.name}: on again")

    def _fill(self, line: Line, call: TwinCall, row: dict[str, Any]) -> None:
        posts = [post for post in self._world.twilio.webhooks.posts if post.fields.get("CallSid") == call.call_sid]
        line.refused = [f"{post.url} {post.status}" for post in posts if not post.is_good or _BUSY in post.body]
        line.refused += [
            f"socket {notice.code} {notice.detail}" for notice in call.notices if notice.code in (31901, 31902, 31920)
        ]
        line.host = line.host or str(row.get("host") or "")
        line.streams = len({post.fields.get("StreamSid") for post in posts if post.fields.get("StreamEvent") == "stream-started"})
        line.hosts = sorted(
            {str(event["host"]) for event in row.get("events", []) if event["kind"] in ("resumed", "first_audio")}
        )
        line.reason, line.closed_by = str(row.get("reason") or ""), call.closed_by
        heard = f"{line.streams} streams, {len(call.received_audio) // 8} ms of audio, closed by {call.closed_by or 'nobody'}"
        line.error = "; ".join(text for text in (heard, call.error, call.close_reason, *call.spoken) if text)
        if line.phase == "deploy":
            is_heard = call.closed_by == "gateway" and line.reason == "ai_hangup" and len(call.received_audio) >= BRIEF_S * 8000
            is_refused = any(_BUSY in text for text in call.spoken)  # on a starved machine the goodbye is spoken by Twilio
            line.end = "refused" if is_refused else "whole" if is_heard else "lost"
        starts = self._world.twilio.rest.starts.get(call.call_sid, [])
        line.starts, line.recordings = len(starts), sum(one.recorded for one in starts)
        line.recording_state = str((row.get("recording") or {}).get("state") or "")


def _is_reported(name: str) -> bool:
    family = name.partition("{")[0]
    return 'proxy="gateways"' in name and family in (
        "haproxy_backend_http_responses_total",
        "haproxy_backend_redispatch_warnings_total",
        "haproxy_backend_retry_warnings_total",
        "haproxy_backend_connection_errors_total",
        "haproxy_server_sessions_total",
        "haproxy_server_max_sessions",
    )


def run(
    mariadb: MariaDB,
    *,
    calls: int,
    workers: int = 2,
    on_lost: str = "resume",
    cut: bool = False,
    tls: bool = True,
    say: Callable[[str], object],
) -> Ledger:
    """Run the scenario in a new world. Returns its ledger."""
    settings = f'on_lost = "{on_lost}"\nmax_calls_per_worker = {_SLOTS_PER_CALL * calls}\n'
    with World(mariadb, BRIEF, workers=workers, tls=tls, settings=settings) as world:
        scenario = Run(world, calls, workers, on_lost, cut, say)
        say(f"         up: HAProxy, {len(world.vms)} machines, {workers} workers each")
        scenario.deploy()
        scenario.kill()
        return scenario.collect()


def table(ledger: Ledger) -> str:
    """Return the totals of a ledger as text."""
    said = []
    for phase in ("deploy", "kill"):
        lines = [line for line in ledger.lines if line.phase == phase]
        ends = Counter(f"{line.end} ({line.host})" for line in lines)
        said.append(f"{phase}: {len(lines)} calls, {sum(bool(line.refused) for line in lines)} refused; " + _counted(ends))
    back = sorted(line.back_s for line in ledger.lines if line.back_s is not None)
    if back:
        said.append(f"back after the kill: median {back[len(back) // 2]:.2f} s, longest {back[-1]:.2f} s")
    said.append("recordings of a call: " + _counted(Counter(str(line.recordings) for line in ledger.lines)))
    said.append("reasons: " + _counted(Counter(line.reason or "none" for line in ledger.lines)))
    said += [f"refused by a machine, {why}: {times}" for why, times in ledger.refused_calls.items()]
    said += [f"{name} {value:g}" for name, value in {**ledger.figures, **ledger.haproxy}.items()]
    return "\n".join(said)


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))


def main() -> int:
    """Run the command."""
    options = argparse.ArgumentParser(description="Rolling deploy and death of a machine under calls.")
    options.add_argument("--calls", type=int, default=100)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--on-lost", choices=("resume", "goodbye"), default="resume")
    options.add_argument("--cut", action="store_true", help="cut the machine's network instead of killing it")
    options.add_argument("--tls", action="store_true", help="callers connect with TLS, which costs CPU on their side")
    options.add_argument("--json", action="store_true", help="print the ledger as JSON")
    given = options.parse_args()
    why_not = refusal()
    if why_not:
        sys.stderr.write(f"{why_not}\n")
        return 2
    mariadb = MariaDB()
    try:
        mariadb.start()
        ledger = run(
            mariadb,
            calls=given.calls,
            workers=given.workers,
            on_lost=given.on_lost,
            cut=given.cut,
            tls=given.tls,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    finally:
        mariadb.remove()
    wrong = broken(ledger)
    document = {**dataclasses.asdict(ledger), "broken": wrong}
    kept = ROOT / "out" / "vms" / "ledger.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(json.dumps(document, indent=1) + "\n" if given.json else table(ledger) + "\n")
    sys.stdout.write("".join(f"BROKEN {one}\n" for one in wrong) if not given.json else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

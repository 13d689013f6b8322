"""Calls with three tools each while control and workers are killed: `python tests/faults/tools/kills.py --calls 1000`.

The AI calls three tools in its first response and says goodbye once it has all results. One tool only reads, one does its work
once per Idempotency-Key and sometimes loses its answer, one is not idempotent. Every few seconds SIGKILL ends control or a
worker; a caller whose worker died resumes, and that session's AI calls the tools again. The endpoints count what they executed.

Exit code 1: a law of `laws.py` was broken. The same `--seed` gives the same faults of the endpoints, and the same kills at about
the same times.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import gevent
from gevent.event import Event
from gevent.pool import Pool

from gw.bench.gateway_process import GatewayProcess
from gw.control.admin.client import AdminClient
from gw.twin import speech
from gw.twin.ai.faults import Call
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.hooks import HookTwin, Visit
from gw.twin.polling import wait_until
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from tests.faults.processes import Processes
from tests.faults.tools.laws import CallLine, Delivered, Record, judge
from tests.program import program
from tests.timing import scaled

AUTH_TOKEN: Final = "an auth token of the bench"
SECRET: Final = "a hook secret of the bench"
WORKERS: Final = 2
#: Longest call. One that lasts this long was left waiting.
MAX_CALL_S: Final = 60.0
#: Between a kill and the next, after the gateway is whole again: a process that served 5 s is restarted immediately.
PAUSE_S: Final = (5.5, 8.0)
#: After the last call: events of a broken stream wait 20 s, and those in a circuit 15 s.
SETTLE_S: Final = 90.0
#: Time of the slowest tool: most kills then meet open calls of tools.
SLOW_S: Final = 1.5
#: Shares of the requests for which the endpoint loses its answer, and of the events that it refuses at first.
LOST: Final = 0.1
REFUSED: Final = 0.05
_HELLO: Final = speech.load("hello-world")[: 160 * 40]
_GOODBYE: Final = speech.load("hello-world")[: 160 * 25]
SCRIPT: Final = AiScript(
    greeting=_HELLO,
    goodbye=_GOODBYE,
    answers=(_GOODBYE,),
    hang_up_after=2,
    calls={1: (Call("find"), Call("book"), Call("pay"))},
)


class Bench:
    """One run: a gateway between the twins, its calls and its kills."""

    def __init__(self, folder: Path, seed: str, hooks: HookTwin) -> None:
        self.chance = random.Random(f"{seed}/kills")
        self.hooks = hooks
        self.gateway = GatewayProcess(program(), folder, _settings(hooks))
        self.record = Record()
        self.began_s = time.monotonic()
        self._admin = AdminClient(self.gateway.admin_socket, timeout_s=scaled(10.0))
        self._processes = Processes(self._admin, WORKERS)
        self._over = Event()

    def run(self, calls: int, at_once: int, kills: int | None = None) -> Record:
        """Place the calls, kill processes meanwhile, and wait for what is left. `kills`: at most; None: until the last call."""
        with AiTwin(SCRIPT) as ai, TwilioTwin(self.gateway.url, auth_token=AUTH_TOKEN) as twilio:
            self.gateway.start(
                account_sid=twilio.account_sid, auth_token=AUTH_TOKEN, api_base=twilio.rest.url, ai_url=ai.url, hook_secret=SECRET
            )
            try:
                assert wait_until(self._processes.is_whole, scaled(20.0)), "the gateway did not become whole"
                self.began_s = time.monotonic()
                killing = gevent.spawn(self._kill, kills)
                pool = Pool(at_once)
                for number in range(calls):
                    pool.spawn(self._call, twilio, f"+1555{number:07}")
                    gevent.sleep(0.02)
                pool.join(raise_error=True)
                self._over.set()
                killing.get()
                wait_until(self._is_settled, scaled(SETTLE_S), 0.5)
                self._write(twilio.calls.values(), ai.sessions)
            finally:
                self.gateway.stop()
        return self.record

    def _call(self, twilio: TwilioTwin, number: str) -> None:
        call = twilio.place_call(hang_up=False, max_s=scaled(MAX_CALL_S), from_number=number)
        call.wait(scaled(MAX_CALL_S) + 10.0)

    def _kill(self, most: int | None) -> None:
        while (most is None or len(self.record.kills) < most) and not self._over.wait(self.chance.uniform(*PAUSE_S)):
            if not wait_until(self._processes.is_whole, scaled(20.0)):
                continue
            role = self.chance.choice(("control", "worker"))
            pid = self.chance.choice(self._processes.pids(role))
            os.kill(pid, signal.SIGKILL)
            self.record.kills.append((time.monotonic() - self.began_s, role))

    # -- observing --------------------------------------------------------------------------------------------------------

    def _is_settled(self) -> bool:
        return self._processes.is_settled() and not self._waiting_jobs()

    def _waiting_jobs(self) -> int:
        """Return the number of jobs without a result, from the metrics page, which is rendered once a second."""
        try:
            page = self.gateway.metrics()
        except OSError:
            return 1
        return sum(int(float(line.split()[-1])) for line in page.splitlines() if line.startswith("gw_hook_backlog"))

    # -- afterwards -------------------------------------------------------------------------------------------------------

    def _write(self, calls: Any, sessions: Sequence[AiLedger]) -> None:
        record, hooks = self.record, self.hooks
        last = {str(session.updates[0]["instructions"]): session for session in sessions if session.updates}
        for call in calls:
            record.calls.append(self._line(call, last.get(_instructions(call.plan.from_number))))
        record.waiting = self._waiting_jobs()
        record.executions = Counter(hooks.executions)
        for request in hooks.requests:
            if request.fault:
                record.faults.append(f"{request.path}: {request.fault}")
            elif request.path == "/events":
                body = request.body
                tool = str(body["data"].get("id", "")) if body["type"] == "tool.called" else ""
                record.delivered.append(Delivered(body["id"], body["type"], body["call"]["sid"], tool, request.content))
            else:
                record.requests[request.key] += 1
                if request.body["tool"] == "pay":
                    record.once.add(request.key)
        del record.executions[""]

    def _line(self, call: TwinCall, session: AiLedger | None) -> CallLine:
        row: dict[str, Any] = self._admin.request("call", call_sid=call.call_sid) or {}
        outputs = Counter(output["call_id"] for output in session.tool_outputs) if session is not None else Counter[str]()
        is_owed = session is not None and row.get("reason") == "ai_hangup"
        return CallLine(
            call_sid=call.call_sid,
            placed_s=call.placed_s - self.began_s,
            closed_by=call.closed_by if call.is_over else "",
            error=_error_of(call) if call.is_over else "",
            reason=row.get("reason") or "",
            is_open=bool(row) and row.get("ended_at") is None,
            tools=[one["data"]["id"] for one in row.get("events") or [] if one["kind"] == "tool_called"],
            unanswered=[one for one in _called(session) if outputs[one] != 1] if is_owed and session is not None else [],
        )


def _error_of(call: TwinCall) -> str:
    """Return what went wrong for a caller: the twin's own failure, entries of Twilio's debugger, words it spoke."""
    notes = [f"{one.code} {one.detail}" for one in (*call.warnings, *call.notices)]
    return "; ".join(text for text in (call.error, call.close_reason, *notes, *call.spoken) if text)[:300]


def _instructions(caller: str) -> str:
    """Return the agent's instructions. They name the caller, so that each session of a resumed call is found."""
    return f"The caller is {caller}."


def _called(session: AiLedger) -> list[str]:
    """Return the tool calls of a session that are owed an output: its own, and those restated from earlier ones."""
    own = [call.call_id for call in session.calls if call.name != "hang_up"]
    return [*own, *(item.call_id for item in session.items if item.kind == "function_call")]


def endpoints(seed: str) -> HookTwin:
    """Return the endpoints: `unreliable` loses some first answers, `events` refuses some at first."""

    def is_struck(visit: Visit, share: float) -> bool:
        return random.Random(f"{seed}/{visit.request.key}").random() < share and not visit.is_repeat()

    def unreliable(visit: Visit) -> None:
        content = visit.work()
        if not is_struck(visit, LOST):
            gevent.sleep(0.1)
            visit.answer(200, content)

    def events(visit: Visit) -> None:
        visit.answer(503 if is_struck(visit, REFUSED) else 200, b"")

    twin = HookTwin(SECRET, behaviours={"unreliable": unreliable, "events": events})
    twin.slow_s = SLOW_S
    return twin


def _settings(hooks: HookTwin) -> dict[str, str]:
    tool = 'description = "Works."\nurl = "{}"\nidempotent = {}\nfiller = "none"\ntimeout_s = 20.0\n'
    return {
        "server": f"workers = {WORKERS}\n",
        "agents.default": f'tools = ["hang_up", "find", "book", "pay"]\ninstructions = "{_instructions("{{caller}}")}"\n',
        "recording": "enabled = false\n",
        "hooks": 'allow_networks = ["127.0.0.1/32"]\n',
        "tools.find": tool.format(hooks.url("ok/find"), "true"),
        "tools.book": tool.format(hooks.url("unreliable/book"), "true"),
        "tools.pay": tool.format(hooks.url("slow/pay"), "false"),
        "[events]": f'url = "{hooks.url("events")}"\ntypes = ["call.started", "tool.called", "call.ended"]\n',
    }


def run(folder: Path, *, calls: int, at_once: int, seed: str, kills: int | None = None) -> Record:
    """Run the bench in `folder`. Returns the record."""
    with endpoints(seed) as hooks:
        return Bench(folder, seed, hooks).run(calls, at_once, kills)


def table(record: Record) -> str:
    """Return the counts and the verdict as text."""
    ends = Counter(
        call.reason or f"without a row, {call.closed_by or 'Twilio'} ended it: {call.error or 'nothing reported'}"
        for call in record.calls
    )
    kills = Counter(what for _, what in record.kills)
    ids = {one.id for one in record.delivered}
    lines = [
        f"calls: {len(record.calls)} ({', '.join(f'{count} {name}' for name, count in ends.most_common())})",
        f"kills: {', '.join(f'{count} of {name}' for name, count in sorted(kills.items())) or 'none'}",
        f"tool calls: {len(record.requests)} reached their endpoints in {sum(record.requests.values())} requests;"
        f" {max(record.executions.values(), default=0)} executions at most of one key",
        f"events: {len(ids)} in {len(record.delivered)} requests",
    ]
    for name, broken in judge(record).items():
        lines.append(f"{name}: {'holds' if not broken else f'{len(broken)} violations'}")
        lines += [f"  {text}" for text in broken[:10]]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1000, help="calls in all")
    parser.add_argument("--at-once", type=int, default=20, help="calls at a time")
    parser.add_argument("--seed", default="", help="any word; empty: a new one")
    parser.add_argument("--out", type=Path, default=None, help="folder of the gateway's files; default: a temporary one")
    given = parser.parse_args()
    seed = given.seed or f"{random.SystemRandom().randrange(1 << 32):08x}"
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="gw-kills-") as temporary:
        record = run(given.out or Path(temporary), calls=given.calls, at_once=given.at_once, seed=seed)
    print(table(record))
    return 1 if any(judge(record).values()) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Connections and memory of the client of users' endpoints while 10,000 jobs wait: `python tests/bench/tools/connections.py`.

Real jobs on a real spool call tools at nine hosts, whose endpoints hold every request until all jobs are there. Then the
endpoints answer, and each job must get its result, after one execution.

Exit code 1: more connections than permitted, a job without a result, or a doubled execution.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import gevent
from gevent.event import Event

from gw import bus
from gw.config import Config, Hooks, Secrets, Tool
from gw.control.hooks.places import CONNECTIONS, PER_HOST
from gw.control.jobs.service import Jobs
from gw.control.jobs.tool import CAPACITY, ToolKinds, tool_handlers
from gw.control.spool import Spool
from gw.protocol.hooks.tool_call import CallFacts, ToolCall, encode_call
from gw.twin.hooks import HookTwin, Visit
from gw.twin.polling import wait_until
from metrics.page import Page

HOSTS: Final = 9
_SECRET: Final = "a hook secret of the bench"
_BATCH: Final = 100
_FACTS: Final = CallFacts(sid="CA1", agent="default", direction="inbound", from_="+1", to="+2", started_at="2026-11-28T14:05:00Z")
#: Characters of the arguments: a job of about a kilobyte.
_ARGUMENT_CHARS: Final = 800


@dataclass(frozen=True)
class Figures:
    """Results of a run. Memory is the process's, endpoints included."""

    jobs: int
    empty_mb: float
    full_mb: float
    drained_mb: float
    most_open: int  # connections, and the most to one host
    most_to_host: int
    drained_s: float
    outcomes: dict[str, int]
    missing: int  # jobs without a result
    executed_twice: int

    def failures(self) -> list[str]:
        """Return a sentence for each bound that was not kept."""
        found = []
        if self.most_open > CONNECTIONS or self.most_to_host > PER_HOST:
            found.append(f"{self.most_open} connections, {self.most_to_host} to one host; expected {CONNECTIONS} and {PER_HOST}")
        if self.missing:
            found.append(f"{self.missing} jobs have no result")
        if self.executed_twice:
            found.append(f"{self.executed_twice} jobs were executed twice")
        if set(self.outcomes) != {"ok"}:
            found.append(f"outcomes: {self.outcomes}")
        return found


def measure(folder: Path, jobs: int) -> Figures:
    """Let `jobs` jobs wait, then run them."""
    released = Event()

    def held(visit: Visit) -> None:
        released.wait()
        visit.answer(200, visit.work())

    with ExitStack() as stack:
        twins = [stack.enter_context(HookTwin(_SECRET, behaviours={"held": held}, host=f"127.0.0.{n + 1}")) for n in range(HOSTS)]
        tools = {f"tool_{n}": Tool(url=twin.url("held"), timeout_s=60.0, idempotent=True) for n, twin in enumerate(twins)}
        config = Config(tools=tools, hooks=Hooks(allow_networks=("127.0.0.0/8",)), secrets=Secrets(hook_secret=_SECRET))
        spool = Spool(folder / "spool.db")
        stack.callback(spool.close)
        page = Page.create(folder / "control.page")
        settled: list[tuple[str, str]] = []  # not the results, which would be this script's memory

        def settle(result: bus.JobSettled) -> None:
            settled.append((result.id, result.outcome))

        handlers = tool_handlers(config, page, lambda call_sid: {})
        service = Jobs(spool, page, handlers, settle=settle, kind_of=ToolKinds(tools).of)
        service.start()
        stack.callback(service.stop)
        empty_mb = resident_mb()
        for begin in range(0, jobs, _BATCH):
            numbers = range(begin, min(begin + _BATCH, jobs))
            wanted = {n + 1: service.of_event(_wanted(n)) for n in numbers}
            service.on_accepted(spool.append("bench", [], jobs=wanted))
            gevent.sleep(0.0)
        wait_until(lambda: sum(twin.open for twin in twins) >= min(jobs, CONNECTIONS), 10.0)
        gevent.sleep(0.5)  # more than permitted would come now
        full_mb, most_open = resident_mb(), sum(twin.open for twin in twins)
        began_s = time.monotonic()
        released.set()
        wait_until(lambda: len(settled) >= jobs, 600.0, 0.1)
        drained_s = time.monotonic() - began_s
        done = dict(settled)
        return Figures(
            jobs=jobs,
            empty_mb=empty_mb,
            full_mb=full_mb,
            drained_mb=resident_mb(),
            most_open=most_open,
            most_to_host=max(twin.most_open for twin in twins),
            drained_s=drained_s,
            outcomes=dict(Counter(done.values())),
            missing=jobs - len(done),
            executed_twice=sum(times > 1 for twin in twins for times in twin.executions.values()),
        )


def _wanted(n: int) -> bus.JobWanted:
    arguments = '{"text":"' + "x" * _ARGUMENT_CHARS + '"}'
    job_id = f"CA1/1/call_{n}"
    body = encode_call(ToolCall(id=job_id, tool=f"tool_{n % HOSTS}", arguments=arguments, call=_FACTS))
    return bus.JobWanted(job_id, "tool", "CA1", int((time.time() + 900) * 1000), body)


def resident_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(say: Callable[[str], object] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=CAPACITY, help="jobs that wait")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gw-jobs-") as folder:
        found = measure(Path(folder), given.jobs)
    say(
        f"{found.jobs} jobs wait: {found.full_mb:.1f} MB, {found.empty_mb:.1f} MB without any; "
        f"{found.most_open} connections, at most {found.most_to_host} to one host"
    )
    say(f"afterwards: {found.outcomes} in {found.drained_s:.1f} s; {found.drained_mb:.1f} MB")
    for text in found.failures():
        say(text)
    return 1 if found.failures() else 0


if __name__ == "__main__":
    sys.exit(main())

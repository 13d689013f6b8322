"""Measure how the purge of old calls changes the lateness of live ones: windows with and without it, in turns.

    .venv/bin/python tests/bench/purge.py [--calls 50] [--stored 1000000] [--seconds 25] [--rounds 3] [--json]

A private MariaDB is filled with calls of last year, each with its quality, its recording, two turns and two events. Then gateways
start in turns: one keeps its calls for ever, the next for a day and removes them while it is measured. The server runs at low
priority, away from the worker's core, as if it were on another machine. At the end the rest is removed by `gateway.py db purge`.
Exit code 1: a statement of the purge took over a second, TX lateness p99.9 grew by over 10 %, a caller would have noticed, or
every round was void.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import click
import gevent
import pymysql
from sqlalchemy.engine import make_url

import gw.config
from gw.bench.result import Measured, MetricsPage
from gw.bench.run import Load, OnStep, measure_with
from gw.bench.subject import BenchError, Gateway
from gw.cli.bench import options
from gw.cli.context import json_option
from gw.control.store import Store
from gw.terminal import figure_table, ms
from tests.bench.compare import figures, medians, ratios
from tests.bench.load.stalling_store import MariaDb
from tests.bench.script import COMMAND, conclude

KINDS: Final = ("kept", "purged")
CLAIM: Final = 0.10
LONGEST_S: Final = 1.0
#: A page of rows in one statement of the filling.
_FILL: Final = 50_000
#: From the start of control to its first pass, and then to its first transaction.
_BEGIN_S: Final = 60.0
_SHOWN: Final = ("tx_p50_ms", "tx_p99_ms", "tx_p99.9_ms", "caller_p99_ms", "caller_p99.9_ms")
_ROWS: Final = (
    "INSERT INTO calls (call_sid, account_sid, agent, direction, started_at, ended_at, reason, result) SELECT {sid}, 'AC1',"
    " 'default', 'inbound', {at}, {at} + INTERVAL 60 SECOND, 'caller_hangup', 'success' FROM {page}",
    "INSERT INTO call_quality (call_sid, frames_sent, frames_expected) SELECT {sid}, 3000, 3000 FROM {page}",
    "INSERT INTO recordings (call_sid, account_sid, state, started_at, recording_sid, attempts) SELECT {sid}, 'AC1', 'completed',"
    " {at}, CONCAT('RE', LPAD(seq, 32, '0')), 1 FROM {page}",
    "INSERT INTO turns (call_sid, n, role, text, start_ms, interrupted, heard_ms) SELECT {sid}, seq % 2, 'agent',"
    " 'Good morning, what can I do for you on this fine day?', 1000, 0, 3000 FROM {page}",
    "INSERT INTO turns (call_sid, n, role, text, start_ms, interrupted, heard_ms) SELECT {sid}, 1 + seq % 2, 'caller',"
    " 'I would like to change my booking to the day after.', 5000, 0, 3000 FROM {page}",
    "INSERT INTO events (call_sid, kind, at, data, instance, n) SELECT {sid}, 'webhook', {at}, '{{}}', 'fill', 2 * seq"
    " FROM {page}",
    "INSERT INTO events (call_sid, kind, at, data, instance, n) SELECT {sid}, 'note', {at}, '{{}}', 'fill', 2 * seq + 1"
    " FROM {page}",
)


class FilledStore(MariaDb):
    """A MariaDB with old calls, which writes down its long statements."""

    def __init__(self, n_calls: int, on_step: OnStep) -> None:
        server = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if server is None:
            raise BenchError("this measurement needs MariaDB: apt-get install mariadb-server-core")
        super().__init__(
            server,
            "--innodb-buffer-pool-size=256M",
            "--innodb-flush-log-at-trx-commit=2",
            "--slow-query-log=1",
            "--long-query-time=0.2",
            "--slow-query-log-file=slow.log",
        )
        made = Store(gw.config.Store(url=self.url), "")
        made.upgrade()
        made.close()
        parts = make_url(self.url)
        self._at = {"host": parts.host, "port": parts.port, "user": parts.username, "database": parts.database}
        for first in range(1, n_calls + 1, _FILL):
            last = min(first + _FILL - 1, n_calls)
            on_step(f"filling the store: {last} of {n_calls} calls")
            values = {
                "sid": "CONCAT('CA', LPAD(seq, 32, '0'))",
                "at": "'2025-01-01' + INTERVAL seq SECOND",
                "page": f"seq_{first}_to_{last}",
            }
            for statement in _ROWS:
                self.execute(statement.format(**values))
        (self._folder / "slow.log").write_text("")

    def execute(self, statement: str) -> Any:
        with pymysql.connect(**self._at, autocommit=True, read_timeout=600) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def stored(self) -> int:
        return int(self.execute("SELECT count(*) FROM calls WHERE ended_at < '2026-01-01'")[0][0])

    def longest_s(self) -> float:
        """Return the time of the longest statement since the filling; 0.2 where none was longer."""
        text = (self._folder / "slow.log").read_text(errors="replace")
        return max([0.2, *map(float, re.findall(r"Query_time: ([\d.]+)", text))])

    def yield_cores(self) -> None:
        """Run at low priority, without the measured core."""
        assert self._process is not None
        others = os.sched_getaffinity(0)
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, int(task.name), 10)
                os.sched_setaffinity(int(task.name), others)


class PurgingGateway(Gateway):
    """A gateway on a filled store. With `keep_days` 1 its warm-up begins once the purge has."""

    def __init__(self, out: Path, load: Load, store: FilledStore, keep_days: int) -> None:
        more = f"keep_days = {keep_days}\n"
        super().__init__(COMMAND, out / "gateway", workers=load.workers, calls=load.calls, store_url=store.url, store=more)
        self._store = store
        self._purges = bool(keep_days)
        self.removed = 0

    def on_calls_placed(self) -> None:
        self._store.yield_cores()
        until_s = time.monotonic() + _BEGIN_S
        while self._purges and not self._count():
            if time.monotonic() > until_s:
                raise BenchError("the purge did not begin")
            gevent.sleep(0.2)

    @contextmanager
    def around_window(self) -> Iterator[None]:
        before = self._count()
        yield
        self.removed = self._count() - before

    def _count(self) -> int:
        return int(MetricsPage(self.metrics()).value("gw_purged_calls_total"))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--calls", type=click.IntRange(1, 2000), default=50, show_default=True, help="Live calls.")
@click.option("--stored", type=click.IntRange(1000, 100_000_000), default=1_000_000, show_default=True, help="Old calls.")
@click.option("--seconds", type=click.FloatRange(2, 28), default=25, show_default=True, help="Length of each window.")
@click.option("--rounds", type=click.IntRange(1, 99), default=3, show_default=True, help="Rounds of two windows each.")
@options.out_option
@json_option
def main(calls: int, stored: int, seconds: float, rounds: int, out: Path, as_json: bool) -> None:
    load = Load(calls=calls, seconds=seconds, maxima=False)
    out.mkdir(parents=True, exist_ok=True)
    good: list[dict[str, Measured]] = []
    failures: list[str] = []
    removed = void = 0
    with options.show_steps(as_json) as on_step:
        store = FilledStore(stored, on_step)
        try:
            for number in range(1, rounds + 1):
                windows = {}
                for kind in KINDS:
                    gateway = PurgingGateway(out, replace(load), store, KINDS.index(kind))
                    windows[kind] = measure_with(
                        gateway, gateway, out, load, lambda step, where=f"round {number}, {kind}": on_step(f"{where}: {step}")
                    )
                    removed += gateway.removed
                if any(one.void() for one in windows.values()):
                    void += 1
                else:
                    good.append(windows)
            beside = store.longest_s()
            left, began_s = store.stored(), time.monotonic()
            on_step(f"removing the other {left} calls")
            configuration = str(out / "gateway" / "submilli.toml")
            rest = [*COMMAND, "--config", configuration, "db", "purge", "--older-than", "30d", "--share", "50", "--yes"]
            done = subprocess.run(rest, capture_output=True, text=True, check=False)
            took_s, longest_s, remain = time.monotonic() - began_s, store.longest_s(), store.stored()
        finally:
            store.close()
    if done.returncode or remain:
        failures.append(f"`db purge` left {remain} calls: {done.stderr.strip()[-300:]}")
    if longest_s > LONGEST_S:
        failures.append(f"a statement took {longest_s:.2f} s")
    for windows in good:
        for kind, one in windows.items():
            if one.far["underruns"] or one.far["lost"] or one.alive < one.calls:
                failures.append(
                    f"{kind}: {one.far['underruns']} underruns, {one.far['lost']} frames lost, {one.alive} calls alive"
                )
    change = ratios([(figures(one["kept"]), figures(one["purged"])) for one in good])
    if not good:
        failures.append("every round was void")
    elif change.get("tx_p99.9_ms", 1.0) - 1 > CLAIM:
        failures.append(f"TX lateness p99.9 grew by {change['tx_p99.9_ms'] - 1:.0%}")
    middle = {kind: medians([figures(one[kind]) for one in good]) for kind in KINDS}
    document = {
        "calls": calls,
        "stored": stored,
        "removed_in_windows": removed,
        "removed_by_command": left,
        "command_s": round(took_s, 1),
        "longest_statement_s": {"beside calls": beside, "whole": longest_s},
        "medians": middle,
        "change": change,
        "rounds": [{kind: figures(one[kind]) for kind in KINDS} for one in good],
        "void_rounds": void,
        "failures": failures,
    }

    def parts() -> Iterator[Any]:
        table = figure_table("ms", *(f">{name}" for name in ("late p50", "p99", "p99.9", "caller p99", "p99.9")))
        for kind in KINDS:
            table.add_row(kind, *(ms(middle[kind].get(key)) for key in _SHOWN))
        yield table
        yield f"{removed} calls were removed in the windows, {left} by the command in {took_s:.0f} s"
        yield f"longest statement: {beside:.2f} s beside calls, {longest_s:.2f} s in all; void rounds: {void}"

    conclude(out / "purge.json", document, failures, as_json, parts)


if __name__ == "__main__":
    main()

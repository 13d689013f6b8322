"""gw.bench.load.loop: percentiles, buckets and seconds of samples, and CPU time of the steps."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

from gw import ROOT
from gw.bench.load.loop import EDGES_S, over_time, percentile_ms, summary
from metrics.declare import BOUNDS


def test_edges_are_those_of_the_gateways_metrics() -> None:
    assert EDGES_S == BOUNDS


def test_percentiles_are_the_smallest_values_not_exceeded() -> None:
    values = [n / 1000 for n in range(1, 1001)]
    assert [percentile_ms(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500.0, 990.0, 999.0, 1000.0]
    assert percentile_ms([0.002], 0.5) == 2.0
    assert percentile_ms([], 0.5) is None


def test_a_summary_counts_by_bucket_and_second() -> None:
    found = summary([0.000_01, 0.001, 2.0])
    assert found["count"] == sum(found["buckets"]) == 3
    assert found["buckets"][0] == found["buckets"][EDGES_S.index(0.001)] == found["buckets"][-1] == 1
    assert over_time([0.001, 0.003, 0.002], [0.1, 0.9, 2.5]) == [[0, 3.0, 3.0], [2, 2.0, 2.0]]


#: Runs as a load process does, without gevent. Prints the steps at four moments.
STEPS: Final = """
import json, os, time
from gw import ROOT
from gw.bench.load.loop import LONG_STEP_S, Loop

loop, served, found = Loop(), [], []
readable, written = os.pipe()

def work(due_s):
    until_s = time.thread_time() + 2 * LONG_STEP_S
    while time.thread_time() < until_s:
        pass
    served.append("work")

def wait(due_s):
    time.sleep(0.02)
    served.append("wait")

def read():
    os.read(readable, 1)
    served.append("read")

def serve(count):
    until_s = time.monotonic() + 10
    while len(served) < count and time.monotonic() < until_s:
        loop.turn(0.01)
    found.append(loop.steps.summary())

loop.watch(readable, read)
loop.after(0.0, work)
serve(1)
loop.begin()
loop.after(0.0, work)
os.write(written, b"x")
serve(3)
loop.after(0.0, wait)
serve(4)
loop.begin()
serve(4)
print(json.dumps(found))
"""


def test_steps_count_cpu_time_within_the_window_alone() -> None:
    run = subprocess.run([sys.executable, "-c", STEPS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    before, worked, waited, again = json.loads(run.stdout)
    assert before["count"] == again["count"] == 0
    assert worked["count"] == 2
    assert worked["over_1ms"] >= 1
    assert worked["cpu_s"] >= 0.002
    assert waited["count"] == 3
    assert waited["cpu_s"] < worked["cpu_s"] + 0.02, "a wait is no CPU time"

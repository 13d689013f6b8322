"""Measure the cost of one observation: the shared page beside prometheus_client.

    .venv/bin/python tests/bench/operations/observations.py [--json]

The process is patched for gevent, as the gateway is.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import json
import sys
import tempfile
import time
import timeit
from bisect import bisect_left
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from prometheus_client import CollectorRegistry, Counter, Histogram

from metrics.declare import BOUNDS, TX_FRAMES, TX_SEND
from metrics.exposition import render
from metrics.page import Page

NUMBER, REPEAT = 100_000, 7


def nanoseconds(statement: str, **names: object) -> float:
    """Return the best of several runs, which other programs disturbed least."""
    names.update(seconds=0.00012, bisect_left=bisect_left)
    return min(timeit.repeat(statement, globals=names, number=NUMBER, repeat=REPEAT)) / NUMBER * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object, in nanoseconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        page = Page.create(Path(directory) / "bench.page")
        cell, frames = page.histogram(TX_SEND), page.counter(TX_FRAMES)
        registry = CollectorRegistry()
        reference = Histogram("x_seconds", "X.", buckets=BOUNDS, registry=registry)
        reference_counter = Counter("x_frames", "X.", registry=registry)
        results = {
            "histogram, page, inlined": nanoseconds(
                "view[base + bisect_left(bounds, seconds)] += 1.0; view[sum_index] += seconds",
                view=cell.view,
                base=cell.base,
                bounds=cell.bounds,
                sum_index=cell.sum_index,
            ),
            "histogram, page": nanoseconds("observe(seconds)", observe=cell.observe),
            "histogram, prometheus_client": nanoseconds("observe(seconds)", observe=reference.observe),
            "counter, page": nanoseconds("add()", add=frames.add),
            "counter, prometheus_client": nanoseconds("inc()", inc=reference_counter.inc),
        }
        started = time.perf_counter()
        render(Path(directory))
        results["the whole exposition, one page"] = (time.perf_counter() - started) * 1e9
        page.close()
    if arguments.json:
        print(json.dumps({name: round(value) for name, value in results.items()}))
        return
    for name, value in results.items():
        print(f"{name:32} {value / 1000:10.2f} us")


if __name__ == "__main__":
    main()

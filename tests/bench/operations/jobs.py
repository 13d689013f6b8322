"""Cost of waiting jobs: memory, the time to accept one more, the time of a turn. `python tests/bench/operations/jobs.py --help`.

Fills a real spool with jobs of a kilobyte that no runner takes, then accepts more, one commit each, as the bus server does.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from gw.control.jobs import lifecycle, table
from gw.control.spool import Spool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs that wait")
    parser.add_argument("--more", type=int, default=300, help="jobs accepted one by one, and turns, measured each")
    parser.add_argument("--folder", type=Path, default=None, help="folder on the disk to measure; default: a temporary one")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        spool = Spool(Path(folder) / "spool.db")
        report("empty", spool, 0, chosen.more)
        body = "x" * 1000
        for begin in range(0, chosen.jobs, 100):
            spool.append("fill", [], jobs={begin // 100 + 1: [wanted(f"f{begin + n}", body) for n in range(100)]})
        report(f"{chosen.jobs} waiting", spool, 10_000_000, chosen.more)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        print(f"on disk: {size / 1e6:.1f} MB")
        spool.close()


def wanted(job_id: str, body: str) -> table.Wanted:
    now = time.time()
    return table.Wanted(lifecycle.want(job_id, "other", "CA1", body, deadline_at=now + 3600, now=now), 1_000_000)


def report(name: str, spool: Spool, first: int, more: int) -> None:
    accepted: list[float] = []
    turns: list[float] = []
    for n in range(first, first + more):
        began_s = time.perf_counter()
        spool.append("more", [], jobs={n + 1: [wanted(f"m{n}", "x" * 1000)]})
        accepted.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        spool.transact(partial(table.turn, ended=(), free={"tool": 64}, now=time.time()))
        turns.append(time.perf_counter() - began_s)
    spool.transact(lambda db: db.execute("DELETE FROM jobs WHERE id LIKE 'm%'"))
    print(f"{name}: resident {resident_bytes() / 1e6:.1f} MB; accept {figures(accepted)}; turn {figures(turns)}")


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def figures(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"p50 {statistics.median(ordered) * 1000:.2f} ms, p99 {ordered[int(len(ordered) * 0.99)] * 1000:.2f} ms"


if __name__ == "__main__":
    main()

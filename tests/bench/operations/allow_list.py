"""Measure the cost of each operation on the allow-list: the median, and the 99.9th percentile of single runs.

    .venv/bin/python tests/bench/operations/allow_list.py [--json]

The process is patched for gevent, as the gateway is.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import gc
import json
import sys
import tempfile
import timeit
from collections import deque
from pathlib import Path
from time import perf_counter_ns
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import gevent
from gevent import socket
from gevent.event import Event
from gevent.hub import Waiter

from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Playout
from gw.media.hub.clock import Clock
from gw.media.transport.plain import Transport
from gw.media.tx import Tx, TxCells
from gw.verify.purity.allow_list import ALLOWED, LIMIT_NS
from metrics.page import Page

#: Runs of one operation within one measurement, measurements, and single runs for the percentile.
INNER, OUTER, SINGLE = 200, 101, 20_000

#: By `kind name`: the statement, and an unmeasured one that restores the state before each measurement.
STATEMENTS: dict[str, tuple[str, str]] = {
    "call collections.deque.popleft": ("popleft()", "queue.extend(range(INNER + 1))"),
    "call gevent.event.Event.clear": ("event.clear()", ""),
    "call gevent.event.Event.wait": ("event.wait(0.0000001)", "event.clear()"),
    "call gw.media.tx.Tx._pause": ("pause(True)", ""),
    "call time.monotonic": ("monotonic()", ""),
    "call gw.media.hub.clock.Clock.wait_until": ("wait_until(monotonic() + 0.0000005)", ""),
    "call gevent.sleep": ("sleep(0.0000001)", ""),
    "call gw.call.audio.pacer.Pacer.deadline": ("deadline(1.0)", ""),
    "call gw.call.audio.pacer.Pacer.on_sent": ("on_sent(1.0)", ""),
    "call gw.call.audio.pacer.Pacer._begin": ("begin(1.0)", ""),
    "call gw.call.audio.pacer.Pacer.on_starved": ("on_starved(1.0)", ""),
    "call gw.call.audio.pacer.Pacer.on_held": ("on_held(1.0)", ""),
    "call gw.call.audio.pacer.Pacer.on_mark": ("on_mark()", ""),
    "call gw.media.transport.plain.Transport.write": ("write(frame)", "drain()"),
    "call _socket.socket.send": ("send(frame)", "drain()"),
    "call builtins.len": ("len(frame)", ""),
    "slice builtins.bytes in gw.media.transport.plain.Transport.write": ("frame[100:]", ""),
    "call gw.media.transport.plain.Transport._keep": (
        "keep(frame)",
        "transport._buffer.clear(); transport._write_watcher.stop()",
    ),
    "operator builtins.bytearray add in place": ("buffer.__iadd__(frame)", "buffer.clear()"),
    "call gevent._types._IoWatcher.start": ("watcher.start(flush)", "watcher.stop()"),
    "hand gw.media.transport.plain.Transport._flush to gevent._types._IoWatcher.start": ("transport._flush", ""),
    "load builtins.OSError.strerror": ("error.strerror", ""),
    "call gw.media.transport.plain.Transport.fail": ("transport.failure = ''; fail('broken', 'why')", "sleep(0)"),
    "call builtins.bytearray.clear": ("buffer.clear()", ""),
    "call gevent._types._IoWatcher.stop": ("watcher.stop()", ""),
    "call gw.media.transport.plain.Transport.wake": ("wake()", "sleep(0)"),
    "load gevent.hub.Waiter.switch": ("waiter.switch", ""),
    "call gevent._types._Loop.run_callback": ("run_callback(nothing, None)", "sleep(0)"),
    "call gw.media.tx.Tx._count": ("count(1.0, 1.00001, True)", ""),
    "call metrics.page.CounterCell.__init__.<locals>.add": ("add()", ""),
    "call metrics.page.HistogramCell.__init__.<locals>.observe": ("observe(0.00012)", ""),
    "item builtins.memoryview": ("view[7] += 1.0", ""),
    "call bisect.bisect_left": ("bisect_left(bounds, 0.00012)", ""),
    "item builtins.list": ("buckets[7] += 1", ""),
    "write": ("tx.frames_sent = 7", ""),
}


def names(folder: Path) -> dict[str, object]:
    """Return all names in the statements, as real objects: a transport on loopback, a page in shared memory."""
    import bisect
    import time

    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    theirs, _ = listener.accept()
    page = Page.create(folder / "bench.page")
    transport, pacer = Transport(ours, 1 << 30), Pacer(100)
    other = Transport(socket.socketpair()[0], 1 << 30)
    other._reader = Waiter()
    tx = Tx(transport, pacer, Playout(1000), Clock(), TxCells(page))
    queue: deque[int] = deque()
    theirs.setblocking(False)

    def drain() -> None:
        try:
            while theirs.recv(1 << 20):
                pass
        except BlockingIOError:
            return

    return {
        "INNER": INNER,
        "queue": queue,
        "popleft": queue.popleft,
        "event": Event(),
        "monotonic": time.monotonic,
        "wait_until": Clock().wait_until,
        "sleep": gevent.sleep,
        "deadline": pacer.deadline,
        "on_sent": pacer.on_sent,
        "begin": pacer._begin,
        "on_starved": pacer.on_starved,
        "on_held": pacer.on_held,
        "on_mark": pacer.on_mark,
        "write": transport.write,
        "send": ours._sock.send,
        "frame": b"x" * 400,
        "drain": drain,
        "transport": other,
        "keep": other._keep,
        "fail": other.fail,
        "wake": other.wake,
        "flush": other._flush,
        "watcher": other._write_watcher,
        "buffer": bytearray(),
        "error": OSError(104, "Connection reset by peer"),
        "waiter": Waiter(),
        "run_callback": gevent.get_hub().loop.run_callback,
        "nothing": lambda argument: None,
        "tx": tx,
        "count": tx._count,
        "pause": tx._pause,
        "add": tx._cells.frames.add,
        "observe": tx._cells.send.observe,
        "view": page.view,
        "bisect_left": bisect.bisect_left,
        "bounds": tx.send.bounds_s,
        "buckets": tx.send.counts,
    }


def measure(statement: str, restore: str, given: dict[str, object]) -> SimpleNamespace:
    """Return the median over batches, and the 99.9th percentile of single runs.

    The percentile includes the clock's own time.
    """
    timer = timeit.Timer(statement, restore or "pass", globals=given)
    inner = 20 if "wait" in statement or "sleep" in statement else 50 if "(frame)" in statement else INNER
    medians = sorted(timer.timeit(inner) / inner * 1e9 for _ in range(OUTER))
    code, reset = compile(statement, "<bench>", "exec"), compile(restore or "pass", "<bench>", "exec")
    singles, local = [], dict(given)
    for n in range(SINGLE if inner > 20 else 2000):
        if n % inner == 0:
            exec(reset, local)
        began = perf_counter_ns()
        exec(code, local)
        singles.append(perf_counter_ns() - began)
    singles.sort()
    return SimpleNamespace(median=medians[len(medians) // 2], p999=singles[int(len(singles) * 0.999)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object, in nanoseconds")
    arguments = parser.parse_args()
    gc.disable()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        given = names(Path(folder))
        measured = {name: measure(*statement, given) for name, statement in STATEMENTS.items()}
    if arguments.json:
        print(json.dumps({name: {"median": round(m.median), "p99.9": round(m.p999)} for name, m in measured.items()}))
        return
    print(f"{'listed ns':>10}{'median ns':>11}{'p99.9 ns':>10}  operation (limit {LIMIT_NS} ns at the median)")
    for entry in ALLOWED:
        found = measured.get(f"{entry.kind} {entry.name}") or (measured["write"] if entry.kind == "write" else None)
        if found is None:
            print(f"{entry.cost_ns:10}{'-':>11}{'-':>10}  {entry.kind} {entry.name}")
        else:
            print(f"{entry.cost_ns:10}{found.median:11.0f}{found.p999:10}  {entry.kind} {entry.name}")


if __name__ == "__main__":
    main()

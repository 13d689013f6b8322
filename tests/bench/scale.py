"""Measure a machine's capacity beside calls: webhooks, rows into the store, metrics series, memory.

    .venv/bin/python tests/bench/scale.py [--json]

Costs are CPU times of the named processes, so a busy machine changes them little. Webhooks are signed forms over loopback, one
connection each, as a balancer sends them. Rows are the events of whole calls, from the spool on disk into a MariaDB without
fsync, through the product's forwarder. Takes half a minute.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import http.client
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gevent

import gw.config
from gw import bus
from gw.bench import machine
from gw.bench.gateway_process import GatewayProcess
from gw.call.quality import Quality
from gw.control.spool import Spool
from gw.control.spool.forwarder import Forwarder
from gw.control.store import Store
from gw.twin.twilio.account import ACCOUNT_SID
from gw.twin.twilio.fields import call_fields, status_fields, stream_fields
from gw.twin.twilio.webhooks import sign
from tests.bench.script import COMMAND
from tests.mariadb import PASSWORD, MariaDB

TOKEN: Final = "an auth token of the bench"
WEBHOOKS: Final = 1500
CALLS: Final = 1500
TURNS: Final = 12
READS: Final = 300


def gateway(folder: Path, workers: int) -> GatewayProcess:
    started = GatewayProcess(COMMAND, folder, {"server": f"workers = {workers}\n"})
    started.start(account_sid=ACCOUNT_SID, auth_token=TOKEN, api_base="http://127.0.0.1:9", ai_url="ws://127.0.0.1:9/v1/realtime")
    return started


def series(page: str) -> int:
    return sum(1 for line in page.splitlines() if line and not line.startswith("#"))


def webhooks(folder: Path) -> dict[str, float]:
    """Return CPU per webhook, by kind and process, and the number of metrics series."""
    found: dict[str, float] = {}
    alone = gateway(folder / "one", 1)
    try:
        (control, worker) = alone.pids()[1:]
        if b"worker" in Path(f"/proc/{control}/cmdline").read_bytes().split(b"\0"):
            control, worker = worker, control
        address = urlsplit(alone.url)
        for kind in ("voice", "status"):
            url = f"{alone.url}/twilio/{kind}"
            requests = []
            for n in range(WEBHOOKS):
                sid = f"CA{n % 100:032x}"
                fields = call_fields(ACCOUNT_SID, sid, "+15005550006", "+15005550001", "ringing")
                if kind == "status":
                    fields = {**fields, "CallStatus": "in-progress"}
                requests.append((urlencode(fields), sign(TOKEN, url, fields)))
            before = machine.cpu_s(worker), machine.cpu_s(control), time.monotonic()
            for body, signature in requests:
                connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
                headers = {
                    "X-Twilio-Signature": signature,
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Connection": "close",
                }
                connection.request("POST", f"/twilio/{kind}", body, headers)
                answer = connection.getresponse()
                if answer.status not in (200, 204):
                    raise SystemExit(f"a webhook was answered {answer.status}")
                answer.read()
                connection.close()
            gevent.sleep(1.5)  # for the control process's share of the work
            found[f"{kind}_worker_cpu_ms"] = (machine.cpu_s(worker) - before[0]) / WEBHOOKS * 1000
            found[f"{kind}_control_cpu_ms"] = (machine.cpu_s(control) - before[1]) / WEBHOOKS * 1000
        one = series(alone.metrics())
        found["worker_mb"], found["control_mb"] = (
            machine.memory(worker).pss_bytes / 2**20,
            machine.memory(control).pss_bytes / 2**20,
        )
    finally:
        alone.stop()
    three = gateway(folder / "three", 3)
    try:
        found["series_per_worker"] = (series(three.metrics()) - one) / 2
        found["series_per_gateway"] = one - found["series_per_worker"]
    finally:
        three.stop()
    return found


def events(n: int) -> Iterator[bus.Event]:
    """Yield the events of a recorded call of three minutes."""
    sid, at = f"CA{n:032x}", time.time()
    about = call_fields(ACCOUNT_SID, sid, "+15005550006", "+15005550001", "in-progress")
    yield bus.CallStarted(sid, f"MZ{n:032x}", ACCOUNT_SID, "default", "inbound", "+15005550006", "+15005550001", at, at)
    for event in ("stream-started", "stream-stopped"):
        yield bus.Webhook("stream", at, {**about, **stream_fields(ACCOUNT_SID, sid, f"MZ{n:032x}", "s", event, "", at)})
    yield bus.FirstAudio(sid, at)
    yield bus.StartRecording(sid, ACCOUNT_SID, at)
    for turn in range(TURNS):
        words = "I would like to change my booking to the day after, if that is possible. " * 2
        yield bus.Turn(sid, turn, "agent" if turn % 2 else "caller", words, f"item_{n}_{turn}", turn * 15_000, False, 5000)
    yield bus.CallEnded(sid, at + 180, "caller_hangup", "success", "", Quality(frames_sent=9000, frames_expected=9000))
    yield bus.Webhook("status", at, {**about, **status_fields("completed", 180, at)})
    yield bus.Webhook("recording", at, {**about, "RecordingSid": f"RE{n:032x}", "RecordingStatus": "completed"})


def rows(folder: Path) -> dict[str, float]:
    """Return the forwarder's throughput into MariaDB, and the CPU of an event on both sides."""
    server = MariaDB()
    try:
        server.start()
        store = Store(gw.config.Store(url=server.fresh()), PASSWORD)
        store.upgrade()
        spool = Spool(folder / "spool.db")
        count = 0
        for n in range(CALLS):
            of_call = list(events(n))
            spool.append("bench", [(count + k, bus.encode_event(event)) for k, event in enumerate(of_call, 1)], worker=0)
            count += len(of_call)
        database = next(int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit() and _serves(one, server.port))
        forwarder = Forwarder(spool, store, host="bench", on_backlog=lambda _: None)
        before = time.monotonic(), time.process_time(), machine.cpu_s(database)
        draining = gevent.spawn(forwarder.run)
        while spool.backlog():
            gevent.sleep(0.02)
        wall_s, own_s, database_s = (
            time.monotonic() - before[0],
            time.process_time() - before[1],
            machine.cpu_s(database) - before[2],
        )
        forwarder.stop()
        draining.join(10)
        kept = {name: int(server.execute(f"SELECT count(*) FROM test_1.{name}")[0][0]) for name in ("calls", "turns", "events")}  # type: ignore[call-overload]
        if forwarder.set_aside or kept != {"calls": CALLS, "turns": CALLS * TURNS, "events": CALLS * 4}:
            raise SystemExit(f"events are missing in the store: {kept}, {forwarder.set_aside} set aside")
        server.execute("ANALYZE TABLE test_1.calls, test_1.turns, test_1.events, test_1.call_quality, test_1.recordings")
        before = time.monotonic(), time.process_time(), machine.cpu_s(database)
        for n in range(READS):
            store.call(f"CA{n:032x}")
        read_ms = (time.process_time() - before[1]) / READS * 1000
        size = int(
            server.execute(
                "SELECT sum(data_length + index_length) FROM information_schema.tables WHERE table_schema LIKE 'test%'"
            )[0][0]
        )  # type: ignore[call-overload]
        store.close()
        spool.close()
    finally:
        server.remove()
    return {
        "events_per_call": count / CALLS,
        "events_per_s": count / wall_s,
        "control_cpu_ms_per_event": own_s / count * 1000,
        "database_cpu_ms_per_event": database_s / count * 1000,
        "database_bytes_per_call": size / CALLS,
        "control_cpu_ms_per_call_read": read_ms,
    }


def _serves(process: Path, port: int) -> bool:
    try:
        return f"--port={port}".encode() in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=re.split(r"\n", __doc__ or "")[0])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-", dir="/var/tmp") as folder:
        found = {**webhooks(Path(folder)), **rows(Path(folder))}
    if given.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{name:28} {value:12.3f}\n" for name, value in found.items()))


if __name__ == "__main__":
    main()

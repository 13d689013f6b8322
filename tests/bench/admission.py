"""Measure admission: callers keep coming until there are half as many again as slots.

    .venv/bin/python tests/bench/admission.py [--slots 60] [--calls 90] [--seconds 20] [--workers 2] [--json]

Choose fewer slots than the cores hold calls, since the twins run in this process, on the same cores. Best on an idle machine;
the run takes some 15 s more than the last call lasts. Exit code 1 if more calls were admitted than there are slots, an admitted
call was not whole or had an underrun behind a buffer of 60 ms, another caller did not hear that all lines are busy, or a free
slot was not reused.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gevent

from gw.bench.gateway_process import GatewayProcess
from gw.config import Overflow
from gw.control.admin.client import AdminClient
from gw.twin import speech
from gw.twin.ai.script import AiScript, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from tests.bench.script import COMMAND

TOKEN: Final = "an auth token of the bench"
BUFFER_MS: Final = 60
#: Pause between two callers.
PAUSE_S: Final = 0.05
#: Longest time until a slot is reused: the stream's end, the action webhook, the worker's next report.
REUSE_S: Final = 3.0


def underrun(gateway: GatewayProcess) -> float:
    """Return the gateway's own count of underrun seconds."""
    lines = [line for line in gateway.metrics().splitlines() if line.startswith("gw_tx_underrun_seconds_total")]
    return round(sum(float(line.split()[-1]) for line in lines), 3)


def is_admitted(call: TwinCall) -> bool:
    return bool(call.received_audio)


def is_refused(call: TwinCall) -> bool:
    """True if the caller heard that no line is free, and nothing else."""
    return not call.received_audio and call.spoken == [Overflow().text] and not call.error


def judge(calls: list[TwinCall], slots: int) -> dict[str, Any]:
    """Return the callers' view."""
    admitted = [call for call in calls if is_admitted(call)]
    return {
        "calls": len(calls),
        "slots": slots,
        "admitted": len(admitted),
        "whole": sum((call.closed_by, call.close_reason) == ("gateway", "ai_hangup") and not call.error for call in admitted),
        "admitted_with_a_gap": sum(call.player.underrun_behind_ms(BUFFER_MS) > 0 for call in admitted),
        "underrun_ms": round(sum(call.player.underrun_behind_ms(BUFFER_MS) for call in admitted), 1),
        "refused": sum(is_refused(call) for call in calls),
        "neither": sum(not is_admitted(call) and not is_refused(call) for call in calls),
        "twin_late_max_ms": round(max(call.late_max_s for call in admitted) * 1000, 1) if admitted else None,
    }


def measure(slots: int, count: int, seconds: int, workers: int) -> dict[str, Any]:
    """Measure once. Each worker gets the same number of slots, so the total is a multiple of `workers`."""
    script = AiScript(greeting=lasting(seconds), hang_up_after=1, speed=1.5)
    each = max(1, slots // workers)
    server = f"workers = {workers}\nmax_calls_per_worker = {each}\n"
    with tempfile.TemporaryDirectory(prefix="admission.", dir="/var/tmp") as folder:
        gateway = GatewayProcess(COMMAND, Path(folder), {"server": server, "recording": "enabled = false\n"})
        with AiTwin(script) as ai, TwilioTwin(gateway.url, auth_token=TOKEN) as twilio:
            try:
                gateway.start(account_sid=twilio.account_sid, auth_token=TOKEN, api_base=twilio.rest.url, ai_url=ai.url)
                admin = AdminClient(gateway.admin_socket, timeout_s=5.0)
                silence = speech.script((seconds + 10) * 1000)
                calls = []
                for _ in range(count):
                    calls.append(twilio.place_call(silence, hang_up=False, max_s=seconds * 3.0))
                    gevent.sleep(PAUSE_S)
                gevent.sleep(1.0)
                spread = [one["calls"] for one in admin.request("status")["machine"]["processes"][1:]]
                for call in calls:
                    call.wait(seconds * 3.0)
                gevent.sleep(REUSE_S)
                again = twilio.place_call(silence, hang_up=False, max_s=10.0)
                until_s = time.monotonic() + REUSE_S
                while not again.received_audio and not again.spoken and time.monotonic() < until_s:
                    gevent.sleep(0.05)
                found = judge(calls, each * workers)
                return {
                    **found,
                    "calls_on_each_worker": spread,
                    "gateway_underrun_s": underrun(gateway),
                    "free_slot_is_reused": bool(again.received_audio),
                }
            finally:
                gateway.stop()


def is_good(found: dict[str, Any]) -> bool:
    return (
        found["admitted"] == found["whole"] == min(found["slots"], found["calls"])
        and not found["admitted_with_a_gap"]
        and not found["neither"]
        and found["free_slot_is_reused"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slots", type=int, default=60)
    parser.add_argument("--calls", type=int, default=90)
    parser.add_argument("--seconds", type=int, default=20, help="length of each call: longer than all callers take to come")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.calls * PAUSE_S >= given.seconds:
        parser.error("the first call would end before the last one comes: raise --seconds, or lower --calls")
    found = measure(given.slots, given.calls, given.seconds, given.workers)
    if given.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{name.replace('_', ' '):32} {value}\n" for name, value in found.items()))
    return 0 if is_good(found) else 1


if __name__ == "__main__":
    sys.exit(main())

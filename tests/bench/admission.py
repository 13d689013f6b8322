"""Measures admission: callers keep coming until there are half as many again as there are places.

    .venv/bin/python tests/bench/admission.py [--places 60] [--calls 90] [--seconds 20] [--workers 2] [--json]

`places` are the machine's: below what its cores hold, since the twins run in this process, on the same cores. Best on a machine
that does nothing else; the run takes some 15 s more than the last call lasts. Exit code 1 where more were admitted than there
are places, an admitted call was not whole or had an underrun behind a buffer of 60 ms, somebody else did not hear that all
lines are busy, or a place was not given again once it was free.
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
#: Callers come so far apart.
EVERY_S: Final = 0.05
#: How long a place may take to be given again: the stream's end, the action webhook, the worker's next word.
AGAIN_S: Final = 3.0


def underrun(gateway: GatewayProcess) -> float:
    """Silence that frames which came after their lead have cost so far, as the gateway counts it."""
    line = next(line for line in gateway.metrics().splitlines() if line.startswith("gw_tx_underrun_seconds_total"))
    return round(float(line.split()[-1]), 3)


def is_admitted(call: TwinCall) -> bool:
    return bool(call.received_audio)


def is_told(call: TwinCall) -> bool:
    """Whether the caller heard that no line is free, and nothing else."""
    return not call.received_audio and call.spoken == [Overflow().text] and not call.error


def judge(calls: list[TwinCall], places: int) -> dict[str, Any]:
    """What the callers noticed."""
    admitted = [call for call in calls if is_admitted(call)]
    return {
        "calls": len(calls),
        "places": places,
        "admitted": len(admitted),
        "whole": sum((call.closed_by, call.close_reason) == ("gateway", "ai_hangup") and not call.error for call in admitted),
        "admitted_with_a_gap": sum(call.player.underrun_behind_ms(BUFFER_MS) > 0 for call in admitted),
        "underrun_ms": round(sum(call.player.underrun_behind_ms(BUFFER_MS) for call in admitted), 1),
        "told_that_all_lines_are_busy": sum(is_told(call) for call in calls),
        "neither": sum(not is_admitted(call) and not is_told(call) for call in calls),
        "twin_late_max_ms": round(max(call.late_max_s for call in admitted) * 1000, 1) if admitted else None,
    }


def measure(places: int, count: int, seconds: int, workers: int) -> dict[str, Any]:
    """One run. The places are shared out evenly, so they are a multiple of the workers."""
    script = AiScript(greeting=lasting(seconds), hang_up_after=1, speed=1.5)
    each = max(1, places // workers)
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
                    gevent.sleep(EVERY_S)
                gevent.sleep(1.0)
                spread = [one["calls"] for one in admin.request("status")["fleet"]["processes"][1:]]
                for call in calls:
                    call.wait(seconds * 3.0)
                gevent.sleep(AGAIN_S)
                again = twilio.place_call(silence, hang_up=False, max_s=10.0)
                until_s = time.monotonic() + AGAIN_S
                while not again.received_audio and not again.spoken and time.monotonic() < until_s:
                    gevent.sleep(0.05)
                found = judge(calls, each * workers)
                return {
                    **found,
                    "calls_on_each_worker": spread,
                    "gateway_underrun_s": underrun(gateway),
                    "a_place_is_given_again": bool(again.received_audio),
                }
            finally:
                gateway.stop()


def is_good(found: dict[str, Any]) -> bool:
    return (
        found["admitted"] == found["whole"] == min(found["places"], found["calls"])
        and not found["admitted_with_a_gap"]
        and not found["neither"]
        and found["a_place_is_given_again"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--places", type=int, default=60)
    parser.add_argument("--calls", type=int, default=90)
    parser.add_argument("--seconds", type=int, default=20, help="how long each call lasts: longer than the callers take to come")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.calls * EVERY_S >= given.seconds:
        parser.error("the first call would end before the last one comes: more --seconds, or fewer --calls")
    found = measure(given.places, given.calls, given.seconds, given.workers)
    if given.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{name.replace('_', ' '):32} {value}\n" for name, value in found.items()))
    return 0 if is_good(found) else 1


if __name__ == "__main__":
    sys.exit(main())

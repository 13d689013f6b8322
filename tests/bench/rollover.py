"""Measures a deploy at noon: live calls, callers that keep coming, and a reload in the middle.

`python tests/bench/rollover.py [--calls 100] [--seconds 40] [--workers 2]`, best on a machine that does nothing else: the twins
run in this process, on the same cores. Prints one JSON document; the exit code is 1 where a call was lost, a webhook refused, or
a caller heard a gap behind a buffer of 60 ms. Gaps within the reload are told apart from the machine's own before and after it,
and what the gateway counted from what twins, which may be late themselves, heard.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import gevent  # noqa: E402

from gw.cli.demo_gateway import GatewayProcess  # noqa: E402
from gw.control.admin_client import AdminClient  # noqa: E402
from gw.twin import speech  # noqa: E402
from gw.twin.ai import AiTwin  # noqa: E402
from gw.twin.ai_script import AiScript, lasting  # noqa: E402
from gw.twin.twilio import TwilioTwin  # noqa: E402
from gw.twin.twilio_caller import TwinCall  # noqa: E402

SCRIPT = [sys.executable, str(ROOT / "gateway.py")]
TOKEN = "an auth token of the bench"
BUFFER_MS = 60


def judge(calls: list[TwinCall], began_s: float, ended_s: float) -> dict[str, object]:
    """What callers noticed."""
    gaps = {call.call_sid: call.player.underrun_behind_ms(BUFFER_MS) for call in calls}
    return {
        "calls": len(calls),
        "whole": sum((call.closed_by, call.close_reason) == ("gateway", "ai_hangup") and not call.error for call in calls),
        "webhooks_refused": sum(bool(call.spoken) or (not call.notices and not call.received_audio) for call in calls),
        "calls_with_a_gap": sum(gap > 0 for gap in gaps.values()),
        "underrun_ms": round(sum(gaps.values()), 1),
        "gaps_within_the_reload": sum(
            gap.ms > BUFFER_MS and began_s <= gap.at_s <= ended_s for call in calls for gap in call.player.gaps
        ),
        "gaps_beyond_it": sum(
            gap.ms > BUFFER_MS and not began_s <= gap.at_s <= ended_s for call in calls for gap in call.player.gaps
        ),
        "twin_late_max_ms": round(max(call.late_max_s for call in calls) * 1000, 1),
    }


def underrun(gateway: GatewayProcess) -> float:
    """Silence that frames which came after their lead have cost so far, as the gateway counts it."""
    line = next(line for line in gateway.metrics().splitlines() if line.startswith("gw_tx_underrun_seconds_total"))
    return round(float(line.split()[-1]), 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--workers", default='"auto"')
    options = parser.parse_args()
    script = AiScript(greeting=lasting(options.seconds), hang_up_after=1, speed=1.5)
    folder = tempfile.TemporaryDirectory(prefix="rollover.", dir="/var/tmp")
    gateway = GatewayProcess(
        SCRIPT, Path(folder.name), {"server": f"workers = {options.workers}\n", "recording": "enabled = false\n"}
    )
    with folder, AiTwin(script) as ai, TwilioTwin(gateway.url, auth_token=TOKEN) as twilio:
        began_s = time.monotonic()
        gateway.start(account_sid=twilio.account_sid, auth_token=TOKEN, api_base=twilio.rest.url, ai_url=ai.url)
        ready_s = time.monotonic() - began_s
        admin = AdminClient(gateway.admin_socket, timeout_s=5.0)
        silence = speech.script((options.seconds + 10) * 1000)
        place = lambda: twilio.place_call(silence, hang_up=False, max_s=options.seconds * 3.0)  # noqa: E731
        try:
            calls = []
            for _ in range(options.calls):
                calls.append(place())
                gevent.sleep(0.05)
            gevent.sleep(3.0)
            spread = [one["calls"] for one in admin.request("status")["fleet"]["processes"][1:]]
            argv = [*SCRIPT, "--config", str(gateway.config_path), "reload", "--json"]
            environ = {**os.environ, "TWILIO_AUTH_TOKEN": TOKEN, "OPENAI_API_KEY": "none"}
            underrun_s = [underrun(gateway)]
            began_s = time.monotonic()
            reload = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            during = []
            while reload.poll() is None:
                during.append(place())
                gevent.sleep(0.1)
            ended_s = time.monotonic()
            underrun_s.append(underrun(gateway))
            for call in [*calls, *during]:
                call.wait(options.seconds * 3.0)
            underrun_s.append(underrun(gateway))
            report = {
                "gateway_underrun_s": dict(zip(("before", "with_reload", "at_the_end"), underrun_s, strict=True)),
                "ready_s": round(ready_s, 2),
                "reload": json.loads(reload.communicate()[0])["state"],
                "reload_s": round(ended_s - began_s, 2),
                "spread_before": spread,
                "live": judge(calls, began_s, ended_s),
                "during": judge(during, began_s, ended_s),
            }
        finally:
            gateway.stop()
    print(json.dumps(report, indent=2))
    bad = any(
        part["whole"] != part["calls"] or part["webhooks_refused"] or part["calls_with_a_gap"]
        for part in (report["live"], report["during"])
        if isinstance(part, dict)
    )
    return 1 if bad or report["reload"] != "done" else 0


if __name__ == "__main__":
    sys.exit(main())

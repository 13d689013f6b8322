"""Time to the first audio: a recorded greeting, and what a warm AI leg saves at round trips of 20 and 200 ms.

Places calls one after the other on a real gateway, beside `--beside` calls that only talk, and takes the time from the stream's
start to the caller's first frame. The AI is behind a proxy with half the round trip in each direction. The proxy accepts
connections itself: the round trips of TCP and of TLS would be saved as well and are not in the figures.

    file   a recorded greeting: nothing of the AI is awaited
    cold   the AI greets, and is connected at the stream's start
    warm   the AI greets, and was connected at the webhook, `--ring` seconds before the stream's start

Exit code 1: a call heard nothing. The claims are printed beside the figures.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import gevent

from gw.bench.gateway_process import GatewayProcess
from gw.bench.load.loop import summary
from gw.bench.load_process import LoadProcess
from gw.twin import speech
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.sound import write_wav
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.stream import CallPlan
from tests.faults.links.orders import Helper
from tests.program import program
from tests.timing import scaled

KINDS: Final = ("file", "cold", "warm")
#: The claim on a recorded greeting.
CLAIM_MS: Final = 20.0
_TOKEN: Final = "an auth token of the bench"
#: After the first audio, until the caller hangs up.
_HEARS_S: Final = 0.2
_PATIENCE_S: Final = 15.0


def measure(folder: Path, *, calls: int, beside: int, round_trips_ms: Sequence[int], ring_s: float) -> dict[str, dict[str, Any]]:
    """Return the summary of first audio by `KIND at ROUND_TRIP ms`, in milliseconds."""
    hello = folder / "hello.wav"
    write_wav(hello, speech.load("hello-world"))
    script = AiScript(greeting=speech.load("hello-world"), whole=True)
    proxy = Helper("tests.faults.links.proxy", folder / "p")
    found: dict[str, dict[str, Any]] = {}
    try:
        with AiTwin(script) as ai:
            target = ai.url.removeprefix("ws://").partition("/")[0]
            address = proxy.ask("link", name="ai", listen="127.0.0.1:0", target=target, seed="s", tapped=False)
            url = f"ws://{address}/v1/realtime"
            agent = f'provider = "openai"\nbase_url = "{url}"\n'
            settings = {
                "agents.file": f'{agent}greeting = {{ file = "{hello}", text = "Hello world." }}\n',
                "agents.cold": agent,
                "agents.warm": f"{agent}warm = true\n",
                "recording": "enabled = false\n",
                "server": "max_calls_per_worker = 1000\n",
            }
            gateway = GatewayProcess(program(), folder, settings)
            with TwilioTwin(gateway.url, auth_token=_TOKEN) as twilio:
                gateway.start(account_sid=twilio.account_sid, auth_token=_TOKEN, api_base=twilio.rest.url, ai_url=ai.url)
                load = _load(gateway, twilio.account_sid, beside, folder) if beside else None
                try:
                    for round_trip_ms in round_trips_ms:
                        proxy.ask("weather", link="ai", direction="both", latency_ms=round_trip_ms / 2)
                        for kind in KINDS:
                            found[f"{kind} at {round_trip_ms} ms"] = _kind(twilio, kind, calls, ring_s)
                finally:
                    if load is not None:
                        load.stop()
                    gateway.stop()
    finally:
        proxy.stop()
    return found


def _load(gateway: GatewayProcess, account_sid: str, calls: int, folder: Path) -> LoadProcess:
    """Place calls that only talk, from another process. Their agent is the default one, whose AI is this process's."""
    arguments = ("--url", gateway.url, "--account-sid", account_sid)
    load = LoadProcess("gw.bench.load.callers", *arguments, first_line=_TOKEN, log=folder / "callers.log")
    load.order("dial", 60.0, calls=calls, path="/twilio/voice")
    return load


def _kind(twilio: TwilioTwin, kind: str, calls: int, ring_s: float) -> dict[str, Any]:
    first_s = []
    silent = 0
    for _ in range(calls):
        plan = CallPlan(agent=kind, hang_up=False, max_s=_PATIENCE_S, start_after_s=ring_s)
        call = twilio.place(plan)
        with gevent.Timeout(scaled(_PATIENCE_S), False):
            while not call.played and not call.is_over:
                gevent.sleep(0.01)
        if call.played and call.streams_s:
            first_s.append(call.played[0][0] - call.streams_s[0])
        else:
            silent += 1
        gevent.sleep(_HEARS_S)
        call.hang_up()
        call.wait(scaled(5.0))
    return {**{name: value for name, value in summary(first_s).items() if name != "buckets"}, "silent": silent}


def text_of(found: dict[str, dict[str, Any]], round_trips_ms: Sequence[int]) -> str:
    """Return the figures as text, beside the claims."""
    lines = []
    for name, one in found.items():
        claim = f" (claimed: p99 under {CLAIM_MS:g} ms)" if name.startswith("file") else ""
        lines.append(f"{name}: {one['count']} calls, p50 {one['p50']} ms, p99 {one['p99']} ms, max {one['max']} ms{claim}")
    for round_trip_ms in round_trips_ms:
        cold, warm = found[f"cold at {round_trip_ms} ms"]["p50"], found[f"warm at {round_trip_ms} ms"]["p50"]
        if cold is not None and warm is not None:
            trips = (cold - warm) / round_trip_ms
            lines.append(
                f"a warm leg saves {cold - warm:.0f} ms at {round_trip_ms} ms: {trips:.1f} round trips, without TCP and TLS"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=100, help="of each kind, at each round trip")
    parser.add_argument("--beside", type=int, default=0, help="calls that only talk, beside them")
    parser.add_argument("--round-trips", default="20,200", help="of the AI, in ms")
    parser.add_argument("--ring", type=float, default=1.5, help="seconds between webhook and stream")
    parser.add_argument("--out", type=Path, default=Path("out/bench/tools"))
    given = parser.parse_args()
    round_trips_ms = [int(text) for text in given.round_trips.split(",")]
    with tempfile.TemporaryDirectory(prefix="gw-first-") as folder:
        found = measure(Path(folder), calls=given.calls, beside=given.beside, round_trips_ms=round_trips_ms, ring_s=given.ring)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "first_words.json").write_text(json.dumps(found, indent=2) + "\n")
    print(text_of(found, round_trips_ms))
    return 1 if any(one["silent"] for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

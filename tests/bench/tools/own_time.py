"""The gateway's own time in a tool call, and the effect of a dead endpoint.

Each session of the bench's AI calls a tool every `--every` seconds and times its output. The endpoint answers immediately, so the
time is the gateway's: AI leg, bus, disk, request, bus, AI leg; it includes the endpoint's own third of a millisecond. The
callers, which are far from a real gateway, yield the core that they share with control. A round has three windows, in turns, each
on a new gateway:

    none       no session calls a tool
    answering  every session does, and the endpoint answers
    dead       every session does, and the endpoint never answers: each call waits for its timeout, until the circuit opens

Exit code 1: an output was missing or wrong, or the window was void. The claims are printed beside the figures.
"""

from gevent import monkey

monkey.patch_all()

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from gw.bench.load.ai import TOOL
from gw.bench.result import Measured
from gw.bench.run import Load, OnStep, measure_with
from gw.bench.subject import Gateway
from gw.twin.hooks import HookTwin
from tests.bench.compare import figures, medians, ratios
from tests.program import program

KINDS: Final = ("none", "answering", "dead")
#: The claims: p99 of a tool's own time, and the change of lateness p99.9 by a dead endpoint.
CLAIM_MS: Final = 10.0
CLAIM_SHARE: Final = 0.10
#: Timeout of the tool. Some calls end by it before the circuit opens, and one every 15 s afterwards.
TIMEOUT_S: Final = 1.0
CALLERS_NICE: Final = 10
_SECRET: Final = "a hook secret of the bench"
_BEHAVIOURS: Final = {"answering": "ok", "dead": "silent"}


def window(out: Path, load: Load, kind: str, every_s: float, on_step: OnStep) -> Measured:
    """Measure one window of a kind. Raises GatewayError."""
    with HookTwin(_SECRET) as hooks:
        tables: dict[str, str] = {}
        if kind != "none":
            url = hooks.url(_BEHAVIOURS[kind])
            tool = f'description = "Finds an order."\nurl = "{url}"\ntimeout_s = {TIMEOUT_S}\nfiller = "none"\n'
            tables = {
                "agents.default": f'tools = ["hang_up", "{TOOL}"]\n',
                "hooks": 'allow_networks = ["127.0.0.1/32"]\n',
                f"tools.{TOOL}": tool,
            }
        gateway = Gateway(program(), out / "gateway", workers=load.workers, calls=load.calls, tables=tables, hook_secret=_SECRET)
        return measure_with(gateway, None, out, replace(load, tool_every_s=every_s if kind != "none" else 0.0), on_step)


def failures(kind: str, measured: Measured) -> list[str]:
    """Return a sentence for each fault of a window."""
    found = [f"{kind}: {text}" for text in measured.void()]
    outputs = measured.uplink["tools"]["outputs"]
    if kind == "answering" and set(outputs) != {"ok"}:
        found.append(f"answering: outputs {outputs}")
    if kind == "dead" and not set(outputs) <= {"timeout", "busy", "unknown_outcome"}:
        found.append(f"dead: outputs {outputs}")
    if kind != "none" and not outputs:
        found.append(f"{kind}: no output came")
    if measured.alive < measured.calls:
        found.append(f"{kind}: {measured.calls - measured.alive} calls ended")
    return found


def document(rounds: Sequence[dict[str, Measured]]) -> dict[str, Any]:
    """Return all figures."""
    answering = [one["answering"].uplink["tools"] for one in rounds]
    change = ratios([(figures(one["none"]), figures(one["dead"])) for one in rounds])
    return {
        "calls": rounds[0]["none"].calls,
        "tool_ms": medians(
            [{name: float(one[name]) for name in ("p50", "p99", "max") if one[name] is not None} for one in answering]
        ),
        "tool_calls": sum(one["count"] for one in answering),
        "dead_outputs": [one["dead"].uplink["tools"]["outputs"] for one in rounds],
        "lateness": {kind: medians([figures(one[kind]) for one in rounds]) for kind in KINDS},
        "dead_to_none": change,
        "noted": sorted({text for one in rounds for measured in one.values() for text in measured.noted()}),
        "failures": sorted({text for one in rounds for kind, measured in one.items() for text in failures(kind, measured)}),
    }


def text_of(found: dict[str, Any]) -> str:
    """Return the figures as text, beside the claims."""
    tool_ms, change = found["tool_ms"], found["dead_to_none"].get("tx_p99.9_ms")
    lines = [
        f"{found['calls']} calls, {found['tool_calls']} tool calls: own time p50 {tool_ms.get('p50')} ms,"
        f" p99 {tool_ms.get('p99')} ms, max {tool_ms.get('max')} ms (claimed: p99 under {CLAIM_MS:g} ms)"
    ]
    for kind in KINDS:
        late = found["lateness"][kind]
        shown = ", ".join(f"{name} {late.get(f'tx_{name}_ms')}" for name in ("p50", "p99", "p99.9"))
        lines.append(f"TX lateness, endpoint {kind}: {shown} ms; CPU {late.get('cpu_ms_per_call_s')} ms per call-second")
    if change is not None:
        lines.append(f"a dead endpoint changes TX lateness p99.9 by {change - 1:+.0%} (claimed: under {CLAIM_SHARE:.0%})")
    return "\n".join([*lines, *(f"noted: {text}" for text in found["noted"]), *found["failures"]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each window")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two tool calls of a session")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=0.0, help="longest wait for a quiet machine, seconds")
    parser.add_argument("--out", type=Path, default=Path("out/bench/tools"))
    given = parser.parse_args()
    load = Load(given.calls, given.seconds, patience_s=given.patience, maxima=False, callers_nice=CALLERS_NICE)
    rounds = []
    for number in range(1, given.rounds + 1):
        measured = {}
        for kind in KINDS:
            print(f"round {number}: {kind}", file=sys.stderr, flush=True)
            measured[kind] = window(given.out, load, kind, given.every, lambda step: None)
        rounds.append(measured)
    found = document(rounds)
    (given.out / "own_time.json").write_text(json.dumps(found, indent=2) + "\n")
    print(text_of(found))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())

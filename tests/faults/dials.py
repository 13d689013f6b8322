"""A list of numbers while control is killed again and again, and the command once: the twin counts the dials.

    python tests/faults/dials.py [--numbers 1000] [--per-second 5] [--kills 5] [--seed S] [--store URL]

A gateway of real processes, `gateway.py calls dial` as a separate process, and the Twilio twin as the truth. Half of the kills
come while Twilio has a request to place a call and has not answered it. Exit code 0: each number was dialled exactly as often as
its retries permit.
"""

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gevent

from gw.bench.gateway_process import GatewayProcess
from gw.twin.ai.script import conversation
from gw.twin.ai.server import AiTwin
from gw.twin.sound import SILENT_FRAME
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.stream import CallPlan
from tests.faults.world import role_of
from tests.timing import scaled

GATEWAY = [sys.executable, str(Path(__file__).resolve().parents[2] / "gateway.py")]
TOKEN = "an auth token of the tests"
RETRIES = 2
#: Twilio's answers come this late, so that a kill meets a request.
ANSWER_S = 0.1
PERSON = CallPlan(speech=(SILENT_FRAME,) * 25)
#: Callees, by the share of them: how each reacts to one dial after the other, the last reaction stays.
CALLEES: tuple[tuple[int, tuple[CallPlan, ...]], ...] = (
    (4, (CallPlan(answer="busy"),)),
    (2, (CallPlan(answer="no-answer", ring_s=1.5),)),
    (2, (CallPlan(answer="busy"), PERSON)),
    (1, (CallPlan(answer="failed"),)),
    (1, (PERSON,)),
)


@dataclass
class Outcome:
    """Result of a run. `wrong`: numbers with their dials by the twin, and the right ones."""

    numbers: int
    dials: int = 0
    seconds: float = 0.0
    kills: list[str] = field(default_factory=list)
    runs: int = 0  # of the command
    commands: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    results: dict[str, int] = field(default_factory=dict)
    unknown: int = 0  # dials whose request was interrupted, and which Twilio does not list
    looked_up: int = 0  # dials whose answer was lost, found at Twilio
    wrong: dict[str, tuple[int, int]] = field(default_factory=dict)


def expected_dials(reactions: tuple[CallPlan, ...]) -> int:
    """Return the dials of a number that reacts so: busy and no-answer are tried again."""
    for n in range(RETRIES):
        if reactions[min(n, len(reactions) - 1)].answer not in ("busy", "no-answer"):
            return n + 1
    return RETRIES + 1


def run(folder: Path, *, numbers: int, per_s: float, kills: int, seed: str, store: str = "") -> Outcome:
    """Dial a list under kills. `store`: of the gateway; empty: an SQLite file."""
    chance = random.Random(seed)
    shares = [share for share, _ in CALLEES]
    reactions = {f"+1555{n:07d}": chance.choices([one for _, one in CALLEES], shares)[0] for n in range(numbers)}
    path = folder / "list.csv"
    path.write_text("\n".join(["to,var_name", *(f"{number},person {n}" for n, number in enumerate(reactions))]) + "\n")
    outbound = (
        f'from = "+15557654321"\ncalls_per_s = {per_s:g}\nconcurrent = 100\nhours = ""\n'
        f"retries = {RETRIES}\nretry_after_s = 0.0\n"
        "stop_at_failures = 0\n"
    )
    outcome = Outcome(numbers)
    with AiTwin(conversation()) as ai:
        gateway = GatewayProcess(GATEWAY, folder, {"outbound": outbound, "recording": "enabled = false\n"}, store)
        twilio = TwilioTwin(gateway.url, public_url=gateway.url, auth_token=TOKEN)
        twilio.callee_of = lambda number, before: reactions[number][min(before, len(reactions[number]) - 1)]
        twilio.rest.delay_s = ANSWER_S
        with twilio:
            try:
                gateway.start(account_sid=twilio.account_sid, auth_token=TOKEN, api_base=twilio.rest.url, ai_url=f"{ai.url}")
                began_s = time.monotonic()
                _dial(gateway, twilio, path, outcome, kills, chance)
                outcome.seconds = time.monotonic() - began_s
            finally:
                for command in outcome.commands:
                    command.kill()
                    command.wait()
                gateway.stop()
            log = gateway.log_path.read_text(errors="replace")
            outcome.looked_up = log.count("found at Twilio")
    outcome.dials = sum(len(calls) for calls in twilio.placed.values())
    for number, reaction in reactions.items():
        made, right = len(twilio.placed.get(number, ())), expected_dials(reaction)
        if made != right:
            outcome.wrong[number] = (made, right)
    return outcome


def _dial(gateway: GatewayProcess, twilio: TwilioTwin, path: Path, outcome: Outcome, kills: int, chance: random.Random) -> None:
    """Run the command until the list is done. Kills control meanwhile, and the command after the first kill."""
    total = sum(1 for _ in path.open()) - 1
    at = sorted(chance.uniform(0.05, 0.9) for _ in range(kills))  # shares of the numbers
    command = _start(gateway, path, outcome)
    for n, share in enumerate(at):
        _wait(lambda share=share: len(twilio.placed) >= share * total, command, path)
        in_request = n % 2 == 0
        if in_request:  # the twin has placed the call, and answers after ANSWER_S
            made = sum(len(calls) for calls in twilio.placed.values())
            _wait(lambda made=made: sum(len(calls) for calls in twilio.placed.values()) > made, command, path)
        controls = [pid for pid in gateway.pids()[1:] if role_of(pid) == "control"]
        for pid in controls:
            os.kill(pid, signal.SIGKILL)
        outcome.kills.append("in a request" if in_request else "between requests")
        if n == 0:
            command.kill()
            command.wait()
            command = _start(gateway, path, outcome)
        gevent.sleep(1.0)
    for more in ("", "--unknown", "--unknown"):
        if more:
            command = _start(gateway, path, outcome, more)
        output = _ended(command, path)
        results = [json.loads(line) for line in output.splitlines() if line.startswith('{"what": "result"')]
        assert results, f"the command ended without a result: {output[-500:]}"
        outcome.results = results[-1]["counts"]
        outcome.unknown += outcome.results.get("unknown", 0)
        if not outcome.results.get("unknown"):
            return


def _start(gateway: GatewayProcess, path: Path, outcome: Outcome, *more: str) -> "subprocess.Popen[bytes]":
    """Start the command. Its output is a file: a full pipe would stop it, and so the list."""
    outcome.runs += 1
    words = [*GATEWAY, "--config", str(gateway.config_path), "calls", "dial", str(path), "--json", *more]
    environ = {**os.environ, "TWILIO_AUTH_TOKEN": TOKEN, "OPENAI_API_KEY": "x"}
    with _output(path).open("wb") as output:
        command = subprocess.Popen(words, env=environ, stdout=output, stderr=subprocess.STDOUT, process_group=0)
    outcome.commands.append(command)
    return command


def _output(path: Path) -> Path:
    return path.with_suffix(".out")


def _ended(command: "subprocess.Popen[bytes]", path: Path) -> str:
    """Wait for a command's end. Returns its output."""
    with gevent.Timeout(scaled(1800.0), AssertionError("the command does not end")):
        command.wait()
    return _output(path).read_text()


def _wait(holds: Callable[[], bool], command: "subprocess.Popen[bytes]", path: Path) -> None:
    with gevent.Timeout(scaled(600.0), AssertionError("the dials stand still")):
        while not holds():
            assert command.poll() is None, f"the command has ended: {_output(path).read_text()[-800:]}"
            gevent.sleep(0.002)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, default=1000)
    parser.add_argument("--per-second", type=float, default=5.0)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", default="")
    parser.add_argument("--store", default="", help="a store.url; default: an SQLite file")
    given = parser.parse_args()
    seed = given.seed or f"{random.SystemRandom().randrange(1 << 32):08x}"
    with tempfile.TemporaryDirectory(prefix="dials-") as folder:
        found = run(Path(folder), numbers=given.numbers, per_s=given.per_second, kills=given.kills, seed=seed, store=given.store)
    print(f"seed {seed}: {found.numbers} numbers, {found.dials} dials in {found.seconds:.0f} s, {found.runs} runs of the command")
    print(f"control killed {len(found.kills)} times: {dict(Counter(found.kills))}")
    print(f"answers lost: {found.looked_up} calls found at Twilio, {found.unknown} requests that Twilio did not get")
    print(f"results: {found.results}")
    for number, (made, right) in list(found.wrong.items())[:20]:
        print(f"WRONG: {number} was dialled {made} times; its retries permit {right}")
    print("each number was dialled exactly as often as its retries permit" if not found.wrong else f"{len(found.wrong)} wrong")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

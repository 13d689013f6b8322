"""`make faults`: random faults under calls, replayable by their seed, and a ledger.

    python tests/faults/soak.py [soak|short|store|control|worker|reload] [--seconds N] [--seed S]

Exit code 0: every law held; 1: one was broken. The last line of output is the command that replays the run.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console  # noqa: E402

from tests.faults.records.laws import judge  # noqa: E402
from tests.faults.records.report import draw, print_tables, write_ledger  # noqa: E402
from tests.faults.run import run, say  # noqa: E402
from tests.faults.scenarios import Scenario, again_and_again, short, soak, store_away  # noqa: E402
from tests.mariadb import MariaDB  # noqa: E402

#: Durations by scenario.
SECONDS = {"soak": 1800.0, "store": 600.0, "control": 120.0, "worker": 120.0, "reload": 120.0}
#: Scenarios that repeat one fault.
AGAIN = {"control": "control killed", "worker": "worker killed", "reload": "reload"}


def scenario_of(name: str, seed: str, seconds: float) -> Scenario:
    """Return the scenario of a name on the command line."""
    if name == "short":
        return short(seed)
    if name == "soak":
        return soak(seed, seconds)
    if name == "store":
        return store_away(seed, seconds)
    return again_and_again(AGAIN[name], seed, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", default="soak", choices=("soak", "short", "store", *AGAIN))
    parser.add_argument("--seconds", type=float, help="duration of the faults")
    parser.add_argument("--seed", default="", help="any word; empty: a new one")
    parser.add_argument("--out", type=Path, default=Path("out/faults"))
    given = parser.parse_args()
    seed = given.seed or f"{random.SystemRandom().randrange(1 << 32):08x}"
    seconds = given.seconds or SECONDS.get(given.scenario, 0.0)
    scenario = scenario_of(given.scenario, seed, seconds)
    say(f"{scenario.name}: seed {seed}, {scenario.seconds:.0f} s, {len(scenario.strikes)} faults, {len(scenario.calls)} calls")
    mariadb = MariaDB()
    try:
        mariadb.start()
        ledger = run(scenario, mariadb, wait_for_looks=given.scenario != "short")
    finally:
        mariadb.remove()
    write_ledger(ledger, given.out / "ledger.json")
    draw(ledger, given.out / "timeline.png")
    print_tables(ledger, Console())
    say(f"{given.out / 'ledger.json'} and {given.out / 'timeline.png'} have all records. To replay the run:")
    how = f" --seconds {seconds:g}" if seconds else ""
    say(f"  .venv/bin/python tests/faults/soak.py {given.scenario}{how} --seed {seed}")
    return 1 if any(judge(ledger).values()) else 0


if __name__ == "__main__":
    sys.exit(main())

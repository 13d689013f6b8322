"""`make hostile`: good calls beside one attack after the other, judged.

    python tests/hostile/run.py [--only NAME ...] [--seconds N] [--calls N] [--json FILE]

Exit code 0: every promise held; 1: one was broken. A round that was only late, while the machine was disturbed, is repeated.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from gw.verify.budget.chance import Base  # noqa: E402
from tests.hostile.attacks import ATTACKS  # noqa: E402
from tests.hostile.judge import Round, ours  # noqa: E402
from tests.hostile.rig import Rig  # noqa: E402
from tests.program import program  # noqa: E402

_BASE_S = 2.5
#: Without an attack, before the first.
_FIRST_BASE_S = 30.0
_TRIES = 3
#: Attacks that need longer than others: the time limit of a head is part of them.
_LONGER_S = {"half-open": 12.0}
#: Scenario of a gateway whose log is a pipe that nothing reads: what is logged for these must not block it.
_UNREAD_LOG = "unread-log"
_LOGGED = ("half-reset", "smuggled", "bad-upgrade")
_SCENARIOS = (*ATTACKS, _UNREAD_LOG)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=_SCENARIOS, help="run this attack; may be given more than once")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of an attack")
    parser.add_argument("--calls", type=int, default=30, help="good calls")
    parser.add_argument("--tries", type=int, default=_TRIES, help="rounds of an attack on a disturbed machine")
    parser.add_argument("--out", type=Path, default=Path("out/hostile"))
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rounds: list[Round] = []
    rig: Rig | None = None
    base = Base()
    try:
        for name in given.only or _SCENARIOS:
            attacks = _LOGGED if name == _UNREAD_LOG else (name,)
            seconds = max(given.seconds, _LONGER_S.get(name, 0.0))
            if name == _UNREAD_LOG:
                _stopped(rig)
                rig = None
            for _ in range(given.tries):
                if rig is None:
                    rig = Rig(program(), given.out, given.calls, is_log_read=name != _UNREAD_LOG)
                    rig.start()
                    rig.base = base
                    if not base.cpu_s:
                        rig.measure_base(_FIRST_BASE_S)
                result = replace(rig.round(attacks, seconds, _BASE_S), name=name)
                base = rig.base
                say(f"{name}: {'; '.join(result.survived() + result.punctual()) or 'holds'}")
                if not rig.is_whole(result) or name == _UNREAD_LOG:
                    _stopped(rig)
                    rig = None
                if result.survived() or not (result.punctual() and result.void()):
                    break
            rounds.append(result)
            if given.json:
                given.json.write_text(json.dumps([one.document() for one in rounds], indent=1) + "\n")
    finally:
        _stopped(rig)
    Console(width=180).print(table(rounds))
    return 1 if any(one.survived() or one.punctual() for one in rounds) else 0


def _stopped(rig: Rig | None) -> None:
    if rig is not None:
        rig.stop()


def table(rounds: list[Round]) -> Table:
    """Build the table of all attacks."""
    found = Table(title=f"{len(rounds)} attacks", title_justify="left")
    for column, justify in (
        ("attack", "left"),
        ("TX p99 ms", "right"),
        ("without", "right"),
        ("underruns", "right"),
        ("newcomer ms", "right"),
        ("holds > 1 ms", "right"),
        ("worst ms", "right"),
        ("core", "right"),
        ("MB", "right"),
        ("verdict", "left"),
    ):
        found.add_column(column, justify=justify)  # type: ignore[arg-type]
    for one in rounds:
        broken = one.survived() + one.punctual()
        void = f"[dim] (void: {'; '.join(one.void())})[/]" if one.void() else ""
        found.add_row(
            one.name,
            _number(one.late_ms),
            _number(one.base_late_ms),
            f"{one.underruns}",
            f"{max(one.newcomers_ms):.0f}" if one.newcomers_ms else "-",
            f"{ours(one.long_holds, one.kernel_sends)}",
            f"{one.worst_hold_ms:g}",
            f"{one.worker_share:.0%}",
            f"{one.grown_mb:+.0f}",
            (f"[red]{'; '.join(broken)}[/]" if broken else "[green]holds[/]") + void,
        )
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())

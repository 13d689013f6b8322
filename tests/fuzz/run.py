"""Explore the fuzz targets under atheris, then the property tests under hypothesis.

    tests/fuzz/run.py                                 every target for 30 s each
    tests/fuzz/run.py --seconds 600 --target ai,bus_events
    tests/fuzz/run.py --keep                          add inputs with new coverage to the kept corpus
    tests/fuzz/run.py --reproduce FILE                run one input; its folder names the target

New inputs collect in out/fuzz/corpus/TARGET and are explored from there next time. An input that breaks a law is written to
out/fuzz/finds/TARGET. Exit code: 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]

from tests.fuzz.targets import CORPUS, TARGETS  # noqa: E402

OUT: Final = ROOT / "out" / "fuzz"
#: Longest input, above every bound of a parser.
_MAX_INPUT_BYTES: Final = 20_000
#: Longest input that is kept, and the time one may take.
_MAX_KEPT_BYTES: Final = 1024
_TIMEOUT_S: Final = 10
_PROGRESS: Final = re.compile(r"cov: (\d+) ft: (\d+)")
_EXECUTED: Final = re.compile(r"number_of_executed_units: +(\d+)")


class Row(NamedTuple):
    """One line of the table."""

    name: str
    executions: int
    coverage: int
    corpus_files: int
    new_files: int
    finds: list[Path]
    is_broken: bool  # the fuzzer itself failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Explore the fuzz targets.")
    parser.add_argument("--seconds", type=float, default=30, help="for each target (default: 30)")
    parser.add_argument("--target", default="", help=f"separated by commas; of {', '.join(TARGETS)}")
    parser.add_argument("--keep", action="store_true", help="add inputs with new coverage to tests/fuzz/corpus")
    parser.add_argument("--reproduce", type=Path, metavar="FILE", help="run one input")
    options = parser.parse_args()
    if options.reproduce:
        TARGETS[options.reproduce.resolve().parent.name](options.reproduce.read_bytes())
        print("the law holds")
        return 0
    names = [name for name in options.target.split(",") if name] or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}; known: {', '.join(TARGETS)}")
    rows = []
    for n, name in enumerate(names, 1):
        print(f"[{n}/{len(names)}] {name}, {options.seconds:g} s", flush=True)
        rows.append(_explore(name, options.seconds, keep=options.keep))
    _print_table(rows)
    broken = any(row.finds or row.is_broken for row in rows)
    if not options.target:
        print("property tests under hypothesis", flush=True)
        broken |= _hypothesis() != 0
    return int(broken)


def _explore(name: str, seconds: float, *, keep: bool) -> Row:
    """Run one target under atheris, until time is up or a law is broken."""
    corpus, finds, kept = OUT / "corpus" / name, OUT / "finds" / name, CORPUS / name
    for folder in (corpus, finds, kept):
        folder.mkdir(parents=True, exist_ok=True)
    known, before = set(finds.iterdir()), len(list(corpus.iterdir()))
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={_MAX_INPUT_BYTES}",
        f"-timeout={_TIMEOUT_S}",
        f"-artifact_prefix={finds}/",
        "-print_final_stats=1",
    ]
    done, text = _atheris(name, *options, str(corpus), str(kept))
    new_finds = sorted(set(finds.iterdir()) - known)
    if done and not new_finds:
        print(text[-2000:])
    for find in new_finds:
        print(_reason(text))
        print(f"  reproduce: .venv/bin/python tests/fuzz/run.py --reproduce {find.relative_to(ROOT)}", flush=True)
    if keep and not done:
        _atheris(name, "-merge=1", f"-max_len={_MAX_KEPT_BYTES}", str(kept), str(corpus))
    executed, coverage = _EXECUTED.search(text), _PROGRESS.findall(text)
    return Row(
        name,
        int(executed[1]) if executed else 0,
        int(coverage[-1][0]) if coverage else 0,
        len(list(kept.iterdir())),
        len(list(corpus.iterdir())) - before,
        new_finds,
        done != 0 and not new_finds,
    )


def _atheris(name: str, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "fuzz" / "explore.py"), name, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.returncode, done.stdout


def _reason(text: str) -> str:
    """Return the traceback of a find, from atheris's output."""
    found = re.search(r"=== Uncaught Python exception: ===\n(.*?)\n==\d+==", text, re.DOTALL)
    return found[1] if found else text[-2000:]


def _print_table(rows: list[Row]) -> None:
    print(f"\n{'target':<18}{'executions':>12}{'coverage':>10}{'kept':>7}{'new':>7}  finds")
    for row in rows:
        finds = ", ".join(path.name for path in row.finds) or ("the fuzzer failed" if row.is_broken else "none")
        print(f"{row.name:<18}{row.executions:>12,}{row.coverage:>10}{row.corpus_files:>7}{row.new_files:>7}  {finds}")


def _hypothesis() -> int:
    """Run the property tests with fifty times the examples, others each time. Returns pytest's exit code."""
    environ = {**os.environ, "HYPOTHESIS_PROFILE": "explore", "SUBMILLI_TEST_EXAMPLES": "50"}
    pure = ["tests/gw/protocol", "tests/gw/call", "tests/gw/config", "tests/gw/test_bus.py", "tests/wire", "tests/fuzz"]
    return subprocess.run([sys.executable, "tests/run.py", *pure, "-m", "hypothesis"], cwd=ROOT, env=environ).returncode


if __name__ == "__main__":
    sys.exit(main())

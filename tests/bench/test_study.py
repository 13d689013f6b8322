"""The study's own parts: every variant finds its seam in this gateway, and figures of pairs are put together as they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import study
from tests.bench.study import Found, Progress, table
from tests.bench.variants import BASE

ROOT = Path(__file__).resolve().parents[2]
#: In a process that ends: what it swaps stays swapped. A kernel's refusal is the machine's, a missing seam is ours.
APPLY_ALL = """
from gevent import monkey
monkey.patch_all()
from tests.bench.variants import VARIANTS
from tests.bench.variants.seam import NotHereError
for name, variant in VARIANTS.items():
    if name in ("round-robin", "locked"):
        continue
    try:
        variant.apply()
    except NotHereError as error:
        print(f"{name}: {error}")
"""


def test_every_variant_finds_its_seam() -> None:
    run = subprocess.run([sys.executable, "-c", APPLY_ALL], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_a_ratio_is_of_pairs_and_a_void_pair_is_none() -> None:
    found = Found("timerfd", 200, [({"tx_p99_ms": 1.0}, {"tx_p99_ms": 0.5}), ({"tx_p99_ms": 9.0}, {"tx_p99_ms": 4.5})], void=1)
    document = found.document()
    assert document["ratio"] == {"tx_p99_ms": 0.5}
    assert document["without"] == {"tx_p99_ms": 5.0}
    assert (document["void"], len(document["rounds"])) == (1, 2)
    assert table([found]).row_count == 1


def test_the_rest_is_estimated_by_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: now_s[0])
    said: list[str] = []
    progress = Progress(10, 60.0, said.append)
    assert progress.left_s() == 600.0
    progress.done()
    now_s[0] = 130.0
    assert progress.left_s() == 270.0
    progress.tell(f"{BASE}: starting")
    assert said == [f"2 of 10, about 4 min left: {BASE}: starting"]


def test_numbers_and_names_are_checked() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "bench" / "study.py"), "--variants", "nothing"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "--list shows them" in run.stderr

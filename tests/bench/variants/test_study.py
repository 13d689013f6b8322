"""tests.bench.variants.study: every variant finds its seam in this gateway; pairs, ratios and estimates are correct."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gw.bench.run import Load
from gw.bench.subject import BenchError
from tests.bench.variants import BASE, study
from tests.bench.variants.study import Progress, VariantResult, table

ROOT = Path(__file__).resolve().parents[3]
#: In a separate process, since swaps are permanent. The kernel may refuse; a missing seam is a mistake here.
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


def test_a_ratio_is_of_pairs_without_void_ones() -> None:
    found = VariantResult(
        "timerfd", 200, [({"tx_p99_ms": 1.0}, {"tx_p99_ms": 0.5}), ({"tx_p99_ms": 9.0}, {"tx_p99_ms": 4.5})], void=1
    )
    document = found.document()
    assert document["ratio"] == {"tx_p99_ms": 0.5}
    assert document["without"] == {"tx_p99_ms": 5.0}
    assert (document["void"], len(document["rounds"])) == (1, 2)
    assert table([found]).row_count == 1


def test_each_variant_is_next_to_a_window_of_the_unchanged_gateway() -> None:
    assert study.turns(["a"]) == [None, "a"]
    assert study.turns(["a", "b"]) == [None, "a", "b", None]
    assert study.turns(["a", "b", "c"]) == [None, "a", "b", None, "c"]
    for count in range(1, 9):
        made = study.turns(list(range(count)))
        assert [one for one in made if one is not None] == list(range(count))
        assert all(None in (made[at - 1], *made[at + 1 : at + 2]) for at, one in enumerate(made) if one is not None)


def test_pairs_are_of_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are window numbers here; a failed start and a void window cost only their own pairs."""
    number = 0

    def measured(name: str, *_: object) -> tuple[dict[str, float] | None, list[str]]:
        nonlocal number
        number += 1
        if name == "locked":
            raise BenchError("not permitted")
        return (None if name == "gc-often" else {"tx_p99_ms": number}), [f"{name} was heard"]

    monkeypatch.setattr(study, "measured", measured)
    monkeypatch.setattr(study, "write", lambda *_: None)
    names = ["timerfd", "tls", "locked", "gc-often", "tree-off"]
    found = study.study(names, [10], 2, Load(0, 1.0), tmp_path, lambda _: None)
    by_name = {one.variant: one for one in found}

    def pairs(*numbers: tuple[int, int]) -> list[tuple[dict[str, int], dict[str, int]]]:
        return [({"tx_p99_ms": without}, {"tx_p99_ms": with_}) for without, with_ in numbers]

    # base, timerfd, tls, base, locked, gc-often, base, tree-off
    # base, tls, gc-often, base, tree-off, timerfd, base
    assert by_name["timerfd"].pairs == pairs((1, 2), (15, 14))
    assert by_name["tls"].pairs == pairs((4, 3), (9, 10))
    assert by_name["tree-off"].pairs == pairs((7, 8), (12, 13))
    assert (by_name["gc-often"].pairs, by_name["gc-often"].void) == ([], 2)
    assert (by_name["locked"].pairs, by_name["locked"].void, by_name["locked"].failed) == ([], 0, "not permitted")
    assert by_name["tls"].broken == ["tls was heard"] * 2


def test_the_rest_is_estimated_from_the_windows_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: now_s[0])
    shown: list[str] = []
    progress = Progress(10, 60.0, shown.append)
    assert progress.left_s() == 600.0
    progress.done()
    now_s[0] = 130.0
    assert progress.left_s() == 270.0
    progress.on_step(f"{BASE}: starting")
    assert shown == [f"2 of 10, about 4 min left: {BASE}: starting"]


def test_numbers_and_names_are_checked() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "bench" / "variants" / "study.py"), "--variants", "nothing"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert "--list shows all" in run.stderr

"""gw.bench.report and gw.bench.pictures: tables, documents and pictures."""

from __future__ import annotations

import io
import json
import sys
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from gw.bench.load.loop import summary
from gw.bench.pictures import draw, draw_ramp, see
from gw.bench.ramp import once
from gw.bench.report import document, middle, ramp_table, tables, write
from gw.bench.run import Load
from tests.gw.bench.values import measured


def shown(*parts: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(*parts)
    return console.export_text()


def test_the_middle_round_has_the_median_cost() -> None:
    rounds = [measured(seconds=seconds) for seconds in (5.0, 20.0, 10.0)]
    assert middle(rounds) is rounds[2]


def test_void_rounds_count_only_if_all_are_void() -> None:
    void, good = measured(other_cpu=0.5), measured(seconds=1.0)
    assert middle([void, void, good]) is good
    assert middle([void]) is void


def test_the_document_has_every_round_and_the_floor_beside_the_gateway(tmp_path: Path) -> None:
    made = document([measured()], [measured(subject="floor", calls=20)])
    write(tmp_path / "bench.json", made)
    read = json.loads((tmp_path / "bench.json").read_text())
    assert read["cpu_ratio"] == 2.0
    assert read["floor"]["subject"] == "floor"
    assert [found["subject"] for found in read["rounds"]] == ["gateway", "floor"]
    assert "floor" not in document([measured()], [])


def test_tables_show_cost_timing_and_disturbances() -> None:
    bargein = {**summary([0.002]), "missed": 0}
    text = shown(
        tables([measured(bargein=bargein, holds_over_1ms={"rx": 2})], [measured(subject="floor", calls=20, other_cpu=0.3)])
    )
    for words in ("4.000", "2 (rx 2)", "barge-in", "2.00 times", "floor: VOID, other processes used 30%"):
        assert words in text
    assert "gateway: 1 underruns" not in text
    assert "gateway: 1 underruns" in shown(tables([measured(far={**measured().far, "underruns": 1})], []))


def test_tables_name_the_subject_with_tls() -> None:
    gateway, floor = measured(tls=True), measured(subject="floor")
    text = shown(tables([gateway], [floor]), ramp_table([once(Load(10, 1.0), lambda load: (gateway, floor))]))
    for words in ("gateway, TLS to the AI", "a C bridge, which uses no TLS to the AI", "CPU ms/s, TLS", "floor, plain"):
        assert words in text
    plain = shown(tables([measured()], [floor]), ramp_table([once(Load(10, 1.0), lambda load: (measured(), floor))]))
    assert "TLS" not in plain
    assert "plain" not in plain


def test_pictures_are_drawn_with_and_without_a_floor(tmp_path: Path) -> None:
    draw(document([measured()], [measured(subject="floor")]), tmp_path / "a.png")
    draw(document([measured(send=None, lateness=None)], []), tmp_path / "b.png")
    with_floor = once(Load(10, 1.0), lambda load: (measured(), measured(subject="floor")))
    steps = [with_floor, once(Load(25, 1.0), lambda load: (measured(), None))]
    draw_ramp(steps, tmp_path / "c.png")
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("a.png", "b.png", "c.png"))


def test_a_ramp_shows_each_step_and_its_verdict() -> None:
    held = once(Load(10, 1.0), lambda load: (measured(), measured(subject="floor")))
    beyond = once(Load(10, 1.0), lambda load: (measured(underrun_ms=7.0), None))
    void = once(Load(10, 1.0), lambda load: (measured(other_cpu=0.4), None))
    text = shown(ramp_table([held, beyond, void]))
    for words in ("held", "7 ms of underrun", "void: other processes"):
        assert words in text


def test_without_matplotlib_the_result_names_the_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    drawing = partial(draw, document([measured()], []))
    assert see(drawing, path) == f"See: {path}"
    path.unlink()
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what `import` finds is then missing
    assert see(drawing, path) == "No picture: matplotlib is not installed; in the source folder: make instruments."
    assert not path.exists()

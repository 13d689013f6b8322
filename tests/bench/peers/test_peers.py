"""tests.bench.peers: verdicts on a growing number of calls, and environments that cannot be built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gw.bench.load.loop import summary
from gw.bench.result import MEDIA_ROLES, Measured, Process
from gw.bench.run import Load
from gw.bench.subject import BenchError
from gw.terminal import console
from tests.bench.peers import run as peers
from tests.bench.peers.report import ORDER, draw, sentences, table
from tests.bench.peers.run import PEERS, SOURCES, Design, Measure, climb, document, environment, further_kb, held, ratios
from tests.gw.bench.values import MB, measured

THREADS = Design("threads", marked=True)


def window(subject: str, calls: int, *, cpu_ms: float = 4.0, late_ms: float = 0.2, **changes: Any) -> Measured:
    far = {**measured().far, "lateness": {**summary([late_ms / 1000]), "over_time": []}, **changes.pop("far", {})}
    used = Process(subject, cpu_ms * calls / 100, 50 * MB, 50 * MB, 40 * MB)
    return measured(subject=subject, calls=calls, alive=calls, processes=[used], far=far, send=None, lateness=None, **changes)


def always(subject: str, *, largest: int, cpu_ms: float) -> Measure:
    """A design that breaks beyond `largest` calls."""

    def measure(load: Load) -> Measured:
        return window(subject, load.calls, cpu_ms=cpu_ms, far={"underruns": int(load.calls > largest)})

    return measure


def taking(*windows: Measured) -> Measure:
    left: Iterator[Measured] = iter(windows)
    return lambda _: next(left)


def grown(steps: Sequence[int], **found: Measure) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    climb(Load(calls=0, seconds=1), steps, found, made)
    return made


def test_every_design_has_its_server_its_pins_and_a_colour() -> None:
    for design in PEERS:
        assert (SOURCES / f"{design.name}_server.py").exists()
        lines = (SOURCES / f"requirements-{design.name}.txt").read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins and all(re.fullmatch(r"[\w.\-]+==[\w.]+", pin) for pin in pins)
        assert design.name in MEDIA_ROLES
        assert design.name in ORDER


def test_a_design_leaves_after_the_step_it_breaks_at_and_the_others_continue() -> None:
    rows = grown((10, 20, 40), gateway=always("gateway", largest=40, cpu_ms=4), threads=always("threads", largest=10, cpu_ms=20))
    assert [(row["subject"], row["calls"]) for row in rows] == [
        ("gateway", 10),
        ("threads", 10),
        ("gateway", 20),
        ("threads", 20),
        ("gateway", 40),
    ]
    assert (held(rows, "gateway"), held(rows, "threads"), held(rows, "nobody")) == (40, 10, 0)


def test_measuring_ends_when_only_the_floor_is_left() -> None:
    rows = grown((10, 20), floor=always("floor", largest=99, cpu_ms=1), threads=always("threads", largest=5, cpu_ms=20))
    assert [(row["subject"], row["calls"]) for row in rows] == [("floor", 10), ("threads", 10)]


def test_lateness_is_the_callers_and_beyond_the_floors() -> None:
    rows = grown(
        (10,),
        floor=taking(window("floor", 10, late_ms=4.0)),
        gateway=taking(window("gateway", 10, late_ms=8.9)),
        threads=taking(window("threads", 10, late_ms=9.1), window("threads", 10, late_ms=9.2)),
    )
    assert held(rows, "gateway") == 10
    assert held(rows, "threads") == 0
    assert held(rows, "threads", "broken") == 10  # late, but no caller heard it
    assert rows[-1]["beyond"] == ["lateness p99.9 is 9.2 ms, over 9 ms"]


def test_a_disturbed_step_is_measured_again_and_a_void_one_decides_nothing() -> None:
    rows = grown((10,), threads=taking(window("threads", 10, other_cpu=0.5), window("threads", 10)))
    assert [row["void"] for row in rows] == [[]]
    void = window("threads", 10, other_cpu=0.5, far={"underruns": 3})
    rows = grown((10, 20), threads=taking(void, void, window("threads", 20)))
    assert [bool(row["void"]) for row in rows] == [True, False]
    assert held(rows, "threads") == 20


def test_ratios_are_taken_where_the_other_is_at_its_largest() -> None:
    found = {
        "floor": always("floor", largest=999, cpu_ms=1),
        "gateway": lambda load: window("gateway", load.calls, cpu_ms=5 if load.calls < 20 else 4),
        "threads": always("threads", largest=10, cpu_ms=20),
    }
    rows = grown((10, 20), **found)
    expected = {
        "peer": "threads",
        "calls": 10,
        "strictly": True,
        "at_the_same_calls": 4.0,
        "gateway_calls": 20,
        "each_at_its_largest": 5.0,
    }
    assert ratios(rows) == [expected]
    made = document(rows)
    assert made["held"] == {"floor": 20, "gateway": 20, "threads": 10}
    assert sentences(made)[1:] == [
        "floor: 20 calls held by the rule of `bench ramp`, 20 without an underrun; one more call takes 0 KB.",
        "threads: 10 calls held by the rule of `bench ramp`, 10 without an underrun; one more call takes 0 KB.",
        "threads at 10 calls, its most, costs 4 times the gateway's CPU at as many, 5 times the gateway's at 20.",
    ]
    assert ratios([row for row in rows if row["subject"] == "threads"]) == []


def test_one_time_memory_is_not_part_of_one_more_call() -> None:
    def with_memory(load: Load) -> Measured:
        once_and_each = Process("threads", 1.0, 50 * MB, 50 * MB + load.calls * MB // 4, 0)
        return replace(window("threads", load.calls), processes=[once_and_each])

    assert further_kb(grown((10, 20, 30), threads=with_memory), "threads") == 256.0
    assert further_kb(grown((10,), threads=with_memory), "threads") is None


def test_the_table_has_a_line_each_and_the_picture_is_drawn(tmp_path: Path) -> None:
    rows = grown(
        (10, 20),
        floor=always("floor", largest=99, cpu_ms=1),
        gateway=always("gateway", largest=99, cpu_ms=4),
        threads=taking(window("threads", 10), *[window("threads", 20, other_cpu=0.5)] * 2),
    )
    screen = console()
    with screen.capture() as captured:
        screen.print(table(rows))
    lines = [line.split() for line in captured.get().splitlines()]
    assert [line[:4] for line in lines if "gateway" in line] == [[calls, "gateway", "4.000", "1.00"] for calls in ("10", "20")]
    assert [line[1:3] for line in lines if "floor" in line] == [["1.000", "0.25"]] * 2
    assert [line[0] for line in lines if "void:" in line] == ["threads"]
    draw(rows, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").stat().st_size > 5000
    draw([row for row in rows if row["void"]], tmp_path / "nothing.png")  # an early interrupt leaves no good step


def sources(folder: Path, requirements: str) -> Path:
    folder.mkdir()
    (folder / "requirements-threads.txt").write_text(requirements)
    return folder


def test_an_environment_that_is_built_is_used_until_its_pins_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = sources(tmp_path / "pins", "nothing==1\n")
    ran: list[Sequence[str]] = []

    def build(command: Sequence[str], on_line: Any) -> list[str]:
        ran.append(command)
        (tmp_path / "out" / "threads" / "env" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "threads" / "env" / "bin" / "python").touch()
        on_line("Collecting nothing==1")
        return []

    monkeypatch.setattr(peers, "_run", build)
    steps: list[str] = []
    python = environment(THREADS, steps.append, tmp_path / "out", pins)
    assert python.is_absolute() and python.exists()
    assert (len(ran), steps[-1]) == (2, "threads: collecting nothing==1")
    assert environment(THREADS, steps.append, tmp_path / "out", pins) == python
    assert len(ran) == 2
    (pins / "requirements-threads.txt").write_text("nothing==2\n")
    environment(THREADS, steps.append, tmp_path / "out", pins)
    assert len(ran) == 4


def test_pip_without_an_index_names_the_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BenchError, match="PIP_FIND_LINKS") as raised:
        environment(THREADS, lambda _: None, tmp_path / "out", sources(tmp_path / "pins", "surely-nothing==1\n"))
    assert "surely-nothing" in str(raised.value)

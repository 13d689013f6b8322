"""gw.cli.bench.steps: a run keeps and prints its measured steps, however it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gw.cli.bench.steps import between, take_steps

OnStep = Callable[[str], None]


def test_both_ends_are_measured_and_the_usual_steps_between_them() -> None:
    assert between(10, 60, (5, 10, 50, 100)) == [10, 50, 60]
    assert between(10, 10, (10, 50)) == [10]


def take(out: Path, *, as_json: bool = False, broken_after: int = 9) -> dict[str, Any]:
    results: list[dict[str, Any]] = []

    def draw(path: Path) -> None:
        path.write_text("drawn")

    def measure(on_step: OnStep) -> None:
        for calls in (10, 20):
            if len(results) == broken_after:
                raise OSError("gone")
            on_step(f"{calls} calls")
            results.append({"calls": calls})

    return take_steps(
        "steps",
        out,
        as_json,
        measure=measure,
        results=results,
        document=lambda: {"steps": list(results)},
        draw=draw,
        parts=lambda found: (f"{len(found['steps'])} steps", ""),
    )


def test_the_result_is_written_drawn_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = take(tmp_path)
    assert found == json.loads((tmp_path / "steps.json").read_text()) == {"steps": [{"calls": 10}, {"calls": 20}]}
    assert (tmp_path / "steps.png").read_text() == "drawn"
    output = capsys.readouterr()
    assert output.out == f"2 steps\n\nSee: {tmp_path}/steps.png  Read: {tmp_path}/steps.json\n"
    assert "20 calls" in output.err


def test_json_output_is_the_document_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = take(tmp_path, as_json=True)
    output = capsys.readouterr()
    assert json.loads(output.out) == found
    assert output.err == ""


def test_a_run_that_raises_keeps_its_steps(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        take(tmp_path, broken_after=1)
    assert json.loads((tmp_path / "steps.json").read_text()) == {"steps": [{"calls": 10}]}


def test_a_run_that_measured_nothing_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        take(tmp_path, broken_after=0)
    assert list(tmp_path.iterdir()) == []

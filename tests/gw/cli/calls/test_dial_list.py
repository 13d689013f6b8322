"""gw.cli.calls.dial_list: a list is checked before anything is dialled."""

from __future__ import annotations

from pathlib import Path

import pytest

from gw.cli.calls.dial_list import _cell, _pieces, _result, _summary
from gw.control.outbound.list_file import Line
from tests.gw.cli.conftest import CommandLine
from tests.gw.control.outbound.rows import line


def written(folder: Path, text: str) -> str:
    path = folder / "list.csv"
    path.write_text(text)
    return str(path)


def test_a_dry_run_needs_no_gateway(cli: CommandLine) -> None:
    path = written(cli.folder, "to,zone\n+15551234567,\n+15551234568,Asia/Tokyo\n")
    shown = cli.run("calls", "dial", path, "--from", "+15557654321", "--dry-run").stdout
    assert "2 numbers, from +15557654321; 2 by default." in shown
    assert "Nothing was dialled." in shown
    plan = cli.document("calls", "dial", path, "--from", "+15557654321", "--dry-run")
    assert (plan["numbers"], plan["most_dials_per_number"], plan["agents"]) == (2, 3, {"default": 2})
    assert plan["now"] + sum(zone in plan["later"] for zone in ("UTC", "Asia/Tokyo")) == 2


def test_all_errors_of_a_list_are_named(cli: CommandLine) -> None:
    result = cli.run("calls", "dial", written(cli.folder, "to\n1\n2\n"), "--from", "+15557654321")
    assert result.exit_code == 1
    assert "cannot be dialled, and nothing was" in result.stderr
    assert ("line 2: " in result.stderr, "line 3: " in result.stderr) == (True, True)
    many = cli.run("calls", "dial", written(cli.folder, "to\n" + "1\n" * 60), "--from", "+15557654321")
    assert "and 10 more errors" in many.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "there is no caller ID"),
        (["--from", "me"], "neither a number in E.164"),
    ],
)
def test_wrong_usage(cli: CommandLine, words: list[str], sentence: str) -> None:
    result = cli.run("calls", "dial", written(cli.folder, "to\n+15551234567\n"), *words)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_without_a_gateway_nothing_is_dialled(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.cli.calls.dial_list.AWAY_S", 0.0)
    result = cli.run("calls", "dial", written(cli.folder, "to\n+15551234567\n"), "--from", "+15557654321")
    assert result.exit_code == 3


def test_a_list_is_sent_in_pieces_that_fit() -> None:
    lines = [Line(n, "+15551234567", "default", "UTC", {"name": "x" * 400}) for n in range(2, 300)]
    pieces = list(_pieces(lines))
    assert sum(len(piece) for piece in pieces) == len(lines)
    assert all(len(str(piece)) < 64 << 10 for piece in pieces)
    assert len(pieces) > 2
    assert list(_pieces([])) == []


def test_results() -> None:
    waiting, done = line(attempts=0), line(state="done", attempts=3, lost=1, result="busy", ended_at=0.0)
    assert (_result(waiting)["result"], _result(waiting)["dials"]) == ("waiting", 0)
    assert (_result(done)["result"], _result(done)["dials"]) == ("busy", 2)
    assert _result(line(state="waiting", attempts=1, result="busy"))["result"] == "busy"
    assert (_result(line(state="unknown", attempts=1))["result"], _result(line(state="unknown", attempts=1))["dials"]) == (
        "unknown",
        0,
    )
    assert [_cell(value) for value in (None, "=1", "+1555", 3)] == ["", "'=1", "+1555", "3"]
    assert _summary({"busy": 1, "waiting": 2}) == "2 waiting, 1 busy"

"""gw.cli.operate.top: the line of lateness, and a screen of a gateway in trouble."""

from __future__ import annotations

import io
from collections import deque
from typing import Any

import pytest
from rich.console import Console

from gw.cli.context import Settings
from gw.cli.operate.top import HISTORY, sample, screen, sparkline
from gw.control.admin.client import Refused
from tests.gw.cli.conftest import BEGAN, HOLDS, LIVE, STATUS, CommandLine


def test_a_block_per_sample_on_a_logarithmic_scale() -> None:
    line = sparkline(deque([None, 0.0, 0.00001, 0.0009, 0.001, 0.02, 0.1, 9.0]))
    assert line.plain == "·▁▁▄▅▇██"
    assert [str(span.style) for span in line.spans] == ["dim", "green", "green", "green", "yellow", "red", "red", "red"]


def _seen(**facts: Any) -> dict[str, Any]:
    worker = {"index": 0, "pid": 7, "connected": True, "draining": False, "calls": 3, "unacked": 0}
    worker |= {"lateness_p99_s": 0.0004, "hold_max_s": 0.002}
    call = {"answered_at": BEGAN, "started_at": BEGAN, "from_number": "+1[b]", "agent": "a", "worker": 0}
    return {
        "at": BEGAN + 65,
        "lateness_p99_s": 0.0004,
        "holds": HOLDS,
        "calls": [call | {"recording_state": "started", "call_sid": f"CA{n}"} for n in range(4)],
        "status": {
            "version": "1",
            "host": "vm1",
            "uptime_s": 90.0,
            "readiness": {"ready": False, "reasons": ["drained by an operator"]},
            "calls": 4,
            "machine": {
                "capacity": 225,
                "reserved": 1,
                "processes": [{"name": "worker 0", "late": True}],
            },
            "workers": [worker, worker | {"index": 1, "draining": True}, worker | {"index": 2, "connected": False}],
            "store": {"reachable": True, "problem": ""},
            "backlog": 12,
            "claims": 0,
        },
        **facts,
    }


def _shown(seen: dict[str, Any], **options: Any) -> str:
    out = Console(width=200, record=True, file=io.StringIO())
    out.print(screen(seen, deque([0.0004]), **options))
    return out.export_text()


def test_a_screen_shows_the_problems(cli: CommandLine) -> None:
    text = _shown(_seen(), calls=2)
    for piece in ("not ready", "drained by an operator", "4 of 225, 1 reserved", "p99 0.400 ms  ▄", "12 events", "+1[b]"):
        assert piece in text
    for state in ("late", "draining", "lost"):
        assert f"  {state} " in text
    assert "gw/media/depth0.py:40 deep0" in text
    assert ("CA1" in text, "CA2" in text, "and 2 more" in text) == (True, False, True)
    assert "1:05" in text


def test_a_screen_shows_costs_and_the_budget_of_the_day(cli: CommandLine) -> None:
    seen = _seen()
    seen["calls"][0]["cost_usd"] = 0.25
    seen["status"]["budget"] = {"day": "2026-11-28", "spent_usd": 12.5, "limit_usd": 500.0}
    text = _shown(seen, calls=2)
    assert "$0.2500" in text
    assert "$12.5000 of $500.0000 spent on 2026-11-28, UTC" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_screen_cuts_and_folds_nothing(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    seen = _seen(holds=[])
    for call in seen["calls"]:
        call |= {"call_sid": LIVE, "from_number": "+15551234567"}
    monkeypatch.setattr("gw.terminal.console", lambda: Console(width=width, file=io.StringIO()))
    out = Console(width=width, record=True, file=io.StringIO())
    out.print(screen(seen, deque([0.4] * HISTORY), calls=1))
    lines = out.export_text().splitlines()
    (lateness,) = (n for n, line in enumerate(lines) if line.startswith("lateness"))
    assert lines[lateness].count("█") == min(HISTORY, width - 25)
    assert lines[lateness + 1].startswith("waiting")
    (title,) = (line for line in lines if line.startswith("worker"))
    assert ("pid" in title, "unacked" in title) == (width >= 80, width >= 76)
    assert sum(LIVE in line for line in lines) == 1
    assert len(lines) == 14


def test_a_gateway_that_does_not_answer_is_shown_as_away(cli: CommandLine) -> None:
    text = _shown(_seen(calls=[], holds=[]), calls=2, away="no gateway answers on x")
    assert "no gateway answers on x" in text
    assert "ready" not in text.splitlines()[0]
    assert "worst holds" not in text


def test_a_store_without_an_answer_leaves_the_rest(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    status = {**STATUS, "workers": [], "store": {"reachable": False, "problem": "no answer within 2 s"}}

    def ask(settings: Settings, command: str, **arguments: Any) -> Any:
        asked.append(command)
        if command == "calls":
            raise Refused("unavailable", "the store is not available")
        return status if command == "status" else []

    monkeypatch.setattr(Settings, "ask", ask)
    settings = Settings(None)
    seen = sample(settings)
    assert asked == ["status", "holds"], "the store is not asked in addition"
    assert seen["calls"] == []
    status["store"] = {"reachable": True, "problem": ""}
    seen = sample(settings)
    assert (seen["status"]["store"], seen["calls"]) == ({"reachable": False, "problem": "the store is not available"}, [])
    seen["status"]["machine"] = {"capacity": 1, "reserved": 0, "processes": []}
    assert "the store is not available; the live calls are not listed" in _shown(seen, calls=1)


@pytest.mark.parametrize("words", [["top"], ["top", "--once"], ["top", "--once", "--json"], ["loglevel"], ["loglevel", "debug"]])
def test_without_a_gateway_the_exit_code_is_3(cli: CommandLine, words: list[str]) -> None:
    assert cli.run(*words).exit_code == 3

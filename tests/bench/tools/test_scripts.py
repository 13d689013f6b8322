"""tests/bench/tools in short: the scripts measure real gateways; only what holds on a busy machine is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from gw.bench.run import Load
from gw.control.hooks.places import CONNECTIONS
from tests.bench.tools import connections, first_words, own_time
from tests.timing import scaled


def test_waiting_jobs_keep_the_bounds_and_none_is_lost(tmp_path: Path) -> None:
    found = connections.measure(tmp_path, 300)
    assert found.failures() == []
    assert (found.most_open, found.outcomes) == (CONNECTIONS, {"ok": 300})


def test_connections_beyond_the_bounds_and_lost_jobs_are_failures() -> None:
    bad = connections.Figures(9, 1.0, 1.0, 1.0, 65, 9, 1.0, {"ok": 7, "timeout": 1}, missing=1, executed_twice=1)
    assert len(bad.failures()) == 4


def test_first_words_are_measured_and_a_warm_leg_saves_round_trips(tmp_path: Path) -> None:
    found = first_words.measure(tmp_path, calls=1, beside=0, round_trips_ms=[300], ring_s=1.5)
    assert [one["silent"] for one in found.values()] == [0, 0, 0]
    cold, warm, file = (found[f"{kind} at 300 ms"]["p50"] for kind in ("cold", "warm", "file"))
    assert file < 300 < warm < cold - 300, (
        "a greeting from a file waits for no round trip, a warm leg for one, a cold leg for more"
    )
    assert "a warm leg saves" in first_words.text_of(found, [300])


def test_a_tools_own_time_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_time, "TIMEOUT_S", scaled(10.0))  # the endpoint is in this process, which may be busy
    load = Load(3, 3.0, maxima=False, pinned=False)
    measured = own_time.window(tmp_path, load, "answering", 0.5, lambda step: None)
    tools = measured.uplink["tools"]
    assert set(tools["outputs"]) == {"ok"}
    assert tools["count"] >= 3
    text = own_time.text_of(own_time.document([dict.fromkeys(own_time.KINDS, measured)]))
    assert "own time p50" in text
    assert "a dead endpoint changes TX lateness p99.9 by +0%" in text

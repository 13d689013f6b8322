"""tests.bench.load.pressure and tests.bench.load.stalling_store: the side load while a gateway is measured, and the result."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gw import ROOT
from gw.bench.run import Load
from gw.bench.subject import BenchError
from tests.bench.load import pressure, stalling_store
from tests.bench.load.pressure import KINDS, Rounds, Window, press, tables
from tests.bench.load.stalling_store import SqliteFile, open_store
from tests.gw.bench.values import histogram, measured


def window(late_ms: float = 0.5, **changes: Any) -> Window:
    counts = {"recorded": 0, "came": 0, "refused": 0, "backlog": 0, "scrapes": 0}
    ours = {key: changes.pop(key, value) for key, value in counts.items()}
    return Window(measured(lateness=histogram(late_ms), **changes), **ours)


def found(**rounds: Window) -> Rounds:
    made = Rounds(10, 10.0, "SQLite")
    made.add({kind: rounds.get(kind, window()) for kind in KINDS})
    return made


def shown(made: Rounds) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables(made))
    return capture.get()


def test_a_recorded_round_beside_a_store_that_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine places fewer calls and reads fewer pages in a time, so the window grows until it had enough."""
    monkeypatch.setattr(pressure, "BEFORE_S", 0.5)
    for seconds in (3.0, 6.0, 12.0, 24.0):
        # the page may be a second old and is read each second: two seconds of stall contain one page rendered during it
        monkeypatch.setattr(pressure, "STALL_S", seconds - 1.0)
        store = open_store(tmp_path)
        try:
            command = [sys.executable, str(ROOT / "gateway.py")]
            got = pressure.window(command, tmp_path, Load(2, seconds), store, "pressed", lambda step: None)
        finally:
            store.close()
        if got.came >= 10 and got.recorded >= 5 and got.scrapes >= 2 and got.backlog:
            break
    assert got.measured.alive >= 2
    assert got.came >= 10
    assert got.recorded >= 5  # in the window only, by the REST twin's count
    assert got.refused < got.came  # a late worker refuses callers
    assert got.scrapes >= 2
    assert got.backlog > 0
    assert got.document()["caller_p99_ms"] > 0


def test_a_window_too_short_for_a_stall_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="needs a window of 9 s"):
        press([], tmp_path, Load(2, 5.0), 1, lambda step: None)


def test_void_rounds_count_only_if_all_are_void() -> None:
    made = found(coming=window(other_cpu=0.5))
    assert made.document()["void"]
    assert len(made.counted) == 1
    made.add({kind: window() for kind in KINDS})
    assert not made.document()["void"]
    assert made.document()["void_rounds"] == 1
    assert made.counted == made.good


def test_the_claim_is_about_recordings_not_about_short_calls() -> None:
    made = found(alone=window(0.05), coming=window(3.0, came=5), pressed=window(3.0, came=5, recorded=5, backlog=7))
    change = made.document()["change"]
    assert change["pressed_to_coming"]["tx_p99.9_ms"] == pytest.approx(1.0)
    assert change["coming_to_alone"]["tx_p99.9_ms"] > 2
    text = shown(made)
    assert "TX lateness p99.9: +0% by recordings, scrapes and a SQLite that answers nothing for 5 s" in text
    assert "5 came, 5 recordings began" in text
    assert "7 events waited" in text


def test_faults_that_a_caller_would_notice_are_reported() -> None:
    far = {**measured().far, "underruns": 2, "lost": 1}
    made = found(pressed=window(alive=8, far=far, refused=3))
    assert made.failures() == [
        "pressed: 2 steady calls ended",
        "pressed: 2 underruns at a 60 ms buffer, 1 frames lost",
        "pressed: 3 callers were refused",
    ]
    assert "3 callers were refused" in shown(made)


def test_an_sqlite_store_stalls_for_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalling_store, "_SHARE", tmp_path / "nothing")
    store = open_store(tmp_path)
    assert isinstance(store, SqliteFile)
    with sqlite3.connect(tmp_path / "pressure.db") as ours:
        ours.execute("CREATE TABLE t (n)")
    ours.close()
    stalling, refused = threading.Thread(target=store.stall, args=(0.6,)), []
    stalling.start()
    while stalling.is_alive() and not refused:
        time.sleep(0.02)
        with contextlib.closing(sqlite3.connect(tmp_path / "pressure.db", timeout=0.0, isolation_level=None)) as ours:
            try:
                ours.execute("INSERT INTO t VALUES (1)")
            except sqlite3.OperationalError as error:
                refused.append(str(error))
    stalling.join()
    assert refused == ["database is locked"]
    store.close()
    assert list(tmp_path.glob("pressure.db*")) == []

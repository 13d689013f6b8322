"""`bench` as a user starts it: three calls of three seconds with TLS to the AI, and the floor where it compiles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gw import ROOT
from gw.bench.subject import compiler


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "gateway.py"), "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def test_three_calls_are_measured_at_both_ends(tmp_path: Path) -> None:
    floor = ["--floor"] if compiler() else []
    run = bench(
        "--calls",
        "3",
        "--seconds",
        "3",
        "--pattern",
        "bargein",
        "--tls",
        "--patience",
        "0",
        "--json",
        "--out",
        str(tmp_path),
        *floor,
    )
    assert run.returncode in (0, 1), run.stderr  # 1 on a busy machine: the run is void, or late
    made = json.loads(run.stdout)
    assert made == json.loads((tmp_path / "bench.json").read_text())
    assert (tmp_path / "bench.png").stat().st_size > 5000
    for found in [made, *([made["floor"]] if floor else [])]:
        assert found["calls"] == 3
        assert found["ended"] == {}
        assert found["lost_down"] == found["lost_up"] == 0
        assert found["tx_send_ms"]["p50"] > 0
        assert found["tx_lateness_ms"]["max"] >= found["tx_lateness_ms"]["p50"]
        assert found["uplink_ms"]["count"] == pytest.approx(3 * 3 * 50, rel=0.2)
        assert found["bargein_ms"]["count"] >= 1
        assert found["cpu_ms_per_call_s"] > 0
    assert set(made["processes"]) == {"serve", "control", "worker"}
    assert set(made["twins"]) == {"callers", "ai"}
    assert made["tls"]
    assert 'base_url = "wss://' in (tmp_path / "gateway" / "submilli.toml").read_text()
    assert not (floor and made["floor"]["tls"])

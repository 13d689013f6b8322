"""`bench` as a user starts it: three calls of three seconds with TLS to the AI, and the floor where it compiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gw import ROOT
from gw.bench.subject import BenchError, build_floor, compiler


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


def test_without_a_compiler_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(BenchError, match="apt-get install gcc"):
        build_floor(tmp_path)


def test_without_the_floors_source_the_error_names_the_repository(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="needs the repository"):
        build_floor(tmp_path, tmp_path / "floor.c")


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_the_floor_is_built_once_and_a_broken_one_is_shown(tmp_path: Path) -> None:
    source = tmp_path / "floor.c"
    source.write_text("int main(void) { return 0; }\n")
    os.utime(source, (1, 1))
    program = build_floor(tmp_path, source)
    built = program.stat().st_mtime_ns
    assert build_floor(tmp_path, source).stat().st_mtime_ns == built
    source.write_text("int main(void) { return nothing; }\n")
    os.utime(source, (2**33, 2**33))
    with pytest.raises(BenchError, match="nothing"):
        build_floor(tmp_path, source)

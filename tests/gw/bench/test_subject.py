"""gw.bench.subject: the floor's build, and its errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gw.bench.subject import BenchError, build_floor, compiler


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

"""metrics.locks: a lock lasts as long as its open file, in this process and in others."""

import os
import subprocess
import sys
from pathlib import Path

from metrics.locks import is_locked, try_lock

ROOT = Path(__file__).resolve().parents[2]


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_one_holder_at_a_time(tmp_path):
    first, second = _open(tmp_path / "f"), _open(tmp_path / "f")
    try:
        assert not is_locked(second)
        assert try_lock(first)
        assert try_lock(first)
        assert not try_lock(second)
        assert is_locked(second)
        assert not is_locked(first)
    finally:
        os.close(first)
    assert not is_locked(second)
    assert try_lock(second)
    os.close(second)


def test_closing_another_descriptor_keeps_the_lock(tmp_path):
    first = _open(tmp_path / "f")
    assert try_lock(first)
    with (tmp_path / "f").open():
        pass
    second = _open(tmp_path / "f")
    assert is_locked(second)
    os.close(first)
    os.close(second)


def test_the_lock_of_an_ended_process_is_free(tmp_path):
    path = tmp_path / "f"
    code = (
        "import os, sys; from metrics.locks import try_lock; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT);"
        "print(try_lock(fd), flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert child.stdout.readline() == b"True\n"
        descriptor = _open(path)
        assert is_locked(descriptor)
        child.kill()
        child.wait(10)
        assert not is_locked(descriptor)
        os.close(descriptor)
    finally:
        child.kill()
        child.communicate(timeout=10)

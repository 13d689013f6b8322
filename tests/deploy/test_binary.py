"""deploy/binary.py: the file is built, and its first commands work without a home folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.program import ROOT
from tests.timing import scaled


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dist") / "submilli"
    builder = [sys.executable, str(ROOT / "deploy" / "binary.py"), str(made)]
    subprocess.run(builder, check=True, capture_output=True, timeout=scaled(120))
    return made


def run(binary: Path, *arguments: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    folder = binary.parent
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SUBMILLI_CACHE": str(cache or folder / "cache")}
    return subprocess.run(
        [str(binary), *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=scaled(90), check=False
    )


@pytest.mark.parametrize(
    "arguments", [("config", "check"), ("db", "upgrade"), ("verify", "purity", "--static"), ("completion", "bash")]
)
def test_a_command_works(binary: Path, arguments: tuple[str, ...]) -> None:
    done = run(binary, *arguments)
    assert done.returncode == 0, done.stderr
    if arguments[0] == "completion":
        assert f"submilli() {{ {binary} " in done.stdout


def test_a_call_goes_through_the_binary(binary: Path) -> None:
    """The gateway's child processes start from the file as well. Punctuality is judged elsewhere."""
    done = run(binary, "demo", "--calls", "1", "--seconds", "1", "--json")
    call = json.loads(done.stdout)["calls"][0]
    assert (call["audio_exact"], call["recordings_started"], call["ended"]) == (True, 1, "ai_hangup")
    assert (binary.parent / "out" / "demo" / "call-1.wav").exists()


def test_the_archive_has_no_instruments(binary: Path) -> None:
    run(binary, "--version")
    (app,) = (path for path in (binary.parent / "cache").iterdir() if path.is_dir())
    assert (app / "gevent").is_dir()
    assert not any((app / name).exists() for name in ("matplotlib", "numpy", "PIL", "pytest"))


def test_a_call_test_passes_on_the_binary_s_libraries(binary: Path) -> None:
    """`make test-binary` runs all of them."""
    command = [sys.executable, str(ROOT / "tests" / "run.py"), "tests/calls/test_conversation.py", "-q"]
    environ = {**os.environ, "SUBMILLI_BINARY": str(binary)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=scaled(120), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_archive_is_unpacked_once_and_former_versions_are_removed(binary: Path) -> None:
    cache = binary.parent / "another"
    former, new, in_use = cache / "former", cache / "of an hour", cache / "in use"
    for folder in (former, new, in_use):
        folder.mkdir(parents=True)
    (in_use / "gateway.py").touch()
    for folder in (former, in_use):
        os.utime(folder, (0, 0))
    with (in_use / "gateway.py").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert run(binary, "--version", cache=cache).returncode == 0
    assert not former.exists() and new.exists() and in_use.exists()
    (unpacked,) = set(cache.iterdir()) - {new, in_use}
    before = {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}
    assert run(binary, "config", "check", cache=cache).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")} == before


def test_a_running_version_holds_its_lock(binary: Path) -> None:
    """So that a newer version does not remove it. The memory maps of a process with secrets are unreadable."""
    cache = binary.parent / "cache"
    (app,) = (path for path in cache.iterdir() if path.is_dir())
    config = binary.parent / "submilli.toml"
    os.mkfifo(config)  # the command waits until the test writes it
    environ = {"PATH": os.environ["PATH"], "SUBMILLI_CACHE": str(cache)}
    with subprocess.Popen([str(binary), "--config", str(config), "config", "check"], env=environ) as running:
        try:
            writer = opened_for_its_reader(config)
            with (app / "gateway.py").open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(writer)
            assert running.wait(scaled(90)) == 0
        finally:
            running.kill()


def opened_for_its_reader(fifo: Path) -> int:
    """Wait until a process reads this pipe. Returns a descriptor for writing."""
    deadline_s = time.monotonic() + scaled(90)
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO, error
            assert time.monotonic() < deadline_s, "the command did not open its configuration"
        time.sleep(0.02)


def test_a_cache_that_cannot_be_written_gives_one_sentence(binary: Path) -> None:
    done = run(binary, "--version", cache=Path("/proc/nowhere"))
    assert done.returncode == 1
    assert done.stderr.endswith(
        "submilli: /proc/nowhere/ cannot be written; set SUBMILLI_CACHE to a folder this user may write\n"
    )

"""deploy/binary.py: the file is built, and its first commands work without a home folder."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gw.media.support import until
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
    command = [str(binary), "--config", "/dev/stdin", "config", "check"]
    environ = {"PATH": os.environ["PATH"], "SUBMILLI_CACHE": str(cache)}
    with (
        subprocess.Popen(command, env=environ, stdin=subprocess.PIPE) as running,  # it waits for its configuration
        (app / "gateway.py").open() as file,
    ):
        until(lambda: f":{os.fstat(file.fileno()).st_ino} " in Path("/proc/locks").read_text())
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        running.communicate(b"", timeout=scaled(90))
        assert running.returncode == 0


def test_a_cache_that_cannot_be_written_gives_one_sentence(binary: Path) -> None:
    done = run(binary, "--version", cache=Path("/proc/nowhere"))
    assert done.returncode == 1
    assert done.stderr.endswith(
        "submilli: /proc/nowhere/ cannot be written; set SUBMILLI_CACHE to a folder this user may write\n"
    )

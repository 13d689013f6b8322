"""Programs that the tests run beside the gateway, taken from Debian's packages.

A fresh Debian with apt is enough for the whole suite. `unpacked` extracts a package of a single program under `out/debian`, which
needs no root and starts no service. `installed` installs a package that depends on others. Where neither is possible, the test
fails and names the command to run by hand.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_INSTALL_S = 600.0
_APT_S = 300
_BOUNDED = ("-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "DPkg::Lock::Timeout=60")
_UNPACKED = Path(__file__).resolve().parents[1] / "out" / "debian"


def unpacked(program: str, package: str) -> str:
    """Return the path of `program`: this machine's, or that of Debian's `package`, extracted under `out/debian`."""
    folder = _UNPACKED / package
    here = folder / "usr" / "bin" / program
    found = which(program)
    if found is not None or here.exists():
        return found or str(here)
    folder.mkdir(parents=True, exist_ok=True)
    problem = _run(["apt-get", "download", "-q", package], folder)
    if problem:  # apt has no package lists yet
        problem = _updated() or _run(["apt-get", "download", "-q", package], folder)
    for archive in sorted(folder.glob("*.deb"))[-1:]:
        problem = _run(["dpkg", "-x", str(archive), str(folder)], folder)
        archive.unlink()
    if not here.exists():
        pytest.fail(f"these tests need {program}: run `apt-get install {package}` as root. {problem}", pytrace=False)
    return str(here)


def installed(program: str, *packages: str) -> str:
    """Return the path of `program`, after installing Debian's packages if it is missing."""
    problem = ""
    _UNPACKED.mkdir(parents=True, exist_ok=True)
    with (_UNPACKED / "lock").open("w") as lock:
        if which(program) is None:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another lane may install it now, and apt's own wait is short
        if which(program) is None:
            problem = _updated() or _as_root("install", "-y", "--no-install-recommends", *packages)
    path = which(program)
    if path is None:
        wanted = " ".join(packages)
        pytest.fail(f"these tests need {program}: run `apt-get install {wanted}` as root. {problem}", pytrace=False)
    return path


def which(program: str) -> str | None:
    """Return the path of a program, servers included, or None."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@functools.cache
def _updated() -> str:
    """Update the package lists once per run: without a network, each missing program would wait for the timeout again."""
    return _as_root("update")


def _as_root(*arguments: str) -> str:
    root = [] if os.geteuid() == 0 else ["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive"]
    return _run([*root, "timeout", str(_APT_S), "apt-get", *_BOUNDED, *arguments], None)


def _run(command: Sequence[str], folder: Path | None) -> str:
    """Run one step of an installation. Returns the error as text, empty on success."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr or done.stdout)[-500:]

"""Directory of the metrics pages: in memory, reached by a link in `var_dir`.

A store into a mapped file on a disk can block the process without bound: the kernel write-protects a page during writeback, and
the next store waits for the disk and the journal. So `<var_dir>/pages` is a link into /dev/shm, unless `var_dir` is in memory
already. Without a usable /dev/shm it is a plain directory, which `in_memory` detects. Creating a directory also removes those
whose link is gone. Never called on the hot path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Final

from metrics.locks import is_locked

SHARED_MEMORY: Final = Path("/dev/shm")
_MEMORY_TYPES: Final = frozenset({"tmpfs", "ramfs"})
_ORIGIN: Final = "origin"
#: Minimum age for the removal of a directory without a link: another process may be about to create the link.
_SWEEP_AGE_S: Final = 60.0


def prepare(pages_dir: Path, *, memory: Path = SHARED_MEMORY) -> None:
    """Create the directory `pages_dir`, in memory if possible. Does nothing if it exists. Raises OSError."""
    if pages_dir.is_dir():
        return
    pages_dir.parent.mkdir(parents=True, exist_ok=True)
    origin = pages_dir.parent.resolve() / pages_dir.name
    target = None if in_memory(pages_dir.parent) else _private_dir(memory, origin)
    if target is None:
        pages_dir.mkdir(exist_ok=True)
        return
    if pages_dir.is_symlink():
        pages_dir.unlink(missing_ok=True)  # a dangling link: its target was in memory before a reboot
    else:
        _remove_old_pages(target)
    with contextlib.suppress(FileExistsError):  # created by another process of the gateway
        pages_dir.symlink_to(target)
    _sweep(memory, keep=target)


def in_memory(directory: Path) -> bool:
    """Return True if `directory` is on a file system in memory. False when /proc/self/mountinfo cannot be read."""
    device = directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    # 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/root rw
    for line in mounts:
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            return after.split()[0] in _MEMORY_TYPES
    return False


def _prefix() -> str:
    return f"submilli-{os.geteuid()}-"


def _private_dir(memory: Path, origin: Path) -> Path | None:
    """Create this gateway's directory in `memory`. Returns None without such a place, or when another user has the name."""
    target = memory / (_prefix() + hashlib.blake2b(os.fsencode(origin), digest_size=8).hexdigest())
    try:
        if not in_memory(memory):
            return None
        target.mkdir(mode=0o700, exist_ok=True)
        found = target.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        (target / _ORIGIN).write_bytes(os.fsencode(origin))
    except (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError):
        return None
    return target


def _remove_old_pages(target: Path) -> None:
    """Remove pages of an earlier `pages_dir` that was deleted: its counters must not continue."""
    for page in target.glob("*.page"):
        with contextlib.suppress(FileNotFoundError):  # removed by another process of the gateway
            if not _is_written(page):
                page.unlink()


def _sweep(memory: Path, *, keep: Path) -> None:
    """Remove directories of this user's gateways that have no link and no live writer."""
    oldest = time.time() - _SWEEP_AGE_S
    for directory in memory.glob(_prefix() + "*"):
        try:
            if directory == keep or directory.lstat().st_mtime > oldest:
                continue
            link = Path(os.fsdecode((directory / _ORIGIN).read_bytes()))
            if link.is_symlink() and link.resolve() == directory.resolve():
                continue
            if any(_is_written(page) for page in directory.glob("*.page")):
                continue
            shutil.rmtree(directory)
        except OSError:
            continue  # removed by another process, or unreadable: a few pages of memory stay in use


def _is_written(page: Path) -> bool:
    with page.open("rb") as file:
        return is_locked(file.fileno())

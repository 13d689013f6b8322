"""Where pages lie: in memory, under a name beside the gateway's other files.

A store into a mapped file on a disk's file system can stop the process for as long as the disk likes: the kernel write-protects
a page it is writing back, and the next store waits for it and for the journal. So `<var_dir>/pages` becomes a link into
/dev/shm unless it lies in memory anyhow; where there is no such place it is a plain directory, and `in_memory` says so.
What belongs to directories that are gone is swept when a new one is made. Never called on the hot path.
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
#: A directory without a link is swept only when this old: another process may be about to link it.
_SWEEP_AGE_S: Final = 60.0


def prepare(pages_dir: Path, *, memory: Path = SHARED_MEMORY) -> None:
    """Make `pages_dir` a directory, in memory if it can be. Does nothing where it is one already. Raises OSError."""
    if pages_dir.is_dir():
        return
    pages_dir.parent.mkdir(parents=True, exist_ok=True)
    origin = pages_dir.parent.resolve() / pages_dir.name
    target = None if in_memory(pages_dir.parent) else _private_dir(memory, origin)
    if target is None:
        pages_dir.mkdir(exist_ok=True)
        return
    if pages_dir.is_symlink():
        pages_dir.unlink(missing_ok=True)  # into memory that a reboot emptied
    else:
        _forget(target)
    with contextlib.suppress(FileExistsError):  # another process of ours was faster
        pages_dir.symlink_to(target)
    _sweep(memory, keep=target)


def discard(pages_dir: Path) -> None:
    """Remove `pages_dir` with all its pages, and what it links to if `prepare` made that. Raises OSError."""
    if pages_dir.is_symlink():
        target = pages_dir.resolve()
        pages_dir.unlink()
        if target.name.startswith(_prefix()):
            shutil.rmtree(target, ignore_errors=True)
    elif pages_dir.is_dir():
        shutil.rmtree(pages_dir)


def in_memory(directory: Path) -> bool:
    """Whether files in `directory` never reach a disk by themselves. False where the kernel does not say."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    # 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/root rw
    for line in mounts:
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0] in _MEMORY_TYPES
    return False


def _prefix() -> str:
    return f"submilli-{os.geteuid()}-"


def _private_dir(memory: Path, origin: Path) -> Path | None:
    """A directory of ours in `memory`; None where there is no such place or somebody else took the name."""
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


def _forget(target: Path) -> None:
    """Remove the pages that stood under this name before it was deleted: its counters are not ours to go on from."""
    for page in target.glob("*.page"):
        with contextlib.suppress(FileNotFoundError):  # another process of ours was faster
            if not _is_written(page):
                page.unlink()


def _sweep(memory: Path, *, keep: Path) -> None:
    """Remove directories of ours whose link is gone and that nobody writes."""
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
            continue  # swept by another process, or not ours to read: it costs a few pages of memory


def _is_written(page: Path) -> bool:
    with page.open("rb") as file:
        return is_locked(file.fileno())

"""Variants of a worker's process: kernel and interpreter settings."""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Final

from tests.bench.variants.seam import NotHereError, swap

_PR_SET_TIMERSLACK: Final = 29
_SLACK_NS: Final = 1000
#: MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT: touched pages stay; thread stacks are not filled in advance.
_MCL: Final = 1 | 2 | 4


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*(ctypes.c_ulong(value) for value in arguments)) != 0:
        raise NotHereError(f"{name}: {os.strerror(ctypes.get_errno())}")


def timer_slack() -> None:
    _call("prctl", _PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)


def locked_memory() -> None:
    _call("mlockall", _MCL)


def round_robin() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError as error:
        raise NotHereError(f"SCHED_RR: {error.strerror}; it needs CAP_SYS_NICE or RLIMIT_RTPRIO") from None


def often_gc() -> None:
    """Collect the young generation every 4000 new objects, the middle one every third time."""
    of_python = gc.set_threshold
    swap(gc, "set_threshold", lambda *_: of_python(4000, 2, 1 << 30))


def default_gc() -> None:
    """Freeze nothing and keep Python's thresholds."""
    swap(gc, "freeze", lambda: None)
    swap(gc, "set_threshold", lambda *_: None)

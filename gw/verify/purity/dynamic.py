"""Dynamic part of `verify purity`: runs the rig and real calls under watch.

Reports any operation of TX or the media plane that is not allowed, any function whose running code differs from its source, and
operations of the source that no run reached.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, Final

from gw import ROOT
from gw.verify.purity.check import Static
from gw.verify.purity.rig import Rig, RigError
from gw.verify.purity.watch import Watch

#: Modules that a media worker must not load: the import contract's list, checked in a real process. A worker loads only the part
#: of the twilio package that builds TwiML.
NOT_IN_A_WORKER: Final = (
    *("twilio.rest", "twilio.http", "requests"),
    *("pymysql", "sqlalchemy", "alembic", "sqlite3"),
    *("prometheus_client", "click", "rich", "matplotlib"),
)
_WORKER_S: Final = 30.0


@dataclass
class Watched:
    """Results of watched runs. `offences` include stacks; `unseen` lists operations that no run reached."""

    calls: Counter[str] = field(default_factory=Counter)
    lines: Counter[tuple[str, int]] = field(default_factory=Counter)
    offences: list[str] = field(default_factory=list)  # of TX
    ring_2: list[str] = field(default_factory=list)  # of the rest of the media plane
    unseen: list[str] = field(default_factory=list)
    excused: Counter[tuple[str, str]] = field(default_factory=Counter)
    switches: int = 0
    phone_calls: int = 0
    frames: int = 0
    barge_ins: int = 0
    seconds: float = 0.0


def watch(static: Static, parts: Any = None) -> Watched:
    """Drive TX alone through all its branches, with `parts` in place of the real classes."""
    seen = Watched()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        watching = Watch(_codes(static), static.functions)
        rig = Rig(Path(folder), parts) if parts is not None else Rig(Path(folder))
        with watching:
            try:
                rig.run()
            except RigError as error:
                seen.offences.append(f"the rig: {error}{f': {error.__cause__!r}' if error.__cause__ else ''}")
    _take(seen, watching)
    seen.seconds = time.monotonic() - began_s
    return seen


def watch_calls(static: Static) -> Watched:
    """Run the rig, then real calls."""
    from gw.verify.purity.live_calls import World

    seen = watch(static)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder, World(Path(folder)) as world:
        watching = Watch(_codes(static), static.functions, connects=world.connects)
        with watching:
            calls = world.call()
    _take(seen, watching)
    seen.phone_calls = len(calls)
    seen.frames = sum(len(call.player.arrivals) for call in calls)
    seen.barge_ins = sum(len(call.clears) for call in calls)
    for call in calls:
        if call.error:
            seen.offences.append(f"a call failed: {call.error}")
    if not seen.barge_ins:
        seen.offences.append("no caller interrupted the agent, so the run covers too little")
    seen.ring_2 += _loaded_in_a_worker()
    seen.unseen = sorted(
        {f"{op.kind} {op.name}, {op.place}" for op in static.operations if not seen.lines[op.place.path, op.place.line]}
    )
    seen.seconds += time.monotonic() - began_s
    return seen


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _take(seen: Watched, watching: Watch) -> None:
    seen.calls += watching.calls
    seen.lines += watching.lines
    seen.switches += watching.switches
    seen.excused += watching.excused
    for offence in watching.offences.values():
        (seen.offences if offence.kind == "tx" else seen.ring_2).append(str(offence))


def _codes(static: Static) -> dict[str, CodeType]:
    """Code objects of all functions read, compiled from source, to compare with those that run."""
    found: dict[str, CodeType] = {}
    for module in {operation.place.path for operation in static.operations}:
        path = ROOT / module
        name = module.removesuffix(".py").replace("/", ".")
        for code in _nested(compile(path.read_text(), str(path), "exec", dont_inherit=True)):
            found[f"{name}.{code.co_qualname}"] = code
    return {name: code for name, code in found.items() if name in static.functions}


def _nested(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _nested(constant)


def _loaded_in_a_worker() -> list[str]:
    """Import a worker in a separate process and look for modules that are forbidden in it."""
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys, gw.media.worker\n"
        f"print(*[name for name in {NOT_IN_A_WORKER!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=_WORKER_S, check=False
    )
    if done.returncode:
        return [f"the worker's modules cannot be imported: {done.stderr.strip().splitlines()[-1:]}"]
    return [f"a worker imports {name}" for name in done.stdout.split()]

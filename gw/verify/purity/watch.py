"""Observes running greenlets: each call and line of TX, and each audit event of the media plane.

A tracer of greenlet switches installs the interpreter's profile and trace hooks only while TX runs. An audit hook receives open,
connect, import, thread start, subprocess and sqlite3. An operation that is not on the allow-list is recorded with its stack.
Direct calls from compiled code to compiled code are invisible here; the static part covers the entry to such code.

A process runs at most one watch at a time. The garbage collector is off meanwhile: it would run other objects' code in TX.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any, Final

import gevent
import greenlet

from gw import ROOT
from gw.verify.purity.allow_list import ALLOWED, RING_2_EXCUSED, Allowed

#: Audit events forbidden in the media plane: each blocks, or belongs to another process.
RING_2_FORBIDDEN: Final = (
    *("open", "import", "os.", "shutil.", "tempfile.", "fcntl.", "mmap.", "pty.", "ctypes.", "sqlite3."),
    *("subprocess.", "_thread.start_new_thread", "time.sleep"),
    *("urllib.", "http.", "socket.getaddrinfo", "socket.gethostbyname"),
)
#: Bounds on the frames kept of a stack, and on the offences kept of one kind.
STACK_FRAMES: Final = 12
MAX_OFFENCES: Final = 200


@dataclass
class Offence:
    """A forbidden operation, with the greenlet and the stack."""

    kind: str  # the greenlet's
    what: str
    stack: tuple[str, ...]
    times: int = 1

    def __str__(self) -> str:
        return f"{self.kind}: {self.what} ({self.times} times)\n" + "\n".join(f"      {line}" for line in self.stack)


class Watch:
    """Context manager that observes greenlets. `calls` and `lines` are those of TX, `offences` those of all."""

    _active: Watch | None = None
    _hooked = False

    def __init__(
        self,
        codes: dict[str, CodeType] | None = None,
        functions: Iterable[str] = (),
        allowed: Iterable[Allowed] = ALLOWED,
        connects: Callable[[str, Any], bool] = lambda kind, address: False,
    ) -> None:
        """`functions`: names of ring 1; `codes`: their compiled source; `connects`: kind of greenlet and address to True for
        a connection that the media plane may open."""
        self.calls: Counter[str] = Counter()
        self.lines: Counter[tuple[str, int]] = Counter()
        self.offences: dict[tuple[str, str], Offence] = {}
        self.excused: Counter[tuple[str, str]] = Counter()
        self.switches = 0
        self._functions = frozenset(functions)
        self._codes = codes or {}
        self._checked: set[CodeType] = set()
        self._connects = connects
        entries = [entry for entry in allowed if entry.kind == "call"]
        self._aliases = {entry.seen_as or entry.name: entry.name for entry in entries}
        self._known = self._functions | set(self._aliases.values()) | {name for entry in entries for name in entry.inside}
        self._paths: dict[str, str] = {}
        self._busy = False
        self._gc = False

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Watch:
        assert Watch._active is None, "another watch is active in this process"
        if not Watch._hooked:
            Watch._hooked = True
            sys.addaudithook(_on_audit)
        self._gc = gc.isenabled()
        gc.disable()
        Watch._active = self
        greenlet.settrace(self._on_switch)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._busy = True
        greenlet.settrace(None)
        sys.setprofile(None)
        sys.settrace(None)
        Watch._active = None
        if self._gc:
            gc.enable()

    # -- the hooks ----------------------------------------------------------------------------------------------------

    def _on_switch(self, event: str, sides: tuple[Any, Any]) -> None:
        self._busy = True
        if getattr(sides[1], "kind", None) == "tx":
            self.switches += 1
            sys.setprofile(self._on_profile)
            sys.settrace(self._on_trace)
        else:
            sys.setprofile(None)
            sys.settrace(None)
        self._busy = False

    def _on_profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("call", "c_call"):
            return
        self._busy = True
        if event == "c_call":
            name = canonical(arg)
        else:
            name = f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
            if name in self._functions:
                self._check_code(name, frame)
        name = self._aliases.get(name, name)
        self.calls[name] += 1
        if name not in self._known:
            self.offend("tx", f"calls {name}", frame)
        self._busy = False

    def _check_code(self, name: str, frame: FrameType) -> None:
        """Report a function whose running code differs from its source."""
        code = frame.f_code
        if code in self._checked:
            return
        self._checked.add(code)
        read = self._codes.get(name)
        if read is not None and (read.co_code, read.co_names, read.co_varnames) != (
            code.co_code,
            code.co_names,
            code.co_varnames,
        ):
            self.offend("tx", f"runs a {name} that differs from its source", frame)

    def _on_trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        self._busy = True
        path = self._path(frame)
        if path and event == "line":
            self.lines[path, frame.f_lineno] += 1
        self._busy = False
        return self._on_trace if path else None

    def _path(self, frame: FrameType) -> str:
        """Path of a project file relative to the root, or an empty string."""
        name = frame.f_code.co_filename
        if name not in self._paths:
            relative = name.removeprefix(f"{ROOT}/")
            self._paths[name] = relative if relative.startswith(("gw/", "metrics/")) and relative != name else ""
        return self._paths[name]

    def on_audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Handle an audit event; the running greenlet decides whether it is allowed."""
        if self._busy:
            return
        kind = getattr(gevent.getcurrent(), "kind", None)
        if kind is None:
            return
        self._busy = True
        if kind == "tx":
            self.offend(kind, f"raises the audit event {event}{_brief(arguments)}", sys._getframe(2))
        elif event == "socket.connect":
            if not self._connects(kind, arguments[1]):
                self.offend(kind, f"connects to {arguments[1]!r}", sys._getframe(2))
        elif event.startswith(RING_2_FORBIDDEN) and not self._excused(event, sys._getframe(2)):
            self.offend(kind, f"raises the audit event {event}{_brief(arguments)}", sys._getframe(2))
        self._busy = False

    def _excused(self, event: str, frame: FrameType) -> bool:
        where = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
        if any(excused.event == event and excused.where == where for excused in RING_2_EXCUSED):
            self.excused[event, where] += 1
            return True
        return False

    def offend(self, kind: str, what: str, frame: FrameType | None) -> None:
        known = self.offences.get((kind, what))
        if known is not None:
            known.times += 1
        elif len(self.offences) < MAX_OFFENCES:
            self.offences[kind, what] = Offence(kind, what, _stack(frame))


def _on_audit(event: str, arguments: tuple[Any, ...], *, of: type[Watch] = Watch) -> None:
    """The audit hook. It cannot be removed, so it must work during interpreter shutdown."""
    watch = of._active
    if watch is not None:
        watch.on_audit(event, arguments)


def _brief(arguments: tuple[Any, ...]) -> str:
    return f"({', '.join(repr(argument)[:60] for argument in arguments[:2])})"


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    lines: list[str] = []
    while frame is not None and len(lines) < STACK_FRAMES:
        code = frame.f_code
        lines.append(f"{code.co_filename.removeprefix(f'{ROOT}/')}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    return tuple(lines)


def canonical(called: Any) -> str:
    """Name of a compiled function, with its module or its class."""
    owner = called.__self__ if hasattr(called, "__self__") else None
    name = called.__name__
    if owner is None or isinstance(owner, ModuleType):
        module = called.__module__ or (owner.__name__ if owner is not None else "?")
        return f"{module}.{name}"
    for cls in (owner if isinstance(owner, type) else type(owner)).__mro__:
        if name in vars(cls):
            return f"{cls.__module__}.{cls.__qualname__}.{name}"
    return f"{type(owner).__module__}.{type(owner).__qualname__}.{name}"

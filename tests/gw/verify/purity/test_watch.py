"""gw.verify.purity.watch: mutants made at run time, invisible in the source, are caught with their stacks."""

from __future__ import annotations

import builtins
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket

from gw.media import tx
from gw.media.hub import clock
from gw.media.hub.greenlets import KindGreenlet
from gw.media.transport.plain import Transport
from gw.verify.purity import rig
from gw.verify.purity.check import Static, absent, read
from gw.verify.purity.dynamic import watch
from gw.verify.purity.watch import Watch

REAL = rig.PARTS
_real_len = len


@pytest.fixture(scope="module")
def static() -> Static:
    return read()


def parts(**changed: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(REAL), **changed})


def after(cls: Any, change: Callable[[Any], None]) -> Callable[..., Any]:
    """Make instances of `cls` with a change applied."""

    def make(*arguments: Any) -> Any:
        made = cls(*arguments)
        change(made)
        return made

    return make


def test_the_real_classes_use_exactly_the_allowed_operations(static: Static) -> None:
    seen = watch(static)
    assert seen.offences == []
    unseen = [operation for operation in static.operations if not seen.lines[operation.place.path, operation.place.line]]
    assert unseen == [], "the rig drives TX through every branch"
    assert set(static.functions) <= set(seen.calls)
    assert not any(absent(static, seen.calls).values())


# -- mutants of the running process ---------------------------------------------------------------------------------------


class SleepyClock(clock.Clock):
    """A clock that blocks the process."""

    __slots__ = ()

    def wait_until(self, deadline_s: float) -> None:
        time.sleep(0)


class TalkativeQueue(deque):  # type: ignore[type-arg]
    """A queue that logs."""

    def popleft(self) -> Any:
        logging.getLogger("of a mutant").debug("took one")
        return super().popleft()


class Generation(int):
    """A number whose comparison runs code."""

    def __ne__(self, other: object) -> bool:
        threading.get_ident()
        return int(self) != other

    __hash__ = int.__hash__


class Cell:
    """A view whose store runs code."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def __getitem__(self, place: int) -> float:
        return float(self.view[place])

    def __setitem__(self, place: int, value: float) -> None:
        self.view[place] = value


class Heavy(bytes):
    """Bytes whose length reads a file."""

    def __len__(self) -> int:
        with Path("/dev/null").open():
            return super().__len__()


class Raw:
    """A socket that opens another one before it sends."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def send(self, data: bytes) -> int:
        other = type(self._sock)(socket.AF_INET, socket.SOCK_DGRAM)
        other.connect(("127.0.0.1", 9))
        other.close()
        sent: int = self._sock.send(data)
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _counts_twice(self: Any, begun_s: float, sent_s: float, taken: bool) -> None:
    self.frames_sent += 1
    self.first_audio_sent = True


def _use_raw(transport: Any) -> None:
    transport._raw = Raw(transport._raw)


def _use_queue(made: Any) -> None:
    made.queue = TalkativeQueue()


def _use_generation(playout: Any) -> None:
    playout.generation = Generation(0)


def _observe_loudly(cells: Any) -> None:
    observe = cells.send.observe

    def observe_and_think(seconds: float) -> None:
        sorted((3, 1, 2))
        observe(seconds)

    cells.send.observe = observe_and_think


def _count_in_a_cell(cells: Any) -> None:
    view = Cell(cells.frames.view)

    def add(n: float = 1.0) -> None:
        view[cells.frames.base] += n

    cells.frames.add = add


RUNTIME = {
    "another clock": (parts(Clock=SleepyClock), "SleepyClock.wait_until"),
    "a queue that logs": (parts(Tx=after(REAL.Tx, _use_queue)), "TalkativeQueue.popleft"),
    "a generation that compares itself": (parts(Playout=after(REAL.Playout, _use_generation)), "Generation.__ne__"),
    "a cell replaced": (parts(TxCells=after(REAL.TxCells, _observe_loudly)), "calls builtins.sorted"),
    "a view that is no memory": (parts(TxCells=after(REAL.TxCells, _count_in_a_cell)), "Cell.__setitem__"),
    "data that opens a file": (parts(Ready=lambda n, data, audio: REAL.Ready(n, Heavy(data), audio)), "audit event open"),
    "a socket that connects": (parts(Transport=after(REAL.Transport, _use_raw)), "audit event socket.connect"),
}


@pytest.mark.parametrize("name", RUNTIME)
def test_a_replaced_class_is_caught(static: Static, name: str) -> None:
    given, expected = RUNTIME[name]
    offences = watch(static, given).offences
    assert any(expected in offence for offence in offences), offences
    found = next(offence for offence in offences if expected in offence)
    assert "gw/media/" in found, "the stack names TX"


def _noisy_len(thing: Any) -> int:
    return _real_len(thing)


def _noisy_clock() -> float:
    return time.monotonic()


def _loud(function: Any) -> Any:
    def called(*arguments: Any) -> Any:
        repr(arguments)
        return function(*arguments)

    return called


PATCHES: dict[str, tuple[Any, str, Any, str]] = {
    "a builtin": (builtins, "len", _noisy_len, "_noisy_len"),
    "the clock's reading": (tx, "monotonic", _noisy_clock, "_noisy_clock"),
    "what the clock sleeps by": (clock, "sleep", _loud(clock.sleep), "calls builtins.repr"),
    "a method": (tx.Tx, "_count", _loud(tx.Tx._count), "calls builtins.repr"),
    "a bucket search": (tx, "bisect_left", _loud(tx.bisect_left), "calls builtins.repr"),
}


@pytest.mark.parametrize("name", PATCHES)
def test_a_patched_function_is_caught(static: Static, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, instead, expected = PATCHES[name]
    monkeypatch.setattr(owner, attribute, instead)
    offences = watch(static).offences
    assert any(expected in offence for offence in offences), offences


def test_replaced_code_of_a_function_is_caught(static: Static, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _counts_twice.__code__.replace(co_qualname="Tx._count", co_name="_count")
    monkeypatch.setattr(tx.Tx._count, "__code__", other)
    offences = watch(static).offences
    assert any("runs a gw.media.tx.Tx._count that differs from its source" in offence for offence in offences), offences


# -- the watch itself -------------------------------------------------------------------------------------------------


@pytest.fixture
def transport() -> Iterator[Transport]:
    ours, theirs = socket.socketpair()
    made = Transport(ours, 1 << 16)
    yield made
    made.shut()
    theirs.close()


def run_as(kind: str, body: Callable[[], Any]) -> Watch:
    """Run a body in a greenlet of a kind, under watch."""
    with Watch() as watching:
        greenlet = KindGreenlet(kind, body)
        greenlet.start()
        greenlet.join(timeout=5)
    return watching


def test_a_media_greenlet_may_not_open_import_or_start(tmp_path: Path) -> None:
    def body() -> None:
        (tmp_path / "file").write_text("x")
        import this_module_is_not_there  # type: ignore[import-not-found]  # noqa: F401

    watching = run_as("ai_in", body)
    said = [str(offence) for offence in watching.offences.values()]
    assert any("audit event open" in one and "test_watch.py" in one for one in said), said
    assert any("audit event import('this_module_is_not_there'" in one for one in said), said


def test_only_the_connections_of_a_worker_may_be_made() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()

    def body() -> None:
        sock = socket.socket()
        sock.connect(address)
        sock.close()

    assert [offence.what for offence in run_as("rx", body).offences.values()] == [f"connects to {address!r}"]
    with Watch(connects=lambda kind, where: kind == "ai_in" and where == address) as watching:
        greenlet = KindGreenlet("ai_in", body)
        greenlet.start()
        greenlet.join()
    assert watching.offences == {}
    listener.close()


def test_other_greenlets_are_not_restricted(tmp_path: Path) -> None:
    with Watch() as watching:
        gevent.spawn((tmp_path / "file").write_text, "x").join()
    assert watching.offences == {}


def test_nothing_is_recorded_after_the_watch(tmp_path: Path) -> None:
    watching = run_as("rx", lambda: None)
    greenlet = KindGreenlet("rx", lambda: (tmp_path / "file").write_text("x"))
    greenlet.start()
    greenlet.join()
    assert watching.offences == {}


def test_a_repeated_offence_is_stored_once(transport: Transport) -> None:
    def body() -> None:
        for _ in range(1000):
            sorted((2, 1))

    watching = run_as("tx", body)
    times = {offence.what: offence.times for offence in watching.offences.values()}
    assert times["calls builtins.sorted"] == 1000

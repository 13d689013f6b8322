"""Allow-list of the TX loop: every permitted operation with its place, reason and cost.

`verify purity` reads the source from `ENTRY` on and compares every operation it reaches with this list; then it watches real
calls and compares every operation TX executed. Any other operation is forbidden. An entry without a use is refused too, so the
list stays current.

To add an operation
  1. Check that TX is the place. AI-out runs ahead of TX and may prepare anything; control may do anything that waits.
  2. Measure it: add a line to `tests/bench/operations/allow_list.py` and run that. An operation may be added if it never waits,
     makes no system call but the one send, takes no lock, cannot raise, and costs below LIMIT_NS at the median and below a tenth
     of a millisecond at the 99.9th percentile, on a 2-core VM.
  3. Add an entry with its kind, the functions that do it, its class, the reason, and the measured median. A function is entered
     like a leaf, with the cost of all it calls included.
  4. Run `gateway.py verify purity`, and add a mutant to `tests/gw/verify/purity/mutants.py` that does the same elsewhere.

Kinds: `call`, `write` (an attribute), `item` (an element), `load` (an attribute of a library's object), `operator`, `slice`,
`hand` (a callable passed on for the hub to call), `try`, `except`, `while`. No entry can allow any other construct: no `with`,
`import`, `raise`, `for`, comprehension, lambda, f-string, display, star-arguments, generator or `await`.

Costs are the medians of `tests/bench/operations/allow_list.py` on the machine of tests/bench/README.md; 0: part of its statement.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

#: Everything reachable from here is checked.
ENTRY: Final = "gw.media.tx.Tx.run"
#: Largest median cost of an operation: fifty such operations stay within a millisecond.
LIMIT_NS: Final = 20_000
KINDS: Final = frozenset({"call", "write", "item", "load", "operator", "slice", "hand", "try", "except", "while"})

Class = Literal["queue", "send", "sleep", "clock", "counter", "flag"]


class Allowed(NamedTuple):
    """One permitted operation.

    `where`: qualified names of the only functions that may do it. `returns`: the type a leaf returns. `inside`: calls that a
    library makes for it, as a watcher of the interpreter sees them.
    """

    kind: str
    name: str
    where: tuple[str, ...]
    cls: Class
    why: str
    cost_ns: int
    returns: str | None = None
    inside: tuple[str, ...] = ()
    seen_as: str = ""  # the interpreter's name for it, where that is another


_RUN, _PAUSE, _COUNT = "Tx.run", "Tx._pause", "Tx._count"
_DEADLINE, _SENT, _BEGIN, _STARVED, _HELD, _MARK = (
    f"Pacer.{name}" for name in ("deadline", "on_sent", "_begin", "on_starved", "on_held", "on_mark")
)
_ADD, _OBSERVE = "CounterCell.__init__.<locals>.add", "HistogramCell.__init__.<locals>.observe"
_WAIT = "Clock.wait_until"
_WRITE, _KEEP, _FAIL, _WAKE = (f"Transport.{name}" for name in ("write", "_keep", "fail", "wake"))
_TRANSPORT, _PACER = "gw.media.transport.plain.Transport", "gw.call.audio.pacer.Pacer"
_TIMEOUT: Final = tuple(
    f"gevent.timeout.Timeout.{name}"
    for name in ("_start_new_or_dummy", "start_new", "__init__", "start", "pending", "__enter__", "__exit__", "close")
)

ALLOWED: Final[tuple[Allowed, ...]] = (
    # -- the loop and its queue
    Allowed("while", "gw.media.tx.Tx.run", (_RUN,), "queue", "one turn a message; ends on `stopped` or a broken transport", 0),
    Allowed(
        "call", "collections.deque.popleft", (_RUN,), "queue", "takes the next ready message; the queue is not empty", 15, "item"
    ),
    Allowed("call", "gevent.event.Event.clear", (_RUN,), "queue", "an empty queue: clear the last wake", 15, "builtins.None"),
    Allowed(
        "call",
        "gevent.event.Event.wait",
        (_RUN, _PAUSE),
        "sleep",
        "an empty queue: sleep until AI-out puts; held: until the release; a second at most",
        7900,
        "builtins.bool",
        (*_TIMEOUT, "builtins.isinstance", "greenlet._greenlet.getcurrent"),
    ),
    # -- a hold
    Allowed("call", "gw.media.tx.Tx._pause", (_RUN,), "sleep", "an interruption is being judged: wait for the release", 250),
    Allowed("while", "gw.media.tx.Tx._pause", (_PAUSE,), "sleep", "one turn a second; ends on `held` or `stopped`", 0),
    # -- the clock
    Allowed("call", "time.monotonic", (_RUN, _PAUSE, _WAIT), "clock", "reads the clock, in the vDSO", 38, "builtins.float"),
    Allowed("call", "gw.media.hub.clock.Clock.wait_until", (_RUN,), "sleep", "waits until the frame is due", 2600),
    Allowed(
        "call",
        "gevent.sleep",
        (_WAIT,),
        "sleep",
        "lets the hub run every other greenlet until the deadline",
        2400,
        "builtins.None",
        seen_as="gevent.hub.sleep",
    ),
    Allowed("call", f"{_PACER}.deadline", (_RUN,), "clock", "when the next frame is due", 63),
    Allowed("call", f"{_PACER}.on_sent", (_COUNT,), "clock", "a frame left: its lateness, the run's count", 110),
    Allowed("call", f"{_PACER}._begin", (_DEADLINE, _SENT, _HELD), "clock", "a talkspurt begins, or a gap was heard", 62),
    Allowed("call", f"{_PACER}.on_starved", (_RUN,), "clock", "nothing before now was lateness", 26),
    Allowed("call", f"{_PACER}.on_held", (_PAUSE,), "clock", "a held frame leaves: its pause is not lateness", 65),
    Allowed("call", f"{_PACER}.on_mark", (_RUN,), "clock", "a response ended", 23),
    Allowed("write", f"{_PACER}._mark_sent", (_DEADLINE, _MARK), "flag", "a pause from here on is not an underrun", 7),
    Allowed("write", f"{_PACER}._open", (_BEGIN,), "flag", "this generation has a run", 7),
    Allowed("write", f"{_PACER}._origin_s", (_BEGIN, _SENT), "clock", "when the run's first frame left", 7),
    Allowed("write", f"{_PACER}._floor_s", (_BEGIN, _STARVED, _HELD), "clock", "no frame was due before", 7),
    Allowed("write", f"{_PACER}._previous_origin_s", (_BEGIN,), "clock", "the previous run", 7),
    Allowed("write", f"{_PACER}._previous_n", (_BEGIN,), "counter", "the previous run", 7),
    Allowed("write", f"{_PACER}._first", (_BEGIN,), "counter", "frames before this run", 7),
    Allowed("write", f"{_PACER}._n", (_BEGIN, _SENT), "counter", "frames of this run", 7),
    Allowed("write", f"{_PACER}.underrun_s", (_SENT,), "counter", "what the caller heard as a gap", 7),
    Allowed("write", f"{_PACER}.ai_underrun_s", (_SENT,), "counter", "the part of it for which the AI sent nothing", 7),
    Allowed("write", f"{_PACER}._dry_s", (_STARVED,), "clock", "no audio of the AI was there before", 7),
    Allowed("write", f"{_PACER}.held_s", (_HELD,), "counter", "what the caller heard of a pause", 7),
    Allowed("write", f"{_PACER}.moves", (_SENT,), "counter", "how many gaps", 7),
    # -- the send
    Allowed("call", f"{_TRANSPORT}.write", (_RUN,), "send", "one non-blocking send; the rest is kept for the hub", 1200),
    Allowed("try", f"{_TRANSPORT}.write", (_WRITE,), "send", "the kernel's answer to a send is an exception", 0),
    Allowed("except", f"{_TRANSPORT}.write BlockingIOError", (_WRITE,), "send", "the kernel's buffer is full", 0),
    Allowed("except", f"{_TRANSPORT}.write OSError", (_WRITE,), "send", "the peer is gone", 0),
    Allowed(
        "call", "_socket.socket.send", (_WRITE,), "send", "the one system call; the socket never blocks", 1100, "builtins.int"
    ),
    Allowed("call", "builtins.len", (_WRITE, _KEEP), "send", "whether the kernel took it all; the bound", 19, "builtins.int"),
    Allowed("slice", f"builtins.bytes in {_TRANSPORT}.write", (_WRITE,), "send", "what the kernel did not take", 37),
    Allowed("call", f"{_TRANSPORT}._keep", (_WRITE,), "send", "a full kernel buffer: bytes wait for the hub, bounded", 110),
    Allowed("write", f"{_TRANSPORT}._buffer", (_KEEP,), "send", "the bytes that wait", 7),
    Allowed("operator", "builtins.bytearray add in place", (_KEEP,), "send", "the bytes that wait", 75),
    Allowed("call", "gevent._types._IoWatcher.start", (_KEEP,), "send", "the hub is to flush when the socket is writable", 24),
    Allowed("hand", f"{_TRANSPORT}._flush to gevent._types._IoWatcher.start", (_KEEP,), "send", "the hub runs it, not TX", 27),
    # -- a transport that breaks
    Allowed(
        "load", "builtins.OSError.strerror", (_WRITE,), "send", "why, as the kernel put it", 19, "builtins.str|builtins.None"
    ),
    Allowed("call", f"{_TRANSPORT}.fail", (_WRITE, _KEEP), "flag", "the transport is broken or stalled, once a call", 160),
    Allowed("write", f"{_TRANSPORT}.failure", (_FAIL,), "flag", "the reader sees it and ends the call", 7),
    Allowed("write", f"{_TRANSPORT}._detail", (_FAIL,), "flag", "the same in the kernel's words", 7),
    Allowed(
        "call",
        "builtins.bytearray.clear",
        (_FAIL,),
        "send",
        "nothing more leaves through a broken transport",
        11,
        "builtins.None",
    ),
    Allowed("call", "gevent._types._IoWatcher.stop", (_FAIL,), "send", "the hub flushes it no more", 21, "builtins.None"),
    Allowed("call", f"{_TRANSPORT}.wake", (_FAIL,), "flag", "its reader is to look", 88),
    Allowed("write", f"{_TRANSPORT}._woken", (_WAKE,), "flag", "the next read returns immediately", 7),
    Allowed("load", "gevent.hub.Waiter.switch", (_WAKE,), "flag", "how the hub resumes the reader", 31),
    Allowed("call", "gevent._types._Loop.run_callback", (_WAKE,), "flag", "the hub resumes the reader at its next turn", 44),
    Allowed(
        "hand", "gevent.hub.Waiter.switch to gevent._types._Loop.run_callback", (_WAKE,), "flag", "the hub runs it, not TX", 0
    ),
    # -- what is counted
    Allowed("call", "gw.media.tx.Tx._count", (_RUN,), "counter", "one frame sent: duration and lateness", 910),
    Allowed("write", "gw.media.tx.Tx.frames_sent", (_COUNT,), "counter", "the call's frames", 7),
    Allowed("call", f"metrics.page.{_ADD}", (_COUNT, _PAUSE), "counter", "the worker's frames and gaps, in shared memory", 61),
    Allowed("call", f"metrics.page.{_OBSERVE}", (_COUNT,), "counter", "the worker's histograms, in shared memory", 160),
    Allowed("item", "builtins.memoryview", (_ADD, _OBSERVE), "counter", "a cell of the shared page", 41),
    Allowed(
        "call",
        "bisect.bisect_left",
        (_COUNT, _OBSERVE),
        "counter",
        "the bucket of 42 a duration falls into",
        64,
        "builtins.int",
        seen_as="_bisect.bisect_left",
    ),
    Allowed("item", "builtins.list", (_COUNT,), "counter", "the call's own buckets", 21),
    Allowed("write", "gw.call.quality.LatencyCounts.max_s", (_COUNT,), "counter", "the longest so far", 7),
    # -- the flag
    Allowed("write", "gw.media.tx.Tx.first_audio_s", (_COUNT,), "flag", "when the first frame left, before the flag is set", 7),
    Allowed("write", "gw.media.tx.Tx.first_audio_sent", (_COUNT,), "flag", "AI-out shows it to the recording guard", 7),
)

#: Operations that TX must be unable to do, by the prefixes of their names in calls, writes, except clauses and audit events.
FORBIDDEN: Final[dict[str, tuple[str, ...]]] = {
    what: tuple(prefixes.split())
    for what, prefixes in {
        "thread starts": "threading. _thread. concurrent. multiprocessing. gevent.threadpool. gevent.get_hub.threadpool",
        "greenlet starts": "gevent.spawn gevent.Greenlet gevent.pool. gevent.greenlet. gw.media.hub.greenlets. greenlet.greenlet",
        "recording calls": (
            "gw.control.recording.recorder gw.control.recording.service gw.bus.StartRecording gw.call.guard. twilio."
        ),
        "database": "sqlite3. _sqlite3. pymysql. sqlalchemy. alembic. gw.control.store gw.control.spool",
        "REST and HTTP clients": "http. urllib. requests. twilio. gw.control.twilio_api.rest websockets.",
        "network beyond the one send": "socket. _socket.getaddrinfo _socket.socket.connect _socket.socket.recv ssl. _ssl.",
        "stack dumps": "traceback. faulthandler. inspect. sys._getframe sys._current_frames gevent.util.print_run_info",
        "queue flush": (
            "collections.deque.clear gw.media.tx.Tx.discard gw.call.audio.playout.Playout.clear gw.call.audio.playout.Playout.pop"
        ),
        "session close": (
            "gw.media.session. gw.media.call. gw.media.call_ending. gw.media.transport.plain.Transport.shut "
            "_socket.socket.close _socket.socket.shutdown"
        ),
        "logging": "logging. gw.logs gw.logs.lines builtins.print warnings. sys.stdout sys.stderr",
        "JSON": "json. _json. msgspec.",
        "base64": "base64. binascii.",
        "locks": "_thread.lock _thread.RLock threading.Lock gevent.lock. gevent._gevent_c_semaphore. queue. gevent.queue.",
        "file access": "builtins.open open io. _io. os. posix. pathlib. shutil. tempfile. mmap.",
        "processes": "subprocess. _posixsubprocess. signal.",
        "imports": "import importlib. builtins.__import__",
        "sleeping beside the clock": "time.sleep select. gevent.select. gevent.idle gevent.joinall gevent.wait",
    }.items()
}


class Excused(NamedTuple):
    """Exception for the media plane outside TX: an event its ring forbids, the place, and the reason."""

    event: str
    where: str
    why: str


#: Ring 2 has no allow-list, only exceptions: places where a worker could wait, with the bound.
RING_2_EXCUSED: Final = (
    Excused(
        "fcntl.lockf",
        "gw.media.admission.shared_lock._lockf",
        "two workers must not take one token or slot; the call never waits, but fails while the lock is held",
    ),
)

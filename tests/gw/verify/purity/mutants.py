"""Mutants of the TX loop and the code it calls, as edits of source text.

No mutant is executed. Each has a name and a text that a problem reported by the check must contain.
"""

from __future__ import annotations

from typing import NamedTuple

TX, PLAIN, CLOCK, PACER, PLAYOUT = (
    "gw/media/tx.py",
    "gw/media/transport/plain.py",
    "gw/media/hub/clock.py",
    "gw/call/audio/pacer.py",
    "gw/call/audio/playout.py",
)
REPORT, PAGE, DOWNLINK = "gw/call/quality.py", "metrics/page.py", "gw/media/downlink.py"
_TRANSPORT = "gw.media.transport.plain.Transport"

_RUN = "            begun_s = monotonic()\n"
_COUNT = "        self.frames_sent += 1\n"
_IMPORT = "from __future__ import annotations\n"
_DEF = "    def _count(self, begun_s: float"
_CLASS = "class Tx:\n"
_ADD = (
    "        self.add = add\n\n    @property\n    def value(self) -> float:\n"
    "        return self.view[self.base]\n\n\nclass GaugeCell"
)
_EXACT = "class Exact(Clock):\n    def wait_until(self, deadline_s: float) -> None:\n        time.sleep(deadline_s)\n\n\n"


class Mutant(NamedTuple):
    """`edits`: path, text, replacement. `expected`: text that a reported problem contains."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    expected: str


def _in(path: str, anchor: str, line: str, expected: str, name: str, *imports: str) -> Mutant:
    """Insert a line before the anchor, with the same indentation."""
    indent = anchor[: len(anchor) - len(anchor.lstrip())]
    added = "".join(f"{indent}{part}\n" for part in line.split("\n"))
    edits = [(path, anchor, added + anchor)]
    if imports:
        edits.append((path, _IMPORT, _IMPORT + "".join(f"{one}\n" for one in imports)))
    return Mutant(name, tuple(edits), expected)


def run(name: str, line: str, expected: str, *imports: str) -> Mutant:
    """Insert a line in the loop, before the send."""
    return _in(TX, _RUN, line, expected, name, *imports)


def count(name: str, line: str, expected: str, *imports: str) -> Mutant:
    """Insert a line where a frame is counted."""
    return _in(TX, _COUNT, line, expected, name, *imports)


def edit(name: str, expected: str, *edits: tuple[str, str, str]) -> Mutant:
    return Mutant(name, edits, expected)


MUTANTS: tuple[Mutant, ...] = (
    # -- plausible mistakes
    run("a thread start", "threading.Thread(target=self.stop).start()", "call threading.Thread", "import threading"),
    run("a greenlet", "gevent.spawn(self.stop)", "call gevent.spawn", "import gevent"),
    run("an HTTP request", "urlopen('http://127.0.0.1:9')", "call urllib.request.urlopen", "from urllib.request import urlopen"),
    run("a print", "print(len(queue))", "call builtins.print"),
    run(
        "a log line",
        "log.debug('sent')",
        "of gw/media/tx.py has no readable type",
        "import logging",
        "log = logging.getLogger(__name__)",
    ),
    run("a log line of the library", "logging.info('sent')", "call logging.info", "import logging"),
    run("a lock", "with LOCK:\n    pass", "with can never be allowed", "from threading import Lock", "LOCK = Lock()"),
    run(
        "a lock taken",
        "LOCK.acquire()",
        "LOCK = Lock() of gw/media/tx.py has no readable type",
        "from threading import Lock",
        "LOCK = Lock()",
    ),
    run("JSON", "data = json.dumps({}).encode()", "call json.dumps", "import json"),
    run("base64", "data = b64encode(data)", "call base64.b64encode", "from base64 import b64encode"),
    run("a lazy import", "import json", "import can never be allowed"),
    run("frames built by a comprehension", "data = b''.join([data for _ in range(1)])", "comprehension can never be allowed"),
    run("frames built by a generator", "data = b''.join(data for _ in range(1))", "generator can never be allowed"),
    run("the queue flushed", "queue.clear()", "call collections.deque.clear"),
    run("the queue flushed by its owner", "self.discard()", "call gw.media.tx.Tx.discard"),
    run("a message put back", "queue.appendleft(queue[0])", "call collections.deque.appendleft"),
    run("the session closed", "transport.shut()", "call gw.media.transport.plain.Transport.shut"),
    run("a stack dump", "traceback.print_stack()", "call traceback.print_stack", "import traceback"),
    run("the database", "sqlite3.connect('calls.db')", "call sqlite3.connect", "import sqlite3"),
    run("a file", "open('/dev/null')", "call builtins.open"),
    run("a file by another name", "Path('/dev/null').read_bytes()", "call pathlib.Path", "from pathlib import Path"),
    run("a system call", "os.write(2, data)", "call os.write", "import os"),
    run("a process", "subprocess.run(['true'])", "call subprocess.run", "import subprocess"),
    run("a sleep beside the clock", "time.sleep(0.001)", "call time.sleep", "import time"),
    run("gevent's sleep, in the loop", "gevent.sleep(0)", "call gevent.sleep is allowed elsewhere", "import gevent"),
    run(
        "a switch to the hub, in the loop",
        "gevent.get_hub().switch()",
        "call gevent.get_hub is not on the allow-list",
        "import gevent",
    ),
    run("a second send", "transport.write(data)\nself._count(0.0, 0.0, True)\nself.put(queue[0])", "call gw.media.tx.Tx.put"),
    count(
        "a send from the counters",
        "self._transport.write(b'')",
        f"call {_TRANSPORT}.write is allowed elsewhere",
    ),
    count("a hold elsewhere", "self._pause(True)", "call gw.media.tx.Tx._pause is allowed elsewhere"),
    count("a wait for the release elsewhere", "self._released.wait(1.0)", "call gevent.event.Event.wait is allowed elsewhere"),
    run(
        "the recording started",
        "RecordingGuard(enabled=True)",
        "call gw.call.guard.RecordingGuard",
        "from gw.call.guard import RecordingGuard",
    ),
    run("garbage collected", "gc.collect()", "call gc.collect", "import gc"),
    run("the wall clock", "time.time()", "call time.time", "import time"),
    run("code from text", "exec('pass')", "call builtins.exec"),
    # -- constructs
    count("a try", "try:\n    pass\nfinally:\n    pass", "try gw.media.tx.Tx._count is not on the allow-list"),
    count("a with", "with self._transport:\n    pass", "with can never be allowed"),
    count("an f-string", "f'{begun_s}'", "f-string can never be allowed"),
    count("a dict", "{'begun': begun_s}", "build can never be allowed"),
    count("a list", "[begun_s]", "build can never be allowed"),
    count("a tuple kept", "self.first_audio_s = (begun_s, sent_s)[0]", "build can never be allowed"),
    count("a lambda", "(lambda: begun_s)()", "lambda can never be allowed"),
    count("a closure", "def late() -> float:\n    return begun_s\nlate()", "def can never be allowed"),
    count("star-arguments", "self._pacer.on_sent(*(sent_s,))", "star-args can never be allowed"),
    count("keywords unpacked", "self._pacer.on_sent(**{'now_s': sent_s})", "star-args can never be allowed"),
    count("a loop over the queue", "for _ in self.queue:\n    pass", "for can never be allowed"),
    count("an endless loop", "while taken:\n    pass", "while gw.media.tx.Tx._count is not on the allow-list"),
    count("an assertion", "assert taken", "assert can never be allowed"),
    count("an exception", "raise ValueError('late')", "raise can never be allowed"),
    count("a generator", "yield begun_s", "yield can never be allowed"),
    count("a deletion", "del self.queue[0]", "del can never be allowed"),
    count("a walrus", "(n := self.frames_sent)", "walrus can never be allowed"),
    count("a match", "match begun_s:\n    case _: pass", "match can never be allowed"),
    count("a global", "global TALLY\nTALLY = 1", "global can never be allowed", "TALLY = 0"),
    count("text formatted", "'%s' % begun_s", "operator builtins.str mod is not on the allow-list"),
    count("a search", "if self.frames_sent in self.send.counts:\n    pass", "comparing in"),
    count("an attribute nobody listed", "self.stopped = True", "write gw.media.tx.Tx.stopped is not on the allow-list"),
    count(
        "an attribute of another",
        "self._transport.failure = ''",
        f"write {_TRANSPORT}.failure is allowed elsewhere",
    ),
    count("an attribute of a library's object", "self._ready.tag = 1", "write gevent.event.Event.tag is not on the allow-list"),
    edit("a coroutine", "async can never be allowed", (TX, _DEF, _DEF.replace("def", "async def"))),
    # -- calls that hide what they call
    run("a call through getattr", "getattr(transport, 'write')(data)", "call builtins.getattr"),
    run("a call through a subscript", "(transport.write,)[0](data)", "build can never be allowed"),
    edit(
        "a callback in an attribute",
        "is a callable without a known value",
        (TX, "        self._ready = Event()\n", "        self._ready = Event()\n        self._told = told\n"),
        (TX, "clock: Clock, cells: TxCells) -> None:", "clock: Clock, cells: TxCells, told: Callable[[], None]) -> None:"),
        (TX, "from collections import deque\n", "from collections import deque\nfrom collections.abc import Callable\n"),
        (TX, _COUNT, "        self._told()\n" + _COUNT),
    ),
    edit(
        "a property with a side effect",
        "call gw.media.tx.Tx.depth",
        (TX, _DEF, "    @property\n    def depth(self) -> int:\n        print('looked')\n        return 1\n\n" + _DEF),
        (TX, _COUNT, "        self.depth\n" + _COUNT),
    ),
    edit(
        "a decorated helper",
        "Tx._count is decorated by cache",
        (TX, _DEF, "    @cache\n" + _DEF),
        (TX, _IMPORT, _IMPORT + "from functools import cache\n"),
    ),
    edit(
        "a decorated class",
        "is decorated: the running class",
        (PACER, "class Pacer:\n", "@traced\nclass Pacer:\n"),
        (PACER, _IMPORT, _IMPORT + "from functools import cache as traced\n"),
    ),
    edit("a metaclass", "has a metaclass", (TX, _CLASS, "class Tx(metaclass=type):\n")),
    edit(
        "a base from outside",
        "inherits from threading.Thread",
        (TX, _CLASS, "class Tx(Thread):\n"),
        (TX, _IMPORT, _IMPORT + "from threading import Thread\n"),
    ),
    edit(
        "writes that run code",
        "__setattr__",
        (TX, _DEF, "    def __setattr__(self, name: str, value: object) -> None:\n        print(name)\n\n" + _DEF),
    ),
    edit(
        "loads that run code",
        "has __getattr__",
        (PLAIN, "    def _keep(self", "    def __getattr__(self, name: str) -> str:\n        return name\n\n    def _keep(self"),
    ),
    edit(
        "a truth that runs code",
        "runs code of gw.media.transport.plain.Transport",
        (PLAIN, "    def _keep(self", "    def __bool__(self) -> bool:\n        return True\n\n    def _keep(self"),
        (TX, "if not taken and transport.failure:", "if not taken and transport:"),
    ),
    edit(
        "a generation that is computed",
        "assigns self.generation, which is a method",
        (
            PLAYOUT,
            "    def end_open_response(self)",
            "    @property\n    def generation(self) -> int:\n        return 1\n\n    def end_open_response(self)",
        ),
    ),
    edit(
        "a descriptor",
        "may be a descriptor",
        (TX, _DEF, "    first_audio_s = Slow()\n\n" + _DEF),
        (TX, "        self.first_audio_s = 0.0\n", ""),
        (TX, _COUNT, "        if self.first_audio_s:\n            pass\n" + _COUNT),
    ),
    edit(
        "a function defined twice",
        "is defined 2 times",
        (PACER, "    def on_mark(self)", "    def on_mark(self) -> None:\n        print()\n\n    def on_mark(self)"),
    ),
    edit(
        "a recursion",
        "can call itself",
        (PLAIN, "            self._detail = detail\n", '            self._detail = detail\n            self._keep(b"")\n'),
    ),
    edit(
        "another kind of event",
        "call threading.Event.wait",
        (TX, "from gevent.event import Event\n", "from threading import Event\n"),
    ),
    edit("a patched clock", "monotonic is bound more than once", (TX, _CLASS, "monotonic = slow(monotonic)\n\n\n" + _CLASS)),
    edit(
        "a patched builtin",
        "len = slow(len) of gw/media/transport/plain.py",
        (PLAIN, "@final\n", "len = slow(len)\n\n\n@final\n"),
    ),
    edit(
        "a global that changes",
        "IDLE_S is bound more than once",
        (
            TX,
            "    def discard(self)",
            "    def slower(self) -> None:\n        global IDLE_S\n        IDLE_S = 2.0\n\n    def discard(self)",
        ),
        (TX, _RUN, "            clock.wait_until(IDLE_S)\n" + _RUN),
    ),
    edit(
        "a subclass that sleeps",
        "call time.sleep",
        (CLOCK, "class Clock:", "class Precise:\n    pass\n\n\nclass Clock:"),
        (
            DOWNLINK,
            "class Downlink:\n",
            _EXACT + "class Downlink:\n",
        ),
        (
            DOWNLINK,
            "from gw.media.transport.plain import Transport\n",
            "import time\nfrom gw.media.hub.clock import Clock\nfrom gw.media.transport.plain import Transport\n",
        ),
    ),
    edit(
        "a method replaced from outside",
        "something is assigned to ._count from outside",
        (
            DOWNLINK,
            "        self.interruptions = 0\n",
            "        self.interruptions = 0\n        self.tx._count = self.note\n",
        ),
    ),
    edit(
        "a method replaced by name",
        "something is assigned to .deadline from outside",
        (
            DOWNLINK,
            "        self.interruptions = 0\n",
            "        self.interruptions = 0\n        setattr(self.pacer, 'deadline', self.note)\n",
        ),
    ),
    edit(
        "a cell that does more",
        "call json.dumps",
        (
            PAGE,
            "            view[sum_index] += seconds\n",
            "            view[sum_index] += seconds\n            json.dumps(seconds)\n",
        ),
        (PAGE, _IMPORT, _IMPORT + "import json\n"),
    ),
    edit(
        "a cell with another default",
        "is not a plain name",
        (PAGE, "int] = bisect_left) -> None:", "int] = partial(bisect_left)) -> None:"),
        (PAGE, _IMPORT, _IMPORT + "from functools import partial\n"),
    ),
    edit(
        "a cell that is a lambda",
        "is not followed",
        (
            PAGE,
            _ADD,
            _ADD.replace("= add\n", "= lambda n=1.0: None\n"),
        ),
    ),
    edit(
        "a send that waits",
        "gevent.socket.socket.send",
        (
            PLAIN,
            "            sent: int = self._raw.send(data)\n        except BlockingIOError:\n            sent = 0",
            "            sent: int = self._socket.send(data)\n        except BlockingIOError:\n            sent = 0",
        ),
    ),
    edit(
        "a send that takes its time",
        "call _socket.socket.sendall",
        (
            PLAIN,
            "            sent: int = self._raw.send(data)\n        except BlockingIOError:\n            sent = 0",
            "            sent: int = self._raw.sendall(data)\n        except BlockingIOError:\n            sent = 0",
        ),
    ),
    edit(
        "a transport of any type",
        "allows any type",
        (TX, "self, transport: Transport, pacer", "self, transport: Any, pacer"),
        (TX, _IMPORT, _IMPORT + "from typing import Any\n"),
    ),
    edit(
        "a transport without a type",
        "the annotation is missing",
        (TX, "self, transport: Transport, pacer", "self, transport, pacer"),
    ),
    edit(
        "an exception from elsewhere",
        "does not name a builtin exception",
        (PLAIN, "        except BlockingIOError:\n            sent = 0", "        except Refused:\n            sent = 0"),
        (PLAIN, _IMPORT, _IMPORT + "from ssl import SSLError as Refused\n"),
    ),
    # -- other things in the place of what is read
    edit(
        "a method hidden by its own object",
        "assigns self._count, which is a method",
        (TX, "        self.stopped = False\n", "        self.stopped = False\n        self._count = print\n"),
    ),
    edit(
        "a method hidden by its class",
        "Tx._count is defined 2 times",
        (TX, "    def discard(self)", "    _count = print\n\n    def discard(self)"),
    ),
    edit(
        "a method bound in a branch",
        "is bound by the class in a way the evaluator does not follow",
        (
            CLOCK,
            "    def wait_until",
            "    if True:\n\n        def now(self) -> float:\n            return monotonic()\n\n    def wait_until",
        ),
        (CLOCK, "        delay_s = deadline_s", "        self.now()\n        delay_s = deadline_s"),
    ),
    edit(
        "a method replaced past its own hooks",
        "something is assigned to .on_sent from outside",
        (
            DOWNLINK,
            "        self.interruptions = 0\n",
            "        object.__setattr__(self.pacer, 'on_sent', self.note)\n        self.interruptions = 0\n",
        ),
    ),
    edit(
        "a library's function replaced",
        "something is assigned to .sleep from outside",
        (
            DOWNLINK,
            "        self.interruptions = 0\n",
            "        gevent.sleep = self.note\n        self.interruptions = 0\n",
        ),
    ),
    edit(
        "a builtin replaced for all",
        "something is assigned to .len from outside",
        (
            DOWNLINK,
            "        self.interruptions = 0\n",
            "        builtins.len = self.note\n        self.interruptions = 0\n",
        ),
    ),
    edit(
        "a clock bound by a loop",
        "monotonic is bound more than once",
        (TX, _CLASS, "for monotonic in (slow,):\n    pass\n\n\n" + _CLASS),
    ),
    edit(
        "a clock bound by a walrus",
        "monotonic is bound more than once",
        (TX, _CLASS, "if (monotonic := slow):\n    pass\n\n\n" + _CLASS),
    ),
    edit(
        "names of another module, all of them",
        "imports every name of another module",
        (TX, _CLASS, "from gw.media.slow import *\n\n\n" + _CLASS),
    ),
    count("an index that runs code", "self.send.counts[self._transport] = 1", "the index self._transport is not a number"),
    count("an unpacking that runs code", "first, second = self.queue", "the unpacked value has no readable element"),
    # -- a list that has grown old
    edit(
        "an operation that is gone",
        "which no longer does it",
        (TX, "                pacer.on_mark()\n", "                continue\n"),
    ),
    edit("the entry point gone", "gw.media.tx.Tx.run does not exist", (TX, "    def run(self)", "    def serve(self)")),
)

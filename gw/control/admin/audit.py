"""Records the acts of operators: one log line and one event each.

An event of kind `operator` belongs to the act's call, if there is one. It passes through the spool into the store, so it
is kept while the store is away. The acts of no call and the log are out of reach of `calls forget`: telephone numbers and users
of SIP addresses are masked; of lists, variables and texts only the size is recorded. The ids of events are recorded.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import Any, Final

from gevent.lock import BoundedSemaphore

from gw import bus
from gw.control.admin.server import Act, Fields
from gw.control.rows import OPERATOR, Scalar
from gw.control.spool import Spool, SpoolError
from gw.logs.lines import mask_numbers

log = logging.getLogger(__name__)

#: Longest record of a request's fields.
MAX_CHARS: Final = 500
#: Fields with free text about a person.
_TEXTS: Final = frozenset({"summary"})
#: Lists without personal data.
_IDS: Final = frozenset({"ids"})
#: The user of a SIP address.
_SIP_USER: Final = re.compile(r"\b(sips?):[^\s@]+@")


class Audit:
    """Writes the acts of operators. `notify` is called when the spool has a new event."""

    def __init__(self, spool: Spool, notify: Callable[[], None]) -> None:
        self._spool = spool
        self._notify = notify
        self._instance = f"admin-{os.getpid()}-{time.time_ns():x}"
        self._n = 0
        self._appending = BoundedSemaphore(1)

    def record(self, act: Act) -> None:
        """Log an act and store it."""
        text = summary(act.fields)
        log.warning(
            "operator: %s: %s",
            f"{act.command} {text}".rstrip(),
            act.outcome,
            extra={"call_sid": act.call_sid or None, "uid": act.uid},
        )
        self.store(act.call_sid, OPERATOR, command=act.command, arguments=text, uid=act.uid, outcome=act.outcome)

    def store(self, call_sid: str, kind: str, **data: Scalar) -> None:
        """Store an act as an event. It is done, so a failure of the spool is only logged."""
        event = bus.CallEvent(call_sid, kind, time.time(), dict(data))
        try:
            with self._appending:  # a number below the last one is taken for a repetition
                self._n += 1
                self._spool.append(self._instance, [(self._n, bus.encode_event(event))])
        except SpoolError as error:
            log.error("an operator's act is not stored: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        else:
            self._notify()


def summary(fields: Fields) -> str:
    """Return a request's fields as bounded text without personal data: `call_sid=CA0 to=+1555***4567 variables=[entries: 2]`."""
    text = " ".join(f"{name}={_shown(name, value)}" for name, value in fields.items())
    return _SIP_USER.sub(r"\1:***@", mask_numbers(text))[:MAX_CHARS]


def _shown(name: str, value: Any) -> str:
    """Return a field's value, or the size of one with many parts and of a text."""
    if isinstance(value, list | dict) and name not in _IDS:
        return f"[entries: {len(value)}]"
    return f"[characters: {len(value)}]" if name in _TEXTS and isinstance(value, str) else str(value)

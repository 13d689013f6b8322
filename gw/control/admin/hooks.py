"""The admin commands over events for the user's endpoints: list, retry, drop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec

from gw.control.admin.server import Command, acts, reads
from gw.control.jobs import table
from gw.control.jobs.event import EventHandler
from gw.control.jobs.lifecycle import Job
from gw.control.jobs.service import Disk, Jobs

_HOUR_S: Final = 3600.0
#: Events changed in one transaction: some 10 ms, and 50 MB with the longest bodies. The spool serves calls between two.
_STEP: Final = 200


class _List(msgspec.Struct, forbid_unknown_fields=True):
    state: Literal["waiting", "dead"] = "dead"
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20


class _Ids(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[str], msgspec.Meta(max_length=10_000)] = []


class ListedEvent(msgspec.Struct, frozen=True):
    """An event in a list. Times are epoch seconds. `why`: of an event that was not delivered."""

    id: str
    url: str  # empty: its endpoint is not configured any more
    call_sid: str
    state: str
    attempts: int
    at: float
    next_at: float | None  # None: behind an earlier event of its call, or not tried again
    why: str


class HookCommands:
    """Commands over the events on disk."""

    def __init__(self, disk: Disk, jobs: Jobs, handlers: Sequence[EventHandler]) -> None:
        self._disk = disk
        self._jobs = jobs
        self._handlers = handlers
        self._hooks = {handler.kind: handler.hook for handler in handlers}

    def table(self) -> dict[str, Command]:
        """Return the commands by name."""
        return {
            "hooks_list": reads(_List, self._list),
            "hooks_retry": acts(_Ids, self._retry),
            "hooks_drop": acts(_Ids, self._drop),
        }

    def _list(self, args: _List) -> list[ListedEvent]:
        found = self._disk.transact(partial(table.list_events, limit=args.limit, dead=args.state == "dead"))
        return [self._listed(job) for job in found]

    def _listed(self, job: Job) -> ListedEvent:
        hook = self._hooks.get(job.kind)
        url = "" if hook is None else hook.url
        return ListedEvent(
            job.id, url, job.call_sid, job.state, job.attempts, job.at, job.next_at if job.is_due else None, job.outcome
        )

    def _retry(self, args: _Ids) -> dict[str, Any]:
        now, queued = time.time(), 0
        if not args.ids:
            self._disk.transact(table.resume_all)
            self._resume({handler.kind for handler in self._handlers})
        for ids in self._steps(args):
            wanted = self._disk.transact(partial(table.retry, ids=ids, now=now, deadline_of=lambda job: self._deadline(job, now)))
            self._resume({job.kind for job in wanted})
            self._jobs.on_accepted(())
            queued += len(wanted)
        return {"queued": queued}

    def _resume(self, kinds: set[str]) -> None:
        for handler in self._handlers:
            handler.is_stopped = handler.is_stopped and handler.kind not in kinds

    def _steps(self, args: _Ids) -> Iterator[list[str]]:
        """Yield the ids of a command, without any all those of events that were not delivered, for one transaction each."""
        ids = args.ids or self._disk.transact(table.dead_ids)
        for first in range(0, len(ids), _STEP):
            yield ids[first : first + _STEP]

    def _deadline(self, job: Job, now: float) -> float:
        hook = self._hooks.get(job.kind)
        return now + (1 if hook is None else hook.give_up_h) * _HOUR_S

    def _drop(self, args: _Ids) -> dict[str, Any]:
        return {"dropped": sum(self._disk.transact(partial(table.drop, ids=ids)) for ids in self._steps(args))}

"""The admin commands over events for the user's endpoints: list, retry, drop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Final, Literal

import msgspec

from gw.control.admin.server import Command, acts, reads
from gw.control.jobs import table
from gw.control.jobs.event import EventHandler
from gw.control.jobs.lifecycle import Job
from gw.control.jobs.service import Disk, Jobs
from gw.control.jobs.table import Dead

_HOUR_S: Final = 3600.0
#: Events changed in one transaction: 50 ms with bodies of 100 KB. The spool serves calls between two.
_STEP: Final = 100
#: No step begins later than this after the request: even a slow one ends before the bound on requests.
STEPS_S: Final = 5.0


class _List(msgspec.Struct, forbid_unknown_fields=True):
    state: Literal["waiting", "dead"] = "dead"
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20


class _Ids(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[str], msgspec.Meta(max_length=10_000)] = []  # without any: all events that were not delivered
    after: int = 0  # of the answer that this request continues: an event given up since then is not changed again


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

    def _retry(self, args: _Ids) -> dict[str, int]:
        if not args.ids:
            self._resume({handler.kind for handler in self._handlers})
            self._disk.transact(table.resume_all)
        return self._in_steps("queued", args, self._retry_step)

    def _retry_step(self, step: Sequence[Dead]) -> int:
        self._resume({one.kind for one in step})  # first: without an answer of the disk, it may be there
        now, ids = time.time(), [one.id for one in step]
        queued = self._disk.transact(partial(table.retry, ids=ids, now=now, deadline_of=lambda job: self._deadline(job, now)))
        self._jobs.on_accepted(())
        return queued

    def _resume(self, kinds: set[str]) -> None:
        for handler in self._handlers:
            handler.is_stopped = handler.is_stopped and handler.kind not in kinds

    def _deadline(self, job: Job, now: float) -> float:
        hook = self._hooks.get(job.kind)
        return now + (1 if hook is None else hook.give_up_h) * _HOUR_S

    def _drop(self, args: _Ids) -> dict[str, int]:
        return self._in_steps(
            "dropped", args, lambda step: self._disk.transact(partial(table.drop, ids=[one.id for one in step]))
        )

    def _in_steps(self, name: str, args: _Ids, change: Callable[[Sequence[Dead]], int]) -> dict[str, int]:
        """Change events in their sequence, one transaction a step, until the time is over.

        Returns: the number of those changed under `name`, of those left, and `after` for the request that continues.
        """
        ends_s = time.monotonic() + STEPS_S
        chosen = [one for one in self._chosen(args.ids) if one.row > args.after]
        changed = done = 0
        while done < len(chosen) and (not done or time.monotonic() < ends_s):
            step = chosen[done : done + _STEP]
            changed += change(step)
            done += len(step)
        return {name: changed, "left": len(chosen) - done, "after": chosen[done - 1].row if done else args.after}

    def _chosen(self, ids: Sequence[str]) -> list[Dead]:
        """Return the events that were not delivered, or some of them, in the sequence of their rows."""
        found = self._disk.transact(partial(table.dead_of, ids=ids))
        while not ids and (page := self._disk.transact(partial(table.dead_after, before=found[-1] if found else None))):
            found += page
        by_row = {one.row: one for one in found}
        return [by_row[row] for row in sorted(by_row)]

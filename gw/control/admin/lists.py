"""Commands of the admin socket over lists of numbers: open, add, run, stop, read.

A list is sent in pieces, because a line of the socket is bounded. Its identity is the client's digest of the file, so each piece
may be sent again, and the same file continues its list.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from gw.config import DIALLED, Config
from gw.control.admin.commands import account_named
from gw.control.admin.server import Command, CommandError, acts, reads
from gw.control.outbound.list_file import MAX_LINES, variables_problems
from gw.control.outbound.service import Outbound
from gw.control.rows import DialListRow, DialRow
from gw.control.store.dials import Dials
from gw.control.twilio_api.accounts import Accounts

#: Lines in one answer.
PAGE: Final = 500

ListId = Annotated[str, Meta(pattern=r"^[0-9a-f]{12}$")]
Dialled = Annotated[str, Meta(pattern=rf"\A(?:{DIALLED.pattern})\Z", max_length=255)]


class _Open(msgspec.Struct, forbid_unknown_fields=True):
    list_id: ListId
    name: Annotated[str, Meta(min_length=1, max_length=255)]
    caller: Dialled
    total: Annotated[int, Meta(ge=1, le=MAX_LINES)]
    account: str = ""


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    n: Annotated[int, Meta(ge=1, le=9_999_999)]
    to: Dialled
    agent: Annotated[str, Meta(max_length=64)]
    zone: Annotated[str, Meta(min_length=1, max_length=64)]
    variables: dict[str, str] = {}


class _Add(msgspec.Struct, forbid_unknown_fields=True):
    list_id: ListId
    lines: Annotated[list[_Line], Meta(min_length=1, max_length=500)]


class _Run(msgspec.Struct, forbid_unknown_fields=True):
    list_id: ListId
    begin: bool = False
    unknown: bool = False  # with begin: dial those again whose outcome is unknown


class _List(msgspec.Struct, forbid_unknown_fields=True):
    list_id: ListId


class _Page(msgspec.Struct, forbid_unknown_fields=True):
    list_id: ListId
    after: Annotated[int, Meta(ge=0)] = 0
    since: float | None = None  # instead of `after`: those whose latest dial ended since, epoch seconds


class ListCommands:
    """The commands."""

    def __init__(self, config: Config, lines: Dials, service: Outbound, accounts: Accounts) -> None:
        self._config = config
        self._lines = lines
        self._service = service
        self._accounts = accounts

    def table(self) -> dict[str, Command]:
        """Return the commands by name."""
        return {
            "list_open": acts(_Open, self._open),
            "list_add": acts(_Add, self._add),
            "list_run": acts(_Run, self._run, when=lambda fields: bool(fields.get("begin"))),
            "list_stop": acts(_List, self._stop),
            "list_lines": reads(_Page, self._page),
        }

    def _open(self, args: _Open) -> dict[str, Any]:
        account_named(self._accounts, args.account)
        wanted = DialListRow(
            list_id=args.list_id,
            name=args.name,
            from_number=args.caller,
            account=args.account,
            total=args.total,
            created_at=time.time(),
        )
        row = self._lines.open_list(wanted)
        if (row.from_number, row.account) != (args.caller, args.account):
            account = f" and --account {row.account}" if row.account else ""
            raise CommandError("failed", f"the list was begun with --from {row.from_number}{account}; continue it with the same")
        counts = self._lines.progress(args.list_id).counts
        return {"list": msgspec.structs.asdict(row), "counts": counts, "has_all": sum(counts.values()) >= row.total}

    def _add(self, args: _Add) -> dict[str, Any]:
        rows = [self._row(args.list_id, line) for line in args.lines]
        if self._lines.one_list(args.list_id) is None:
            raise CommandError("not_found", f"no list {args.list_id}: open it first")
        self._lines.add(rows)
        return {"added": len(rows)}

    def _row(self, list_id: str, line: _Line) -> DialRow:
        if line.agent not in self._config.agents:
            known = ", ".join(sorted(self._config.agents))
            raise CommandError("not_found", f"line {line.n}: no agent {line.agent!r}; use one of: {known}")
        if problems := variables_problems(line.variables):
            raise CommandError("bad_request", f"line {line.n}: {'; '.join(problems)}")
        return DialRow(
            list_id=list_id,
            n=line.n,
            to_number=line.to,
            agent=line.agent,
            zone=line.zone,
            variables=line.variables,
            state="waiting",
            attempts=0,
            next_at=0.0,
        )

    def _run(self, args: _Run) -> dict[str, Any]:
        """Run a list from now on, or let it run on. Returns how far it is."""
        if args.begin:
            row = self._lines.one_list(args.list_id)
            if row is None:
                raise CommandError("not_found", f"no list {args.list_id}")
            if args.unknown:
                self._lines.wait_again(args.list_id, time.time())
            self._service.run(row)
        runs = self._service.keep(args.list_id)
        counts, next_at = self._lines.progress(args.list_id)
        return {
            "counts": counts,
            "next_at": next_at,
            "runs": runs,
            "stopped": self._service.why_stopped(args.list_id),
            "problem": self._service.problem,
        }

    def _stop(self, args: _List) -> dict[str, Any]:
        self._service.end(args.list_id)
        return {"counts": self._lines.progress(args.list_id).counts}

    def _page(self, args: _Page) -> list[DialRow]:
        if args.since is not None:
            return self._lines.ended(args.list_id, since=args.since, limit=PAGE)
        return self._lines.page(args.list_id, after=args.after, limit=PAGE)

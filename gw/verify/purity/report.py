"""Report of `verify purity`: JSON document, tables and verdict."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gw.terminal import Column, table
from gw.verify.purity.allow_list import ENTRY, RING_2_EXCUSED
from gw.verify.purity.check import Static, absent
from gw.verify.purity.dynamic import Watched


class Report:
    """Results of both parts. Without a watched run `seen` is empty."""

    def __init__(self, static: Static, seen: Watched | None, seconds: float) -> None:
        self.static = static
        self.seen = seen
        self.seconds = seconds
        self.absent = absent(static, () if seen is None else seen.calls)

    def tx_problems(self) -> list[str]:
        """Reasons why TX is not pure."""
        present = [f"{what}: {', '.join(names)}" for what, names in self.absent.items() if names]
        return [*self.static.problems, *present, *([] if self.seen is None else self.seen.offences)]

    def ring_2_problems(self) -> list[str]:
        """Forbidden operations of the media plane outside TX."""
        return [] if self.seen is None else list(self.seen.ring_2)

    def ok(self) -> bool:
        return not self.tx_problems() and not self.ring_2_problems()

    def document(self) -> dict[str, Any]:
        """The report as a JSON document."""
        seen = self.seen
        return {
            "ok": self.ok(),
            "entry": ENTRY,
            "seconds": round(self.seconds, 2),
            "functions": list(self.static.functions),
            "operations": [
                {
                    "kind": operation.kind,
                    "operation": operation.name,
                    "file": operation.place.path,
                    "line": operation.place.line,
                    "function": operation.place.function,
                    "class": entry.cls if entry else None,
                    "why": entry.why if entry else None,
                    "cost_ns": entry.cost_ns if entry else None,
                    "seen": None if seen is None else seen.lines[operation.place.path, operation.place.line],
                }
                for operation, entry in self.static.operations.items()
            ],
            "forbidden": {what: {"absent": not names, "found": names} for what, names in self.absent.items()},
            "watched": None
            if seen is None
            else {
                "phone_calls": seen.phone_calls,
                "frames_received": seen.frames,
                "barge_ins": seen.barge_ins,
                "switches_to_tx": seen.switches,
                "calls_by_tx": dict(seen.calls.most_common()),
                "never_seen": seen.unseen,
                "excused": [{"event": event, "where": where, "times": times} for (event, where), times in seen.excused.items()],
            },
            "tx_problems": self.tx_problems(),
            "ring_2_problems": self.ring_2_problems(),
        }

    def render(self) -> RenderableType:
        """Print the tables, then the verdict."""
        parts: list[RenderableType] = [self._operations(), Text(), self._forbidden()]
        if self.seen is not None:
            parts += [Text(), *self._watched()]
        parts.append(Text())
        problems = [*self.tx_problems(), *self.ring_2_problems()]
        parts += [Text(f"not pure: {problem}", "red") for problem in problems]
        if not problems:
            parts.append(Text(self.sentence(), "green"))
        return Group(*parts)

    def sentence(self) -> str:
        """One-line verdict."""
        read = f"{len(self.static.operations)} operations in {len(self.static.functions)} functions"
        if not self.ok():
            return f"TX is not pure: {len(self.tx_problems())} problems; ring 2: {len(self.ring_2_problems())}; {read} read."
        if self.seen is None:
            return f"TX is pure: {read}, all on the allow-list; read in {self.seconds:.1f} s, not watched."
        made = sum(self.seen.calls.values())
        return f"TX is pure: {read}, all on the allow-list; {made} observed calls were all on it."

    def _operations(self) -> Table:
        rows = _table("operation", ">line", "class", ">ns", "allowed why")
        last = ""
        for operation, entry in sorted(self.static.operations.items(), key=lambda item: (item[0].place.path, item[0].place.line)):
            if operation.place.path != last:
                last = operation.place.path
                rows.add_row(Text(last, "bold"))
            name = operation.name if operation.name.endswith(operation.kind) else f"{operation.kind} {operation.name}"
            cost = "" if entry is None or not entry.cost_ns else str(entry.cost_ns)
            style = "" if entry is not None else "red"
            cells = (entry.cls, cost, entry.why) if entry is not None else ("-", "", "NOT ALLOWED")
            rows.add_row(f"  {_short(name)}", str(operation.place.line), *cells, style=style)
        return rows

    def _forbidden(self) -> Table:
        rows = _table("forbidden", "absent")
        for what, names in self.absent.items():
            rows.add_row(what, Text(", ".join(names), "red") if names else Text("yes", "green"))
        return rows

    def _watched(self) -> list[RenderableType]:
        assert self.seen is not None
        seen = self.seen
        lines: list[RenderableType] = [
            Text(
                f"Watched in {seen.seconds:.1f} s: {seen.phone_calls} calls, {seen.frames} frames heard, {seen.barge_ins} "
                f"interruptions, {seen.switches} switches to TX, {sum(seen.calls.values())} calls made by it."
            )
        ]
        why = {(excused.event, excused.where): excused.why for excused in RING_2_EXCUSED}
        lines += [Text(f"excused: {where} raised {event}: {why[event, where]}", "dim") for event, where in seen.excused]
        lines += [Text(f"allowed, never seen: {operation}", "yellow") for operation in seen.unseen]
        return lines


def _short(name: str) -> str:
    """Strip the package names: the heading above names the file."""
    for prefix in ("gw.media.", "gw.call.", "metrics.", "builtins."):
        name = name.replace(prefix, "")
    return name.replace(".__init__.<locals>", "")


def _table(*titles: str) -> Table:
    return table([Column(title, str) for title in titles], ())

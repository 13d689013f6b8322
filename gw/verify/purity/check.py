"""Compares every operation of the TX loop with the allow-list.

Static part: `gw.verify.purity.evaluator` reads the source, nothing runs. Every operation reached needs an entry that names
its place, every entry must be reached, and nothing unresolved may remain. `gw.verify.purity.dynamic` compares running calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gw.verify.purity.allow_list import ALLOWED, ENTRY, FORBIDDEN, KINDS, LIMIT_NS, Allowed
from gw.verify.purity.evaluator import Operation, Reach
from gw.verify.purity.project_source import Project


@dataclass(frozen=True)
class Static:
    """Result of the static part. TX is pure if `problems`, one sentence each, is empty."""

    operations: Mapping[Operation, Allowed | None]
    functions: tuple[str, ...]
    problems: tuple[str, ...]

    def lines(self) -> dict[tuple[str, int], list[Operation]]:
        """Operations by source line."""
        found: dict[tuple[str, int], list[Operation]] = {}
        for operation in self.operations:
            found.setdefault((operation.place.path, operation.place.line), []).append(operation)
        return found


def read(replaced: Mapping[str, str] | None = None, allowed: Iterable[Allowed] = ALLOWED) -> Static:
    """Evaluate the source and compare it with the allow-list. `replaced`: file contents by path, for mutants."""
    entries = {(entry.kind, entry.name): entry for entry in allowed}
    project = Project(replaced)
    reach = Reach(project, {name: entry.returns for (_, name), entry in entries.items() if entry.returns is not None})
    try:
        entry_point = project.function(ENTRY)
    except KeyError:
        return Static({}, (), (f"{ENTRY} does not exist",))
    reach.follow(entry_point)
    judged: dict[Operation, Allowed | None] = {}
    problems: list[str] = []
    for operation in reach.operations:
        entry = entries.get((operation.kind, operation.name))
        judged[operation] = entry if entry is not None and operation.place.function in entry.where else None
        if operation.kind not in KINDS:
            problems.append(f"{operation.kind} can never be allowed: {operation.name} at {operation.place}")
        elif entry is None:
            problems.append(f"{operation.kind} {operation.name} is not on the allow-list, at {operation.place}")
        elif operation.place.function not in entry.where:
            problems.append(f"{operation.kind} {operation.name} is allowed elsewhere, not at {operation.place}")
    problems += [f"{finding.what}, at {finding.place}" for finding in reach.findings]
    problems += _stale(entries, reach)
    return Static(judged, tuple(sorted(reach.functions)), tuple(problems))


def _stale(entries: Mapping[tuple[str, str], Allowed], reach: Reach) -> list[str]:
    """Report unused entries, unused places of entries, and entries without a reason or within the cost limit."""
    used = {(operation.kind, operation.name, operation.place.function) for operation in reach.operations}
    found = []
    for (kind, name), entry in entries.items():
        unused = [place for place in entry.where if (kind, name, place) not in used]
        if unused:
            found.append(f"the allow-list allows {kind} {name} in {', '.join(unused)}, which no longer does it")
        if kind not in KINDS or not entry.why or entry.cost_ns > LIMIT_NS:
            found.append(f"the allow-list's entry for {kind} {name} breaks its own rules")
    return found


def absent(static: Static, seen: Iterable[str] = ()) -> dict[str, list[str]]:
    """Forbidden names found in source or observed calls, by kind. All are empty if TX is pure."""
    names = {operation.name for operation in static.operations} | set(seen)
    names |= {operation.kind for operation in static.operations if operation.kind == "import"}
    return {what: sorted(name for name in names if name.startswith(marks)) for what, marks in FORBIDDEN.items()}

"""The gateways of a store: holders of ids, heartbeats, and calls whose gateway is gone.

A gateway holds its id by a row that it renews. Times are read from the clock of the database, so the clocks of the machines do
not matter. Of two gateways with one id, in a copied `var_dir`, the fingerprint in the row admits one; the other may take the row
once its holder has stopped or is silent.
"""

from __future__ import annotations

import time
from datetime import UTC
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, literal, or_, select, text

from gw.control.rows import CallRow, GatewayRow
from gw.control.store.reads import MAX_ROWS, columns_of, gateway_of_call
from gw.control.store.tables import NUMBER_CHARS, Moment, calls, gateways
from gw.control.store.values import Fit

#: A gateway without a heartbeat for this long is silent: it missed two.
SILENT_S: Final = 15.0

#: Result of a claim of an id. `free`: it has no holder. `ours`: it is held here. `held`: a gateway that is heard holds it.
#: `taken_over`: its holder was silent.
ClaimStep = Literal["free", "ours", "held", "taken_over"]


class Report(NamedTuple):
    """A gateway's state, as it writes it into its row."""

    gateway: str
    fingerprint: str
    machine: str
    version: str
    ready: bool = False
    drained: bool = False
    calls: int = 0
    capacity: int = 0


class Claimed(NamedTuple):
    """Result of a claim, the row before it, and the time of the database."""

    step: ClaimStep
    before: GatewayRow | None
    now: float


def claim_step(row: GatewayRow | None, fingerprint: str, now: float) -> ClaimStep:
    """Decide whether the gateway with this fingerprint may have the row of its id."""
    if row is None:
        return "free"
    if row.fingerprint == fingerprint:
        return "ours"
    if row.stopped_at is not None:
        return "free"
    return "held" if now - row.heartbeat_at < SILENT_S else "taken_over"


def is_live(row: GatewayRow, now: float) -> bool:
    """Return whether a gateway is heard and has not stopped."""
    return row.stopped_at is None and now - row.heartbeat_at < SILENT_S


def claim(connection: Connection, report: Report, begins: bool, fit: Fit) -> Claimed:
    """Take or renew the row of an id, unless another gateway holds it. Violates the key if two insert it."""
    mine = gateways.c.gateway == report.gateway
    found = connection.execute(select(gateways).where(mine).with_for_update()).first()
    before = None if found is None else GatewayRow(**found._mapping)
    now = clock(connection)  # after the wait for the row
    step = claim_step(before, report.fingerprint, now)
    if step == "held":
        return Claimed(step, before, now)
    values: dict[str, Any] = report._asdict() | {"heartbeat_at": now, "stopped_at": None}
    values["machine"] = fit.text(report.machine, NUMBER_CHARS)
    if begins or step != "ours":
        values["started_at"] = now
    if before is None:
        connection.execute(gateways.insert(), values)
    else:
        connection.execute(gateways.update().where(mine).values(values))
    return Claimed(step, before, now)


def stop(connection: Connection, gateway: str, fingerprint: str) -> None:
    """Note that a gateway has stopped, if it holds its id."""
    held = (gateways.c.gateway == gateway, gateways.c.fingerprint == fingerprint)
    connection.execute(gateways.update().where(*held).values(stopped_at=clock(connection), ready=False, calls=0))


def list_gateways(connection: Connection) -> tuple[float, list[GatewayRow]]:
    """Return the time, and the gateways by machine."""
    statement = select(gateways).order_by(gateways.c.machine, gateways.c.gateway).limit(MAX_ROWS)
    return clock(connection), [GatewayRow(**row._mapping) for row in connection.execute(statement)]


def ask_drain(connection: Connection, gateway: str, on: bool) -> None:
    """Ask a gateway to drain its machine, or to end the drain."""
    connection.execute(gateways.update().where(gateways.c.gateway == gateway).values(drain_asked=on))


def answer_drain(connection: Connection, gateway: str, on: bool) -> None:
    """Remove a request that was carried out, unless another one replaced it."""
    asked = (gateways.c.gateway == gateway, gateways.c.drain_asked == on)
    connection.execute(gateways.update().where(*asked).values(drain_asked=None, drained=on))


def forget_gateways(connection: Connection, silent_s: float) -> int:
    """Remove the gateways that were not heard for this long. Returns their number."""
    return connection.execute(delete(gateways).where(gateways.c.heartbeat_at < _moment(clock(connection) - silent_s))).rowcount


def list_abandoned_calls(connection: Connection, silent_s: float) -> list[CallRow]:
    """Return open calls of gateways that were not heard for this long, or are unknown.

    A call that began since is not among them.
    """
    before = _moment(clock(connection) - silent_s)
    heard = select(gateways.c.gateway).where(gateways.c.heartbeat_at >= before)
    began = func.coalesce(calls.c.started_at, calls.c.first_audio_at)
    statement = select(*columns_of(calls)).where(
        calls.c.ended_at.is_(None),
        or_(began < before, began.is_(None)),
        func.coalesce(gateway_of_call(), "").not_in(heard),
    )
    return [CallRow(**row._mapping) for row in connection.execute(statement.order_by(calls.c.id).limit(MAX_ROWS))]


def clock(connection: Connection) -> float:
    """Return the time of the database, epoch seconds. An SQLite file is used by one machine only."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(text("SELECT UTC_TIMESTAMP(6)")).scalar_one().replace(tzinfo=UTC).timestamp())


def _moment(at: float) -> ColumnElement[float]:
    return literal(at, Moment())

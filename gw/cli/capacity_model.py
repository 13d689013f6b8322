"""How many machines of which kind a number of calls needs. Pure: a demand and the figures in, a plan out.

Strategy: each part is computed by itself, from the calls there are at once and how many arrive; then the smallest engine that
carries it is named. Everything is planned for `load` of what was measured, and for one machine of each kind being away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gw.cli.capacity_figures import FIGURES, Figure

#: More than this nobody asked about, and no figure reaches there.
MAX_CALLS: Final = 1_000_000
_KB: Final = 1000.0
_DAY_S: Final = 86_400


@dataclass(frozen=True)
class Demand:
    """What is wanted."""

    calls: int  # at once
    call_s: float = 180.0  # how long one lasts
    turns_per_minute: float = 4.0  # of both sides
    cores: int = 4  # of a machine
    load: float = 0.7  # the share of what was measured that is planned for

    @property
    def arrivals_per_s(self) -> float:
        """New calls a second, in the mean. Source: Little's law."""
        return self.calls / self.call_s


@dataclass(frozen=True)
class Part:
    """One part of the whole: what it has to carry, and what carries it."""

    name: str
    needs: dict[str, float]
    engine: str
    why: str


@dataclass(frozen=True)
class Plan:
    """The answer."""

    demand: Demand
    machines: int
    balancers: int
    parts: tuple[Part, ...]


_ALONE: Final = Part("balancers", {"machines": 0}, "the TLS proxy on the gateway's own machine", "there is nothing to balance")


def plan(demand: Demand, figures: Mapping[str, Figure] = FIGURES) -> Plan:
    """What carries the demand.

    Raises: ValueError for a demand without calls, or outside what the figures can speak of.
    """
    if not 1 <= demand.calls <= MAX_CALLS:
        raise ValueError(f"{demand.calls} calls: wanted 1 to {MAX_CALLS}")
    if demand.call_s <= 0 or demand.cores < 1 or not 0 < demand.load <= 1 or demand.turns_per_minute < 0:
        raise ValueError("wanted calls that last, machines with a core, a load above 0 and up to 1, turns from 0 on")
    value = {name: figure.value for name, figure in figures.items()}
    gateways = _gateways(demand, value)
    machines = int(gateways.needs["machines"])
    balancing = _balancers(demand, value) if machines > 1 else _ALONE
    parts = (gateways, balancing, _store(demand, value, machines), _metrics(demand, value, machines), _outside(demand, value))
    return Plan(demand, machines, int(balancing.needs["machines"]), parts)


def spare(needed: int) -> int:
    """Machines beyond those needed: one may be drained or dead, and of many, one in fifty. A single one has none."""
    return 0 if needed <= 1 else max(1, math.ceil(needed / 50))


def workers(cores: int) -> int:
    """Of a machine, as `workers = "auto"` has them: one per core, less one from three cores on."""
    return cores - 1 if cores > 2 else cores


def calls_per_worker(demand: Demand, value: Mapping[str, float]) -> float:
    """What a worker's core holds beside its share of webhooks, planned for."""
    webhook_ms = value["webhooks_per_call"] * value["webhook_worker_cpu_ms"] / demand.call_s
    return value["calls_per_core"] * demand.load * value["media_cpu_ms"] / (value["media_cpu_ms"] + webhook_ms)


def _gateways(demand: Demand, value: Mapping[str, float]) -> Part:
    workers_each = workers(demand.cores)
    per_worker = calls_per_worker(demand, value)
    per_machine = max(1, math.floor(workers_each * per_worker))
    needed = math.ceil(demand.calls / per_machine)
    machines = needed + spare(needed)
    on_one = demand.calls / needed
    arrivals = on_one / demand.call_s
    events_per_s = arrivals * events_per_call(demand, value)
    control_ms = events_per_s * value["event_control_cpu_ms"] + arrivals * value["recording_control_cpu_ms"]
    memory_mb = workers_each * value["worker_mb"] + value["control_mb"] + on_one * value["call_kb"] / _KB
    return Part(
        "gateways",
        {
            "machines": machines,
            "workers_each": workers_each,
            "calls_per_worker": round(per_worker, 1),
            "calls_per_machine": per_machine,
            "memory_mb_each": round(memory_mb),
            "control_core_share_each": round(control_ms / 1000, 4),
            "mbit_per_s_each": round(on_one * value["machine_bytes"] * 8 / 1e6, 1),
            "webhooks_per_s": round(demand.arrivals_per_s * value["webhooks_per_call"], 1),
            "webhooks_per_s_peak": round(demand.arrivals_per_s * value["webhooks_per_call"] * value["peak_arrivals"], 1),
        },
        "gateway.py serve" if machines == 1 else f"gateway.py serve on {machines} machines, [server] machine set on each",
        "one machine: whoever is on it when it fails is lost"
        if machines == 1
        else "calls share nothing: machines are added one by one",
    )


def events_per_call(demand: Demand, value: Mapping[str, float]) -> float:
    """What a call writes: one event per turn, and its other events."""
    return value["events_beside_turns"] + demand.turns_per_minute * demand.call_s / 60


def _balancers(demand: Demand, value: Mapping[str, float]) -> Part:
    cores = demand.calls * value["haproxy_cpu_ms"] / 1000 / demand.load
    per_machine = demand.cores
    needed = math.ceil(cores / per_machine)
    machines = needed + max(1, spare(needed))
    if machines <= 2:
        engine, why = "two HAProxy with one address between them (VRRP)", "one carries all; the other takes its address over"
    else:
        engine = f"{machines} HAProxy behind anycast (ECMP), or DNS with health checks and a short time to live"
        why = "one address cannot be carried by one machine; a call keeps to the one it came by"
    return Part(
        "balancers",
        {
            "machines": machines,
            "cores": round(cores, 2),
            "calls_each": math.ceil(demand.calls / max(1, needed)),
            "memory_mb_each": round(demand.calls / max(1, needed) * value["haproxy_kb"] / _KB),
        },
        engine,
        why,
    )


def _store(demand: Demand, value: Mapping[str, float], machines: int) -> Part:
    events_per_s = demand.arrivals_per_s * events_per_call(demand, value)  # the mean: a peak waits in the spools
    primary = value["store_events_per_s"] * value["store_primary_share"]
    shards = max(1, math.ceil(events_per_s / (primary * demand.load)))
    if shards > 1:
        engine = f"Vitess, {shards} shards by call SID, each replicated"
        why = (
            "beyond what one primary writes; every table's key begins with the call SID, and no query of a call leaves its shard"
        )
    elif machines > 1:
        engine = "MySQL Group Replication, one primary and two more"
        why = "one primary carries the writes; the group is there for its death, and spools bridge the change"
    else:
        engine = "one MariaDB"
        why = "a store that is away costs a growing spool and no event"
    a_day = demand.arrivals_per_s * _DAY_S
    return Part(
        "store",
        {
            "events_per_s": round(events_per_s, 1),
            "primary_events_per_s": round(primary),
            "cores": round(events_per_s * value["store_cpu_ms"] / 1000, 4),
            "gb_per_day": round(a_day * value["store_bytes_per_call"] / 1e9, 2),
            "shards": shards,
        },
        engine,
        why,
    )


def _metrics(demand: Demand, value: Mapping[str, float], machines: int) -> Part:
    series = machines * (value["series_per_gateway"] + workers(demand.cores) * value["series_per_worker"])
    one = value["prometheus_series"] * demand.load
    if series > 4 * one:
        engine, why = "Prometheus per region, all remote-writing to Mimir", "more series than a federating server can look at"
    elif series > one:
        engine = "two or more Prometheus by hash of the target, and one that federates the recorded rules"
        why = "dashboards and alerts rest on recorded rules, which are few"
    else:
        engine, why = "one Prometheus, and a second that scrapes the same", "series do not grow with calls, only with machines"
    return Part("metrics", {"series": round(series), "samples_per_s": round(series / value["scrape_s"], 1)}, engine, why)


def _outside(demand: Demand, value: Mapping[str, float]) -> Part:
    return Part(
        "outside",
        {
            "calls_per_s": round(demand.arrivals_per_s, 2),
            "calls_per_s_peak": round(demand.arrivals_per_s * value["peak_arrivals"], 2),
            "recordings_per_s": round(demand.arrivals_per_s, 2),
            "ai_sessions": demand.calls,
            "gbit_per_s": round(demand.calls * value["machine_bytes"] * 8 / 1e9, 3),
        },
        "agreed with Twilio and with the AI's provider before",
        "neither publishes a number that can be planned with",
    )

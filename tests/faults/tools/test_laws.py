"""tests.faults.tools.laws: each law holds for a good record and is broken by its fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.tools.laws import LAWS, CallLine, Delivered, Record, judge

CALL = CallLine("CA1", 1.0, "gateway", "ai_hangup", is_open=False, tools=("a", "b"))


def events(*types: str) -> list[Delivered]:
    tools = iter(CALL.tools)
    return [
        Delivered(f"evt_{n}", kind, "CA1", next(tools) if kind == "tool.called" else "", b"{}") for n, kind in enumerate(types)
    ]


def good() -> Record:
    return Record(
        calls=[CALL],
        kills=[(30.0, "worker")],
        requests=Counter({"k1": 2, "k2": 1}),
        executions=Counter({"k1": 1, "k2": 1}),
        once={"k2"},
        delivered=events("call.started", "tool.called", "tool.called", "call.ended"),
    )


def executed_twice(record: Record) -> None:
    record.executions["k1"] = 2


def sent_twice(record: Record) -> None:
    record.requests["k2"] = 2


def left_waiting(record: Record) -> None:
    record.calls = [replace(CALL, closed_by="limit")]


def not_ended(record: Record) -> None:
    record.calls = [replace(CALL, closed_by="")]


def without_an_output(record: Record) -> None:
    record.calls = [replace(CALL, unanswered=("a",))]


def open_in_the_store(record: Record) -> None:
    record.calls = [replace(CALL, is_open=True)]


def job_left(record: Record) -> None:
    record.waiting = 1


def ended_without_a_kill(record: Record) -> None:
    record.calls = [replace(CALL, reason="worker_lost")]


def missing(record: Record) -> None:
    record.delivered = record.delivered[:-1]


def doubled(record: Record) -> None:
    record.delivered.append(replace(record.delivered[-1], id="evt_9"))


def out_of_order(record: Record) -> None:
    record.delivered[1], record.delivered[2] = record.delivered[2], record.delivered[1]


def changed(record: Record) -> None:
    record.delivered.append(replace(record.delivered[0], content=b"{ }"))


def unsigned(record: Record) -> None:
    record.faults = ["/events: the signature is wrong"]


FAULTS: dict[Callable[[Record], None], str] = {
    executed_twice: "no tool executed twice",
    sent_twice: "no request of a tool that is not idempotent sent twice",
    left_waiting: "no call left waiting",
    not_ended: "no call left waiting",
    without_an_output: "no call left waiting",
    open_in_the_store: "no call left waiting",
    job_left: "no call left waiting",
    ended_without_a_kill: "only a kill disturbs a call",
    missing: "every event delivered, in sequence",
    doubled: "every event delivered, in sequence",
    out_of_order: "every event delivered, in sequence",
    changed: "every event delivered, in sequence",
    unsigned: "every request signed and complete",
}


def test_a_good_record_breaks_no_law() -> None:
    record = good()
    record.delivered.append(record.delivered[0])  # at least once: the same id and body
    assert judge(record) == {name: [] for name in LAWS}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_breaks_its_law(fault: Callable[[Record], None]) -> None:
    record = good()
    fault(record)
    assert [name for name, broken in judge(record).items() if broken] == [FAULTS[fault]]


def test_a_call_near_a_kill_may_end_otherwise() -> None:
    record = good()
    record.kills = [(2.0, "worker")]
    record.calls = [replace(CALL, reason="worker_lost")]
    assert not any(judge(record).values())

"""gw.control.jobs.tool: a job's body becomes a call of a tool, and its answer a result."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gw import bus
from gw.config import Config, Hooks, Secrets, Tool
from gw.control.jobs import lifecycle
from gw.control.jobs.lifecycle import Ended, Job
from gw.control.jobs.service import Jobs
from gw.control.jobs.tool import ToolHandler, ToolKinds, tool_handlers
from gw.control.spool import Spool
from gw.protocol.hooks.tool_call import CallFacts, ToolAnswer, ToolCall, encode_call, failed
from gw.twin.hooks import HookTwin
from metrics.page import Page
from tests.timing import scaled

CALL = ToolCall(
    id="CA1/1/x",
    tool="lookup",
    arguments='{"n":1}',
    call=CallFacts(sid="CA1", agent="default", direction="inbound", from_="+1", to="+2", started_at="2026-11-28T14:05:00Z"),
)
TOOLS = {
    "lookup": SimpleNamespace(timeout_s=8.0, idempotent=True),
    "order": SimpleNamespace(timeout_s=8.0, idempotent=False),
}


class Caller:
    def __init__(self, answer: ToolAnswer) -> None:
        self.answer = answer
        self.asked: list[tuple[ToolCall, int, float]] = []

    def call(self, body: ToolCall, *, attempt: int, deadline_s: float) -> ToolAnswer:
        self.asked.append((body, attempt, deadline_s))
        return self.answer


def job(body: str, *, left_s: float = 5.0) -> Job:
    now = time.time()
    return lifecycle.want("CA1/1/x", "tool", "CA1", body, deadline_at=now + left_s, now=now)


def test_a_call_has_the_time_that_is_left() -> None:
    caller = Caller(ToolAnswer("text", "ok"))
    handler = ToolHandler(caller, TOOLS)
    assert handler.run(job(encode_call(CALL)), 1) == Ended("done", "ok", "text")
    handler.run(job(encode_call(CALL), left_s=60.0), 2)
    assert [(body, attempt) for body, attempt, _ in caller.asked] == [(CALL, 1), (CALL, 2)]
    deadlines = [deadline_s for _, _, deadline_s in caller.asked]
    assert deadlines[0] < deadlines[1] - 50.0


@pytest.mark.parametrize(("word", "cause"), [("unknown_outcome", "unclear"), ("refused", "failed"), ("timeout", "failed")])
def test_an_error_is_a_result(word: Any, cause: str) -> None:
    answer = failed(word, "A reason.")
    assert ToolHandler(Caller(answer), TOOLS).run(job(encode_call(CALL)), 1) == Ended(cause, word, answer.output)  # type: ignore[arg-type]


def test_an_unreadable_body_is_refused_and_never_repeated() -> None:
    caller = Caller(ToolAnswer("", "ok"))
    handler = ToolHandler(caller, TOOLS)
    ended = handler.run(job("{}"), 1)
    assert (ended.cause, json.loads(ended.result)["error"], caller.asked) == ("failed", "invalid_arguments", [])
    assert handler.repeats(job("{}")) is None


def test_only_an_idempotent_tool_is_repeated_with_all_of_its_time() -> None:
    handler = ToolHandler(Caller(ToolAnswer("", "ok")), TOOLS)
    bodies = [encode_call(msgspec.structs.replace(CALL, tool=name)) for name in ("lookup", "order", "unknown")]
    assert [handler.repeats(job(body)) for body in bodies] == [8.0, None, None]


def test_a_gateway_without_tools_has_no_handler(tmp_path: Path) -> None:
    page = Page.create(tmp_path / "control.page")
    assert tool_handlers(Config(), page, lambda call_sid: {}) == []
    tools = {"lookup": Tool(url="http://127.0.0.1:9/x", idempotent=True, timeout_s=3.0)}
    plain, handler = tool_handlers(Config(tools=tools, secrets=Secrets(hook_secret="s")), page, lambda call_sid: {})
    assert (plain.kind, handler.kind, handler.repeats(job(encode_call(CALL)))) == ("tool", "tool 127.0.0.1:9", 3.0)
    ended = handler.run(job(encode_call(CALL)), 1)
    assert (ended.cause, ended.outcome) == ("failed", "refused"), "the network is not allowed"
    page.close()


def test_each_host_has_a_kind() -> None:
    tools = {
        "a": Tool(url="https://A.example.com/x"),
        "b": Tool(url="https://a.example.com/y"),
        "c": Tool(url="https://a.example.com:8443/y"),
        "d": Tool(url="nonsense"),
    }
    kinds = ToolKinds(tools)
    assert kinds.all == ["tool", "tool a.example.com:443", "tool a.example.com:8443"]
    bodies = [encode_call(msgspec.structs.replace(CALL, tool=name)) for name in ("a", "b", "c", "d", "none")]
    found = [kinds.of(bus.JobWanted("j", "tool", "CA1", 0, body)) for body in (*bodies, "not JSON", '{"tool":7}')]
    assert found == ["tool a.example.com:443"] * 2 + ["tool a.example.com:8443"] + ["tool"] * 4
    assert kinds.of(bus.JobWanted("j", "other", "CA1", 0, bodies[0])) == "other"


def test_a_slow_host_delays_no_other_host(tmp_path: Path) -> None:
    with HookTwin("s") as slow, HookTwin("s") as quick:
        slow.slow_s = 0.4
        config = Config(
            tools={"slow": Tool(url=slow.url("slow")), "quick": Tool(url=quick.url())},
            hooks=Hooks(allow_networks=("127.0.0.0/8",)),
            secrets=Secrets(hook_secret="s"),
        )
        page, spool, settled = Page.create(tmp_path / "control.page"), Spool(tmp_path / "spool.db"), list[str]()
        jobs = Jobs(
            spool,
            page,
            tool_handlers(config, page, lambda call_sid: {}),
            settle=lambda one: settled.append(one.id),
            kind_of=ToolKinds(config.tools).of,
        )
        jobs.start()
        names = [f"slow {n}" for n in range(100)] + ["quick"]
        for n, name in enumerate(names, 1):
            body = encode_call(msgspec.structs.replace(CALL, id=name, tool=name.split()[0]))
            wanted = bus.JobWanted(name, "tool", "CA1", round(1000 * (time.time() + 60)), body)
            jobs.on_accepted(spool.append("w", [], jobs={n: jobs.of_event(wanted)}))
        assert quick.wait_for(lambda _: "quick" in settled, scaled(10.0))
        assert len(settled) < 40, "the slow host takes 5 s for its calls"
        assert slow.most_open <= 8
        jobs.stop()
        spool.close()
        page.close()

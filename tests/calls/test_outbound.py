"""Outbound calls in whole calls: a list of numbers with every kind of callee, and single calls."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click.testing
import gevent
import pytest

from gw.cli import root
from gw.config import EventHook, Hooks, Outbound
from gw.control.admin.client import AdminClient, Refused
from gw.twin.ai.script import AiScript, lasting
from gw.twin.hooks import HookTwin
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World, WorldMaker
from tests.calls.conversations.scripts import voice
from tests.calls.gateway import HOOK_SECRET
from tests.gw.protocol.test_wav import wav
from tests.timing import scaled

CALLER: Final = "+15557654321"
MESSAGE: Final = voice(9, 0, 1.6)
PERSON: Final = CallPlan(hang_up=False, max_s=1.5)
BUSY: Final = CallPlan(answer="busy")

#: The callee of each number, by how often it was dialled before; the last one stays.
CALLEES: Final[Mapping[str, tuple[CallPlan, ...]]] = {
    "+15550000001": (PERSON,),
    "+15550000002": (BUSY,),
    "+15550000003": (BUSY, PERSON),
    "+15550000004": (CallPlan(answer="failed"),),
    "+15550000005": (CallPlan(hang_up=False, verdicts=((0.8, "machine_end_beep"), (1.2, "machine_end_beep"))),),
    "+15550000006": (CallPlan(hang_up=False, verdicts=((0.6, "fax"),)),),
    "+15550000007": (CallPlan(hang_up=False, max_s=2.5, verdicts=((0.3, "human"), (1.0, "machine_end_silence"))),),
    "+15550000008": (CallPlan(answer="no-answer", ring_s=0.2),),
    "+15550000009": (CallPlan(hang_up=False, max_s=1.5, verdicts=((0.5, "unknown"), (4.0, "machine_end_beep"))),),
}
#: Dials of each number, and the result of the last one.
EXPECTED: Final = {
    "+15550000001": (1, "answered"),
    "+15550000002": (3, "busy"),
    "+15550000003": (2, "answered"),
    "+15550000004": (1, "failed"),
    "+15550000005": (1, "machine"),
    "+15550000006": (1, "fax"),
    "+15550000007": (1, "answered"),
    "+15550000008": (3, "no-answer"),
    "+15550000009": (1, "answered"),
}


def callee_of(number: str, before: int) -> CallPlan:
    plans = CALLEES[number]
    return plans[min(before, len(plans) - 1)]


def run(w: World, folder: Path, *words: str) -> click.testing.Result:
    """Run a command on this gateway, in this process."""
    config = folder / "operator.toml"
    config.write_text(f'[ops]\nadmin_socket = "{w.gateway.config.ops.admin_socket}"\n[outbound]\nfrom = "{CALLER}"\n')
    return click.testing.CliRunner(env={"COLUMNS": "200"}).invoke(root, ["--config", str(config), *words])


def rules(folder: Path, **changes: Any) -> Outbound:
    path = folder / "message.wav"
    path.write_bytes(wav(MESSAGE, code=7, bits=8))
    standard: dict[str, Any] = {"calls_per_s": 50.0, "concurrent": 50, "hours": "", "retry_after_s": 0.0, "voicemail": str(path)}
    return Outbound(**{**standard, **changes})


def test_every_kind_of_callee_is_dialled_as_often_as_the_retries_permit(world: WorldMaker, tmp_path: Path) -> None:
    numbers = tmp_path / "list.csv"
    rows = [f"{number},name {n}" for n, number in enumerate(CALLEES)]
    numbers.write_text("\n".join(["to,var_name", *rows]) + "\n")
    with HookTwin(HOOK_SECRET) as hooks:
        events = EventHook(url=hooks.url(), types=("dial.ended",))
        options = {"outbound": rules(tmp_path), "events": (events,), "hooks": Hooks(allow_networks=("127.0.0.1/32",))}
        agent = {"instructions": "Call {{name}}."}
        with world(AiScript(greeting=lasting(20)), agent=agent, **options) as w:
            w.twilio.callee_of = callee_of
            result = run(w, tmp_path, "calls", "dial", str(numbers), "--json")
            assert result.exit_code == 0, result.output
            lines = [json.loads(line) for line in result.stdout.splitlines()]
            dialled = {number: len(calls) for number, calls in w.twilio.placed.items()}
            assert dialled == {number: dials for number, (dials, _) in EXPECTED.items()}
            with (tmp_path / "list.results.csv").open() as file:
                results = {row["to"]: row for row in csv.DictReader(file)}
            found = {number: (int(row["dials"]), row["result"]) for number, row in results.items()}
            assert found == EXPECTED
            assert results["+15550000007"]["answered_by"] == "human"
            assert {line["what"] for line in lines} == {"dial", "progress", "result"}
            assert sum(line["what"] == "dial" for line in lines) >= len(EXPECTED)
            answered = {number: w.twilio.calls[calls[-1]] for number, calls in w.twilio.placed.items()}
            check_voicemail(w, answered["+15550000005"])
            for number in ("+15550000006", "+15550000007"):
                assert MESSAGE[:800] not in answered[number].heard_audio
            assert w.gateway.ended(answered["+15550000006"].call_sid)["reason"] == "machine"
            assert w.gateway.ended(answered["+15550000007"].call_sid)["reason"] == "caller_hangup"
            session = w.ai.session_of(answered["+15550000001"].number)
            assert session is not None
            assert "Call name 0." in str(session.updates)
            w.gateway.until(lambda: len(hooks.executions) == sum(dialled.values()), "each dial is reported")
            again = run(w, tmp_path, "calls", "dial", str(numbers))
            assert again.exit_code == 0, again.output
            assert sum(len(calls) for calls in w.twilio.placed.values()) == sum(dialled.values()), "the list was done"


def check_voicemail(w: World, call: TwinCall) -> None:
    """The agent was cleared, and the whole message heard before the end."""
    assert len(call.clears) == 1
    assert call.heard_audio.endswith(MESSAGE)
    row = w.gateway.ended(call.call_sid)
    assert (row["reason"], row["result"], call.closed_by, call.spoken) == ("machine", "success", "gateway", [])


def test_a_list_that_is_stopped_waits_and_continues(world: WorldMaker, tmp_path: Path) -> None:
    """Also: nothing is dialled outside the hours of the callee, and failures in a row stop a list."""
    list_id, lines = "0123456789ab", [{"n": n, "to": f"+1555000{n:04d}", "agent": "default", "zone": "UTC"} for n in range(2, 22)]
    with world(AiScript(), outbound=rules(tmp_path, calls_per_s=20.0, stop_at_failures=3, voicemail="")) as w:
        w.twilio.callee_of = lambda number, before: BUSY if int(number[-4:]) < 12 else CallPlan(answer="failed")
        operator = AdminClient(w.gateway.config.ops.admin_socket, scaled(10.0))
        opened = {"list_id": list_id, "name": "a.csv", "caller": CALLER, "total": len(lines)}
        assert operator.request("list_open", **opened)["has_all"] is False
        operator.request("list_add", list_id=list_id, lines=lines)
        assert operator.request("list_open", **opened)["has_all"] is True
        with pytest.raises(Refused, match=r"begun with --from \+15557654321"):
            operator.request("list_open", **{**opened, "caller": "+15550000000"})
        gevent.sleep(0.3)
        assert w.twilio.placed == {}, "a list runs only on request"
        operator.request("list_run", list_id=list_id, begin=True)
        w.gateway.until(lambda: len(w.twilio.placed) >= 3, "it runs")
        operator.request("list_stop", list_id=list_id)
        gevent.sleep(0.5)
        begun = sum(len(calls) for calls in w.twilio.placed.values())
        gevent.sleep(0.5)
        assert sum(len(calls) for calls in w.twilio.placed.values()) == begun, "the rest waits"
        assert operator.request("list_run", list_id=list_id)["runs"] is False
        operator.request("list_run", list_id=list_id, begin=True)

        def stopped() -> bool:
            return "3 dials in a row failed" in operator.request("list_run", list_id=list_id)["stopped"]

        w.gateway.until(stopped, "failures in a row stop it")
        assert all(len(calls) <= 3 for calls in w.twilio.placed.values())


def test_nothing_is_dialled_outside_the_hours_of_the_callee(world: WorldMaker, tmp_path: Path) -> None:
    hour = time.gmtime().tm_hour
    zone = f"Etc/GMT{hour - 12:+d}" if hour != 12 else "UTC"  # where it is noon; the sign is reversed in these names
    with world(AiScript(), outbound=rules(tmp_path, hours="11:00-14:00", voicemail="")) as w:
        w.twilio.callee_of = lambda number, before: CallPlan(answer="failed")
        operator = AdminClient(w.gateway.config.ops.admin_socket, scaled(10.0))
        lines: list[dict[str, Any]] = [{"n": 2, "to": "+15550000001", "agent": "default", "zone": zone}]
        lines.append({"n": 3, "to": "+15550000002", "agent": "default", "zone": "UTC" if not 9 <= hour <= 14 else "Etc/GMT+10"})
        lines[0]["variables"] = {"name": "Anna Smith"}
        operator.request("list_open", list_id="0123456789ab", name="a.csv", caller=CALLER, total=2)
        operator.request("list_add", list_id="0123456789ab", lines=lines)
        operator.request("list_run", list_id="0123456789ab", begin=True)
        w.gateway.until(lambda: "+15550000001" in w.twilio.placed, "the one at noon is dialled")
        gevent.sleep(1.0)
        answer = operator.request("list_run", list_id="0123456789ab")
        assert list(w.twilio.placed) == ["+15550000001"]
        assert answer["next_at"] > time.time() + 600
        w.gateway.until(lambda: "list_add" in str(operator.request("audit")), "the acts are stored")
        assert "lines=[entries: 2]" in str(operator.request("audit"))
        assert "Anna" not in str(operator.request("audit")), "`calls forget` does not reach the audit"


def test_a_single_call_has_variables_and_is_awaited(world: WorldMaker, tmp_path: Path) -> None:
    with world(AiScript(greeting=lasting(20)), agent={"instructions": "Call {{name}}."}, outbound=rules(tmp_path)) as w:
        w.twilio.callee = CallPlan(hang_up=False, max_s=1.0)
        result = run(w, tmp_path, "call", "+15551234567", "--var", "name=Ada & Bob", "--amd", "--wait")
        assert result.exit_code == 0, result.output
        (call,) = w.twilio.calls.values()
        assert f"{call.call_sid}: answered" in result.stdout
        session = w.ai.session_of(call.number)
        assert session is not None
        assert "Call Ada & Bob." in str(session.updates)
        kept = [event["data"] for event in w.gateway.ended(call.call_sid)["events"] if event["kind"] == "variables"]
        assert kept == [{"name": "Ada & Bob"}]
        w.twilio.callee = BUSY
        assert run(w, tmp_path, "call", "+15551234567", "--wait").exit_code == 1

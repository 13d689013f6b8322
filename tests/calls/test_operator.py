"""An operator places a call, transfers it and explains it, through the admin socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click.testing
import gevent
import msgspec

from gw.call.dialogue.commands import Prompt
from gw.call.prompts import text_of
from gw.cli import root
from gw.cli.calls.findings import findings, timeline
from gw.config import EventHook, Hooks, Route
from gw.control.admin.client import AdminClient
from gw.control.rows import CallDetails
from gw.twin.ai.script import AiScript, lasting
from gw.twin.hooks import HookTwin
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.dial import Callee
from tests.calls.conftest import World, WorldMaker
from tests.calls.gateway import HOOK_SECRET
from tests.timing import scaled


def test_a_call_is_placed_transferred_and_explained(world: WorldMaker, tmp_path: Path) -> None:
    with world(AiScript(greeting=lasting(20))) as w:
        operator = AdminClient(w.gateway.config.ops.admin_socket, scaled(10.0))
        placed = operator.request("dial", to="+15551234567", caller="+15557654321")
        call = w.twilio.calls[placed["call_sid"]]
        with gevent.Timeout(scaled(10.0)):
            while not call.heard_audio:
                gevent.sleep(0.02)
        w.gateway.until(lambda: bool(operator.request("calls", open_only=True)), "the store has the call")
        shown = _run(w, tmp_path, "top", "--once")
        for piece in ("ready", "calls     1 of ", call.call_sid, "+15557654321", "lateness"):
            assert piece in shown
        seen = json.loads(_run(w, tmp_path, "top", "--once", "--json"))
        assert [row["call_sid"] for row in seen["calls"]] == [call.call_sid]
        assert seen["lateness_p99_s"] is None or seen["lateness_p99_s"] < 1.0
        operator.request("transfer", call_sid=call.call_sid, to="+15550009999")
        assert call.wait(scaled(10.0))
        w.gateway.ended(call.call_sid)
        w.gateway.until(lambda: "transferred" in _kinds(operator.request("call", call_sid=call.call_sid)), "transferred")
        row = operator.request("call", call_sid=call.call_sid)
        assert (row["direction"], row["agent"], row["from_number"], row["to_number"]) == (
            "outbound-api",
            "default",
            "+15557654321",
            "+15551234567",
        )
        assert row["reason"] == "transferred"
        assert w.gateway.metrics()['gw_calls_ended_total{reason="transferred"}'] == 1.0
        details = msgspec.convert(row, type=CallDetails)
        assert "transfer to +15550009999 done" in [moment.sentence for moment in timeline(details)]
        about = {finding.about: finding for finding in findings(details)}
        assert about["greeting"].weight == "good"
        assert "an operator transferred the caller" in about["the end"].sentence
        assert (call.error, call.warnings) == ("", [])


def test_an_operator_transfers_a_call_that_comes_back(world: WorldMaker, tmp_path: Path) -> None:
    with HookTwin(HOOK_SECRET) as hooks:
        types = ("call.ended", "transfer.ended")
        ends = EventHook(url=hooks.url("ok"), types=types)
        options = {"events": (ends,), "hooks": Hooks(allow_networks=("127.0.0.1/32",))}
        options["routes"] = (Route(called="+15550001000", variables={"who": "Ann"}),)
        agent = {"instructions": "You serve {{who}}."}
        with world(AiScript(greeting=lasting(20), answers=(lasting(1),)), agent=agent, **options) as w:
            w.twilio.callees["+15550009999"] = Callee(after_s=0.2, keys="2")
            call = w.twilio.place_call(to_number="+15550001000", hang_up=False, max_s=scaled(60.0))
            _begins(w, call)
            words = ("--to", "+15550009999", "--warm", "--summary", "Anna asks.")
            assert "The telephone of +15550009999 rings" in _run(w, tmp_path, "calls", "transfer", call.call_sid, *words)
            assert call.wait_for(lambda one: len(one.streams_s) == 2, scaled(10.0))
            w.gateway.until(lambda: len(w.ai.sessions) == 2 and bool(w.ai.sessions[1].responses), "the agent speaks again")
            assert text_of(Prompt.RETURNED) in [item.text for item in w.ai.sessions[1].items]
            assert all("You serve Ann." in one.updates[0]["instructions"] for one in w.ai.sessions), "of the call's route"
            call.hang_up()
            assert call.wait(scaled(10.0))
            w.gateway.until(lambda: _bodies(hooks, "call.ended") != [], "call.ended")
            row = w.gateway.ended(call.call_sid)
            (dialled,) = w.twilio.dials
            assert (dialled.bridged, dialled.spoken) == (False, ["Anna asks. Press 1 to take the call."])
            kinds = {event["kind"]: event["data"] for event in row["events"]}
            assert kinds["transfer_ended"] == {"target": "+15550009999", "status": "declined"}
            assert kinds["leaving"]["target"] == "+15550009999"
            assert kinds["resumed"]["after"] == "transferred"
            assert sum(one.recorded for one in w.twilio.rest.starts[call.call_sid]) == 1
            counted = w.gateway.metrics()
            assert [counted[f'gw_calls_ended_total{{reason="{why}"}}'] for why in ("transferred", "caller_hangup")] == [1.0, 1.0]
            assert _bodies(hooks, "transfer.ended") == [{"target": "+15550009999", "status": "declined"}]
            assert [data["reason"] for data in _bodies(hooks, "call.ended")] == ["caller_hangup"]


def test_a_caller_who_leaves_while_it_rings_has_the_last_word(world: WorldMaker, tmp_path: Path) -> None:
    with HookTwin(HOOK_SECRET) as hooks:
        ends = EventHook(url=hooks.url("ok"), types=("call.ended", "transfer.ended"))
        options = {"events": (ends,), "hooks": Hooks(allow_networks=("127.0.0.1/32",))}
        with world(AiScript(greeting=lasting(20)), **options) as w:
            w.twilio.callees["+15550009999"] = Callee(after_s=60.0)
            call = w.twilio.place_call(hang_up=False, max_s=scaled(60.0))
            _begins(w, call)
            _run(w, tmp_path, "calls", "transfer", call.call_sid, "--to", "+15550009999", "--warm")
            w.gateway.until(lambda: w.gateway.ended(call.call_sid)["reason"] == "transferred", "it left its stream")
            call.hang_up()
            assert call.wait(scaled(10.0))
            w.gateway.until(lambda: _bodies(hooks, "transfer.ended") != [], "the later one of the two events")
            row = w.gateway.ended(call.call_sid)
            left = "the caller hung up before the transfer to +15550009999 was connected"
            assert (row["reason"], row["detail"]) == ("caller_hangup", left)
            assert f"The call ended as caller_hangup: {left}." in " ".join(
                finding.sentence for finding in findings(msgspec.convert(row, type=CallDetails))
            )
            assert _bodies(hooks, "transfer.ended") == [{"target": "+15550009999", "status": "canceled"}]
            assert [data["reason"] for data in _bodies(hooks, "call.ended")] == ["caller_hangup"]


def _begins(w: World, call: TwinCall) -> None:
    """Wait until the caller hears the agent, and the store has the call."""
    assert call.wait_for(lambda one: bool(one.heard_audio), scaled(10.0))
    w.gateway.until(lambda: w.gateway.store.call(call.call_sid) is not None, "the call is stored")


def _bodies(hooks: HookTwin, kind: str) -> list[dict[str, Any]]:
    """Return the data of each event of a kind that the endpoint has received."""
    return [one.body["data"] for one in hooks.requests if one.body["type"] == kind]


def _run(w: World, folder: Path, *words: str) -> str:
    """Run a command on this gateway, in this process. Returns its output."""
    config = folder / "operator.toml"
    config.write_text(f'[ops]\nadmin_socket = "{w.gateway.config.ops.admin_socket}"\n')
    result = click.testing.CliRunner(env={"COLUMNS": "200"}).invoke(root, ["--config", str(config), *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def _kinds(row: dict[str, list[dict[str, str]]]) -> set[str]:
    return {event["kind"] for event in row["events"]}

"""An operator places a call, transfers it and explains it, through the admin socket."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import gevent
import msgspec

from gw.call.dialogue.commands import Prompt
from gw.call.prompts import text_of
from gw.cli import root
from gw.cli.calls.findings import findings, timeline
from gw.control.admin.client import AdminClient
from gw.control.rows import CallDetails
from gw.twin.ai.script import AiScript, lasting
from gw.twin.twilio.dial import Callee
from tests.calls.conftest import World, WorldMaker
from tests.timing import scaled


def test_a_call_is_placed_transferred_and_explained(world: WorldMaker, tmp_path: Path) -> None:
    with world(AiScript(greeting=lasting(20))) as w:
        operator = AdminClient(w.gateway.config.ops.admin_socket, scaled(10.0))
        placed = operator.request("dial", to="+15551234567", caller="+15557654321")
        call = w.twilio.calls[placed["call_sid"]]
        with gevent.Timeout(scaled(10.0)):
            while not call.heard_audio:
                gevent.sleep(0.02)
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
        assert row["reason"] == "caller_hangup"
        details = msgspec.convert(row, type=CallDetails)
        assert "transfer to +15550009999 done" in [moment.sentence for moment in timeline(details)]
        about = {finding.about: finding for finding in findings(details)}
        assert about["greeting"].weight == "good"
        assert "caller_hangup" in about["the end"].sentence
        assert (call.error, call.warnings) == ("", [])


def test_an_operator_transfers_a_call_that_comes_back(world: WorldMaker, tmp_path: Path) -> None:
    with world(AiScript(greeting=lasting(20), answers=(lasting(1),))) as w:
        w.twilio.callees["+15550009999"] = Callee(after_s=0.2, keys="2")
        call = w.twilio.place_call(hang_up=False, max_s=scaled(60.0))
        assert call.wait_for(lambda one: bool(one.heard_audio), scaled(10.0))
        words = ("--to", "+15550009999", "--warm", "--summary", "Anna asks.")
        assert "is transferred" in _run(w, tmp_path, "calls", "transfer", call.call_sid, *words)
        assert call.wait_for(lambda one: len(one.streams_s) == 2, scaled(10.0))
        w.gateway.until(lambda: len(w.ai.sessions) == 2 and bool(w.ai.sessions[1].responses), "the agent speaks again")
        assert text_of(Prompt.RETURNED) in [item.text for item in w.ai.sessions[1].items]
        call.hang_up()
        assert call.wait(scaled(10.0))
        row = w.gateway.ended(call.call_sid)
        (dialled,) = w.twilio.dials
        assert (dialled.bridged, dialled.spoken) == (False, ["Anna asks. Press 1 to take the call."])
        kinds = {event["kind"]: event["data"] for event in row["events"]}
        assert kinds["transfer_ended"] == {"target": "+15550009999", "status": "declined"}
        assert kinds["leaving"]["target"] == "+15550009999"
        assert sum(one.recorded for one in w.twilio.rest.starts[call.call_sid]) == 1


def _run(w: World, folder: Path, *words: str) -> str:
    """Run a command on this gateway, in this process. Returns its output."""
    config = folder / "operator.toml"
    config.write_text(f'[ops]\nadmin_socket = "{w.gateway.config.ops.admin_socket}"\n')
    result = click.testing.CliRunner(env={"COLUMNS": "200"}).invoke(root, ["--config", str(config), *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def _kinds(row: dict[str, list[dict[str, str]]]) -> set[str]:
    return {event["kind"] for event in row["events"]}

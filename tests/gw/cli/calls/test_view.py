"""gw.cli.calls.view: everything about one call."""

from __future__ import annotations

from gw import bus
from gw.call.cost.usage import KINDS, Used
from gw.control.store import Stamped, Store
from tests.gw.cli.conftest import ENDED, LIVE, CommandLine


def test_a_call_is_shown_in_full(cli: CommandLine, gateway: list[str]) -> None:
    shown = cli.run("calls", "show", ENDED).stdout
    for piece in (
        ENDED,
        "+15550001, +15550002",
        "Hello there.",
        "Stop it. (interrupted)",
        "count=1",
        "9000 of 9000",
        "0.120",
        "wanted",
    ):
        assert piece in shown


def _usage(call_sid: str, cost_usd: float | None) -> Stamped:
    used = [Used(day="2026-11-28", model="gpt-realtime-2.1", audio_out=4321, cost_usd=cost_usd)]
    return Stamped(bus.Usage(call_sid, "MZ1", 0.0, "default", "", used), "host", 0, f"usage {call_sid}", 1)


def test_a_call_is_shown_with_its_tokens_and_cost(cli: CommandLine, store: Store) -> None:
    store.apply([_usage(ENDED, 1234.56789), _usage(LIVE, None)])
    document = cli.document("calls", "show", ENDED)
    assert document["usage"] == {**dict.fromkeys(KINDS, 0), "audio_out": 4321}
    assert document["cost_usd"] == 1234.56789
    shown = cli.run("calls", "show", ENDED).stdout
    for piece in ("$1,234.5679", "gpt-realtime-2.1", "2026-11-28", "audio out", "4321"):
        assert piece in shown
    assert "no [prices]" in cli.run("calls", "show", LIVE).stdout
    assert "$1,234.5679" in cli.run("calls", "list", "--cost").stdout
    assert "$" not in cli.run("calls", "list").stdout
    assert {row["call_sid"]: row["cost_usd"] for row in cli.document("calls", "list")} == {LIVE: None, ENDED: 1234.56789}


def test_a_turn_has_its_wait_and_what_for(cli: CommandLine, store: Store) -> None:
    agent = next(turn for turn in store.call(ENDED).turns if turn.role == "agent")
    data = {"ms": 1240, "pause_ms": 500, "ai_ms": 720, "tool_ms": 0, "gateway_ms": 20, "item": agent.item_id, "agent": "default"}
    assert "waited" not in cli.run("calls", "show", ENDED).stdout
    store.apply([Stamped(bus.CallEvent(ENDED, "answered", 1_795_300_010.0, data), "host", 0, "waits", 1)])
    shown = cli.run("calls", "show", ENDED).stdout
    assert "1.24 s" in shown
    assert "ai_ms=720" not in shown
    assert "voice detection 0.50 s, AI 0.72 s, gateway 0.02 s" in cli.run("calls", "explain", ENDED).stdout

"""gw.cli.operate.audit: the acts of operators, from the gateway or from its store."""

from __future__ import annotations

import time

from gw.bus import CallEvent
from gw.control.store import Stamped, Store
from tests.gw.cli.conftest import ENDED, CommandLine


def test_acts_are_listed(cli: CommandLine, store: Store, gateway: list[str]) -> None:
    assert "No operator has acted." in cli.run("audit").output
    acts = [
        ("", {"command": "drain", "arguments": "on=True", "uid": 0, "outcome": "done"}, 3600.0),
        (ENDED, {"command": "hangup", "arguments": f"call_sid={ENDED}", "uid": 1000, "outcome": "not_found"}, 60.0),
    ]
    events = [CallEvent(call_sid, "operator", time.time() - ago_s, dict(data)) for call_sid, data, ago_s in acts]
    store.apply([Stamped(event, "vm7", -1, "admin-1", n) for n, event in enumerate(events, 1)])
    shown = cli.run("audit").output
    for piece in ("vm7", "drain", "on=True", "hangup", "not_found", "1000"):
        assert piece in shown
    assert [row["data"]["command"] for row in cli.document("audit")] == ["hangup", "drain"]
    assert [row["data"]["command"] for row in cli.document("audit", "--since", "30m")] == ["hangup"]
    assert len(cli.document("audit", "--limit", "1")) == 1


def test_without_a_gateway_the_store_is_read(cli: CommandLine, store: Store) -> None:
    store.apply([Stamped(CallEvent("", "operator", time.time(), {"command": "reload", "uid": 0}), "vm7", -1, "admin-1", 1)])
    assert "reload" in cli.run("audit").output

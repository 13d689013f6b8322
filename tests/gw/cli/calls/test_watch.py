"""gw.cli.calls.watch: following one call and all calls."""

from __future__ import annotations

import json

import pytest

from gw.bus import CallEnded
from gw.call.quality import Quality
from gw.control.store import Stamped, Store
from tests.gw.cli.conftest import BEGAN, ENDED, LIVE, CommandLine


def test_a_call_is_followed_to_its_end(cli: CommandLine, gateway: list[str]) -> None:
    shown = cli.run("calls", "watch", ENDED).stdout
    assert shown.index("Hello there.") < shown.index("the caller pressed [1 key]") < shown.index("No problem for the caller")
    lines = [json.loads(line) for line in cli.run("calls", "watch", ENDED, "--json").stdout.splitlines()]
    assert lines[-1]["verdict"].startswith("No problem for the caller")
    assert [line["what"] for line in lines[:-1]].count("event") == 1


def test_all_calls_are_followed(cli: CommandLine, gateway: list[str], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[float] = []

    def poll(seconds: float) -> None:
        polls.append(seconds)
        if len(polls) == 1:
            store.apply([Stamped(CallEnded(LIVE, BEGAN + 90, "phone_lost", "peer_error", "", Quality()), "host", 0, "i", 99)])
        if len(polls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("gw.cli.calls.watch.time.sleep", poll)
    result = cli.run("calls", "watch", "--json")
    assert result.exit_code == 0
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["what"], one["call_sid"], one["reason"]) for one in printed] == [
        ("begins", LIVE, None),
        ("ended", LIVE, "phone_lost"),
    ]

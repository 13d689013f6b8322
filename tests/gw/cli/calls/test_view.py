"""gw.cli.calls.view: everything about one call."""

from __future__ import annotations

from tests.gw.cli.conftest import ENDED, CommandLine


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

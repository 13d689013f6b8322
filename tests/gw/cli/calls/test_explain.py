"""gw.cli.calls.explain: the printed story and the document."""

from __future__ import annotations

from gw.control.store import Store
from tests.gw.cli.conftest import ENDED, CommandLine


def test_a_call_is_explained_without_a_gateway(cli: CommandLine, store: Store) -> None:
    shown = cli.run("calls", "explain", "CAa").stdout
    for piece in ("worth a look: recording", "No gap within", "ai_hangup", "the caller pressed [1 key]", "Stop it."):
        assert piece in shown
    document = cli.document("calls", "explain", ENDED)
    assert {finding["about"] for finding in document["findings"]} >= {"audio", "sends", "the end", "recording"}
    assert document["timeline"][0]["what"] == "call"

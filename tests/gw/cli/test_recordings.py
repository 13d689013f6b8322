"""gw.cli.recordings: list, retry and reconcile."""

from __future__ import annotations

import json

from gw.cli.recordings import STATES
from gw.control.store import Store
from gw.control.store.recordings import STATES as STORE_STATES
from tests.gw.cli.conftest import ENDED, LIVE, CommandLine


def test_recordings_are_listed(cli: CommandLine, gateway: list[str]) -> None:
    assert ENDED in cli.run("recordings", "list").stdout
    assert cli.run("recordings", "list", "--state", "failed").stdout == "No recording is failed.\n"
    assert set(STATES) == set(STORE_STATES)


def test_a_recording_is_retried(cli: CommandLine, gateway: list[str], store: Store) -> None:
    result = cli.run("recordings", "retry", LIVE)
    assert (result.exit_code, result.stderr) == (1, f"Error: no recording was requested for {LIVE}\n")
    result = cli.run("recordings", "retry", ENDED)
    assert (result.exit_code, result.stderr.partition(",")[0]) == (1, "The recording is wanted")
    store.claim_recording(ENDED, "AC1", "claimant/1-a", 1.0)
    store.update_recording(ENDED, state="failed", reason="unauthorized", error_code=20003, error_text="no")
    result = cli.run("recordings", "retry", ENDED)
    assert (result.exit_code, result.stderr) == (1, "The recording is failed: unauthorized: 20003: no\n")
    assert json.loads(cli.run("recordings", "retry", ENDED, "--json").stdout)["recording"]["state"] == "failed"
    store.update_recording(ENDED, state="completed", recording_sid="RE1")
    assert cli.run("recordings", "retry", ENDED).stdout == "The call's recording is completed: RE1.\n"


def test_the_first_digits_of_a_sid_suffice(cli: CommandLine, gateway: list[str], store: Store) -> None:
    store.claim_recording(ENDED, "AC1", "me/1", 1.0)
    store.update_recording(ENDED, state="completed", recording_sid="RE1")
    assert cli.run("recordings", "retry", ENDED[:6]).stdout == "The call's recording is completed: RE1.\n"
    assert "no recent call begins with CA9" in cli.run("recordings", "retry", "CA9").stderr


def test_recordings_are_reconciled(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("recordings", "reconcile").stdout.startswith(
        "3 recordings pending: checked 1 with Twilio, resolved 1, retried 1, waiting 1."
    )
    assert cli.document("recordings", "reconcile")["settled"] == 1

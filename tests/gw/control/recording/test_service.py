"""Construction of the recording parts: shared objects, and an owner unique to the process's life."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

import gw.config
from gw.config import Config
from gw.control.recording import service
from gw.control.recording.claims import Claims
from gw.control.recording.service import RecordingService
from gw.control.spool import Spool
from gw.control.store import Stamped, Store
from gw.control.twilio_api.accounts import Accounts
from metrics import declare
from metrics.page import Page
from tests import schema
from tests.gw.control.bus_client import CALL, call_started
from tests.gw.control.scripted_rest import ACCOUNT, OTHER_ACCOUNT, RECORDING, ScriptedRest, listing, recording, refusal
from tests.timing import scaled


def test_a_wish_is_claimed_by_this_process_and_settled(tmp_path: Path) -> None:
    page = Page.create(tmp_path / "control.page")
    store, spool = Store(gw.config.Store(url=f"sqlite:///{tmp_path}/store.db"), ""), Spool(tmp_path / "spool.db")
    schema.upgrade(store)
    try:
        made = [
            RecordingService(
                Config(),
                store,
                Accounts(Config()),
                page,
                claimant="host:1",
                claims=Claims(spool, claimant="host:1"),
                is_owned=lambda _: False,
                is_over=lambda _: False,
                store_away_s=lambda: -1e9,
                is_concealed=lambda _: False,
                may_settle=lambda: True,
                adopted=lambda: (),
                on_completed=lambda *_: None,
            )
            for _ in range(2)
        ]
        owners = {one.recorder.owner for one in made}
        assert len(owners) == 2, "two processes"
        assert all(owner.startswith(f"host:1/{os.getpid()}-") for owner in owners)
        assert made[0].recorder.want(CALL, "AC0", 1.0)
        made[0].recorder._pool.join(20)
        row = store.recording(CALL)
        assert row is not None
        assert (row.state, row.reason, row.owner) == ("failed", "no_credentials", made[0].recorder.owner)
        assert page.counter(declare.RECORDINGS, outcome="skipped").value == 1
        assert made[1].reconciler.pass_over(2.0, 2.0).unsettled == 0
    finally:
        store.close()
        spool.close()
        page.close()


@pytest.mark.parametrize("stored", [True, False])
def test_claims_are_recovered_from_the_calls_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    """Without the call's start, which was lost with the spool, each account is asked."""
    monkeypatch.setattr(service, "RECOVER_S", 0.0)
    twilio = ScriptedRest()
    page = Page.create(tmp_path / "control.page")
    store, spool = Store(gw.config.Store(url=f"sqlite:///{tmp_path}/store.db"), ""), Spool(tmp_path / "spool.db")
    schema.upgrade(store)
    config = twilio.config(other=True)
    completed: list[tuple[str, str, int | None]] = []
    made = RecordingService(
        config,
        store,
        Accounts(config),
        page,
        claimant="host:1",
        claims=Claims(spool, claimant="host:1"),
        is_owned=lambda _: False,
        is_over=lambda _: False,
        store_away_s=lambda: -1e9,
        is_concealed=lambda _: False,
        may_settle=lambda: True,
        adopted=lambda: (),
        on_completed=lambda *facts: completed.append(facts),
    )
    try:
        if stored:
            started = msgspec.structs.replace(call_started(CALL), account_sid=OTHER_ACCOUNT)
            store.apply([Stamped(started, "here", 0, "w0", 1)])
        else:
            twilio.gets.append(refusal(404, 20404))
        twilio.gets.extend([listing(recording()), listing(recording())])
        made.recover_claims(lambda: {CALL})
        made.recorder._pool.join(scaled(20))
        asked = [request.path.split("/")[3] for request in twilio.seen]
        assert asked == [*([] if stored else [ACCOUNT]), OTHER_ACCOUNT, OTHER_ACCOUNT]
        row = store.recording(CALL)
        assert row is not None
        assert (row.state, row.account_sid, twilio.count("POST")) == ("started", OTHER_ACCOUNT, 0)
        twilio.gets.append(listing(recording(status="completed", duration="3")))
        assert made.reconciler.pass_over(time.time(), time.monotonic(), asked=True).settled == 1
        assert completed == [(CALL, RECORDING, 3)]
    finally:
        made.recorder.stop()
        twilio.stop()
        store.close()
        spool.close()
        page.close()

"""Retention over a real store, a real spool, and the REST twin as Twilio."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import gw.config
from gw import bus
from gw.config import AccountSecrets, Config, Ops, Recording, Secrets, Subaccount, Twilio
from gw.control.retention.recordings import Recordings, open_files
from gw.control.retention.service import Retention
from gw.control.rows import RecordingRow
from gw.control.spool import Spool
from gw.control.spool.forwarder import Forwarder
from gw.control.store import Stamped, Store
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.rest import TwilioRest
from gw.twin.twilio.rest.recording import TwinRecording
from gw.twin.twilio.rest.server import RestTwin
from gw.twin.twilio.webhooks import WebhookSender
from metrics.page import Page
from tests import schema
from tests.gw.control.bus_client import call_ended, call_started
from tests.gw.control.scripted_rest import rest_of
from tests.gw.control.stamped import call_sid

ACCOUNT = "AC" + "1" * 32
OTHER = "AC" + "2" * 32
DAY_S = 86_400.0


class Rig:
    """One gateway's retention, and its Twilio."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "recordings"
        sender = WebhookSender("http://127.0.0.1:9", "http://127.0.0.1:9", "")
        self.twin = RestTwin(ACCOUNT, "secret", {}, sender).start()
        self.other = RestTwin(OTHER, "another secret", {}, sender, beside=self.twin)
        self.has_other = False  # whether that account is configured
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        schema.upgrade(self.store)
        self.spool = Spool(folder / "spool.db")
        self.forwarder = Forwarder(self.spool, self.store, host="vm1", on_backlog=lambda _: None)
        self.page = Page.create(folder / "control.page")
        self.alive: set[str] = set()
        self.may_settle = True
        self.made: list[Retention | Recordings] = []

    def config(self, *, keep_days: int = 0, twilio_days: int = 0, fetches: bool = True) -> Config:
        return Config(
            ops=Ops(var_dir=str(self.folder)),
            twilio=Twilio(
                account_sid=ACCOUNT,
                api_base=self.twin.url,
                timeout_s=5.0,
                accounts={"other": Subaccount(account_sid=OTHER)} if self.has_other else {},
            ),
            secrets=Secrets(twilio_auth_token="secret", accounts={"other": AccountSecrets(twilio_auth_token="another secret")}),
            recording=Recording(fetch_dir=str(self.files) if fetches else "", keep_days=twilio_days),
            store=gw.config.Store(keep_days=keep_days),
        )

    def rest(self) -> TwilioRest:
        return rest_of(self.config())

    def recordings(self, *, twilio_days: int = 0, fetches: bool = True) -> Recordings:
        config = self.config(twilio_days=twilio_days, fetches=fetches)
        files = open_files(config)
        return Recordings(config, self.store, Accounts(config), self.page, machine="vm1", files=files)

    def retention(self, *, owner: str = "me", signed: bool = True, **options: int) -> Retention:
        config = self.config(**options)  # type: ignore[arg-type]
        made = Retention(
            config,
            self.store,
            self.spool,
            self.forwarder,
            Accounts(config if signed else Config()),
            self.page,
            owner=owner,
            machine="vm1",
            is_owned=self.alive.__contains__,
            may_settle=lambda: self.may_settle,
            require_schema=lambda: None,
        )
        self.made.append(made)
        return made

    def call(self, k: int = 1, *, days_old: float = 1.0, account: str = ACCOUNT) -> str:
        """Store a call that ended so many days ago. Returns its SID."""
        sid, at = call_sid(k), time.time() - days_old * DAY_S
        ends = [
            msgspec.structs.replace(call_started(sid), account_sid=account, started_at=at - 60),
            msgspec.structs.replace(call_ended(sid), ended_at=at),
        ]
        self.store.apply([Stamped(event, "vm1", 0, f"w{k}", n) for n, event in enumerate(ends, 1)])
        return sid

    def recorded(
        self, k: int = 1, *, days_old: float = 1.0, channels: int = 2, at_twilio: bool = True, account: str = ACCOUNT
    ) -> TwinRecording:
        """Store a call with a completed recording, which Twilio has."""
        sid, at = self.call(k, days_old=days_old, account=account), time.time() - days_old * DAY_S
        made = TwinRecording(f"RE{k:032x}", account, sid, channels, "both", at - 60, "", frozenset())
        made.finish(at, absent=False)
        if at_twilio:
            (self.twin if account == ACCOUNT else self.other).recordings[made.sid] = made
        self.store.apply([Stamped(bus.StartRecording(sid, account, at - 60), "vm1", 0, f"r{k}", 1)])
        self.store.claim_recording(sid, account, "me/1", at)
        self.store.update_recording(
            sid, state="completed", recording_sid=made.sid, started_at=at - 60, duration_s=60, channels=channels
        )
        return made

    def row(self, k: int = 1) -> RecordingRow:
        found = self.store.recording(call_sid(k))
        assert found is not None
        return found

    def asked(self, method: str) -> int:
        """Return the number of requests that Twilio received."""
        return sum(1 for _, used, _, _ in self.twin.requests if used == method)

    def stop(self) -> None:
        for one in self.made:
            one.stop() if isinstance(one, Retention) else None
        self.page.close()
        self.spool.close()
        self.store.close()
        self.twin.stop()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.stop()

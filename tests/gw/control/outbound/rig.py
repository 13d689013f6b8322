"""Lists of numbers over a real store, spool and jobs, and a Twilio twin."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent

import gw.config
from gw import bus
from gw.config import Agent, Config, EventHook, Secrets, Server, Twilio
from gw.control.jobs import table
from gw.control.jobs.dial import DialEnded, DialHandler
from gw.control.jobs.event import event_hooks
from gw.control.jobs.service import Jobs
from gw.control.outbound.service import Outbound
from gw.control.spool import Spool
from gw.control.store import Store
from gw.control.twilio_api.accounts import Accounts
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.stream import CallPlan
from metrics.page import Page
from tests import schema
from tests.gw.control.outbound.rows import LIST, line, listed
from tests.timing import scaled

NO_GATEWAY = "http://127.0.0.1:9"
TOKEN = "an auth token of the tests"


class Rig:
    """The callees are busy unless a test changes that. Webhooks reach the lists by `report` alone."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.twilio = TwilioTwin(NO_GATEWAY, auth_token=TOKEN).start()
        self.twilio.callee = CallPlan(answer="busy")
        standard: dict[str, Any] = {"calls_per_s": 100.0, "concurrent": 100, "hours": "", "retry_after_s": 60.0, "amd": False}
        self.config = Config(
            server=Server(public_url="https://voice.example.com"),
            twilio=Twilio(account_sid=self.twilio.account_sid, api_base=self.twilio.rest.url, timeout_s=scaled(2.0)),
            agents={"default": Agent(), "sales": Agent()},
            outbound=gw.config.Outbound(**{**standard, **rules}),
            events=(EventHook(url="https://api.example.com/events", types=("dial.ended",)),),
            secrets=Secrets(twilio_auth_token=TOKEN, hook_secret="a hook secret of the tests"),
        )
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        schema.upgrade(self.store)
        self.lines = self.store.dials
        self.spool = Spool(folder / "spool.db")
        self.page = Page.create(folder / "control.page")
        self.refusal = ""
        self.has_call = True  # a worker takes verdicts
        self.verdicts: list[tuple[str, str]] = []
        self.ended: list[DialEnded] = []
        self._hooks = event_hooks(self.config, self.page, lambda sid: None, self.spool, lambda sid: False, lambda sid: True)
        self.accounts = Accounts(self.config)
        self.service = self.made(self.store)
        self.jobs = Jobs(
            self.spool, self.page, [DialHandler(self.lines, self.service, self.service)], settle=lambda settled: None
        )

    def made(self, store: Store) -> Outbound:
        """Return the lists over a store."""
        return Outbound(
            self.config,
            store.dials,
            self.accounts,
            disk=self.spool,
            wake_jobs=lambda: self.jobs.on_accepted(()),
            refusal=lambda: self.refusal,
            send_verdict=self._send_verdict,
            events=self._on_ended,
        )

    def _send_verdict(self, call_sid: str, verdict: str) -> bool:
        if self.has_call:
            self.verdicts.append((call_sid, verdict))
        return self.has_call

    def _on_ended(self, ended: DialEnded) -> Sequence[table.Wanted]:
        self.ended.append(ended)
        return self._hooks.of_dial(ended)

    # -- acts -------------------------------------------------------------------------------------------------------------

    def listed(self, *numbers: int, **changes: Any) -> None:
        """Store a list with these lines."""
        row = listed(**changes)
        self.lines.open_list(row)
        self.lines.add([line(n, list_id=row.list_id) for n in numbers])

    def run(self, list_id: str = LIST) -> None:
        row = self.lines.one_list(list_id)
        assert row is not None
        self.service.run(row)

    def start(self) -> None:
        self.jobs.start()
        self.service.start()

    def turn(self) -> float:
        """Take a turn of the lists, without their pace."""
        self.service._next_s = 0.0
        return self.service._turn()

    def report(self, n: int, status: str = "busy", attempt: int = 1, list_id: str = LIST, **fields: str) -> None:
        """Deliver Twilio's webhook about the end of a dial."""
        call_sid = fields.pop("CallSid", "") or self.sid_of(n, list_id)
        fields = {"dial": f"{list_id}-{n}-{attempt}", "CallSid": call_sid, "CallStatus": status, **fields}
        self.service.on_stored(bus.Webhook("status", time.time(), fields))

    # -- facts ------------------------------------------------------------------------------------------------------------

    def sid_of(self, n: int, list_id: str = LIST) -> str:
        row = self.lines.one(list_id, n)
        assert row is not None
        return row.call_sid or ""

    def state(self, n: int, list_id: str = LIST) -> tuple[str, str | None, int]:
        """Return a line's state, result and dials."""
        row = self.lines.one(list_id, n)
        assert row is not None
        return row.state, row.result, row.attempts

    @property
    def dialled(self) -> dict[str, int]:
        """Dials at Twilio, by number."""
        return {number: len(calls) for number, calls in self.twilio.placed.items()}

    def wanted(self) -> list[str]:
        """Return the dials whose jobs are on disk."""
        rows = self.spool.transact(lambda db: db.execute("SELECT id FROM jobs WHERE kind = 'dial' ORDER BY rowid").fetchall())
        return [str(row[0]).split("/")[1] for row in rows]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        with gevent.Timeout(scaled(20.0), AssertionError(f"not reached: {what}")):
            while not holds():
                gevent.sleep(0.01)

    def close(self) -> None:
        self.service.stop()
        self.jobs.stop()
        self.twilio.stop()
        self.spool.close()
        self.page.close()
        self.store.close()

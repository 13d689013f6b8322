"""A gateway in the test's process: the real control and the real worker, connected by the bus's socket.

Only the process boundary is missing, so that a test can count greenlets and descriptors and start a gateway in a tenth of a
second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import urlopen

import gevent
import msgspec
from gevent import socket
from gevent.event import Event
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from gw.config import Agent, Config, Media, Ops, Recording, Secrets, Server, Twilio
from gw.config import Store as StoreConfig
from gw.control.main import Control
from gw.control.store import Store, tables
from gw.media.worker import Worker
from tests.mariadb import PASSWORD
from tests.timing import scaled

ACCOUNT = "AC" + "0" * 31 + "1"
AUTH_TOKEN = "an auth token of the tests"
HOOK_SECRET = "a hook secret of the tests"
#: URL configured at Twilio. The twin maps it to the gateway's real address.
PUBLIC_URL = "https://voice.example.com"


class Gateway:
    """Context manager: one gateway."""

    def __init__(
        self,
        var_dir: Path,
        store: StoreConfig,
        *,
        agent: Agent | None = None,
        agents: Mapping[str, Agent] | None = None,
        api_base: str = "http://127.0.0.1:9",
        signed: bool = True,
        media: Media | None = None,
        recording: Recording | None = None,
        server: Server | None = None,
        **sections: Any,
    ) -> None:
        """`sections`: further parts of the configuration.

        `media`: by default without the holding sound, which a caller of a busy machine hears before the first word.
        """
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.url = "http://{}:{}".format(*self.address)
        base = server or Server(stop_timeout_s=0.5)
        self.config = Config(
            server=msgspec.structs.replace(base, listen="{}:{}".format(*self.address), public_url=PUBLIC_URL if signed else ""),
            ops=Ops(listen="127.0.0.1:0", admin_socket=str(var_dir / "admin.sock"), var_dir=str(var_dir)),
            twilio=Twilio(account_sid=ACCOUNT if signed else "", api_base=api_base, timeout_s=scaled(2.0)),
            media=media or Media(holding_sound=False),
            recording=recording or Recording(),
            store=store,
            agents={"default": agent or Agent(), **(agents or {})},
            secrets=Secrets(
                twilio_auth_token=AUTH_TOKEN if signed else "",
                openai_api_key="key-of-the-tests",
                db_password=PASSWORD,
                hook_secret=HOOK_SECRET,
                token_key="" if signed else "a key of the tests",
            ),
            **sections,
        )
        self.control = Control(self.config)
        self.worker = Worker(self.config, 0, self.listener)
        self.store: Store = self.control._store
        self._greenlets: list[gevent.Greenlet[..., int]] = []

    def __enter__(self) -> Gateway:
        for part in (self.control, self.worker):
            ready = Event()
            self._greenlets.append(gevent.spawn(part.run, ready.set))
            assert ready.wait(scaled(10.0)), f"{part} did not start"
        self.until(lambda: bool(self.control._health.readiness().ready), "the worker is on the bus")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.worker.stop()
        self._greenlets[1].join(scaled(15.0))
        self.control.stop()
        self._greenlets[0].join(scaled(15.0))
        codes = [greenlet.value for greenlet in self._greenlets]
        assert codes == [0, 0] or error is not None, f"control and worker ended with {codes}"

    # -- observing ----------------------------------------------------------------------------------------------------

    def until(self, holds: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
        """Wait until `holds`; fail with `what` after the timeout."""
        with gevent.Timeout(scaled(timeout_s), AssertionError(f"not reached: {what}")):
            while not holds():
                gevent.sleep(0.01)

    def ended(self, call_sid: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait until a call has ended in the store; return it with all its rows.

        A call whose stream broke has an end until it resumes, so nothing that was emitted may be on its way to the store.
        """

        def is_over() -> bool:
            row = self.store.call(call_sid)
            return row is not None and row.ended_at is not None

        def is_stored() -> bool:
            return self.worker._bus.unacked == 0 and self.control._spool.backlog() == 0

        self.until(is_over, f"call {call_sid} ended in the store", timeout_s)
        self.until(is_stored, "every event is stored", timeout_s)
        row: dict[str, Any] = msgspec.to_builtins(self.store.call(call_sid))
        return row

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Every stored event of a kind, of any call or of none."""
        of_kind = select(tables.events).where(tables.events.c.kind == kind)
        return self.store._backend.read(lambda c: [dict(row._mapping) for row in c.execute(of_kind)])

    def metrics(self) -> dict[str, float]:
        """Return every sample of the metrics page: `name{label="value"}` to value."""
        with urlopen(f"http://127.0.0.1:{self.control.ops_port}/metrics", timeout=scaled(5.0)) as answer:
            page = answer.read().decode()
        samples = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples


def descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())

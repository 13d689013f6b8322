"""The data of the dashboards: a gateway under load, with Prometheus and MariaDB.

Conversations of real speech, interruptions, and a few AIs that fail. The load is short but touches every panel, so that an empty
panel is a wrong panel.
"""

from __future__ import annotations

import datetime
import decimal
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import gevent
import pymysql

from gw.bench.gateway_process import GatewayProcess
from gw.twin import speech
from gw.twin.ai.script import AiScript, conversation, lasting
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.stream import CallPlan
from tests.calls.hearing import WORD
from tests.dashboards.prometheus import Prometheus
from tests.mariadb import MariaDB
from tests.timing import scaled

_GATEWAY = Path(__file__).resolve().parents[2] / "gateway.py"
#: Interval between two calls.
_RING_S = 0.4
_GREETING = lasting(5)
#: A caller who interrupts after a second and a half, then listens.
_INTERRUPTS = speech.script(1500, WORD, 6000)
_SCRIPTS = (
    conversation(hang_up_after=2),
    AiScript(greeting=_GREETING, answers=(_GREETING[:8000],), hang_up_after=2, speed=1.5),
    conversation(hang_up_after=1, thinking_s=0.6),
    AiScript(greeting=_GREETING).with_fault("error_benign"),
    AiScript(greeting=_GREETING).with_fault("reset"),
    AiScript(greeting=_GREETING).with_fault("error_fatal"),
)


class _Gateway(GatewayProcess):
    """`gateway.py serve` with a store on MariaDB. Its user has no password: the environment's secrets are not passed on."""

    store_url = ""

    def configuration(self, account_sid: str, api_base: str, ai_url: str) -> str:
        text = super().configuration(account_sid, api_base, ai_url)
        return "\n".join(f'url = "{self.store_url}"' if line.startswith('url = "sqlite:') else line for line in text.split("\n"))

    @property
    def ops(self) -> str:
        return f"127.0.0.1:{self._ops_port}"


class Scene:
    """Access to Prometheus and the store while the gateway runs."""

    def __init__(self, prometheus: Prometheus, database: MariaDB, name: str) -> None:
        self.prometheus = prometheus
        self._database, self._name = database, name
        self.since = time.time()
        self.until = self.since

    def sql(self, statement: str) -> tuple[list[str], list[list[Any]]]:
        """Return columns and rows, read as Grafana's user, who may only read."""
        connection = pymysql.connect(host="127.0.0.1", port=self._database.port, user="grafana", database=self._name)
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(statement)
            columns = [str(column[0]) for column in cursor.description or ()]
            return columns, [[_plain(value) for value in row] for row in cursor.fetchall()]


def _plain(value: Any) -> Any:
    """Convert a value to JSON; a time to milliseconds, as in Grafana's frames."""
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=datetime.UTC).timestamp() * 1000
    return float(value) if isinstance(value, decimal.Decimal) else value


@contextmanager
def playing(folder: Path, database: MariaDB, seconds: float) -> Iterator[Scene]:
    """Put load on a gateway for about `seconds`; everything stays up during the context."""
    url = database.fresh()
    name = url.rpartition("/")[2]
    for statement in (
        "CREATE USER IF NOT EXISTS gateway@'127.0.0.1'",
        f"GRANT ALL ON {name}.* TO gateway@'127.0.0.1'",
        "CREATE USER IF NOT EXISTS grafana@'127.0.0.1'",
        f"GRANT SELECT ON {name}.* TO grafana@'127.0.0.1'",
    ):
        database.execute(statement)
    settings = {"server": "workers = 2\n", "ops": 'hold_monitor = "always"\nlog_level = "error"\n'}
    gateway = _Gateway([sys.executable, str(_GATEWAY)], folder / "gateway", settings)
    gateway.store_url = f"mysql+pymysql://gateway@127.0.0.1:{database.port}/{name}"
    token = secrets.token_hex(16)
    with ExitStack() as opened:
        voices = opened.enter_context(AiTwin(lambda index, path: _SCRIPTS[index % len(_SCRIPTS)]))
        telephones = opened.enter_context(TwilioTwin(gateway.url, auth_token=token))
        opened.callback(gateway.stop)
        gateway.start(account_sid=telephones.account_sid, auth_token=token, api_base=telephones.rest.url, ai_url=voices.url)
        prometheus = opened.enter_context(Prometheus(folder / "prometheus", gateway.ops))
        scene = Scene(prometheus, database, name)
        with gevent.Timeout(scaled(30), AssertionError("Prometheus does not scrape the gateway")):
            while not prometheus.at("count_over_time(gw_tx_frames_total[1m]) > 1", time.time()):
                gevent.sleep(0.2)  # one sample at rest, so that the load is an increase
        scene.since = time.time()
        while time.time() < scene.since + seconds:
            telephones.place(CallPlan(speech=_INTERRUPTS, max_s=scaled(30)))
            gevent.sleep(_RING_S)
        assert telephones.wait(scaled(60)), "a call did not end"
        telephones.rest.wait_callbacks(scaled(5))
        gevent.sleep(2.5)  # until the last calls are scraped
        scene.until = time.time()
        yield scene

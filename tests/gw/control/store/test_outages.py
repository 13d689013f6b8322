"""The forwarder and a real MariaDB through its outages: the spool grows, and the store has every event afterwards.

Here the server locks its tables, is full, is cut off silently, cannot be understood, and is replaced by another. The test of the
forwarder kills and freezes it.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import gevent
import gevent.server
import pymysql
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

import gw.config
from gw import bus
from gw.control.spool import Spool
from gw.control.spool.forwarder import Forwarder
from gw.control.store import Store, StoreError, StoreUnavailable, migrations
from tests import schema
from tests.gw.control.stamped import ACCOUNT, T0, call_sid, ended, started, turn
from tests.mariadb import PASSWORD, USER, MariaDB
from tests.timing import scaled


class Line:
    """A TCP proxy before the server. It can drop bytes silently, delay them, lead to another port, or send another greeting."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.dead = False
        self.delay_s = 0.0  # of each answer
        self.greeting = b""
        self._sockets: list[socket.socket] = []
        self._server = gevent.server.StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    @property
    def listens(self) -> int:
        return int(self._server.server_port)

    def close(self) -> None:
        self._server.stop(timeout=0)
        self.drop()

    def drop(self) -> None:
        """Close every connection."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def _serve(self, client: socket.socket, _address: object) -> None:
        if self.greeting:
            client.sendall(self.greeting)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        except ConnectionRefusedError:
            return  # no server: the client receives the end of its connection
        server.settimeout(None)
        self._sockets += [client, server]
        gevent.joinall([gevent.spawn(self._pump, client, server), gevent.spawn(self._pump, server, client, True)])

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool = False) -> None:
        try:
            while data := source.recv(65536):
                if answers:
                    gevent.sleep(self.delay_s)
                if not self.dead:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other pump fails too


class Rig:
    """A spool, a forwarder and a store that reaches MariaDB over a line."""

    def __init__(self, folder: Path, mariadb: MariaDB) -> None:
        self.mariadb = mariadb
        url = make_url(mariadb.fresh())
        self.database = str(url.database)
        self.line = Line(mariadb.port)
        config = gw.config.Store(
            url=str(url.set(port=self.line.listens)), connect_timeout_s=scaled(0.5), statement_timeout_s=scaled(1.0)
        )
        self.store = Store(config, PASSWORD)
        schema.upgrade(self.store)
        self.spool = Spool(folder / "spool.db")
        self.backlogs: list[int] = []
        self.forwarder = Forwarder(
            self.spool, self.store, host="h1", on_backlog=self.backlogs.append, retry_min_s=0.02, retry_max_s=0.1
        )
        self.running = gevent.spawn(self.forwarder.run)
        self.calls = 0

    def call(self) -> None:
        """Spool every event of one call."""
        self.calls += 1
        k = self.calls
        events: list[bus.Event] = [
            started(k),
            turn(k),
            bus.StartRecording(call_sid(k), ACCOUNT, T0 + k),
            bus.CallEvent(call_sid(k), "dtmf", T0 + k, {"digit": "1" * 900}),
            ended(k),
        ]
        first = self.spool.last("i1") + 1
        self.spool.append("i1", [(n, bus.encode_event(event)) for n, event in enumerate(events, first)])
        self.forwarder.notify()

    def assert_outage(self) -> None:
        """Wait until the forwarder meets the outage while calls continue; the backlog grows."""
        before = self.forwarder.retries
        with gevent.Timeout(scaled(10)):
            while self.forwarder.retries == before:
                self.call()
                gevent.sleep(0.05)
        self.call()
        assert self.spool.backlog() > 0
        assert self.forwarder.last_problem.startswith(("the store is not available", "the store's answer cannot be used"))

    def assert_recovery(self) -> None:
        """Wait until every event is stored, once."""
        with gevent.Timeout(scaled(10)):
            while self.spool.backlog():
                gevent.sleep(0.02)
        gevent.sleep(0)
        assert (self.spool.list_poison(10), self.forwarder.last_problem, self.backlogs[-1]) == ([], "", 0)
        assert max(self.backlogs) > 0
        counts = {table: self.count(table) for table in ("calls", "turns", "recordings", "call_quality", "events")}
        assert counts == dict.fromkeys(counts, self.calls)
        assert self.count("calls WHERE ended_at IS NULL") == 0

    def count(self, of: str) -> object:
        return self.mariadb.execute(f"SELECT COUNT(*) FROM {self.database}.{of}")[0][0]

    def stop(self) -> None:
        self.forwarder.stop()
        self.running.join(timeout=scaled(10))
        self.store.close()
        self.spool.close()
        self.line.close()


@pytest.fixture
def rig(tmp_path: Path, mariadb: MariaDB) -> Iterator[Rig]:
    made = Rig(tmp_path, mariadb)
    made.call()
    yield made
    made.stop()


def test_locked_tables(rig: Rig) -> None:
    with closing(pymysql.connect(host="127.0.0.1", port=rig.mariadb.port, user=USER, password=PASSWORD)) as other:
        with other.cursor() as cursor:
            cursor.execute(f"LOCK TABLES {rig.database}.turns WRITE")
        rig.assert_outage()
    rig.assert_recovery()


def test_a_full_table(rig: Rig) -> None:
    """The server's own refusal, error 1114: an engine with a limit of 64 KB in place of a full disk."""
    rig.mariadb.execute("SET GLOBAL myisam_data_pointer_size = 2")
    rig.mariadb.execute(f"ALTER TABLE {rig.database}.events ENGINE=MyISAM")
    try:
        while rig.spool.backlog() < 5 or not rig.forwarder.retries:
            for _ in range(20):
                rig.call()
            gevent.sleep(0.1)
        rig.assert_outage()
        assert "is full" in rig.forwarder.last_problem
    finally:
        rig.mariadb.execute("SET GLOBAL myisam_data_pointer_size = 6")
    rig.mariadb.execute(f"ALTER TABLE {rig.database}.events ENGINE=InnoDB")
    rig.assert_recovery()


def test_half_open_connections(rig: Rig) -> None:
    rig.line.dead = True
    rig.assert_outage()
    rig.line.dead = False
    rig.assert_recovery()


#: Greetings of a broken proxy, with the exception that PyMySQL raises for each.
GREETINGS = {"IndexError": b"\x00\x00\x00\x00", "error": b"\x07\x00\x00\x00\x0a5.5\x00\x01\x02"}


@pytest.mark.parametrize("name", GREETINGS)
def test_a_greeting_that_cannot_be_read(rig: Rig, name: str) -> None:
    rig.line.greeting = GREETINGS[name]
    rig.line.drop()
    rig.assert_outage()
    with gevent.Timeout(scaled(10)):
        while not rig.forwarder.last_problem.endswith(f": {name}"):
            gevent.sleep(0.02)
    rig.line.greeting = b""
    rig.assert_recovery()


@pytest.mark.parametrize("name", GREETINGS)
def test_an_upgrade_meets_a_greeting_that_cannot_be_read(rig: Rig, name: str) -> None:
    rig.line.greeting = GREETINGS[name]
    with pytest.raises(StoreUnavailable, match=rf": {name}$"):
        rig.store.upgrade()


def test_an_answer_that_cannot_be_read_costs_its_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of such an answer would be taken for the answer to the next statement."""
    rig.assert_recovery()
    before = connection_id(rig.store)
    with monkeypatch.context() as patch:
        patch.setattr(pymysql.connections.MySQLResult, "_read_rowdata_packet", lambda result: struct.unpack("<I", b""))
        with pytest.raises(StoreUnavailable, match=r": error$"):
            connection_id(rig.store)
    assert connection_id(rig.store) != before


def test_another_server_takes_over_at_another_port(rig: Rig) -> None:
    rig.mariadb.kill()
    rig.line.drop()
    rig.assert_outage()
    rig.mariadb.move()
    rig.mariadb.start()
    rig.line.port = rig.mariadb.port
    rig.assert_recovery()


def test_connections_to_a_demoted_server_are_dropped(rig: Rig) -> None:
    """In a failover by name the old server still answers but is read-only; its connections must not be reused."""
    rig.mariadb.execute("SET GLOBAL read_only = 1")
    try:
        rig.assert_outage()
        assert "read-only" in rig.forwarder.last_problem
        before = connection_id(rig.store)
        rig.assert_outage()
        assert connection_id(rig.store) != before
    finally:
        rig.mariadb.execute("SET GLOBAL read_only = 0")
    rig.assert_recovery()


def connection_id(store: Store) -> object:
    return store._backend.read(lambda connection: connection.execute(text("SELECT CONNECTION_ID()")).scalar())


def test_ten_minutes_of_calls_are_caught_up_with(rig: Rig) -> None:
    """20 calls a minute with ten turns each: the backlog is stored well within 30 s."""
    rig.line.port, port = 1, rig.line.port
    rig.line.drop()
    for k in range(200):
        sids = f"i{k}"
        events = [bus.Turn(call_sid(10_000 + k), n, "agent", "Of course. " * 10, f"item_{n}", n * 1000) for n in range(10)]
        rig.spool.append(sids, [(n, bus.encode_event(event)) for n, event in enumerate(events, 1)])
        rig.call()
    waited = rig.spool.backlog()
    rig.line.port = port
    began_s = time.monotonic()
    with gevent.Timeout(scaled(30)):
        while rig.spool.backlog():
            gevent.sleep(0.02)
    assert waited > 2900
    print(f"{waited} events forwarded in {time.monotonic() - began_s:.2f} s")


def test_a_migration_runs_while_others_write(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older gateway writes through it. Its restart refuses the newer schema and changes nothing."""
    config = gw.config.Store(url=mariadb.fresh())
    old, new = Store(config, PASSWORD), Store(config, PASSWORD)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "HEAD", "0001")
        old.upgrade()
    assert old.current()[0] == "0001"
    old._backend.write(
        statement(
            "INSERT INTO recordings (call_sid, state, attempts, error_text) VALUES ('CA0', 'failed', 1, 'timeout: no answer')"
        )
    )
    written: list[int] = []
    stop = False

    def write() -> None:
        while not stop:
            k = len(written) + 1
            old._backend.write(statement(f"INSERT INTO recordings (call_sid, state, attempts) VALUES ('CA{k}', 'wanted', 0)"))
            written.append(k)
            gevent.sleep(0)

    writer = gevent.spawn(write)
    with gevent.Timeout(scaled(10)):
        while len(written) < 20:
            gevent.sleep(0.01)
        new.upgrade()
        after = len(written)
        while len(written) < after + 20:
            gevent.sleep(0.01)
    stop = True
    writer.get(timeout=scaled(10))
    assert len(new.recordings(limit=10_000)) == len(written) + 1
    moved = new.recording("CA0")
    assert moved is not None
    assert (moved.reason, moved.error_text) == ("timeout", "no answer")
    newest = migrations.HEAD
    monkeypatch.setattr(migrations, "REVISIONS", ("0001",))
    monkeypatch.setattr(migrations, "HEAD", "0001")
    for act in (old.upgrade, old.check):
        with pytest.raises(StoreError, match=rf"{newest}, newer than 0001, the last one of this version"):
            act()
    old.close()
    new.close()


def statement(sql: str) -> Callable[[Connection], None]:
    """Return work that runs one statement of the older version."""

    def work(connection: Connection) -> None:
        connection.execute(text(sql))

    return work

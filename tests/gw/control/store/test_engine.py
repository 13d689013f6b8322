"""gw.control.store.engine on MySQL: URLs, encryption, sessions, locks, deadlocks and lost connections."""

from __future__ import annotations

import sqlite3
import ssl
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from sqlalchemy import Connection, text

import gw.config
from gw.control.store import Store, StoreUnavailable
from gw.control.store.engine import MySql, Sqlite, open_backend
from gw.control.store.migrations import revision_of
from gw.errors import ConfigError
from tests.mariadb import PASSWORD, MariaDB, make_certificate
from tests.timing import scaled


def backend(url: str, *, statement_s: float = 4.0) -> MySql:
    made = open_backend(gw.config.Store(url=url, connect_timeout_s=scaled(2), statement_timeout_s=scaled(statement_s)), PASSWORD)
    assert isinstance(made, MySql)
    return made


@pytest.fixture
def mysql(mariadb_url: str) -> Iterator[MySql]:
    made = backend(mariadb_url)
    yield made
    made.close()


def one(connection: Connection, sql: str) -> object:
    return connection.execute(text(sql)).scalar()


# -- the URL ----------------------------------------------------------------------------------------------------------


def test_the_password_joins_the_url_and_is_never_shown() -> None:
    made = open_backend(gw.config.Store(url="mariadb://u%40v@db.example:3307/name?unix_socket=/run/s&ssl=no"), "p@ss")
    assert isinstance(made, MySql)
    assert made._url.render_as_string(hide_password=False) == (
        "mysql+pymysql://u%40v:p%40ss@db.example:3307/name?unix_socket=%2Frun%2Fs"
    )
    assert "p@ss" not in f"{made._url} {made._url!r}"
    made.close()


def test_a_url_outside_the_grammar_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^store\.url has the unsupported scheme"):
        open_backend(gw.config.Store(url="postgresql://u:hunter2@h/db"), "")


# -- encryption -------------------------------------------------------------------------------------------------------


def cipher(connection: Connection) -> str:
    return str(connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1])


def test_loopback_is_plain(mysql: MySql) -> None:
    assert mysql.read(cipher) == ""


def test_a_certificate_means_encryption_with_one_context(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{mariadb.fresh()}?ssl_ca={mariadb.ca}"
    built: list[ssl.SSLContext] = []
    build = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **kw: built.append(build(**kw)) or built[-1])
    made = backend(url)
    readers = [gevent.spawn(made.read, lambda c: (one(c, "SELECT SLEEP(0.05)"), cipher(c))) for _ in range(5)]
    gevent.joinall(readers, timeout=scaled(20), raise_error=True)
    assert all(reader.value[1] for reader in readers)
    assert len(built) == 1
    made.close()


def test_preferred_tls_uses_one_context(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    url = mariadb.fresh()
    monkeypatch.setattr("gw.control.store.tls._is_local", lambda *_: False)
    made = backend(url)
    assert made.read(cipher)
    contexts = {made._tls.context() for _ in range(2)}  # type: ignore[union-attr]
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: pytest.fail("a second context was built"))
    made._engine.dispose()
    assert made.read(cipher)
    assert len(contexts) == 1
    made.close()


def test_an_impostor_is_refused(mariadb: MariaDB, tmp_path: Path) -> None:
    make_certificate(tmp_path / "ca.pem", tmp_path / "key.pem")
    made = backend(f"{mariadb.fresh()}?ssl_ca={tmp_path}/ca.pem")
    with pytest.raises(StoreUnavailable, match="certificate"):
        made.read(cipher)
    made.close()


def test_a_missing_certificate_is_reported(mariadb: MariaDB) -> None:
    made = backend(f"{mariadb.fresh()}?ssl_ca=/nowhere/ca.pem")
    with pytest.raises(StoreUnavailable, match="No such file"):
        made.read(cipher)
    made.close()


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_has_the_settings_of_the_store(mysql: MySql) -> None:
    def look(connection: Connection) -> tuple[object, ...]:
        names = ("tx_isolation", "time_zone", "character_set_client", "collation_connection", "innodb_lock_wait_timeout")
        return tuple(one(connection, f"SELECT @@{name}") for name in names)

    isolation, zone, charset, _, lock_wait_s = mysql.read(look)
    assert (isolation, zone, charset) == ("READ-COMMITTED", "+00:00", "utf8mb4")
    assert lock_wait_s == max(1, int(scaled(4.0) / 2))
    assert "STRICT_ALL_TABLES" in str(mysql.read(lambda c: one(c, "SELECT @@sql_mode")))


def test_the_wait_for_a_lock_is_bounded(mysql: MySql, mariadb_url: str) -> None:
    mysql.migrate(lambda c: c.execute(text("CREATE TABLE t (id INT PRIMARY KEY, v INT)")))
    mysql.write(lambda c: c.execute(text("INSERT INTO t VALUES (1, 0)")))
    other = backend(mariadb_url)

    def hold(connection: Connection) -> None:
        connection.execute(text("UPDATE t SET v = 1"))
        with pytest.raises(StoreUnavailable, match="Lock wait timeout"):
            other.write(lambda c: c.execute(text("UPDATE t SET v = 2")))

    mysql.write(hold)
    assert mysql.read(lambda c: one(c, "SELECT v FROM t")) == 1
    other.close()


def test_the_time_of_a_statement_is_bounded(mariadb_url: str) -> None:
    made = backend(mariadb_url, statement_s=0.5)
    with pytest.raises(StoreUnavailable, match=r"Lost connection|timed out"):
        made.read(lambda c: one(c, "SELECT SLEEP(30)"))
    assert made.read(lambda c: one(c, "SELECT 1")) == 1
    made.close()


def test_a_deadlocked_transaction_runs_again(mysql: MySql) -> None:
    mysql.migrate(lambda c: c.execute(text("CREATE TABLE t (id INT PRIMARY KEY, v INT)")))
    mysql.write(lambda c: c.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)")))
    runs = 0
    both_hold = gevent.event.Event()

    def crosswise(first: int, second: int) -> None:
        def work(connection: Connection) -> None:
            nonlocal runs
            connection.execute(text("UPDATE t SET v = v + 1 WHERE id = :id"), {"id": first})
            runs += 1
            if runs == 2:
                both_hold.set()
            assert both_hold.wait(scaled(20))
            connection.execute(text("UPDATE t SET v = v + 1 WHERE id = :id"), {"id": second})

        mysql.write(work)

    jobs = [gevent.spawn(crosswise, 1, 2), gevent.spawn(crosswise, 2, 1)]
    gevent.joinall(jobs, timeout=scaled(30), raise_error=True)
    assert runs > 2, "no deadlock came about"
    assert mysql.read(lambda c: one(c, "SELECT SUM(v) FROM t")) == 4


def test_a_restarted_server_is_found_again(mysql: MySql, mariadb: MariaDB) -> None:
    assert mysql.read(lambda c: one(c, "SELECT 1")) == 1
    mariadb.kill()
    with pytest.raises(StoreUnavailable):
        mysql.read(lambda c: one(c, "SELECT 1"))
    mariadb.revive()
    assert mysql.read(lambda c: one(c, "SELECT 1")) == 1


def test_a_connection_lost_in_a_migration_is_reported_as_such(mysql: MySql) -> None:
    def kill(connection: Connection) -> None:
        own = one(connection, "SELECT CONNECTION_ID()")
        mysql.write(lambda c: c.execute(text(f"KILL {own}")))
        connection.execute(text("SELECT 1"))

    with pytest.raises(StoreUnavailable, match=r"Lost connection|gone away"):
        mysql.migrate(kill)
    assert mysql.migrate(lambda c: one(c, "SELECT 1")) == 1, "its lock is free"


def test_a_killed_greenlet_leaves_no_half_transaction(mysql: MySql) -> None:
    mysql.migrate(lambda c: c.execute(text("CREATE TABLE t (id INT PRIMARY KEY)")))

    def work(connection: Connection) -> None:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        inserted.set()
        connection.execute(text("SELECT SLEEP(30)"))

    inserted = gevent.event.Event()
    job = gevent.spawn(mysql.write, work)
    assert inserted.wait(scaled(20))
    job.kill(timeout=scaled(10))
    assert mysql.read(lambda c: one(c, "SELECT COUNT(*) FROM t")) == 0


def test_an_exhausted_pool_is_unavailable(mariadb_url: str) -> None:
    made = backend(mariadb_url, statement_s=1.0)
    let_go, inside = gevent.event.Event(), []

    def stay(connection: Connection) -> None:
        inside.append(connection)
        let_go.wait(scaled(30))

    jobs = [gevent.spawn(made.read, stay) for _ in range(5)]
    with gevent.Timeout(scaled(20)):
        while len(inside) < 5:
            gevent.sleep(0.01)
    with pytest.raises(StoreUnavailable, match="no connection"):
        made.read(revision_of)
    let_go.set()
    gevent.joinall(jobs, timeout=scaled(20), raise_error=True)
    made.close()


def test_an_unused_store_can_be_closed(mariadb_config: gw.config.Store) -> None:
    Store(mariadb_config, PASSWORD).close()


# -- a file that another process holds -----------------------------------------------------------------------------------


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Sqlite, sqlite3.Connection]]:
    """Yield a store's file, and a connection of another writer that holds its lock."""
    made = open_backend(gw.config.Store(url=f"sqlite:///{tmp_path}/store.db", statement_timeout_s=60.0), "")
    assert isinstance(made, Sqlite)
    made.write(lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER)")))
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield made, other
    other.close()
    made.close()


def test_a_write_waits_for_another_writer(held: tuple[Sqlite, sqlite3.Connection]) -> None:
    made, other = held
    writing = gevent.spawn(made.write, lambda connection: connection.execute(text("INSERT INTO t VALUES (1)")))
    assert not writing.ready()
    gevent.sleep(0.5)
    assert not writing.ready()
    other.execute("COMMIT")
    writing.get(timeout=scaled(10))
    assert made.read(lambda connection: one(connection, "SELECT COUNT(*) FROM t")) == 1
    assert made.read(lambda connection: one(connection, "PRAGMA busy_timeout")) == 60_000


def test_a_lock_that_stays_ends_the_write_within_the_limit(tmp_path: Path, held: tuple[Sqlite, sqlite3.Connection]) -> None:
    made = open_backend(gw.config.Store(url=f"sqlite:///{tmp_path}/store.db", statement_timeout_s=0.3), "")
    with pytest.raises(StoreUnavailable, match="locked"), gevent.Timeout(scaled(20)):
        made.write(lambda connection: connection.execute(text("INSERT INTO t VALUES (1)")))
    made.close()


def test_closing_ends_the_writes_that_wait_for_a_lock(held: tuple[Sqlite, sqlite3.Connection]) -> None:
    made, other = held
    writes = [gevent.spawn(made.write, lambda connection: connection.execute(text("INSERT INTO t VALUES (1)"))) for _ in range(3)]
    gevent.sleep(0.1)
    with gevent.Timeout(scaled(20)):  # the wait for the lock would last a minute
        made.close()
        gevent.joinall(writes)
    assert [type(write.exception) for write in writes] == [StoreUnavailable] * 3
    assert other.in_transaction, "the lock is still held"

"""gw.cli.db: the schema, and events that the store refused."""

from __future__ import annotations

import sqlite3

from tests.gw.cli.conftest import CommandLine


def test_refused_events_are_listed_and_retried(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("db", "poison", "list").stdout.splitlines()[1].split()[-2:] == ["120", "no"]
    assert cli.document("db", "poison", "list")[0]["id"] == 7
    assert cli.run("db", "poison", "retry").stdout == "2 events are sent to the store again, 0 stay in the list.\n"
    assert cli.document("db", "poison", "retry", "7") == {"queued": 1, "set_aside": 0}


def test_the_schema_is_upgraded_once(cli: CommandLine) -> None:
    before = cli.run("db", "current")
    assert before.exit_code == 1
    assert "db upgrade" in before.stdout
    first = cli.document("db", "upgrade")
    assert (first["before"], first["after"]) == (None, first["needed"])
    assert "already" in cli.run("db", "upgrade").stdout
    assert cli.document("db", "current")["ok"] is True
    with sqlite3.connect(cli.store_url.removeprefix("sqlite:///")) as ahead:
        ahead.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "9999, newer than" in cli.run("db", "current").stdout
    assert cli.document("db", "current")["ok"] is True
    with sqlite3.connect(cli.store_url.removeprefix("sqlite:///")) as ahead:
        ahead.execute("UPDATE schema_range SET oldest = '9999'")
    assert cli.run("db", "current").exit_code == 1

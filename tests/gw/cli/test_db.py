"""gw.cli.db: the schema, and events that the store refused."""

from __future__ import annotations

import json
import sqlite3
import time

import pytest

from gw.control.store import Store
from tests.gw.cli.conftest import BEGAN, ENDED, LIVE, CommandLine


def test_refused_events_are_listed_and_retried(cli: CommandLine, gateway: list[str]) -> None:
    assert cli.run("db", "poison", "list").stdout.splitlines()[1].split()[-2:] == ["120", "no"]
    assert cli.document("db", "poison", "list")[0]["id"] == 7
    assert cli.run("db", "poison", "retry").stdout == "2 events are sent to the store again; 0 stay in the list.\n"
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


def test_refused_events_are_exported_and_dropped(cli: CommandLine, gateway: list[str]) -> None:
    lines = cli.run("db", "poison", "export").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [7, 8]
    out = cli.folder / "refused.jsonl"
    assert cli.document("db", "poison", "export", "8", "--out", str(out))["ids"] == [8]
    assert (out.stat().st_mode & 0o777, json.loads(out.read_text())["body"]) == (0o600, "YmFk")
    assert "cannot be written: File exists" in cli.run("db", "poison", "export", "--out", str(out)).stderr
    assert cli.run("db", "poison", "drop").exit_code == 2
    assert cli.run("db", "poison", "drop", "7", "--all").exit_code == 2
    assert cli.run("db", "poison", "drop", "7").exit_code == 1, "no answer to the question"
    assert cli.document("db", "poison", "drop", "7", "--yes") == {"dropped": 1, "set_aside": 0}
    assert cli.run("db", "poison", "drop", "--all", "--yes").stdout == "2 events were deleted; 0 stay in the list.\n"


def test_old_calls_are_purged(cli: CommandLine, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: BEGAN + 40 * 86_400)
    assert cli.run("db", "purge", "--older-than", "x").exit_code == 2
    assert cli.document("db", "purge", "--older-than", "41d", "--dry-run") == {"calls": 0, "events": 0, "dry_run": True}
    assert cli.run("db", "purge", "--older-than", "30d").exit_code == 1, "no answer to the question"
    assert "0 calls" in cli.run("db", "purge", "--older-than", "30d", "--yes").stdout, "its recording is not finished"
    store.claim_recording(ENDED, "AC1", "me/1", BEGAN)
    store.update_recording(ENDED, state="completed")
    assert cli.run("db", "purge", "--older-than", "30d", "--dry-run").stdout == "1 call would be removed.\n"
    assert cli.run("db", "purge", "--older-than", "30d", "--yes").stdout == "Removed 1 call and 0 other events.\n"
    assert [call.call_sid for call in store.calls()] == [LIVE]


def test_the_store_is_copied(cli: CommandLine, store: Store) -> None:
    target = cli.folder / "copy.db"
    assert cli.document("db", "backup", str(target)) == {"file": str(target), "bytes": target.stat().st_size}
    assert "exists already" in cli.run("db", "backup", str(target)).stderr
    cli.config.write_text('[store]\nurl = "mysql://me@db/calls"\n')
    assert cli.run("db", "backup", "x.sql.gz").stdout.startswith("mysqldump --host=db --user=me --password ")

"""gw.control.store.schema: the upgrade is retried until the store allows it."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest

from gw.control.store import SchemaAheadError, StoreError, StoreUnavailable, schema
from gw.control.store.schema import Schema
from tests.timing import scaled


class Upgrades:
    """A store whose first upgrades fail."""

    def __init__(self, *errors: StoreError) -> None:
        self.errors = list(errors)
        self.tries = 0

    def current(self) -> tuple[str | None, str]:
        return None, ""

    def upgrade(self) -> None:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)


def made(store: Any, ready: list[bool]) -> Schema:
    return Schema(store, on_ready=lambda: ready.append(True))


def test_the_upgrade_is_retried_until_it_succeeds(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(schema, "WAIT_FIRST_S", 0.001)
    store, ready = Upgrades(StoreUnavailable("away"), StoreUnavailable("away"), StoreError("ahead of this code")), list[bool]()
    one = made(store, ready)
    assert (one.problem, one.ready.is_set()) == ("the schema has not been checked yet", False)
    one.run()
    assert (one.problem, one.ready.is_set(), ready, store.tries) == ("", True, [True], 4)
    assert [(entry.levelno, entry.getMessage()) for entry in caplog.records] == [
        (logging.WARNING, "the store's schema is not ready: away"),
        (logging.ERROR, "the store's schema is not ready: ahead of this code"),
    ]


@pytest.mark.parametrize(
    ("error", "state"),
    [(StoreUnavailable("away"), "unknown"), (SchemaAheadError("ahead"), "ahead"), (StoreError("no"), "failed")],
)
def test_the_first_answer_is_known_and_nothing_is_written_until_the_schema_is_ready(error: StoreError, state: str) -> None:
    store, ready = Upgrades(error), list[bool]()
    one = made(store, ready)
    running = gevent.spawn(one.run)
    assert one.answered.wait(scaled(20))
    assert (one.state, one.problem, one.ready.is_set()) == (state, str(error), False)
    with pytest.raises(StoreUnavailable, match=str(error)):
        one.require()
    running.get(timeout=scaled(20))
    assert one.state == "ready"
    one.require()


def test_a_stop_ends_the_wait() -> None:
    ready: list[bool] = []
    one = made(Upgrades(*[StoreUnavailable("away")] * 100), ready)
    running = gevent.spawn(one.run)
    gevent.sleep(0)
    assert one.problem == "away"
    one.stop()
    running.get(timeout=scaled(20))
    assert (ready, one.ready.is_set()) == ([], False)

"""Fixtures for every test: a private MariaDB, new databases in it, and stores on both kinds of database.

The suite runs patched for gevent. `tests/run.py` does that before it imports pytest; plain `pytest` comes here first, and this
file does it, before any test or module of the gateway is imported. Fixtures import the store and its libraries when they
are asked for, so that tests of pure parts run without either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

try:
    from gevent import monkey
except ImportError:  # tests of pure parts run without it
    pass
else:
    if not monkey.is_module_patched("socket"):
        if "ssl" in sys.modules:  # gevent cannot replace what its users have already taken from this module
            pytest.exit("a pytest plugin imports ssl before gevent patches it: run `make test TESTS=path` instead", returncode=4)
        monkey.patch_all()

from hypothesis import HealthCheck, Phase, settings

import gw.config
from tests import timing
from tests.examples import examples

if TYPE_CHECKING:
    from gw.control.store import Store
    from tests.mariadb import MariaDB

# The same examples in every run, so that no failure comes by chance. HYPOTHESIS_PROFILE=explore, of `make fuzz`, tries others.
# An example may take as long as a busy machine lets it.
settings.register_profile(
    "same", derandomize=True, max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", settings.get_profile("same"), derandomize=False)
# `make mutants` needs no smallest example.
settings.register_profile("first_failure", settings.get_profile("same"), phases=(Phase.explicit, Phase.generate))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

StoreMaker = Callable[[], "Store"]


@pytest.fixture
def timeout_scale() -> float:
    """The factor that scales every bound on a wait."""
    return timing.timeout_scale()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """One server for this run, started for the first test that needs it."""
    from tests.mariadb import MariaDB

    server = MariaDB()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def mariadb(mariadb_server: MariaDB) -> Iterator[MariaDB]:
    """The running server. A test may freeze or kill it; the next test finds it running again."""
    mariadb_server.start()
    yield mariadb_server
    mariadb_server.revive()


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> str:
    """URL of a new, empty database. The password is `tests.mariadb.PASSWORD`."""
    return mariadb.fresh()


@pytest.fixture
def mariadb_config(mariadb_url: str) -> gw.config.Store:
    """Configuration of a store on a new MariaDB database, with short time limits."""
    return gw.config.Store(url=mariadb_url, connect_timeout_s=timing.scaled(2.0), statement_timeout_s=timing.scaled(4.0))


@pytest.fixture(params=["sqlite", "mariadb"])
def store_config(request: pytest.FixtureRequest, tmp_path: Path) -> gw.config.Store:
    """Configuration of a store on an empty database, SQLite or MariaDB."""
    if request.param == "sqlite":
        return gw.config.Store(url=f"sqlite:///{tmp_path}/var/store.db")
    config: gw.config.Store = request.getfixturevalue("mariadb_config")
    return config


@pytest.fixture
def open_store(store_config: gw.config.Store) -> Iterator[StoreMaker]:
    """Opens stores on one database without tables, and closes them after the test."""
    from gw.control.store import Store
    from tests.mariadb import PASSWORD

    opened: list[Store] = []

    def make() -> Store:
        opened.append(Store(store_config, PASSWORD))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: StoreMaker) -> Store:
    """A store with its tables. The test runs once on SQLite and once on MariaDB."""
    from tests import schema

    made = open_store()
    schema.upgrade(made)
    return made

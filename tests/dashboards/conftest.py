"""One scene for all tests of this folder: a load of seconds, queried once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.dashboards import answers
from tests.dashboards.scene import playing
from tests.mariadb import MariaDB

#: Duration of placing calls.
SECONDS = 9.0


class Shown(NamedTuple):
    """Results of the scene."""

    panels: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    recorded: dict[str, int]
    starts: dict[str, int]
    since: float
    until: float


@pytest.fixture(scope="session")
def shown(mariadb_server: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Every panel's answers, every rule's health, series per recorded name, starts per process."""
    mariadb_server.start()
    with playing(tmp_path_factory.mktemp("scene"), mariadb_server, SECONDS) as scene:
        rules = scene.prometheus.rules()
        recorded = {
            rule["name"]: len(scene.prometheus.at(rule["name"], scene.until)) for rule in rules if rule["type"] == "recording"
        }
        starts = {
            one["metric"]["process"]: int(one["value"][1]) for one in scene.prometheus.at("gw_process_starts_total", scene.until)
        }
        found = Shown(answers.collect(scene), rules, recorded, starts, scene.since, scene.until)
    yield found

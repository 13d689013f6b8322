"""gw.control.admin.log_levels: levels in the scoreboard, for all processes and for one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gw.control.admin.log_levels import LogLevels
from gw.control.admin.server import CommandError
from gw.scoreboard import Scoreboard


@pytest.fixture
def scoreboard() -> Scoreboard:
    made = Scoreboard.private()
    made.take_row(-1, index=Scoreboard.CONTROL_ROW)
    for index in range(2):
        made.take_row(index)
    return made


def _ask(scoreboard: Scoreboard, **fields: Any) -> dict[str, Any]:
    answer = LogLevels(scoreboard, "info").commands()["loglevel"].run(fields)
    assert answer["configured"] == "info"
    processes: dict[str, Any] = answer["processes"]
    return processes


def test_without_a_level_the_command_only_shows(scoreboard: Scoreboard) -> None:
    assert _ask(scoreboard) == dict.fromkeys(("supervisor", "control", "worker-0", "worker-1"), "info")
    assert scoreboard.log_level_of(1) == 0


def test_the_level_is_set_for_one_process_or_for_all(scoreboard: Scoreboard) -> None:
    assert _ask(scoreboard, level="debug", process="worker-1")["worker-1"] == "debug"
    assert (scoreboard.log_level_of(1), scoreboard.log_level_of(2)) == (0, logging.DEBUG)
    assert set(_ask(scoreboard, level="error").values()) == {"error"}
    late = scoreboard.take_row(2)
    assert scoreboard.log_level_of(late.index) == logging.ERROR, "a process that starts later follows too"
    assert set(_ask(scoreboard, level="configured").values()) == {"info"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"level": "debug", "process": "worker-9"}, "not_found"),
        ({"level": "loud"}, "bad_request"),
        ({"levels": "debug"}, "bad_request"),
    ],
)
def test_invalid_arguments_are_refused(scoreboard: Scoreboard, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(CommandError) as caught:
        _ask(scoreboard, **fields)
    assert caught.value.code == code
    assert scoreboard.log_level == 0

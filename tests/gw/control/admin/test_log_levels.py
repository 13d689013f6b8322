"""gw.control.admin.log_levels: wishes in the board, for all and for one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gw.control.admin.log_levels import LogLevels
from gw.control.admin.server import CommandError
from gw.scoreboard import Board


@pytest.fixture
def board() -> Board:
    made = Board.private()
    made.take_row(-1, index=Board.CONTROL_ROW)
    for slot in range(2):
        made.take_row(slot)
    return made


def _ask(board: Board, **fields: Any) -> dict[str, Any]:
    answer = LogLevels(board, "info").commands()["loglevel"](fields)
    assert answer["configured"] == "info"
    processes: dict[str, Any] = answer["processes"]
    return processes


def test_asked_for_nothing_it_tells(board: Board) -> None:
    assert _ask(board) == dict.fromkeys(("supervisor", "control", "worker-0", "worker-1"), "info")
    assert board.log_level_of(1) == 0


def test_one_process_is_set_alone_and_all_at_once(board: Board) -> None:
    assert _ask(board, level="debug", process="worker-1")["worker-1"] == "debug"
    assert (board.log_level_of(1), board.log_level_of(2)) == (0, logging.DEBUG)
    assert set(_ask(board, level="error").values()) == {"error"}
    late = board.take_row(2)
    assert board.log_level_of(late.index) == logging.ERROR, "a process that starts later follows too"
    assert set(_ask(board, level="configured").values()) == {"info"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"level": "debug", "process": "worker-9"}, "not_found"),
        ({"level": "loud"}, "bad_request"),
        ({"levels": "debug"}, "bad_request"),
    ],
)
def test_what_cannot_be_is_refused(board: Board, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(CommandError) as caught:
        _ask(board, **fields)
    assert caught.value.code == code
    assert board.log_level == 0

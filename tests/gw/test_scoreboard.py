"""gw.scoreboard: cells between processes, rows, reservations, the report, and refusal of a foreign layout."""

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gw.scoreboard import (
    KEY_BYTES,
    MAX_RESERVATIONS,
    REPORT_BYTES,
    ROWS,
    VERSION,
    Flag,
    ProcessState,
    ReloadReport,
    Scoreboard,
    ScoreboardError,
    ScoreboardRow,
)
from tests.timing import scaled

ROOT = Path(__file__).resolve().parents[2]
CELLS = [
    *("state", "pid", "worker", "failures", "retry_ns", "heartbeat_ns", "calls", "streams", "capacity", "flags"),
    *("lateness_p99_us", "hold_max_us", "log_level"),
]


@pytest.fixture
def scoreboard():
    scoreboard = Scoreboard.create()
    yield scoreboard
    scoreboard.close()


@pytest.fixture
def row(scoreboard) -> ScoreboardRow:
    return scoreboard.take_row(3)


# -- the mapping ------------------------------------------------------------------------------------------------------


OTHER_PROCESS = """
import os, sys
from gw.scoreboard import Scoreboard, Flag
scoreboard = Scoreboard.attach(int(sys.argv[1]))
(row,) = scoreboard.workers()
row.pid, row.calls, row.flags = os.getpid(), row.capacity - 1, Flag.LATE
scoreboard.reservation_expiries[7] = scoreboard.reservation_keys[7 * 16] = 99
print(scoreboard.report.step)
"""


def test_another_process_reads_and_writes_it(scoreboard, row):
    row.capacity = 40
    scoreboard.publish_report(ReloadReport(n=1, step="worker 3"))
    command = [sys.executable, "-c", OTHER_PROCESS, str(scoreboard.fd)]
    child = subprocess.Popen(command, pass_fds=[scoreboard.fd], stdout=subprocess.PIPE, cwd=ROOT)
    assert child.communicate(timeout=scaled(30))[0] == b"worker 3\n"
    assert (row.pid, row.calls, row.flags) == (child.pid, 39, Flag.LATE)
    assert (scoreboard.reservation_expiries[7], scoreboard.reservation_keys[7 * KEY_BYTES], scoreboard.reserved) == (99, 99, 1)


def test_the_memory_is_inherited_only_on_request(scoreboard):
    assert not os.get_inheritable(scoreboard.fd)
    assert str(Path(f"/proc/self/fd/{scoreboard.fd}").readlink()).startswith("/memfd:"), (
        "it has no name that another gateway could find"
    )


def test_two_maps_share_one_memory(scoreboard, row):
    other = Scoreboard.attach(os.dup(scoreboard.fd))
    row.calls = 5
    assert other.row(row.index).calls == 5
    other.close()
    row.calls += 1
    assert row.calls == 6, "the first map is unchanged"


def test_another_descriptor_is_refused(tmp_path):
    with pytest.raises(ScoreboardError, match="is not the supervisor's scoreboard"):
        Scoreboard.attach(1 << 20)
    with (tmp_path / "short").open("w+b") as file:
        file.write(bytes(100))
        file.flush()
        with pytest.raises(ScoreboardError, match="other code"):
            Scoreboard.attach(file.fileno())


def test_a_scoreboard_of_other_code_is_refused(scoreboard):
    with mmap.mmap(scoreboard.fd, 8) as memory:
        assert int.from_bytes(memory[:8], "little") == VERSION
        memory[:8] = (VERSION + 1).to_bytes(8, "little")
        with pytest.raises(ScoreboardError, match="stop the gateway and start it again"):
            Scoreboard.attach(scoreboard.fd)
        memory[:8] = VERSION.to_bytes(8, "little")
    Scoreboard.attach(os.dup(scoreboard.fd)).close()


def test_a_private_scoreboard_leaves_no_descriptor():
    before = set(Path("/proc/self/fd").iterdir())
    scoreboard = Scoreboard.private()
    assert set(Path("/proc/self/fd").iterdir()) <= before
    assert (scoreboard.fd, scoreboard.reserved, list(scoreboard.rows()), scoreboard.report) == (-1, 0, [], ReloadReport())
    scoreboard.close()


def test_a_closed_scoreboard_cannot_be_read(scoreboard):
    other = Scoreboard.attach(os.dup(scoreboard.fd))
    row, fd = other.take_row(0), other.fd
    other.close()
    with pytest.raises(ValueError):
        _ = row.calls
    with pytest.raises(OSError):
        os.fstat(fd)


# -- the header -------------------------------------------------------------------------------------------------------


def test_header_cells_are_independent(scoreboard, row):
    assert (scoreboard.drained, scoreboard.log_level) == (False, 0)
    scoreboard.drained = True
    scoreboard.log_level = 10
    assert (scoreboard.drained, scoreboard.log_level) == (True, 10)
    assert scoreboard.log_level_of(row.index) == 10
    row.log_level = 30
    assert [scoreboard.log_level_of(index) for index in (row.index, Scoreboard.CONTROL_ROW)] == [30, 10]
    scoreboard.drained = False
    scoreboard.log_level = 0
    assert (scoreboard.drained, scoreboard.log_level_of(row.index), scoreboard.log_level_of(Scoreboard.CONTROL_ROW)) == (
        False,
        30,
        0,
    )


def test_reservations_are_counted_to_the_last(scoreboard):
    assert (len(scoreboard.reservation_expiries), len(scoreboard.reservation_keys)) == (
        MAX_RESERVATIONS,
        MAX_RESERVATIONS * KEY_BYTES,
    )
    scoreboard.reservation_expiries[0] = scoreboard.reservation_expiries[MAX_RESERVATIONS - 1] = 1
    assert scoreboard.reserved == 2
    scoreboard.reservation_expiries[0] = 0
    assert scoreboard.reserved == 1


# -- rows -------------------------------------------------------------------------------------------------------------


def test_cells_do_not_overlap(scoreboard, row):
    neighbours = scoreboard.take_row(4), scoreboard.take_row(5)
    for n, name in enumerate(CELLS, 1):
        setattr(row, name, n)
    assert [getattr(row, name) for name in CELLS] == list(range(1, len(CELLS) + 1))
    assert [getattr(one, name) for one in neighbours for name in CELLS if name not in ("state", "worker")] == [0] * 22


def test_the_first_free_row_is_taken(scoreboard):
    control = scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
    first, second = scoreboard.take_row(0), scoreboard.take_row(1)
    assert [one.index for one in (control, first, second)] == [0, 1, 2]
    assert [(one.index, one.worker, one.state) for one in scoreboard.rows()] == [(0, -1, 1), (1, 0, 1), (2, 1, 1)]
    assert [one.index for one in scoreboard.workers()] == [1, 2]
    first.clear()
    assert [one.index for one in scoreboard.workers()] == [2]
    assert scoreboard.take_row(7).index == 1


def test_a_row_taken_again_is_reset(scoreboard, row):
    for name in CELLS:
        setattr(row, name, 9)
    row.clear()
    again = scoreboard.take_row(2)
    assert again.index == row.index
    told = {name: getattr(again, name) for name in CELLS}
    assert told == {**dict.fromkeys(CELLS, 0), "state": ProcessState.STARTING, "worker": 2}


def test_a_full_scoreboard_refuses_another_process(scoreboard):
    for worker in range(ROWS - 1):
        scoreboard.take_row(worker)
    with pytest.raises(ScoreboardError, match="more than 2048 processes"):
        scoreboard.take_row(ROWS)
    assert sum(1 for _ in scoreboard.workers()) == ROWS - 1
    assert scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW).index == 0, "control's own row is kept for it"


def test_clearing_the_process_keeps_the_cells_of_the_supervisor(row):
    for name in CELLS:
        setattr(row, name, 9)
    row.clear_process()
    gone = dict.fromkeys(("pid", "heartbeat_ns", "calls", "streams", "capacity", "flags"), 0)
    stays = dict.fromkeys(("state", "worker", "failures", "retry_ns", "log_level"), 9)
    assert {name: getattr(row, name) for name in CELLS} == {**gone, **stays, "lateness_p99_us": -1, "hold_max_us": -1}


def test_the_age_of_a_heartbeat(row):
    assert row.heartbeat_age_s() == -1.0
    before_ns = time.monotonic_ns()
    row.heartbeat()
    assert before_ns <= row.heartbeat_ns <= time.monotonic_ns()
    row.heartbeat_ns -= 5_000_000_000
    assert row.heartbeat_age_s() >= 5.0


def test_the_time_until_a_restart(row):
    row.restart_in(60.0)
    assert row.state == ProcessState.WAITING
    assert 0.0 < row.retry_in_s() <= 60.0
    row.retry_ns = time.monotonic_ns() - 1
    assert row.retry_in_s() == 0.0, "it is due"
    row.restart_in(60.0)
    row.state = ProcessState.UP
    assert row.retry_in_s() == 0.0, "the process does not wait for a restart"


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_last_report_is_read_whole(scoreboard):
    long = ReloadReport(n=1, state="failed", step="worker 3", problem="x" * 300, at=1.5)
    for report in (long, ReloadReport(n=2, state="running", step="é")):
        scoreboard.publish_report(report)
        assert scoreboard.report == report
    assert Scoreboard.attach(os.dup(scoreboard.fd)).report.n == 2


def test_a_long_problem_is_cut(scoreboard):
    scoreboard.publish_report(ReloadReport(n=1, state="failed", step="control", problem="ü" * REPORT_BYTES))
    told = scoreboard.report
    assert (told.n, told.state, told.step) == (1, "failed", "control")
    assert told.problem == "ü" * (REPORT_BYTES // 8)


def test_a_report_being_written_is_not_read(scoreboard):
    scoreboard.publish_report(ReloadReport(n=4, state="done"))
    with mmap.mmap(scoreboard.fd, 4096) as memory:
        count = int.from_bytes(memory[32:40], "little")
        memory[32:40] = (count + 1).to_bytes(8, "little")  # as in the middle of `publish_report`
        assert (scoreboard.report.state, scoreboard.report.n) == ("running", 0)
        memory[32:40] = (count + 2).to_bytes(8, "little")
    assert scoreboard.report == ReloadReport(n=4, state="done")

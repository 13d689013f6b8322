"""gw.media.admission.shared_lock: one process at a time in a range, never at the hub's cost."""

import os
import subprocess
import sys
from pathlib import Path

import gevent
import pytest

from gw.media.admission import shared_lock
from gw.media.admission.shared_lock import TRIES, SharedBusyError, locked, take
from tests.timing import scaled

ROOT = Path(__file__).resolve().parents[4]

#: Holds the range until a line comes on its input, or it is killed.
HOLDER = """
import sys
from gw.media.admission.shared_lock import locked
fd, start, length = map(int, sys.argv[1:])
with locked(fd, start, length):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
sys.stdin.read()
"""

#: Adds one to a number in the file, in separate read and write, as often as asked.
ADDER = """
import os, sys
from gw.media.admission.shared_lock import SharedBusyError, locked
fd, times = map(int, sys.argv[1:])
while times:
    try:
        with locked(fd, 0, 8):
            n = int.from_bytes(os.pread(fd, 8, 0), "little")
            os.sched_yield()
            os.pwrite(fd, (n + 1).to_bytes(8, "little"), 0)
    except SharedBusyError:
        continue  # the machine did not run the holder
    times -= 1
"""


@pytest.fixture
def fd(tmp_path):
    fd = os.open(tmp_path / "shared", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


class Holder:
    """Another process inside the range."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        command = [sys.executable, "-c", HOLDER, str(fd), str(start), str(length)]
        self.process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        assert self.says() == b"held\n"

    def says(self) -> bytes:
        assert self.process.stdout is not None
        with gevent.Timeout(scaled(30)):
            return self.process.stdout.readline()

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=scaled(30))


@pytest.fixture
def hold(fd):
    holders: list[Holder] = []

    def begin(start: int, length: int) -> Holder:
        holders.append(Holder(fd, start, length))
        return holders[-1]

    yield begin
    for holder in holders:
        holder.kill()


def is_free(fd: int, start: int = 0, length: int = 8) -> bool:
    try:
        with locked(fd, start, length):
            return True
    except SharedBusyError:
        return False


def test_without_a_file_no_lock_is_taken():
    with locked(-1, 0, 8):
        assert is_free(-1)


def test_a_worker_that_finds_the_lock_held_lets_its_hub_run_and_gives_up(fd, hold):
    hold(0, 8)
    turns = 0

    def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    running = gevent.spawn(others)
    inside = False
    with pytest.raises(SharedBusyError, match="not free within 500 ms"), locked(fd, 0, 8):
        inside = True
    running.kill()
    assert not inside
    assert turns >= TRIES, "the hub turned between the tries"


def test_a_held_lock_is_tried_again_until_free(fd, hold, monkeypatch):
    monkeypatch.setattr(shared_lock, "TRIES", 20_000)
    holder = hold(0, 8)
    entered = gevent.spawn(is_free, fd)
    gevent.sleep(0.02)
    assert not entered.ready()
    holder.let_go()
    assert entered.get(timeout=scaled(30)) is True


def test_other_ranges_are_other_locks(fd, hold):
    hold(8, 8)
    assert [is_free(fd, start) for start in (0, 8, 16)] == [True, False, True]
    assert not is_free(fd, 0, 9), "an overlapping range"


def test_the_lock_of_a_dead_process_is_free(fd, hold):
    holder = hold(0, 8)
    assert not is_free(fd)
    holder.kill()
    assert is_free(fd)


def test_an_error_inside_releases_the_lock(fd, hold):
    with pytest.raises(ZeroDivisionError), locked(fd, 0, 8):
        _ = 1 // 0
    take(fd, 8, 8)  # held until this process ends, without `locked`
    hold(0, 8)


def test_two_processes_cannot_take_the_same_range(fd):
    take(fd, 0, 8)
    code = "import sys; from gw.media.admission.shared_lock import take; take(int(sys.argv[1]), 0, 8)"
    other = subprocess.Popen([sys.executable, "-c", code, str(fd)], pass_fds=[fd], stderr=subprocess.PIPE, cwd=ROOT)
    assert b"SharedBusyError" in other.communicate(timeout=scaled(30))[1]


def test_no_increment_is_lost_between_processes(fd):
    os.pwrite(fd, bytes(8), 0)
    command = [sys.executable, "-c", ADDER, str(fd), "400"]
    adders = [subprocess.Popen(command, pass_fds=[fd], cwd=ROOT) for _ in range(3)]
    assert [adder.wait(timeout=scaled(60)) for adder in adders] == [0, 0, 0]
    assert int.from_bytes(os.pread(fd, 8, 0), "little") == 1200

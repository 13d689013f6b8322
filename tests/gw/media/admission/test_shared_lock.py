"""gw.media.admission.shared_lock: one process at a time in a range, the hub goes on while another is in it, and a death frees it."""

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

#: Holds the range until it is told to let go, or is killed.
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

#: Adds one to a number in the file, reading and writing it apart, so often.
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
        continue  # whoever is in it was not run by the machine
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


def test_without_a_file_nobody_else_is_there():
    with locked(-1, 0, 8):
        assert is_free(-1)


def test_who_finds_it_held_lets_others_run_and_gives_up(fd, hold):
    hold(0, 8)
    turns = 0

    def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    running = gevent.spawn(others)
    inside = False
    with pytest.raises(SharedBusyError, match="not free within 50 ms"), locked(fd, 0, 8):
        inside = True
    running.kill()
    assert not inside
    assert turns >= TRIES, "the hub went on at every try"


def test_it_is_tried_again_until_it_is_free(fd, hold, monkeypatch):
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
    assert not is_free(fd, 0, 9), "a range that reaches into it"


def test_a_dead_holder_holds_nothing(fd, hold):
    holder = hold(0, 8)
    assert not is_free(fd)
    holder.kill()
    assert is_free(fd)


def test_what_is_raised_inside_frees_it(fd, hold):
    with pytest.raises(ZeroDivisionError), locked(fd, 0, 8):
        _ = 1 // 0
    take(fd, 8, 8)  # stays with this process: who takes without `locked` lets go by its end
    hold(0, 8)


def test_what_one_process_takes_another_cannot(fd):
    take(fd, 0, 8)
    code = "import sys; from gw.media.admission.shared_lock import take; take(int(sys.argv[1]), 0, 8)"
    other = subprocess.Popen([sys.executable, "-c", code, str(fd)], pass_fds=[fd], stderr=subprocess.PIPE, cwd=ROOT)
    assert b"SharedBusyError" in other.communicate(timeout=scaled(30))[1]


def test_nothing_is_lost_between_processes_that_count_at_once(fd):
    os.pwrite(fd, bytes(8), 0)
    command = [sys.executable, "-c", ADDER, str(fd), "400"]
    adders = [subprocess.Popen(command, pass_fds=[fd], cwd=ROOT) for _ in range(3)]
    assert [adder.wait(timeout=scaled(60)) for adder in adders] == [0, 0, 0]
    assert int.from_bytes(os.pread(fd, 8, 0), "little") == 1200

"""gw.media.admission.slots: no place is given twice, whichever worker is asked, and connections go where slots are free."""

from __future__ import annotations

import subprocess
import sys
from math import inf
from pathlib import Path
from random import Random

import pytest

from gw.media.admission import shared_lock
from gw.media.admission.shared_lock import SharedBusyError
from gw.media.admission.slots import DELAY_S, PROBES, SHORT_DELAY_S, SPREAD, AdmissionSlots, _key, _start
from gw.scoreboard import MAX_RESERVATIONS, Flag, ProcessState, Scoreboard

ROOT = Path(__file__).parents[4]


def sids(count: int) -> list[str]:
    return [f"CA{n:032x}" for n in range(count)]


def workers(*capacities: int, scoreboard: Scoreboard | None = None, **options: float) -> list[AdmissionSlots]:
    """Workers of one machine."""
    scoreboard = scoreboard or Scoreboard.private()
    made = []
    for slot, capacity in enumerate(capacities):
        row = scoreboard.take_row(slot)
        row.state = ProcessState.UP
        made.append(AdmissionSlots(scoreboard, row, capacity, **options))
    return made


def test_places_are_the_machines():
    one, other = workers(2, 1)
    a, b, c, d = sids(4)
    assert [one.reserve(a), other.reserve(b), one.reserve(c), other.reserve(d)] == ["", "", "", "full"]
    assert one.reserve(a) == "", "it has its place already"
    assert (one.reserved, other.reserved) == (3, 3)
    other.occupy(a)
    assert one.reserve(d) == "full", "the place is taken by a call now"
    other.release()
    assert one.reserve(d) == ""


def test_a_call_that_nobody_announced_enters_too():
    (one,) = workers(1)
    one.occupy("CAx")
    assert one.reserve("CAy") == "full"


def test_a_place_lapses_when_no_stream_comes():
    (one,) = workers(1, reserved_s=0.0)
    assert one.reserve("CAx") == ""
    assert one.reserved == 1
    assert one.release_expired() == 1
    assert (one.reserved, one.release_expired()) == (0, 0)


def test_a_place_that_was_kept_does_not_lapse():
    (one,) = workers(1)
    one.reserve("CAx")
    assert one.release_expired() == 0
    assert one.reserved == 1


def test_late_drained_and_leaving_workers_offer_nothing():
    one, other = workers(5, 5)
    one.publish(streams=0, pending=0, draining=False, leaving=False, late=True)
    other.publish(streams=0, pending=0, draining=True, leaving=False, late=False)
    assert one.reserve("CAx") == "late"
    one.publish(streams=0, pending=0, draining=False, leaving=True, late=False)
    assert other.reserve("CAx") == "full"
    other.publish(streams=0, pending=0, draining=False, leaving=False, late=False)
    assert one.reserve("CAx") == "", "who leaves still answers for the others"


def test_a_full_table_is_full():
    (one,) = workers(MAX_RESERVATIONS)
    start = _start(_key("CAx"))
    for index in range(start, start + PROBES):
        one._lapses[index] = 1 << 62
    assert one.reserve("CAx") == "full"


def test_who_accepts():
    one, other = workers(10, 10)

    def tell(slots: AdmissionSlots, streams: int, **more: int) -> None:
        said = {"streams": streams, "pending": 0, "draining": False, "leaving": False, "late": False, **more}
        slots.publish(**said)  # type: ignore[arg-type]

    def patience() -> tuple[float, float]:
        return one.accept_delay_s(), other.accept_delay_s()

    tell(one, 1)
    assert patience() == (0.0, 0.0)
    tell(one, 2)
    assert patience() == (DELAY_S, 0.0), "it is further ahead than it may be"
    tell(one, 0, pending=2)
    assert patience() == (DELAY_S, 0.0), "who comes may stay"
    tell(other, 0, pending=2)
    assert patience() == (SHORT_DELAY_S, SHORT_DELAY_S), "a moment will tell who stays"
    tell(other, 0, pending=1)
    assert patience() == (DELAY_S, 0.0)
    tell(one, 2)
    tell(other, 10)
    assert patience() == (0.0, DELAY_S), "the other is full"
    tell(other, 9, pending=1)
    assert patience() == (0.0, DELAY_S), "it may be"
    tell(one, 10)
    assert patience() == (SHORT_DELAY_S, 0.0), "whether the other is full too is not sure: it has the connection"
    tell(other, 10)
    assert patience() == (0.0, 0.0), "somebody must tell callers that no line is free"
    tell(one, 12)
    assert patience() == (DELAY_S, 0.0), "and that is shared too"
    tell(one, 4, late=True)
    tell(other, 5)
    assert patience() == (DELAY_S, 0.0)
    tell(other, 5, leaving=True)
    assert patience() == (0.0, inf)


def test_a_worker_that_hangs_is_nobody_to_wait_for():
    scoreboard = Scoreboard.private()
    one, _ = workers(10, 10, scoreboard=scoreboard)
    one.publish(streams=5, pending=0, draining=False, leaving=False, late=False)
    assert one.accept_delay_s() == DELAY_S
    scoreboard.row(2).heartbeat_ns -= 2_000_000_000
    assert one.accept_delay_s() == 0.0
    assert one.reserve("CAx") == ""


def test_a_worker_that_starts_is_left_nothing_and_takes_what_comes():
    scoreboard = Scoreboard.private()
    one, other = workers(10, 10, scoreboard=scoreboard)
    scoreboard.row(2).state = ProcessState.STARTING
    one.publish(streams=5, pending=0, draining=False, leaving=False, late=False)
    assert (one.accept_delay_s(), other.accept_delay_s()) == (0.0, 0.0)
    scoreboard.row(1).state = ProcessState.WAITING
    assert other.reserve("CAx") == "", "its own places count before the supervisor knows that it is ready"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("wishes", ["streams", "both"])
def test_what_comes_at_once_is_shared(seed: int, wishes: str):
    """Three workers in any order of turns: they end with the same number of sockets but for two, and nobody is left waiting.
    Where only a share of the connections are sockets, whoever must not accept yet waits until it is known."""
    chance = Random(seed)
    ones = workers(100, 100, 100)
    streams, coming = [0, 0, 0], [[], [], []]  # type: tuple[list[int], list[list[bool]]]
    waiting = [wishes == "streams" or chance.random() < 0.5 for _ in range(chance.randrange(1, 60))]
    steps = 0
    while waiting or any(coming):
        n = chance.choices(range(3), weights=(9, 1, 3))[0]
        if coming[n] and chance.random() < 0.5:
            streams[n] += coming[n].pop(0)
        elif waiting and ones[n].accept_delay_s() == 0.0:
            coming[n].append(waiting.pop(0))
        ones[n].publish(streams=streams[n], pending=len(coming[n]), draining=False, leaving=False, late=False)
        steps += 1
        assert steps < 10_000, "nobody accepts"
        assert max(streams) - min(streams) <= SPREAD + 1


def test_what_is_told_stands_in_the_row():
    scoreboard = Scoreboard.private()
    (one,) = workers(7, scoreboard=scoreboard)
    one.heartbeat(0.0025, -1.0)
    one.publish(streams=1, pending=2, draining=True, leaving=True, late=True)
    row = scoreboard.row(1)
    assert (row.capacity, row.streams, row.pending, row.lateness_p99_us, row.hold_max_us) == (7, 1, 2, 2500, -1)
    assert row.flags == Flag.DRAINING | Flag.LEAVING | Flag.LATE


_RIVAL = """
import sys
from gw.scoreboard import Scoreboard
from gw.media.admission.slots import AdmissionSlots
scoreboard = Scoreboard.attach(int(sys.argv[1]))
slots = AdmissionSlots(scoreboard, scoreboard.row(int(sys.argv[2])), 150)
print(sum(slots.reserve(f"CA{sys.argv[2]}-{n}") == "" for n in range(400)))
"""


def test_processes_never_give_away_one_place_twice():
    scoreboard = Scoreboard.create()
    for slot in (0, 1):
        scoreboard.take_row(slot).state = ProcessState.UP
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", _RIVAL, str(scoreboard.fd), str(row)],
            pass_fds=[scoreboard.fd],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for row in (1, 2)
    ]
    given = [int(rival.communicate(timeout=60)[0]) for rival in rivals]
    assert sum(given) <= 300
    assert scoreboard.reserved == sum(given)
    scoreboard.close()


def test_a_lock_that_is_held_turns_the_call_away(monkeypatch: pytest.MonkeyPatch):
    scoreboard = Scoreboard.create()
    (one,) = workers(3, scoreboard=scoreboard)
    monkeypatch.setattr(shared_lock, "TRIES", 2)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl, sys; fcntl.lockf({scoreboard.fd}, fcntl.LOCK_EX, 1, 0); print(flush=True); sys.stdin.read()",
        ],
        pass_fds=[scoreboard.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    assert one.reserve("CAx") == "late"
    with pytest.raises(SharedBusyError):
        one.occupy("CAx")
    holder.communicate()
    assert one.reserve("CAx") == ""
    scoreboard.close()

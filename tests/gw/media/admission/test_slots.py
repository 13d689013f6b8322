"""gw.media.admission.slots: no slot is given twice, and connections go where slots are free."""

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


def test_slots_belong_to_the_machine():
    one, other = workers(2, 1)
    a, b, c, d = sids(4)
    assert [one.reserve(a), other.reserve(b), one.reserve(c), other.reserve(d)] == ["", "", "", "full"]
    assert one.reserve(a) == "", "the call already has its slot"
    assert (one.reserved, other.reserved) == (3, 3)
    other.occupy(a)
    assert one.reserve(d) == "full", "a call has the slot now"
    other.release()
    assert one.reserve(d) == ""


def test_a_reservation_ends_with_the_stream_at_whichever_worker():
    one, other = workers(1, 1)
    one.reserve("CAx")
    assert one.is_reserved("CAx")
    assert not one.is_reserved("CAy")
    other.occupy("CAx")
    assert not one.is_reserved("CAx")


def test_only_an_existing_reservation_is_renewed(monkeypatch: pytest.MonkeyPatch):
    (one,) = workers(2)
    one.renew("CAx")
    assert one.reserved == 0
    one.reserve("CAx")
    index = one._find(_key("CAx"))
    before_ns = one._lapses[index]
    one.renew("CAx")
    assert one._lapses[index] > before_ns

    def busy(*arguments: object) -> None:
        raise SharedBusyError("held")

    monkeypatch.setattr(one, "_lock", busy)
    one.renew("CAx")  # no error: the reservation lasts


def test_a_call_without_a_reservation_occupies_a_slot_too():
    (one,) = workers(1)
    one.occupy("CAx")
    assert one.reserve("CAy") == "full"


def test_a_reservation_expires_when_no_stream_comes():
    (one,) = workers(1, reserved_s=0.0)
    assert one.reserve("CAx") == ""
    assert one.reserved == 1
    assert one.release_expired() == 1
    assert (one.reserved, one.release_expired()) == (0, 0)


def test_a_fresh_reservation_does_not_expire():
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
    assert one.reserve("CAx") == "", "a leaving worker still reserves for the others"


def test_a_full_table_is_full():
    (one,) = workers(MAX_RESERVATIONS)
    start = _start(_key("CAx"))
    for index in range(start, start + PROBES):
        one._lapses[index] = 1 << 62
    assert one.reserve("CAx") == "full"


def test_the_less_loaded_worker_accepts():
    one, other = workers(10, 10)

    def tell(slots: AdmissionSlots, streams: int, **more: int) -> None:
        load = {"streams": streams, "pending": 0, "draining": False, "leaving": False, "late": False, **more}
        slots.publish(**load)  # type: ignore[arg-type]

    def delays() -> tuple[float, float]:
        return one.accept_delay_s(), other.accept_delay_s()

    tell(one, 1)
    assert delays() == (0.0, 0.0)
    tell(one, 2)
    assert delays() == (DELAY_S, 0.0), "it is too far ahead"
    tell(one, 0, pending=2)
    assert delays() == (DELAY_S, 0.0), "an incomplete request counts as a socket here"
    tell(other, 0, pending=2)
    assert delays() == (SHORT_DELAY_S, SHORT_DELAY_S), "undecided until the requests are complete"
    tell(other, 0, pending=1)
    assert delays() == (DELAY_S, 0.0)
    tell(one, 2)
    tell(other, 10)
    assert delays() == (0.0, DELAY_S), "the other is full"
    tell(other, 9, pending=1)
    assert delays() == (0.0, DELAY_S), "the other may be full"
    tell(one, 10)
    assert delays() == (SHORT_DELAY_S, 0.0), "it is unclear whether the other is full too, so it gets the connection"
    tell(other, 10)
    assert delays() == (0.0, 0.0), "some worker must answer that no line is free"
    tell(one, 12)
    assert delays() == (DELAY_S, 0.0), "those answers are shared too"
    tell(one, 4, late=True)
    tell(other, 5)
    assert delays() == (DELAY_S, 0.0)
    tell(other, 5, leaving=True)
    assert delays() == (0.0, inf)


def test_no_connection_is_left_to_a_worker_that_hangs():
    scoreboard = Scoreboard.private()
    one, _ = workers(10, 10, scoreboard=scoreboard)
    one.publish(streams=5, pending=0, draining=False, leaving=False, late=False)
    assert one.accept_delay_s() == DELAY_S
    scoreboard.row(2).heartbeat_ns -= 2_000_000_000
    assert one.accept_delay_s() == 0.0
    assert one.reserve("CAx") == ""


def test_a_starting_worker_accepts_but_is_left_no_connection():
    scoreboard = Scoreboard.private()
    one, other = workers(10, 10, scoreboard=scoreboard)
    scoreboard.row(2).state = ProcessState.STARTING
    one.publish(streams=5, pending=0, draining=False, leaving=False, late=False)
    assert (one.accept_delay_s(), other.accept_delay_s()) == (0.0, 0.0)
    scoreboard.row(1).state = ProcessState.WAITING
    assert other.reserve("CAx") == "", "its own slots count before it is ready"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("requests", ["streams", "both"])
def test_many_connections_at_the_same_time_are_shared(seed: int, requests: str):
    """Three workers take turns in any sequence: their sockets differ by at most two, and no connection is left waiting. When
    only a share of the connections become sockets, a worker that may not accept yet waits until the requests are complete."""
    chance = Random(seed)
    ones = workers(100, 100, 100)
    streams, coming = [0, 0, 0], [[], [], []]  # type: tuple[list[int], list[list[bool]]]
    waiting = [requests == "streams" or chance.random() < 0.5 for _ in range(chance.randrange(1, 60))]
    steps = 0
    while waiting or any(coming):
        n = chance.choices(range(3), weights=(9, 1, 3))[0]
        if coming[n] and chance.random() < 0.5:
            streams[n] += coming[n].pop(0)
        elif waiting and ones[n].accept_delay_s() == 0.0:
            coming[n].append(waiting.pop(0))
        ones[n].publish(streams=streams[n], pending=len(coming[n]), draining=False, leaving=False, late=False)
        steps += 1
        assert steps < 10_000, "no worker accepts"
        assert max(streams) - min(streams) <= SPREAD + 1


def test_load_and_flags_are_in_the_row():
    scoreboard = Scoreboard.private()
    (one,) = workers(7, scoreboard=scoreboard)
    one.heartbeat(0.0025, -1.0)
    one.publish(streams=1, pending=2, draining=True, leaving=True, late=True)
    row = scoreboard.row(1)
    assert (row.capacity, row.streams, row.pending, row.lateness_p99_us, row.hold_max_us) == (7, 1, 2, 2500, -1)
    assert row.flags == Flag.DRAINING | Flag.LEAVING | Flag.LATE


_RACER = """
import sys
from gw.scoreboard import Scoreboard
from gw.media.admission.slots import AdmissionSlots
scoreboard = Scoreboard.attach(int(sys.argv[1]))
slots = AdmissionSlots(scoreboard, scoreboard.row(int(sys.argv[2])), 150)
print(sum(slots.reserve(f"CA{sys.argv[2]}-{n}") == "" for n in range(400)))
"""


def test_processes_never_give_one_slot_away_twice():
    scoreboard = Scoreboard.create()
    for slot in (0, 1):
        scoreboard.take_row(slot).state = ProcessState.UP
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(scoreboard.fd), str(row)],
            pass_fds=[scoreboard.fd],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for row in (1, 2)
    ]
    given = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sum(given) <= 300
    assert scoreboard.reserved == sum(given)
    scoreboard.close()


def test_a_call_is_refused_while_the_lock_is_held(monkeypatch: pytest.MonkeyPatch):
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
    one.occupy("CAx")
    assert one._row.calls == 1, "a call whose stream has come is not lost"
    one.release()
    holder.communicate()
    assert one.reserve("CAx") == ""
    scoreboard.close()

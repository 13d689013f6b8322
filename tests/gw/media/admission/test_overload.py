"""gw.media.admission.overload: a worker is late when late for seconds, not after one stall."""

from gw.media.admission.overload import LATE_SECONDS, MIN_FRAMES, SECONDS, LatenessMonitor
from metrics.declare import BOUNDS

GOOD, BAD = BOUNDS.index(0.001), BOUNDS.index(0.1)


class Sent:
    """A histogram and the load that reads it."""

    def __init__(self) -> None:
        self.counts = [0.0] * (len(BOUNDS) + 1)
        self.load = LatenessMonitor(lambda: list(self.counts))

    def second(self, good: int, bad: int = 0) -> LatenessMonitor:
        self.counts[GOOD] += good
        self.counts[BAD] += bad
        self.load.end_second()
        return self.load


def test_without_frames_no_worker_is_late():
    load = Sent().second(0)
    assert (load.late, load.p99_s) == (False, -1.0)


def test_the_percentile_covers_the_last_seconds():
    sent = Sent()
    assert sent.second(1000).p99_s == 0.001
    assert sent.second(1000, 100).p99_s == 0.1
    for _ in range(SECONDS):
        sent.second(1000)
    assert sent.load.p99_s == 0.001


def test_a_worker_is_late_after_several_late_seconds():
    sent = Sent()
    late = [sent.second(1000, 11).late for _ in range(LATE_SECONDS)]
    assert late == [False] * (LATE_SECONDS - 1) + [True]
    late = [sent.second(1000).late for _ in range(SECONDS)]
    assert late[-1] is False
    assert late[0] is True, "still late within the window"


def test_one_frame_in_a_hundred_or_few_frames_make_no_second_late():
    sent = Sent()
    assert not any(sent.second(1000, 10).late for _ in range(SECONDS))
    assert not any(sent.second(0, MIN_FRAMES - 1).late for _ in range(2 * SECONDS))

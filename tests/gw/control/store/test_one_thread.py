"""gw.control.store.one_thread: work runs in one thread, in sequence and bounded; its errors reach the caller."""

from __future__ import annotations

import threading
import time

import gevent
import pytest
from gevent.monkey import get_original

from gw.control.store import one_thread
from gw.control.store.one_thread import OneThread
from gw.errors import GatewayError
from tests.timing import scaled

native_id = get_original("threading", "get_ident")


@pytest.fixture
def thread() -> OneThread:
    return OneThread(scaled(20), GatewayError)


def test_all_work_runs_in_one_other_thread(thread: OneThread) -> None:
    jobs = [gevent.spawn(thread.run, native_id) for _ in range(10)]
    gevent.joinall(jobs, timeout=scaled(10), raise_error=True)
    assert {job.value for job in jobs} != {native_id()}
    assert len({job.value for job in jobs}) == 1
    thread.close()


def test_first_come_is_first_served(thread: OneThread) -> None:
    served: list[int] = []

    def add(number: int) -> None:
        thread.run(lambda: served.append(number))

    asked = []
    for number in range(300):
        asked.append(gevent.spawn(add, number))
        if number % 7 == 0:
            gevent.sleep(0.001)  # some work ends while other work waits
    gevent.joinall(asked, timeout=scaled(10), raise_error=True)
    assert served == [*range(300)]
    thread.close()


def test_work_whose_caller_gave_up_before_it_began_is_not_done(thread: OneThread) -> None:
    let_go, done = get_original("threading", "Event")(), []
    first = gevent.spawn(thread.run, lambda: let_go.wait(scaled(10)))
    second = gevent.spawn(thread.run, lambda: done.append("second"))
    gevent.sleep(0.05)
    second.kill()
    let_go.set()
    first.get(timeout=scaled(10))
    thread.run(lambda: done.append("third"))
    assert done == ["third"]
    thread.close()


def test_an_error_is_raised_in_the_caller_and_printed_nowhere(thread: OneThread, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 // 0)
    assert thread.run(lambda: 5) == 5
    assert capfd.readouterr().err == ""
    thread.close()


def test_a_thread_that_did_not_start_is_started_by_the_next_work(thread: OneThread, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_given: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(one_thread, "get_original", lambda *_names: start)
        with pytest.raises(RuntimeError):
            thread.run(lambda: 1)
    assert thread.run(lambda: 2) == 2
    thread.close()


def test_the_wait_is_bounded_and_the_work_continues() -> None:
    thread = OneThread(0.05, GatewayError)
    let_go = get_original("threading", "Event")()
    with pytest.raises(GatewayError, match=r"within 0\.05 s"):
        thread.run(lambda: let_go.wait(scaled(10)))
    with pytest.raises(GatewayError):
        thread.run(lambda: None)  # the line is not moving
    let_go.set()
    deadline_s = time.monotonic() + scaled(10)
    while time.monotonic() < deadline_s:
        try:
            assert thread.run(lambda: 7) == 7
            break
        except GatewayError:
            gevent.sleep(0.01)
    thread.close()


def test_a_closed_thread_refuses_work(thread: OneThread) -> None:
    thread.run(lambda: None)
    before = threading.active_count()
    thread.close()
    thread.close()
    with pytest.raises(GatewayError, match="closed"):
        thread.run(lambda: None)
    assert threading.active_count() <= before

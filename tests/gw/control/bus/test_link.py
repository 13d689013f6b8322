"""gw.control.bus.link: commands to one worker, in sequence and within a bound; the sender never waits."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent import socket

from gw import bus
from gw.control.bus import link as bus_link
from gw.control.bus.link import BusLink
from tests.timing import scaled

Pair = tuple[BusLink, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(scaled(20))
    link = BusLink(ours)
    yield link, theirs
    link.close()
    ours.close()
    theirs.close()


def until_closed(link: BusLink) -> None:
    with gevent.Timeout(scaled(20)):
        while link.send(bus.Drain(True)):
            gevent.sleep(0.01)


def test_commands_arrive_in_sequence(pair: Pair) -> None:
    link, worker = pair
    commands: list[bus.Command] = [bus.Drain(True), bus.HangUp("CA1", "admin_hangup"), bus.Drain(False)]
    assert all(link.send(command) for command in commands)
    reader, arrived = bus.Reader.of_commands(), list[object]()
    while len(arrived) < len(commands):
        arrived += reader.feed(worker.recv(4096))
    assert arrived == commands


def test_a_closed_link_refuses_commands(pair: Pair) -> None:
    link, worker = pair
    link.close()
    link.close()
    assert worker.recv(1) == b""
    until_closed(link)


def test_the_end_of_a_worker_closes_the_link(pair: Pair) -> None:
    link, worker = pair
    worker.close()
    until_closed(link)
    link.close()


def test_a_worker_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_link, "MAX_COMMANDS", 2)
    ours, theirs = socket.socketpair()
    link = BusLink(ours)
    long = bus.HangUp("CA1", "x" * 1_000_000)
    sent = 0
    while link.send(long):
        sent += 1
        gevent.sleep(0)
        assert sent < 10
    assert sent >= 2
    until_closed(link)
    for one in (ours, theirs):
        one.close()


def test_a_slow_send_closes_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_link, "SEND_S", 0.05)
    ours, theirs = socket.socketpair()
    link = BusLink(ours)
    assert link.send(bus.HangUp("CA1", "x" * 1_000_000))
    with gevent.Timeout(scaled(20)):
        link._writer.join()
    assert not link.send(bus.Drain(True))
    for one in (ours, theirs):
        one.close()

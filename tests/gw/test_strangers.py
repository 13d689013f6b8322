"""gw.strangers: a newcomer always gets a place, and a stage ends in time, a few connections at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.strangers import Bounds, Closed, Stage, Strangers, address_groups

BOUNDS = Bounds(places=3, per_address=2, head_s=10, body_s=5, answer_s=15, idle_s=20)


def strangers(**changes: float) -> Strangers[str]:
    return Strangers(BOUNDS._replace(**changes), address_groups())  # type: ignore[arg-type]


def test_the_oldest_without_a_head_gives_way() -> None:
    port = strangers()
    for n, key in enumerate("abc"):
        assert port.enter(key, "127.0.0.1", n) is None
    assert port.move("a", Stage.BODY, 3) is None
    assert port.enter("d", "127.0.0.1", 4) == Closed("b", "displaced")
    assert port.count(Stage.CLOSING) == 1
    assert port.move("c", Stage.IDLE, 5) is None
    assert port.move("d", Stage.BODY, 5) is None
    assert port.enter("e", "127.0.0.1", 6) == Closed("c", ""), "no request was under way"
    assert port.move("e", Stage.BODY, 6) is None
    assert port.enter("f", "127.0.0.1", 7) == Closed("a", "displaced"), "the oldest body"


def test_a_connection_that_is_answered_holds_no_place() -> None:
    port = strangers()
    for key in "abcdef":
        assert port.enter(key, "127.0.0.1", 0) is None
        assert port.move(key, Stage.ANSWER, 0) is None
    for key in "abc":
        assert port.move(key, Stage.IDLE, 1) is None
    assert port.move("d", Stage.IDLE, 2) == Closed("a", ""), "a returning connection takes a place as well"


def test_an_address_displaces_its_own() -> None:
    port = strangers(places=100)
    for key in "ab":
        assert port.enter(key, "192.0.2.1", 0) is None
    assert port.enter("x", "192.0.2.2", 0) is None
    assert port.move("a", Stage.BODY, 0) is None
    assert port.enter("c", "192.0.2.1", 1) == Closed("b", "address_limit")
    assert port.move("c", Stage.ANSWER, 1) is None
    assert port.enter("d", "192.0.2.1", 1) is None
    port.leave("a")
    assert port.enter("e", "192.0.2.1", 1) is None
    assert not any(port.enter(f"local {n}", "127.0.0.1", 1) for n in range(50))


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("fe80::1%eth0", "fe80:0000:0000:0000"),
        ("127.8.8.8", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("10.1.2.3", ""),
        ("2001:db8:ffff::1", ""),
        ("", ""),
    ],
)
def test_what_an_address_is_counted_as(address: str, group: str) -> None:
    assert address_groups(("10.1.0.0/16", "2001:db8:ffff::/48"))(address) == group


def test_every_stage_ends_a_few_at_a_time() -> None:
    port = strangers(places=100)
    for n in range(6):
        port.enter(f"head {n}", "127.0.0.1", 0)
    for key, stage in (("body", Stage.BODY), ("answer", Stage.ANSWER), ("idle", Stage.IDLE)):
        port.enter(key, "127.0.0.1", 0)
        port.move(key, stage, 0)
    assert port.due(4.9, 4) == []
    assert port.due(5.0, 4) == [Closed("body", "body_timeout")]
    assert port.due(10.0, 4) == [*(Closed(f"head {n}", "head_timeout") for n in range(4))]
    assert port.due(10.0, 4) == [
        Closed("head 4", "head_timeout"),
        Closed("head 5", "head_timeout"),
        Closed("body", "", hard=True),
    ]
    for n in range(6):
        port.leave(f"head {n}")
    port.leave("body")
    assert port.due(20.0, 4) == [Closed("answer", ""), Closed("idle", "")]
    assert port.due(21.9, 4) == []
    assert port.due(22.0, 4) == [Closed("answer", "", hard=True), Closed("idle", "", hard=True)]


def test_an_ended_connection_leaves_nothing() -> None:
    port = strangers()
    port.enter("a", "192.0.2.1", 0)
    port.leave("a")
    port.leave("a")
    assert port.move("a", Stage.IDLE, 1) is None
    assert port.due(100, 10) == []
    assert port.give_way(1) is None


def test_one_gives_way_for_its_descriptor() -> None:
    port = strangers()
    port.enter("a", "192.0.2.1", 0)
    port.enter("b", "192.0.2.1", 1)
    assert port.give_way(2) == Closed("a", "displaced")
    assert port.give_way(2) == Closed("b", "displaced")
    assert port.give_way(2) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([*Stage, None]), st.sampled_from(["192.0.2.1", "::1"]), st.integers(0, 9))
    )
)
def test_places_and_addresses_stay_within_their_bounds(steps: list[tuple[int, Stage | None, str, int]]) -> None:
    port, alive, now = strangers(), set(), 0
    for key, stage, address, seconds in steps:
        now += seconds
        if str(key) not in alive:
            port.enter(str(key), address, now)
            alive.add(str(key))
        elif stage is None:
            port.leave(str(key))
            alive.discard(str(key))
        else:
            port.move(str(key), stage, now)
        assert sum(port.count(stage) for stage in (Stage.HEAD, Stage.BODY, Stage.IDLE)) <= BOUNDS.places
        assert all(0 < len(group) <= BOUNDS.per_address for group in port._groups.values())
        assert sum(port.count(stage) for stage in Stage) == len(alive)
        for deadlines in port._stages.values():
            assert list(deadlines.values()) == sorted(deadlines.values())
    for key in list(alive):
        port.leave(key)
    assert not port._groups
    assert not port._places

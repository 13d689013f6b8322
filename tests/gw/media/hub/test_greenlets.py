"""gw.media.hub.greenlets: each greenlet has a kind, which the hold monitor reads."""

from __future__ import annotations

import gevent
from gevent.pool import Pool

from gw.media.hub.greenlets import KindGreenlet, PoolGreenlet, mark_current, spawn


def test_a_spawned_greenlet_runs_and_has_its_kind() -> None:
    greenlet = spawn("tx", lambda: 7)
    assert isinstance(greenlet, KindGreenlet)
    assert greenlet.get(timeout=5.0) == 7
    assert greenlet.kind == "tx"


def test_a_greenlet_of_a_pool_has_the_kind_pool() -> None:
    kinds: list[str] = []
    pool = Pool(1, greenlet_class=PoolGreenlet)
    pool.spawn(lambda: kinds.append(gevent.getcurrent().kind))
    pool.join(5.0)
    assert kinds == ["pool"]


def test_a_running_greenlet_may_change_its_kind() -> None:
    def body() -> str:
        mark_current("rx")
        return gevent.getcurrent().kind

    assert spawn("other", body).get(timeout=5.0) == "rx"

"""gw.control.retention.purge: a sweep over the store, in transactions that follow its speed."""

from __future__ import annotations

import time

import pytest

from gw.control.retention.purge import LONG_S, MAX_CALLS, MIN_CALLS, PAUSE_S, SHORT_S, Swept, next_limit, policy_of, sweep
from gw.control.store.retention import Policy
from tests.gw.control.retention.rig import Rig
from tests.gw.control.stamped import call_sid


@pytest.mark.parametrize(
    ("limit", "took_s", "then"),
    [
        (100, SHORT_S / 2, 200),
        (400, SHORT_S / 2, MAX_CALLS),
        (100, (SHORT_S + LONG_S) / 2, 100),
        (100, LONG_S * 2, 50),
        (15, LONG_S * 2, MIN_CALLS),
    ],
)
def test_the_size_of_a_transaction_follows_its_time(limit: int, took_s: float, then: int) -> None:
    assert next_limit(limit, took_s) == then


def test_a_sweep_works_a_tenth_of_the_time_at_most() -> None:
    assert [Swept(1, 0, took_s).pause_s() for took_s in (0.0, 0.5)] == [PAUSE_S, 4.5]
    assert [Swept(1, 0, 0.5).pause_s(share) for share in (0.5, 0.9, 1.0)] == [0.5, PAUSE_S, 0.0]


def test_a_sweep_removes_what_is_old(rig: Rig) -> None:
    for k in range(1, 251):
        rig.call(k, days_old=40 if k <= 240 else 20)
    before = time.time() - 30 * 86_400
    assert sum(page.calls for page in sweep(rig.store, before, Policy(), dry_run=True)) == 240
    pages = list(sweep(rig.store, before, Policy()))
    assert sum(page.calls for page in pages) == 240
    assert pages[0].calls == MAX_CALLS // 5
    assert len(rig.store.calls(limit=1000)) == 10


def test_the_configuration_orders_the_acts(rig: Rig) -> None:
    assert policy_of(rig.config(fetches=True)) == Policy(fetches=True, deletes=False)
    assert policy_of(rig.config(fetches=False, twilio_days=3)) == Policy(fetches=False, deletes=True)
    rig.recorded(1, days_old=40)
    rig.recorded(2, days_old=40)
    rig.store.update_recording(call_sid(2), fetched_at=1.0)
    list(sweep(rig.store, time.time(), Policy(fetches=True)))
    assert [call.call_sid for call in rig.store.calls()] == [call_sid(1)]

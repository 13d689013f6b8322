"""gw.control.store.values: every value fits its column, and each change is counted."""

from __future__ import annotations

import math

import pytest

from gw import bus
from gw.control.store import Store
from gw.control.store.values import Fit
from tests.gw.control.stamped import T0, call_sid, ended, stamp, started, turn

SID = call_sid(1)


@pytest.mark.parametrize(
    ("method", "arguments", "fitted", "cut"),
    [
        ("text", ("abc", 3), "abc", 0),
        ("text", ("abcd", 3), "abc", 1),
        ("word", ("", 3), None, 0),
        ("word", ("abcd", 3), "abc", 1),
        ("integer", (-5,), -5, 0),
        ("integer", (2**31,), 2**31 - 1, 1),
        ("integer", (-(2**31),), -(2**31) + 1, 1),
        ("big", (2**63,), 2**63 - 1, 1),
        ("moment", (T0,), T0, 0),
        ("moment", (-1.0,), 0.0, 1),
        ("moment", (math.nan,), 0.0, 1),
        ("moment", (1e18,), 253_402_300_799.0, 1),
        ("measured", (0.5,), 0.5, 0),
        ("measured", (-1.0,), None, 0),
        ("measured", (math.inf,), None, 0),
        ("measured_int", (7,), 7, 0),
        ("measured_int", (-1,), None, 0),
        ("data", ({"a": True, "b": None, "c": 1.5},), {"a": True, "b": None, "c": 1.5}, 0),
        ("data", ({"a": math.nan, "b": 2**70},), {"a": "nan", "b": 2**63 - 1}, 2),
        ("data", ({"k" * 101: "x" * 4001},), {"k" * 100: "x" * 4000}, 2),
        ("data", ({str(k): k for k in range(101)},), {str(k): k for k in range(100)}, 1),
    ],
)
def test_a_value_fits(method: str, arguments: tuple[object, ...], fitted: object, cut: int) -> None:
    fit = Fit()
    assert getattr(fit, method)(*arguments) == fitted
    assert fit.cut == cut


def test_values_of_events_are_cut_and_counted(store: Store) -> None:
    store.apply(
        stamp(
            started(agent="ä" * 70, from_number="+" * 300, started_at=float("nan"), answered_at=1e18),
            turn(text="😀" * 20_000, start_ms=2**40),
            bus.CallEvent(
                SID, "k" * 65, -5.0, {"t": "x" * 5000, "big": 2**70, "nan": float("inf")} | {f"k{n}": n for n in range(200)}
            ),
            ended(frames_sent=2**63, send_p99_s=float("nan")),
        )
    )
    call = store.call(SID)
    assert call is not None
    assert (call.agent, len(call.from_number), call.started_at) == ("ä" * 64, 255, 0.0)
    assert call.answered_at == 253_402_300_799.0
    assert (call.turns[0].text, call.turns[0].start_ms) == ("😀" * 16_000, 2**31 - 1)
    (event,) = call.events
    assert (event.kind, event.at, len(event.data)) == ("k" * 64, 0.0, 100)
    assert (len(event.data["t"]), event.data["big"], event.data["nan"]) == (4000, 2**63 - 1, "inf")
    assert (call.quality.frames_sent, call.quality.send_p99_s) == (2**63 - 1, None)
    assert store.cut_values == 13

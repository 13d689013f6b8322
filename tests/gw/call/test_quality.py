"""gw.call.quality: percentiles against a sorted list of the durations."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.quality import LatencyCounts, Quality

BOUNDS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0)


def counted(durations: list[float]) -> LatencyCounts:
    """Count durations like TX."""
    counts = LatencyCounts(BOUNDS)
    for duration in durations:
        counts.counts[bisect_left(BOUNDS, duration)] += 1
        counts.max_s = max(counts.max_s, duration)
    return counts


@given(
    st.lists(st.sampled_from(BOUNDS) | st.floats(min_value=0.0, max_value=5.0), min_size=1, max_size=300),
    st.sampled_from(["0.5", "0.9", "0.99", "0.999", "1"]),
)
def test_a_percentile_is_the_edge_of_the_bucket_it_falls_into(durations: list[float], share: str) -> None:
    counts = counted(durations)
    exact = sorted(durations)[math.ceil(Fraction(share) * len(durations)) - 1]
    edge = next((bound for bound in BOUNDS if exact <= bound), math.inf)
    assert counts.percentile_s(float(share)) == min(edge, max(durations))
    assert counts.percentile_s(float(share)) >= exact


def test_no_counts_give_minus_one() -> None:
    counts = LatencyCounts(BOUNDS)
    assert (counts.percentile_s(0.99), counts.max_s, counts.counts) == (-1.0, -1.0, [0] * 7)


def test_above_all_bounds_the_maximum_counts() -> None:
    assert counted([0.5, 3.0, 7.0]).percentile_s(0.5) == 7.0


@pytest.mark.parametrize("share", ["0.5", "0.99", "0.999"])
def test_a_share_of_a_round_number_is_exact(share: str) -> None:
    """0.99 and 0.999 have no exact binary form; the deciding frame must be right up to an hour of frames."""
    for frames in (1000, 3000, 50_000, 180_000):
        rank = Fraction(share) * frames
        assert rank.denominator == 1
        counts = LatencyCounts(BOUNDS)
        counts.counts[0], counts.counts[1], counts.max_s = int(rank), frames - int(rank), 0.0001
        assert counts.percentile_s(float(share)) == BOUNDS[0]
        counts.counts[0], counts.counts[1] = int(rank) - 1, frames - int(rank) + 1
        assert counts.percentile_s(float(share)) == BOUNDS[1]


def test_a_report_survives_the_wire_and_cannot_be_changed() -> None:
    quality = Quality(frames_sent=3, dropped_frames={"bargein": 2}, underrun_ms=20)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(quality), type=Quality) == quality
    with pytest.raises(AttributeError):
        quality.frames_sent = 4  # type: ignore[misc]


def test_two_reports_share_no_counts() -> None:
    assert Quality().dropped_frames is not Quality().dropped_frames


def test_a_report_without_measurements() -> None:
    quality = msgspec.to_builtins(Quality())
    counted = {"frames_sent", "frames_expected", "underrun_ms", "bargeins"}
    assert {name for name, value in quality.items() if value == 0} == counted
    assert all(value == -1 for name, value in quality.items() if name not in counted and not name.endswith("dropped_frames"))
    assert quality["dropped_frames"] == quality["uplink_dropped_frames"] == {}

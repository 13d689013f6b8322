"""metrics.declare: valid families, and lists that match the gateway's own."""

import itertools
import re
import typing

import pytest

import gw.bus
from gw.call.state import Reason, State
from gw.protocol.http import FAULTS
from metrics import declare
from metrics.declare import (
    BESIDE_PAGES,
    BOUNDS,
    FAMILIES,
    WAIT_BOUNDS,
    ConfiguredCounter,
    ConfiguredFamily,
    ConfiguredHistogram,
    ConfiguredInfo,
    Counter,
    Gauge,
    Histogram,
)


def test_one_millisecond_is_a_bucket_edge():
    assert 0.001 in BOUNDS
    assert 0.005 in BOUNDS
    assert BOUNDS[0] == 0.00001
    assert BOUNDS[-1] == 1.0
    assert len(BOUNDS) == 5 * 8 + 1
    assert all(1.2 < after / before < 1.5 for before, after in itertools.pairwise(BOUNDS))


def test_the_recording_limit_is_a_bucket_edge():
    assert 0.25 in WAIT_BOUNDS


def test_send_lateness_and_holds_have_the_same_buckets():
    assert declare.TX_SEND.bounds == declare.TX_LATENESS.bounds == declare.HUB_HOLD.bounds == BOUNDS


def test_names_are_unique_and_every_declaration_is_registered():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    declared = [value for value in vars(declare).values() if isinstance(value, Counter | Gauge | Histogram)]
    assert declared == list(FAMILIES)


def test_families_beside_the_pages_are_registered_too():
    declared = [value for value in vars(declare).values() if isinstance(value, ConfiguredFamily)]
    assert sorted(declared, key=lambda family: family.name) == sorted(BESIDE_PAGES, key=lambda family: family.name)


@pytest.mark.parametrize("kind", [ConfiguredCounter, ConfiguredInfo, ConfiguredHistogram])
@pytest.mark.parametrize("name", ["gw_x", "x_total"])
def test_names_beside_the_pages_are_checked(kind, name):
    with pytest.raises(ValueError, match=name):
        kind(name, "X.", ("a",))


def test_every_family_has_a_help_text():
    assert all(family.help.endswith(".") for family in (*FAMILIES, *BESIDE_PAGES))


def test_calls_ended_has_every_reason():
    assert list(declare.CALLS_ENDED.labels["reason"]) == [str(reason) for reason in Reason]


def test_calls_has_every_state_of_a_call_in_progress():
    assert list(declare.CALLS.labels["state"]) == [str(state) for state in State if state is not State.ENDED]


def test_bus_dropped_has_every_event():
    names = [re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in typing.get_args(gw.bus.Event)]
    assert sorted(declare.BUS_DROPPED.labels["kind"]) == sorted(names)


def test_requests_refused_has_every_fault_of_the_reader():
    assert set(FAULTS) <= set(declare.REQUESTS_REFUSED.labels["reason"])


def test_series_follow_the_order_of_the_labels():
    family = Counter("gw_x_total", "X.", {"a": ("p", "q"), "b": ("r", "s")})
    assert list(family.series()) == [("p", "r"), ("p", "s"), ("q", "r"), ("q", "s")]
    assert list(Counter("gw_x_total", "X.").series()) == [()]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Counter, {"name": "gw_x_s"}),
        (Counter, {"name": "x_total"}),
        (Counter, {"name": "gw_Xx_total"}),
        (Counter, {"name": "gw_x_total", "labels": {"a": ()}}),
        (Counter, {"name": "gw_x_total", "labels": {"a": ("p", "p")}}),
        (Counter, {"name": "gw_x_total", "labels": {"a": ("+1555",)}}),
        (Gauge, {"name": "gw_x_total"}),
        (Gauge, {"name": "gw_x_bucket"}),
        (Histogram, {"name": "gw_x_s"}),
        (Histogram, {"name": "gw_x_seconds", "bounds": ()}),
        (Histogram, {"name": "gw_x_seconds", "bounds": (2.0, 1.0)}),
        (Histogram, {"name": "gw_x_seconds", "bounds": (1.0, 1.0)}),
        (Histogram, {"name": "gw_x_seconds", "labels": {"le": ("p",)}}),
    ],
)
def test_invalid_declarations_are_refused(kind, arguments):
    with pytest.raises(ValueError, match="x_"):
        kind(help="X.", **arguments)

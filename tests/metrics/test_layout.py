"""metrics.layout: each series has its own place, and a change of any input changes the header."""

import pytest

from metrics.declare import BOUNDS, FAMILIES, TX_FRAMES, Counter, Gauge, Histogram
from metrics.layout import HEADER, LAYOUT, Layout, UnknownSeriesError, width_of

FRUIT = Counter("gw_fruit_total", "Fruit.", {"kind": ("apple", "pear"), "colour": ("red", "green")})
DEPTH = Gauge("gw_depth", "Depth.", {"side": ("left", "right")})
WAIT = Histogram("gw_wait_seconds", "Wait.", bounds=(0.1, 1.0))


def test_places_are_contiguous_and_do_not_overlap():
    taken = []
    for family in FAMILIES:
        for labels in family.series():
            place = LAYOUT.place_of(family, dict(zip(family.labels, labels, strict=True)))
            taken += range(place, place + width_of(family))
    assert taken == list(range(LAYOUT.length))


def test_values_are_aligned():
    assert HEADER.size % 8 == 0
    assert LAYOUT.page_bytes == HEADER.size + 8 * LAYOUT.length


def test_widths():
    assert width_of(FRUIT) == width_of(DEPTH) == 1
    assert width_of(WAIT) == 2 + 1 + 1  # two bounds, +Inf, the sum
    assert width_of(Histogram("gw_y_seconds", "Y.")) == len(BOUNDS) + 2


def test_gauges_are_listed():
    layout = Layout((FRUIT, DEPTH, WAIT))
    assert layout.gauges == [4, 5]


def test_labels_are_accepted_in_any_order():
    layout = Layout((FRUIT,))
    assert layout.place_of(FRUIT, {"colour": "green", "kind": "pear"}) == 3


@pytest.mark.parametrize(
    "labels", [{}, {"kind": "apple"}, {"kind": "apple", "colour": "blue"}, {"kind": "apple", "color": "red"}]
)
def test_unknown_labels_are_refused(labels):
    with pytest.raises(UnknownSeriesError, match="gw_fruit_total"):
        Layout((FRUIT,)).place_of(FRUIT, labels)


def test_undeclared_families_are_refused():
    with pytest.raises(UnknownSeriesError, match="gw_fruit_total"):
        LAYOUT.place_of(FRUIT, {"kind": "apple", "colour": "red"})
    with pytest.raises(UnknownSeriesError, match="labels"):
        LAYOUT.place_of(TX_FRAMES, {"kind": "apple"})


def test_a_duplicate_name_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Layout((DEPTH, DEPTH))


@pytest.mark.parametrize(
    "other",
    [
        (DEPTH, WAIT, FRUIT),
        (FRUIT, DEPTH),
        (FRUIT, DEPTH, Histogram("gw_wait_seconds", "Wait.", bounds=(0.1, 2.0))),
        (FRUIT, Gauge("gw_depth", "Depth.", {"side": ("right", "left")}), WAIT),
        (FRUIT, Gauge("gw_deep", "Depth.", {"side": ("left", "right")}), WAIT),
    ],
)
def test_the_header_differs_between_layouts(other):
    assert Layout((FRUIT, DEPTH, WAIT)).header != Layout(other).header


def test_a_changed_help_text_keeps_the_layout():
    assert Layout((WAIT,)).header == Layout((Histogram("gw_wait_seconds", "How long.", bounds=(0.1, 1.0)),)).header

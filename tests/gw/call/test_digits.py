"""gw.call.digits: the arguments, the mask, the output."""

from __future__ import annotations

import json

import pytest

from gw.call.digits import MAX_DIGITS, Asked, Collection, mask, output_of, read_asked, ref_of


def test_the_arguments_have_defaults() -> None:
    assert read_asked("") == read_asked("{}") == Asked() == Asked(1, 20, "#", 10_000, False)
    wanted = '{"min":4,"max":6,"finish_on":"*","timeout_s":2.5,"sensitive":true}'
    assert read_asked(wanted) == Asked(4, 6, "*", 2500, True)


@pytest.mark.parametrize(
    "arguments",
    [
        *("[]", "{", '{"min":0}', f'{{"max":{MAX_DIGITS + 1}}}', '{"min":5,"max":4}', '{"finish_on":"1"}', '{"timeout_s":0.5}'),
        *('{"timeout_s":61}', '{"sensitive":"yes"}', '{"digits":4}'),
    ],
)
def test_bad_arguments_are_refused(arguments: str) -> None:
    assert read_asked(arguments) is None


@pytest.mark.parametrize(("digits", "masked"), [("", ""), ("1", "****"), ("1234567", "****"), ("12345678", "****5678")])
def test_the_mask_shows_the_last_four_of_eight(digits: str, masked: str) -> None:
    assert mask(digits) == masked


def test_the_output_leaves_out_empty_fields() -> None:
    assert json.loads(output_of("1234", "")) == {"digits": "1234"}
    assert json.loads(output_of("", "timeout")) == {"digits": "", "error": "timeout"}
    assert json.loads(output_of("****5678", "", "d1")) == {"digits": "****5678", "ref": "d1"}


def test_references_of_later_streams_continue() -> None:
    assert [ref_of(0, 1), ref_of(0, 2), ref_of(2, 1)] == ["d1", "d2", "d2001"]


def test_a_shortfall_has_one_cause() -> None:
    few = Collection("t1", Asked(least=3), "12")
    assert few.shortfall("timeout") == "timeout"
    assert few.shortfall("too_few") == "too_few"
    assert few._replace(is_partial=True).shortfall("timeout") == "too_early"
    assert few._replace(digits="123").shortfall("timeout") == ""
    assert not few.is_full

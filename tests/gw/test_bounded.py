"""Tests of time limits: the own limit becomes an error, an outer limit passes through, nothing is left behind."""

from __future__ import annotations

import contextlib
import gc

import gevent
import pytest

from gw.bounded import OutOfTimeError, within


def test_a_block_that_ends_in_time_is_left_alone() -> None:
    with within(5.0):
        gevent.sleep(0)
    gevent.sleep(0)


def test_a_block_that_waits_too_long_ends_with_out_of_time() -> None:
    with pytest.raises(OutOfTimeError, match=r"0\.01 s"), within(0.01):
        gevent.sleep(5.0)


def test_except_exception_inside_the_block_does_not_catch_the_limit() -> None:
    with pytest.raises(OutOfTimeError), within(0.01):
        with contextlib.suppress(Exception):
            gevent.sleep(5.0)
        pytest.fail("the limit was caught inside the block")


def test_the_limit_of_an_outer_block_passes_through() -> None:
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.01) as outer, within(5.0):
        gevent.sleep(5.0)
    assert caught.value is outer


def test_an_error_of_the_block_passes_through_and_ends_the_limit() -> None:
    with pytest.raises(ValueError, match="own"), within(0.01):
        raise ValueError("own")
    gevent.sleep(0.02)  # a limit still running would end this


def test_a_passed_limit_is_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(OutOfTimeError), within(0.0123):
            gevent.sleep(5.0)
        gevent.sleep(0.001)  # the hub releases the timer
        left = [found for found in gc.get_objects() if isinstance(found, gevent.Timeout) and found.seconds == 0.0123]
    finally:
        gc.enable()
    assert not left

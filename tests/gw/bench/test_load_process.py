"""gw.bench.load_process: orders and answers, refused orders, silence, and the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from gw.bench.load_process import LoadProcess
from gw.bench.subject import BenchError


def test_a_load_process_takes_orders_until_it_is_stopped(tmp_path: Path) -> None:
    process = LoadProcess("gw.bench.load.ai", "--pattern", "steady", log=tmp_path / "log")
    assert process.name == "ai"
    assert process.ready["port"] > 0
    assert process.order("begin") == {"alive": 0}
    assert process.order("end") == {}
    assert process.order("report")["lost"] == 0
    process.stop()


def test_a_process_that_dies_is_an_error(tmp_path: Path) -> None:
    process = LoadProcess("gw.bench.load.ai", log=tmp_path / "log")
    os.kill(process.pid, signal.SIGKILL)
    try:
        with pytest.raises(BenchError, match="load process ai ended"):
            process.order("begin")
    finally:
        process.stop()


def test_a_process_that_does_not_get_ready_is_an_error_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"(?s)load process ai ended.*invalid choice: 'loud'"):
        LoadProcess("gw.bench.load.ai", "--pattern", "loud", log=tmp_path / "log")


def test_an_order_without_an_answer_times_out(tmp_path: Path) -> None:
    process = LoadProcess("gw.bench.load.ai", log=tmp_path / "log")
    try:
        with pytest.raises(BenchError, match="load process ai did not answer within 0 s"):
            process.order("begin", 0.0)
    finally:
        process.stop()


def test_a_call_that_cannot_be_placed_is_an_error(tmp_path: Path) -> None:
    arguments = ("--url", "http://127.0.0.1:9", "--account-sid", "AC1")
    process = LoadProcess("gw.bench.load.callers", *arguments, first_line="secret", log=tmp_path / "log")
    try:
        with pytest.raises(BenchError, match="load process callers: call 1:"):
            process.order("dial", calls=1, path="/twilio/voice")
    finally:
        process.stop()

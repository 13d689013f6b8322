"""gw.terminal: times, durations, tables and JSON."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.text import Text

from gw import terminal as output
from gw.terminal import Column


def test_times_are_local_and_as_long_as_needed() -> None:
    noon = time.mktime((2026, 11, 21, 12, 30, 5, 0, 0, -1))
    assert output.local_time(noon, noon + 60) == "12:30:05"
    assert output.local_time(noon, noon + 86400) == "21 Nov 12:30"
    assert output.local_time(noon, noon + 400 * 86400) == "2026-11-21"
    assert output.local_time(None) == "-"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-"), (-1.0, "-"), (0.04, "0.0 s"), (59.94, "59.9 s"), (187, "3:07"), (3723, "1:02:03")]
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert output.duration(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(None, "-"), (-1.0, "-"), (0.0000123, "0.012"), (0.0123, "12.3")])
def test_milliseconds(seconds: float | None, shown: str) -> None:
    assert output.milliseconds(seconds) == shown


def test_absence_is_a_dash() -> None:
    assert [output.dash(value) for value in (None, "", -1, 0, "x")] == ["-", "-", "-", "0", "x"]


def test_an_ending_is_coloured_by_fault() -> None:
    assert output.ending(None, None).style == "green"
    assert output.ending("ai_hangup", "success").style == ""
    assert output.ending("phone_lost", "peer_error").style == "yellow"
    assert output.ending("worker_lost", "own_error").style == "red"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SID = "CA" + "0123456789abcdef" * 2
COLUMNS = (
    Column("started", lambda row: "12:30:05"),
    Column("wide", lambda row: "only where there is room", needs=100),
    Column(">call", lambda row: str(row["call_sid"])),
)


@pytest.mark.parametrize(("width", "shown"), [("60", False), ("120", True)])
def test_a_narrow_terminal_loses_columns_but_no_sid(monkeypatch: pytest.MonkeyPatch, width: str, shown: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", width)
    output.print_rows(COLUMNS, [{"call_sid": SID}])
    assert SID in terminal.getvalue()
    assert ("only where" in terminal.getvalue()) is shown


def test_a_pipe_gets_everything_without_colour(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    output.print_rows(COLUMNS, [{"call_sid": SID}])
    printed = capsys.readouterr().out
    assert SID in printed
    assert "only where there is room" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("rows", "as_json", "shown"),
    [
        ([{"call_sid": SID}], False, "started \n12:30:05\n"),
        ([{"call_sid": SID}], True, json.dumps([{"call_sid": SID}], indent=2) + "\n"),
        ([], True, "[]\n"),
        ([], False, "No calls yet.\n"),
    ],
)
def test_a_listing_is_a_table_a_document_or_a_sentence(
    capsys: pytest.CaptureFixture[str], rows: list[dict[str, str]], as_json: bool, shown: str
) -> None:
    output.print_listing(COLUMNS[:1], rows, empty="No calls yet.", as_json=as_json)
    assert capsys.readouterr().out == shown


def test_json_is_one_unescaped_document(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json([{"text": "süß"}])
    assert capsys.readouterr().out == '[\n  {\n    "text": "süß"\n  }\n]\n'


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[/bold]", "[/bold]"),  # would be a closing tag without an opening one
        ("[laughs] [red]no[/red] :smile:", "[laughs] [red]no[/red] :smile:"),
        ("\x1b]0;owned\x1b\\\x1b[2J\x9b31m", "\ufffd]0;owned\ufffd\\\ufffd[2J\ufffd31m"),
    ],
)
def test_words_of_a_caller_are_neither_markup_nor_terminal_commands(
    said: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output.print_rows((Column("said", lambda row: str(row["said"])),), [{"said": said}])
    output.print_rows((Column("said", lambda row: Text(row["said"])),), [{"said": said}])
    output.console().print(output.facts([("said", said)]))
    rows = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == rows[2] == "said"
    assert [rows[1], rows[3], rows[4].removeprefix("said").strip()] == [shown] * 3


def test_a_control_character_does_not_shift_the_colours() -> None:
    text = Text("a\x1bb").append(" (interrupted)", "yellow")
    shown = output.verbatim(text)
    assert shown.plain == "a\ufffdb (interrupted)"
    assert [(span.start, span.end) for span in shown.spans] == [(3, 17)]


def test_a_cost_in_usd() -> None:
    assert [output.usd(amount) for amount in (None, 0.0, 0.12345, 1234.5)] == ["-", "$0.0000", "$0.1235", "$1,234.5000"]

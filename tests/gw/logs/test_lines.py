"""gw.logs.lines: fields, masking of telephone numbers, and bounds."""

import ast
import json
import logging
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.state import Reason
from gw.control.twilio_api.answers import Kind
from gw.errors import ProtocolError
from gw.logs.lines import EXTRAS, FIELD_LIMIT, OTHER_REASON, REASONS, format_human, format_journal, format_json, mask_numbers
from metrics import declare


def _record(message="m", *arguments, error=None, **extras) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("test", logging.INFO, "", 0, message, arguments, exc_info)
    record.__dict__.update(extras)
    return record


def _json(*arguments, **options) -> dict:
    line = format_json(_record(*arguments, **options), "worker-0")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return json.loads(line)


# -- the line ---------------------------------------------------------------------------------------------------------


def test_time_is_utc_to_the_millisecond():
    record = _record()
    record.created = 1763769600.0625
    assert json.loads(format_json(record, "p"))["ts"] == "2025-11-22T00:00:00.062Z"


def test_only_listed_extras_are_written():
    line = _json("m", call_sid="CA1", worker=3, reason=Reason.AI_LOST, detail=["a"], code=None, secret="never")
    assert {key: line[key] for key in line if key != "ts"} == {
        "level": "info",
        "process": "worker-0",
        "logger": "test",
        "message": "m",
        "call_sid": "CA1",
        "worker": 3,
        "reason": "ai_lost",
        "detail": "['a']",
    }


@pytest.mark.parametrize("reason", ["a word nobody listed", 7, ["x"]])
def test_an_unknown_reason_is_written_as_other(reason):
    assert _json("m", reason=reason)["reason"] == "other"


def _reasons_in_the_code():
    """Yield every constant `"reason": value` and `reason=value` in a log call, with its place."""
    for path in sorted(Path("gw").rglob("*.py")):
        if not {"cli", "twin", "verify"} & set(path.parts):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
                    for key, value in zip(node.value.keys, node.value.values, strict=True):
                        if isinstance(key, ast.Constant) and key.value == "reason" and isinstance(value, ast.Constant):
                            yield path, value.value


def test_every_field_in_the_code_is_written():
    found = {
        (path.name, key.value)
        for path in Path("gw").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant)
    }
    assert len(found) >= 10
    assert {(name, field) for name, field in found if field not in EXTRAS} == set()


def test_every_reason_in_the_code_is_on_the_list_and_the_list_is_explained():
    found = list(_reasons_in_the_code())
    assert len(found) >= 5
    assert [(path, word) for path, word in found if word not in REASONS] == []
    assert set(get_args(Kind)) <= REASONS
    assert set(declare.STREAMS_REFUSED.labels["reason"]) <= REASONS
    explained = Path("deploy/reasons.md").read_text()
    assert [word for word in sorted(REASONS | {OTHER_REASON}) if f"`{word}`" not in explained] == []


@pytest.mark.parametrize("name", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_a_line_for_the_journal_begins_with_its_level(name):
    record = _record()
    record.levelno, record.levelname = getattr(logging, name), name
    level, _, rest = format_journal(record, "control").partition(b">")
    assert level == {"DEBUG": b"<7", "INFO": b"<6", "WARNING": b"<4", "ERROR": b"<3", "CRITICAL": b"<2"}[name]
    assert json.loads(rest)["level"] == name.lower()


def test_numbers_are_shown_if_configured():
    record = _record("from %s", "+15551234567", detail="+15551234567")
    line = json.loads(format_json(record, "p", numbers=True))
    assert (line["message"], line["detail"]) == ("from +15551234567", "+15551234567")
    assert b"+15551234567" in format_human(record, "p", numbers=True)
    assert b"1234567" not in format_json(record, "p")


def test_lines_of_a_worker_have_its_index():
    assert _json("m")["worker"] == 0
    assert _json("m", worker=3)["worker"] == 3
    assert "worker" not in json.loads(format_json(_record(), "control"))
    assert b"worker=" not in format_human(_record(), "worker-0")


@given(st.text(), st.text())
def test_any_text_is_one_line(message, detail):
    line = _json("%s", message, detail=detail)
    assert isinstance(line["message"], str)
    format_human(_record("%s", message, detail=detail), "p").decode()


def test_a_surrogate_is_escaped():
    assert _json("\ud800 caf\xe9")["message"] == "\\ud800 caf\xe9"


def test_a_long_field_is_cut_and_a_number_across_the_cut_is_masked():
    message = _json("x" * (FIELD_LIMIT - 6) + "+15551234567" + "y" * 100)["message"]
    assert message.endswith("x+1555*... (106 characters more)")


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+15551234567", "+1555***4567"),
        ("from +15551234567 to +442071838750.", "from +1555***4567 to +4420***8750."),
        ("From=%2B15551234567&To=x", "From=%2B1555***4567&To=x"),
        ("sip:+15551234567@host", "sip:+1555***4567@host"),
        ("+1 (555) 123-4567", "+1555***4567"),
        ("+1234567", "+***4567"),
        ("+123456", "+123456"),
        ("+1234567890123456", "+1234567890123456"),
        ("1700000000 CA0123456789", "1700000000 CA0123456789"),
        ("2026-11-22T10:00:00+01:00", "2026-11-22T10:00:00+01:00"),
    ],
)
def test_numbers_are_masked(text, expected):
    assert mask_numbers(text) == expected


@given(
    st.text(alphabet="ab .,", max_size=5),
    st.text(alphabet="0123456789", min_size=7, max_size=15),
    st.text(alphabet="ab ,", max_size=5),
)
def test_no_number_is_shown_whole(before, digits, after):
    assert f"+{digits}" not in mask_numbers(f"{before}+{digits}{after}")


def test_numbers_are_masked_everywhere():
    error = ValueError("no +15551234567")
    line = format_json(_record("a %s", "+15551234567", error=error, detail={"to": "+15551234567"}), "p").decode()
    assert line.count("+1555***4567") == 4
    assert "+15551234567" not in line


# -- tracebacks -------------------------------------------------------------------------------------------------------


def _caught(function, *arguments) -> Exception:
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001  whatever it was asked to raise
        return error
    raise AssertionError("nothing was raised")


def _deep(depth):
    if depth == 0:
        raise ValueError("at the bottom")
    _deep(depth - 1)


def _handled():
    try:
        _deep(0)
    except ValueError:
        raise KeyError("k")  # noqa: B904  the implicit chain is what is tested


def _caused():
    try:
        _deep(0)
    except ValueError as error:
        raise ProtocolError("bad_json", "no JSON") from error


def _hidden():
    try:
        _deep(0)
    except ValueError:
        raise KeyError("k") from None


def _traceback(error) -> list[str]:
    return _json("m", error=error)["traceback"].split("\n")


def test_a_traceback_has_places_and_source():
    rows = _traceback(_caught(_deep, 1))
    assert rows[0] == "Traceback (most recent call last):"
    assert re.fullmatch(r'  File ".*test_lines.py", line \d+, in _deep', rows[3])
    assert rows[4] == "    _deep(depth - 1)"
    assert rows[-2:] == ['    raise ValueError("at the bottom")', "ValueError: at the bottom"]


def test_a_long_traceback_is_cut_in_the_middle():
    rows = _traceback(_caught(_deep, 100))
    assert "  ... 72 frames ..." in rows
    assert len(rows) == 1 + 2 * 30 + 1 + 1
    assert rows[-1] == "ValueError: at the bottom"


def test_a_chain_of_exceptions_starts_with_the_oldest():
    assert [row for row in _traceback(_caught(_handled)) if not row.startswith(("  ", "Trace"))] == [
        "ValueError: at the bottom",
        "and while it was handled:",
        "KeyError: 'k'",
    ]
    assert [row for row in _traceback(_caught(_caused)) if not row.startswith(("  ", "Trace"))] == [
        "ValueError: at the bottom",
        "which caused:",
        "gw.errors.ProtocolError: no JSON",
    ]
    assert not any("bottom" in row for row in _traceback(_caught(_hidden)) if not row.startswith("  "))


def test_a_chain_is_bounded():
    error = ValueError("0")
    error.__cause__ = error
    assert _traceback(error).count("ValueError: 0") == 5


def test_an_exception_that_was_never_raised():
    line = _json("m", error=ValueError())
    assert line["error"] == "ValueError"
    assert line["traceback"] == "ValueError"


def test_missing_source():
    error = _caught(eval, compile("1 / 0", "<nowhere>", "eval"))
    assert _traceback(error)[-2:] == ['  File "<nowhere>", line 1, in <module>', "ZeroDivisionError: division by zero"]


# -- for people -------------------------------------------------------------------------------------------------------


def test_a_person_reads_a_coloured_line():
    line = format_human(_record("line\nbreak \x1b[31m", error=_caught(_deep, 0), call_sid="CA1"), "worker-0").decode()
    first, *rest = re.sub(r"\x1b\[[0-9;]*m", "", line).splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} info    worker-0 line\\x0abreak \\x1b\[31m CA1", first)
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "    ValueError: at the bottom"


def test_a_persons_line_is_short():
    sid, reason = "CA0123456789abcdef0123456789abcdef", "caller_hangup"
    record = _record(f"call ended: {reason}", call_sid=sid, stream_sid="MZ1", reason=reason, code=4)
    line = re.sub(r"\x1b\[[0-9;]*m", "", format_human(record, "worker-0").decode())
    assert line.endswith(f" info    worker-0 call ended: {reason} CA01234567 code=4\n")
    alone = re.sub(r"\x1b\[[0-9;]*m", "", format_human(_record("a stream", stream_sid="MZ1", reason=reason), "control").decode())
    assert alone.endswith(f" a stream stream_sid=MZ1 reason={reason}\n")


def test_a_line_without_extras():
    line = re.sub(r"\x1b\[[0-9;]*m", "", format_human(_record("m"), "p").decode())
    assert line.endswith(" info    p m\n")

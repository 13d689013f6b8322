"""gw.protocol.webhook_form: fields as urllib reads them, broken ones refused, identifiers checked for their form."""

from __future__ import annotations

import random
import subprocess
import sys
from urllib.parse import parse_qsl, urlencode

import pytest

from gw.protocol.webhook_form import MAX_FIELDS, field_fault, parse_form

SID = "0123456789abcdefABCDEF0123456789"
GOOD = {"CallSid": "CA" + SID, "AccountSid": "AC" + SID, "CallStatus": "in-progress"}


def test_fields_are_in_sequence_and_blank_ones_kept() -> None:
    assert parse_form(b"b=1&a=%C3%A9+x%2B&&b=&c&=d&e=f=g") == [
        ("b", "1"), ("a", "\u00e9 x+"), ("b", ""), ("c", ""), ("", "d"), ("e", "f=g"),
    ]  # fmt: skip
    assert parse_form(b"") == []


def test_separators_in_escapes_and_backslashes_are_text() -> None:
    assert parse_form(b"a%26=%3D%25&\\u0100=\\x41\\&\xc4\x80=%C4%81") == [
        ("a&", "=%"), ("\\u0100", "\\x41\\"), ("\u0100", "\u0101"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"%",
        b"a=%4",
        b"a=%zz",
        b"a=%u0041",
        b"a=%4&b",
        b"a=%%41",
        b"a=\xff",
        b"a=%ff",
        b"a=%ED%A0%80",
        b"a=%C3&b=%A9",
        b"&" * MAX_FIELDS,
    ],
)
def test_other_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"escape|utf-8|fields"):
        parse_form(body)


def test_the_most_fields() -> None:
    assert len(parse_form(b"&".join([b"a=1"] * MAX_FIELDS))) == MAX_FIELDS


def test_any_form_agrees_with_urllib() -> None:
    dice = random.Random(3)
    letters = [
        "a",
        "B",
        "&",
        "=",
        "+",
        "%",
        "\\",
        "x41",
        "u0100",
        "\u00e9",
        "\u0100",
        "\u0101",
        "\U0001f600",
        " ",
        "\x00",
        ";",
        "\n",
    ]
    for _ in range(500):
        form = [("".join(dice.choices(letters, k=dice.randrange(5))), "".join(dice.choices(letters, k=6))) for _ in range(5)]
        assert parse_form(urlencode(form).encode()) == form
        raw = "".join(dice.choices(letters, k=20)).replace("%", "").encode()
        assert parse_form(raw) == parse_qsl(raw.decode(), keep_blank_values=True)


def test_good_fields() -> None:
    assert field_fault(GOOD) == ""
    assert field_fault({**GOOD, "RecordingSid": "RE" + SID, "StreamSid": "MZ" + SID, "StreamEvent": "stream-started"}) == ""
    assert field_fault({**GOOD, "RecordingSid": "", "CallStatus": ""}) == "", "blank is absent"
    assert field_fault({**GOOD, "Other": "x" * 9999}) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"CallSid": ""},
        {"CallSid": "CA" + SID[1:]},
        {"CallSid": "CA" + SID + "0"},
        {"CallSid": "CA" + SID + "\n"},
        {"CallSid": "ca" + SID},
        {"CallSid": "MZ" + SID},
        {"CallSid": "CA" + "g" * 32},
        {"CallSid": "CA" + "\u0661" * 32},
        {"ParentCallSid": "CA"},
        {"AccountSid": "CA" + SID},
        {"RecordingSid": "../" + SID},
        {"StreamSid": "x"},
        {"CallStatus": "Completed"},
        {"CallStatus": "a" * 33},
        {"RecordingStatus": "done\x00"},
        {"StreamEvent": "-"},
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, str]) -> None:
    (name,) = wrong
    fault = field_fault({**GOOD, **wrong})
    assert fault.startswith(f"{name} ")
    assert len(fault) < 120
    assert fault.isprintable()


def test_the_first_form_imports_nothing():
    """An import reads files, and a webhook is served in the hub."""
    script = (
        "import sys; from gw.protocol.webhook_form import parse_form; before = set(sys.modules);"
        " parse_form(b'CallSid=%41&b=c'); print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"

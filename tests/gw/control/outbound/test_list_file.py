"""gw.control.outbound.list_file: a list is parsed whole, and every error names its line."""

from __future__ import annotations

import pytest

from gw.control.outbound import list_file
from gw.control.outbound.list_file import Line, Parsed, id_of, parse, variables_problems


def parsed(text: str | bytes) -> Parsed:
    data = text if isinstance(text, bytes) else text.encode()
    return parse(data, agents=("default", "sales"), agent="default", zone="UTC")


def test_a_list_has_defaults_and_its_own_values() -> None:
    text = '\ufeffto,agent,zone,var_name\n+15551234567,,,Ada\n\n+15551234568,sales,Europe/Berlin,"Bob by ""x"""\n'
    found = parsed(f"{text}sip:a@b.example,,,\n")
    assert found.errors == []
    assert found.lines == [
        Line(2, "+15551234567", "default", "UTC", {"name": "Ada"}),
        Line(4, "+15551234568", "sales", "Europe/Berlin", {"name": 'Bob by "x"'}),
        Line(5, "sip:a@b.example", "default", "UTC", {}),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1 has no column `to`"),
        ("to,to\n", "line 1 has the column 'to' twice"),
        ("to,name\n", "line 1: the column 'name' is unknown"),
        ("to,var_Name\n", "the variable of the column 'var_Name' is not a variable's name"),
        ("to,var_caller\n", "is set by the gateway"),
        ("to\n", "the file has no numbers"),
        ("to\n5551234567\n", "line 2: '5551234567' is neither a number in E.164"),
        ("to\n+15551234567\n\n+15551234567\n", "line 4: +15551234567 is the number of line 2 too"),
        ("to,agent\n+15551234567,nobody\n", "line 2: no agent 'nobody'; use one of: default, sales"),
        ("to,zone\n+15551234567,Berlin\n", "line 2: 'Berlin' is not a time zone"),
        ("to,zone\n+15551234567\n", "line 2 has 1 cells; expected 2"),
        ('to\n"+15551234567\n', "is not CSV"),
        ("to,var_x\n+15551234567,a\x07b\n", "contains a control character"),
        (b"to\n\xff\n", "is not UTF-8, at byte 3"),
    ],
)
def test_an_error_names_its_line(text: str | bytes, sentence: str) -> None:
    (error,) = parsed(text).errors
    assert sentence in error


def test_all_errors_come_together() -> None:
    assert len(parsed("to,agent\n1,x\n2,x\n").errors) == 4


def test_a_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_file, "MAX_LINES", 1)
    assert parsed("to\n+15551234567\n+15551234568\n").errors == ["the file has more than 1 numbers; divide it"]
    wide = ",".join(["to", *("var_" + "a" * (n + 1) for n in range(32)), "var_b"])
    assert parsed(wide).errors == ["line 1 has more than 32 variables"]
    monkeypatch.setattr(list_file, "MAX_BYTES", 3)
    assert "at most 3 are allowed" in parsed("to\n+1").errors[0]


def test_the_identity_is_name_and_content() -> None:
    ids = {id_of("a.csv", b"x"), id_of("b.csv", b"x"), id_of("a.csv", b"y")}
    assert len(ids) == 3
    assert {len(one) for one in ids} == {12}


def test_variables_fit_into_a_url() -> None:
    assert variables_problems({"name": "x" * 400}) == []
    (problem,) = variables_problems({f"n{'_' * n}": "ä" * 100 for n in range(4)})
    assert "characters in a URL; at most 2000" in problem
    assert "there are 33 variables" in variables_problems({"_" * (n + 1): "" for n in range(33)})[-1]

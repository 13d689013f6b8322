"""gw.config.json_schema: schemas of arguments, each error with its place; nothing is fetched."""

from __future__ import annotations

import json
import signal
from typing import Any

import gevent
import pytest
from gevent.threadpool import ThreadPool

from gw.config.json_schema import CPU_S, MAX_PROBLEM_CHARS, STEPS, Schema, SchemaError


def schema(**more: Any) -> Schema:
    return Schema(json.dumps({"type": "object", **more}))


def test_arguments_that_fit_and_that_do_not() -> None:
    one = schema(
        properties={"number": {"type": "string"}, "lines": {"type": "array", "items": {"type": "integer"}}}, required=["number"]
    )
    assert one.problem({"number": "7", "lines": [1], "more": None}) == ""
    assert one.problem({}) == "'number' is a required property"
    assert one.problem({"number": 7}) == "at number: 7 is not of type 'string'"
    assert one.problem({"number": "7", "lines": [1, "x"]}) == "at lines[1]: 'x' is not of type 'integer'"


def test_a_problem_is_short() -> None:
    assert len(schema(properties={"a": {"const": 1}}).problem({"a": "x" * 9000})) < MAX_PROBLEM_CHARS + 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "it is not JSON"),
        ("[]", "it is not the schema of an object"),
        ("true", "it is not the schema of an object"),
        ("{}", "it is not the schema of an object"),
        ('{"type":"string"}', "it is not the schema of an object"),
        ('{"type":"object","properties":{"number":{"type":"text"}}}', "at properties.number.type: 'text' is not valid"),
        ('{"type":"object","required":"number"}', "at required: 'number' is not of type 'array'"),
        ('{"type":"object","properties":{"a":{"pattern":"("}}}', r"at properties.a.pattern: '\(' is not a 'regex'"),
        ('{"type":"object","$schema":"http://example.com/mine"}', r'\$schema names "http://example.com/mine"'),
        ('{"type":"object","$schema":7}', r"\$schema names 7"),
        (
            '{"type":"object","properties":{"a":{"$ref":"https://example.com/x.json"}}}',
            r"at properties.a.\$ref: .*no part of this",
        ),
        ('{"type":"object","properties":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]}}}', r"at properties.a.anyOf\[0\].\$ref"),
        ('{"type":"object","$defs":{"a":{"$schema":"x"}}}', r"at \$defs.a.\$schema: a version is named at the top only"),
        ('{"type":"object","$ref":"#"}', "it is nested too deeply"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_bad_schema_is_named_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(SchemaError, match=expected):
        Schema(text)


@pytest.mark.parametrize("size", [2, 4000])
def test_unique_items_of_any_kind(size: int) -> None:
    one = schema(properties={"a": {"uniqueItems": True}})
    different = [{"k": n} if n % 2 else [n] for n in range(size)]
    assert one.problem({"a": different}) == ""
    for twice in (0, False), (1, 1.0), ({"a": 1, "b": [2.0]}, {"b": [2], "a": 1}), ("1", "1"):
        same = twice != (0, False)
        assert one.problem({"a": [*different, *twice]}) == ("at a: an item is there twice" if same else "")
    assert schema(properties={"a": {"uniqueItems": False}}).problem({"a": [1, 1]}) == ""
    assert one.problem({"a": "text"}) == ""


@pytest.mark.parametrize("version", [{}, {"$schema": "http://json-schema.org/draft-07/schema#"}])
def test_a_check_is_bounded_also_with_alternatives_that_refer_to_themselves(
    version: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gw.config.json_schema.CPU_S", 60.0)  # the steps are the limit here, also on a slow machine
    either = {"properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    one = schema(anyOf=[either, either, {"properties": {"b": {"const": 1}}, "required": ["b"]}], **version)
    deep: dict[str, Any] = {"c": 1}
    for _ in range(30):
        deep = {"a": deep}
    assert one.problem(deep) == f"the check takes more than {STEPS} steps"
    assert one.problem({"a": {"a": {"b": 1}}}) == "", "each check has all steps"


def test_the_last_step_is_allowed() -> None:
    one = schema(properties={"a": {"items": {"type": "integer"}}})
    steps = 3  # type, properties, items
    assert one.problem({"a": [1] * (STEPS - steps)}) == ""
    assert one.problem({"a": [1] * (STEPS - steps + 1)}) == f"the check takes more than {STEPS} steps"


def test_references_within_the_schema() -> None:
    one = schema(
        properties={"a": {"$ref": "#/$defs/b"}, "$ref": {"type": "integer"}, "enum": {"$ref": "#/$defs/b"}},
        **{"$defs": {"b": {"type": "string", "default": {"$ref": "https://example.com/"}}}},
    )
    assert one.problem({"a": "x", "$ref": 7}) == ""
    assert one.problem({"a": 1}) == "at a: 1 is not of type 'string'"
    with pytest.raises(SchemaError, match=r"at properties.enum.\$ref"):
        schema(properties={"enum": {"$ref": "#/nowhere"}})


@pytest.mark.parametrize("version", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"])
def test_named_versions(version: str) -> None:
    one = schema(**{"$schema": version, "properties": {"a": {"type": "string"}}})
    assert one.problem({"a": 1}) == "at a: 1 is not of type 'string'"


@pytest.mark.parametrize(
    "properties",
    [
        '{"properties":{"a":{"pattern":"^(a+)+$"}}}',
        '{"properties":{"a":{"pattern":"^(a|a)*$"}}}',
        '{"propertyNames":{"pattern":"^(a*)*$"}}',
        '{"patternProperties":{"^(a|aa)+$":{}},"additionalProperties":false}',
    ],
)
def test_a_pattern_that_backtracks_is_bounded(properties: str) -> None:
    one = Schema('{"type":"object",' + properties[1:])
    for _ in range(2):
        problem = one.problem({"a": "a" * 60 + "!", "a" * 60 + "!": 1})
        assert problem == f"the check takes more than {CPU_S:g} s, because of a pattern"
        assert one.problem({}) == ""
    assert gevent.spawn(one.problem, {"a": "a" * 60 + "!", "a" * 60 + "!": 1}).get(timeout=20) == problem, "in a greenlet"
    assert signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0.0


def test_a_check_in_another_thread_has_no_such_bound() -> None:
    one = Schema('{"type":"object","properties":{"a":{"pattern":"^(a+)+$"}}}')
    assert ThreadPool(1).apply(one.problem, ({"a": "a"},)) == ""

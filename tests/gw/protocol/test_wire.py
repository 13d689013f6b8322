"""gw.protocol.wire: text, JSON, and the error for each kind of failure."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.errors import ProtocolError
from gw.protocol import wire


class Shape(msgspec.Struct):
    kind: str
    n: int = 0
    inner: Shape | None = None


class Head(msgspec.Struct):
    kind: str


DECODER = msgspec.json.Decoder(Shape)
HEAD = msgspec.json.Decoder(Head)


def refused(text: str, part: str = "") -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        try:
            wire.decode(DECODER, text)
        except msgspec.ValidationError as error:
            wire.refuse(error, part)
    assert len(caught.value.detail) <= 120
    return caught.value


def code_of(text: str) -> str:
    return refused(text).code


def kind_of(text: str) -> str:
    """Return the kind of a message that does not decode."""
    with pytest.raises(msgspec.ValidationError) as caught:
        wire.decode(DECODER, text)
    return wire.unknown_kind(HEAD, text, {"known"}, caught.value)


def test_short_keeps_120_characters() -> None:
    assert wire.short("x" * 120) == "x" * 120
    assert wire.short("x" * 121) == "x" * 117 + "..."


def test_decode_text() -> None:
    assert wire.decode_text("é") == wire.decode_text("é".encode()) == "é"
    with pytest.raises(ProtocolError) as caught:
        wire.decode_text(b"ab\xff")
    assert caught.value.code == "bad_utf8" and "byte 2" in caught.value.detail


def test_decode() -> None:
    assert wire.decode(DECODER, '{"n":3,"kind":"a"}') == Shape("a", 3)


@pytest.mark.parametrize("text", ["", " ", "{", "nonsense", '{"kind":"a"} x', '{"kind":NaN}', '{"kind":"\\ud800"}'])
def test_not_json(text: str) -> None:
    assert code_of(text) == "bad_json"


@pytest.mark.parametrize("text", ["[]", "1", "null", '"kind"', "[" * 60_000])
def test_not_an_object(text: str) -> None:
    assert code_of(text) == "bad_json"


@pytest.mark.parametrize("opening", ['{"x":', "["])
def test_nested_too_deeply(opening: str) -> None:
    assert code_of('{"kind":"a","y":' + opening * 20_000) == "bad_json"


def test_half_a_surrogate_pair() -> None:
    assert code_of('{"kind":"\ud800"}') == "bad_utf8"


@given(
    st.lists(st.sampled_from(["\ud83d", "\ude00", "\\", "u", "ud83d", '"', "a", "\n", "\U0001f600"]), max_size=12).map("".join)
)
def test_escaped_halves_are_replaced(text: str) -> None:
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    data = json.dumps(text).encode()
    assert json.loads(wire.without_halves(data)) == expected
    assert (wire.without_halves(data) is data) is (not any("\ud800" <= one <= "\udfff" for one in json.loads(data)))


def test_halves_are_replaced_within_bounds() -> None:
    many = rb"\ud83d" * (wire.MAX_HALVES + 1)
    assert wire.without_halves(many) == rb"\ufffd" * wire.MAX_HALVES + rb"\ud83d"
    long = rb"\ud83d" + b"x" * (32 << 10)
    assert wire.without_halves(long) is long


@pytest.mark.parametrize("text", ['{"n":3}', '{"kind":"a","inner":{}}'])
def test_missing_field(text: str) -> None:
    assert code_of(text) == "missing_field"


@pytest.mark.parametrize("text", ['{"kind":1}', '{"kind":null}', '{"kind":"a","n":"1"}', '{"kind":"a","inner":[]}'])
def test_bad_type(text: str) -> None:
    assert code_of(text) == "bad_type"


def test_a_long_path_is_still_a_type_error() -> None:
    depth = 40
    assert code_of('{"kind":"a","inner":' * depth + "[]" + "}" * depth) == "bad_type"


def test_a_failed_part_is_named() -> None:
    error = refused('{"kind":"a","n":"1"}', "session")
    assert error.code == "bad_type" and error.detail.startswith("in `session`: Expected `int`")
    error = refused('{"n":1}', "session")
    assert error.code == "missing_field" and error.detail.startswith("in `session`: Object missing required field `kind`")
    assert refused('{"n":1}').detail.startswith("Object missing required field `kind`")
    assert refused("[]", "session").code == "bad_type"


def test_the_kind_of_an_unknown_message() -> None:
    assert kind_of('{"kind":"new","n":"1"}') == "new"
    assert kind_of('{"kind":"%s","n":"1"}' % ("k" * 121)) == "k" * 117 + "..."


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        ('{"kind":"known","n":"1"}', "bad_type", "$.n"),
        ('{"kind":7,"n":"1"}', "bad_type", "$.kind"),
        ('{"n":"1"}', "missing_field", "`kind`"),
        ("[]", "bad_json", "Expected `object`"),
    ],
)
def test_a_known_message_or_none_at_all_is_refused(text: str, code: str, detail: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        kind_of(text)
    assert caught.value.code == code and detail in caught.value.detail

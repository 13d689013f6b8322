"""Text, JSON and the blame for either."""

from __future__ import annotations

import msgspec
import pytest

from gw.errors import ProtocolError
from gw.protocol import wire


class Shape(msgspec.Struct):
    kind: str
    n: int = 0
    inner: Shape | None = None


DECODER = msgspec.json.Decoder(Shape)


def code_of(text: str) -> str:
    with pytest.raises(ProtocolError) as caught:
        try:
            wire.decode(DECODER, text)
        except msgspec.ValidationError as error:
            wire.refuse(error)
    assert len(caught.value.detail) <= wire.QUOTE_CHARS
    return caught.value.code


def test_short_keeps_a_bounded_piece() -> None:
    assert wire.short("x" * wire.QUOTE_CHARS) == "x" * wire.QUOTE_CHARS
    assert wire.short("x" * 5000) == "x" * (wire.QUOTE_CHARS - 3) + "..."


def test_text_of() -> None:
    assert wire.decode_text("é") == wire.decode_text("é".encode()) == "é"
    with pytest.raises(ProtocolError) as caught:
        wire.decode_text(b"ab\xff")
    assert caught.value.code == "bad_utf8" and "byte 2" in caught.value.detail


def test_decode_gives_the_message() -> None:
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


@pytest.mark.parametrize("text", ['{"n":3}', '{"kind":"a","inner":{}}'])
def test_missing_field(text: str) -> None:
    assert code_of(text) == "missing_field"


@pytest.mark.parametrize("text", ['{"kind":1}', '{"kind":null}', '{"kind":"a","n":"1"}', '{"kind":"a","inner":[]}'])
def test_bad_type(text: str) -> None:
    assert code_of(text) == "bad_type"


def test_a_long_path_is_still_a_type_error() -> None:
    depth = 40
    assert code_of('{"kind":"a","inner":' * depth + "[]" + "}" * depth) == "bad_type"

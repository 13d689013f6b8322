"""gw.protocol.http: what must be refused is, what is valid is read, and any split of the bytes gives the same."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.protocol.http import (
    FAULTS,
    MAX_BODY_BYTES,
    MAX_FRAMING_BYTES,
    MAX_HEAD_BYTES,
    ChunkedReader,
    Head,
    HeadReader,
    RequestError,
)
from tests.examples import examples
from tests.wire.http_requests import ACCEPTED, ACCEPTED_CHUNKS, CUT_OFF, REFUSED, REFUSED_CHUNKS, Accepted, Refused

fast = settings(max_examples=examples(300))


def outcome(reader: HeadReader | ChunkedReader, pieces: Iterable[bytes]) -> tuple[Head | bytes | str | None, bytes]:
    """Feed pieces. Returns the result, a fault or None for an incomplete one, and the bytes behind it."""
    pieces = iter(pieces)
    try:
        for piece in pieces:
            if (result := reader.feed(piece)) is not None:
                return result, reader.rest + b"".join(pieces)
    except RequestError as error:
        assert error.code in FAULTS
        assert error.status[0] in "45"
        assert str(error)
        return error.code, b""
    return None, b""


def test_some_faults_have_a_separate_status() -> None:
    codes = {"bad_version": 505, "bad_expectation": 417, "line_too_long": 414, "head_too_long": 431, "body_too_long": 413}
    for fault in FAULTS:
        assert int(RequestError(fault, "why").status[:3]) == codes.get(fault, 400), fault


def bytewise(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


@st.composite
def splits(draw: st.DrawFn, samples: list[bytes]) -> list[bytes]:
    """Draw a sample, sometimes with changed bytes, in pieces."""
    data = bytearray(draw(st.sampled_from(samples) | st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b":", b"\0", b";", b"0", b"%"])
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


HEADS = [sample.sent for sample in (*REFUSED.values(), *ACCEPTED.values())]
CHUNKS = [sample.sent for sample in REFUSED_CHUNKS.values()] + [sent for sent, _ in ACCEPTED_CHUNKS.values()]


@pytest.mark.parametrize("sample", REFUSED.values(), ids=REFUSED.keys())
def test_a_request_is_refused(sample: Refused) -> None:
    assert outcome(HeadReader(), [sample.sent])[0] == sample.fault
    assert outcome(HeadReader(), bytewise(sample.sent))[0] == sample.fault


@pytest.mark.parametrize("sample", REFUSED_CHUNKS.values(), ids=REFUSED_CHUNKS.keys())
def test_a_chunked_body_is_refused(sample: Refused) -> None:
    assert outcome(ChunkedReader(), [sample.sent])[0] == sample.fault
    assert outcome(ChunkedReader(), bytewise(sample.sent))[0] == sample.fault


@pytest.mark.parametrize("sample", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_an_odd_request_is_read(sample: Accepted) -> None:
    for pieces in ([sample.sent], bytewise(sample.sent)):
        head, rest = outcome(HeadReader(), pieces)
        assert isinstance(head, Head)
        assert (head.method, head.target, head.is_last) == (sample.method, sample.target, sample.is_last)
        assert rest == sample.sent.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(("sent", "body"), ACCEPTED_CHUNKS.values(), ids=ACCEPTED_CHUNKS.keys())
def test_a_chunked_body_is_read(sent: bytes, body: bytes) -> None:
    assert outcome(ChunkedReader(), [sent + b"GET"]) == (body, b"GET")
    assert outcome(ChunkedReader(), bytewise(sent + b"GET")) == (body, b"GET")


@pytest.mark.parametrize("sent", CUT_OFF.values(), ids=CUT_OFF.keys())
def test_part_of_a_request_is_incomplete(sent: bytes) -> None:
    reader = HeadReader()
    assert not reader.has_begun
    head, rest = outcome(reader, [sent])
    assert reader.has_begun
    if isinstance(head, Head) and head.is_chunked:
        assert outcome(ChunkedReader(), [rest]) == (None, b"")
    else:
        assert head is None or len(rest) < head.length  # type: ignore[union-attr]


def test_each_part_of_a_head() -> None:
    head, rest = outcome(
        HeadReader(),
        [
            b"POST /a%20b?c=d HTTP/1.1\r\nHost: x:80\r\nContent-Length: 32768\r\nExpect: 100-continue\r\n"
            b"X_y:  \xfc \r\nConnection: Upgrade\r\n\r\nrest"
        ],
    )
    fields = [
        ("Host", "x:80"),
        ("Content-Length", "32768"),
        ("Expect", "100-continue"),
        ("X_y", "\xfc"),
        ("Connection", "Upgrade"),
    ]
    assert head == Head("POST", "/a%20b?c=d", "HTTP/1.1", fields, 32768, is_chunked=False, is_last=False, expects_continue=True)
    assert rest == b"rest"


def test_the_bounds_are_what_is_documented() -> None:
    """At each bound a request is read; one byte more is refused."""
    line = b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: "
    longest = line + b"b" * (MAX_HEAD_BYTES - len(line) - 4) + b"\r\n\r\n"
    assert isinstance(outcome(HeadReader(), [longest])[0], Head)
    assert outcome(HeadReader(), [longest.replace(b"A", b"AA")])[0] == "head_too_long"
    chunks = b"1\r\na\r\n" * ((MAX_FRAMING_BYTES - 5) // 5)
    assert isinstance(outcome(ChunkedReader(), [chunks + b"0\r\n\r\n"])[0], bytes)
    assert outcome(ChunkedReader(), [chunks + b"1\r\na\r\n" * 2 + b"0\r\n\r\n"])[0] == "body_too_long"


@fast
@given(splits(HEADS))
def test_any_split_of_a_head_gives_the_same(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert outcome(HeadReader(), pieces) == outcome(HeadReader(), [data]) == outcome(HeadReader(), bytewise(data))


@fast
@given(splits(CHUNKS))
def test_any_split_of_chunks_gives_the_same(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert outcome(ChunkedReader(), pieces) == outcome(ChunkedReader(), [data]) == outcome(ChunkedReader(), bytewise(data))


@fast
@given(splits(HEADS))
def test_a_head_that_is_read_is_the_same_when_written_again(pieces: list[bytes]) -> None:
    head, _ = outcome(HeadReader(), pieces)
    if isinstance(head, Head):
        lines = [f"{head.method} {head.target} {head.version}", *(f"{name}: {value}" for name, value in head.fields), "", ""]
        assert outcome(HeadReader(), ["\r\n".join(lines).encode("latin-1")]) == (head, b"")


@fast
@given(
    st.lists(st.binary(max_size=4096) | st.sampled_from([b"A: b\r\n", b"a" * 4096, b"1\r\na\r\n"]), max_size=40), st.booleans()
)
def test_memory_is_bounded(pieces: list[bytes], is_chunked: bool) -> None:
    reader = ChunkedReader() if is_chunked else HeadReader()
    bound = MAX_BODY_BYTES + 2 * MAX_FRAMING_BYTES if is_chunked else MAX_HEAD_BYTES
    outcome(reader, [b"" if is_chunked else b"GET / HTTP/1.1\r\n"])
    for piece in pieces:
        if outcome(reader, [piece])[0] is not None:
            break
        assert len(reader._data) <= bound

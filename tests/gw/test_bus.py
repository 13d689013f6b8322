"""gw.bus: every message survives any cut of the stream; other data raises BusError alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw import bus
from gw.call.conversation import Utterance
from gw.call.cost.usage import Used
from gw.call.quality import Quality
from gw.errors import GatewayError

text = st.text(max_size=20)
number = st.integers(min_value=0, max_value=2**63 - 1)
real = st.floats(allow_nan=False)
counts = st.dictionaries(text, number, max_size=3)

qualities = st.builds(
    Quality,
    frames_sent=number,
    frames_expected=number,
    send_p50_s=real,
    send_p99_s=real,
    send_p999_s=real,
    send_max_s=real,
    lateness_p50_s=real,
    lateness_p99_s=real,
    lateness_p999_s=real,
    lateness_max_s=real,
    underrun_ms=number,
    dropped_frames=counts,
    uplink_dropped_frames=counts,
    bargeins=number,
    first_audio_ms=number,
    ai_first_audio_ms=number,
    hub_hold_max_s=real,
)
used = st.builds(Used, day=text, model=text, text_in=number, audio_out=number, cost_usd=st.none() | real)
events = st.one_of(
    st.builds(
        bus.CallStarted,
        call_sid=text,
        stream_sid=text,
        account_sid=text,
        agent=text,
        direction=text,
        from_number=text,
        to_number=text,
        started_at=real,
        answered_at=real,
    ),
    st.builds(bus.FirstAudio, call_sid=text, at=real),
    st.builds(bus.StartRecording, call_sid=text, account_sid=text, first_audio_at=real),
    st.builds(
        bus.Turn,
        call_sid=text,
        n=number,
        role=st.sampled_from(["caller", "agent"]),
        text=text,
        item_id=text,
        start_ms=number,
        interrupted=st.booleans(),
        heard_ms=st.none() | number,
        length_ms=st.none() | number,
    ),
    st.builds(bus.CallEnded, call_sid=text, ended_at=real, reason=text, result=text, detail=text, quality=qualities),
    st.builds(
        bus.CallEvent,
        call_sid=text,
        kind=text,
        at=real,
        data=st.dictionaries(text, st.one_of(text, number, real, st.booleans(), st.none()), max_size=4),
    ),
    st.builds(bus.Webhook, kind=text, at=real, fields=st.dictionaries(text, text, max_size=4)),
    st.builds(bus.Usage, call_sid=text, stream_sid=text, at=real, agent=text, caller=text, used=st.lists(used, max_size=2)),
    st.builds(bus.JobWanted, id=text, kind=text, call_sid=text, deadline_ms=number, body=text),
)
from_worker = st.one_of(
    st.builds(bus.Hello, worker=number, instance=text, pid=number, calls=st.lists(text, max_size=3)),
    st.builds(bus.WorkerStatus, calls=number, draining=st.booleans(), unacked=number, lateness_p99_s=real, hold_max_s=real),
    st.builds(
        bus.HubHold,
        at=real,
        kind=text,
        wall_s=real,
        cpu_s=real,
        stack=st.lists(st.builds(bus.StackFrame, file=text, line=number, function=text), max_size=3),
    ),
    st.builds(bus.Numbered, n=number, event=events),
    st.builds(bus.Ask, n=number, call_sid=text, about=text),
    st.builds(bus.JobsOpen, call_sid=text, ids=st.lists(text, max_size=3)),
    st.builds(bus.JobCancelled, id=text),
    st.builds(bus.StopExpected, call_sid=text, kept=st.dictionaries(text, text, max_size=3)),
)
commands = st.one_of(
    st.builds(bus.Ack, n=number),
    st.builds(bus.HangUp, call_sid=text, reason=text),
    st.builds(bus.Drain, on=st.booleans()),
    st.builds(bus.Budget, day=text, day_usd=st.none() | real, callers=st.dictionaries(text, real, max_size=3)),
    st.builds(bus.VersionRefused, version=number, why=text),
    st.builds(bus.JobSettled, id=text, call_sid=text, outcome=text, output=text),
    st.builds(bus.AnsweredBy, call_sid=text, verdict=text),
    st.builds(bus.ExpectStop, call_sid=text, for_s=real),
    st.builds(
        bus.Answer,
        n=number,
        step=text,
        agent=text,
        resumes=number,
        began_at=real,
        utterances=st.lists(st.builds(Utterance, text, text, text), max_size=3),
    ),
)


def framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def pieces(stream: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut a stream at these places; pieces may be empty."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return (stream[a:b] for a, b in pairwise(edges))


def test_the_strategies_cover_every_message() -> None:
    assert {kind.__name__ for kind in bus._Message.__subclasses__()} == {
        *("CallStarted", "FirstAudio", "StartRecording", "Turn", "CallEnded", "Usage", "CallEvent", "Webhook", "JobWanted"),
        *("Hello", "WorkerStatus", "HubHold", "Numbered", "Ask", "JobsOpen", "JobCancelled", "StopExpected"),
        *("Ack", "HangUp", "Drain", "Budget", "Answer", "VersionRefused", "JobSettled", "AnsweredBy", "ExpectStop"),
    }


@given(st.lists(from_worker, max_size=5), st.lists(st.integers(min_value=0), max_size=8))
def test_any_cut_of_a_workers_stream_gives_the_same_messages(messages: list[bus.FromWorker], cuts: list[int]) -> None:
    stream = b"".join(bus.pack(message) for message in messages)
    reader = bus.Reader.of_events()
    assert [message for piece in pieces(stream, cuts) for message in reader.feed(piece)] == messages


@given(st.lists(commands, max_size=5))
def test_commands_survive_a_stream_of_single_bytes(messages: list[bus.Command]) -> None:
    reader = bus.Reader.of_commands()
    stream = b"".join(bus.pack(message) for message in messages)
    assert [message for byte in stream for message in reader.feed(bytes([byte]))] == messages


@given(events)
def test_an_event_survives_the_spool(event: bus.Event) -> None:
    assert bus.decode_event(bus.encode_event(event)) == event


@given(st.binary(max_size=200), st.booleans())
def test_garbage_gives_messages_or_a_bus_error(data: bytes, as_body: bool) -> None:
    """Feed garbage as a stream and as one body: no other error."""
    for reader in (bus.Reader.of_events(), bus.Reader.of_commands()):
        try:
            reader.feed(framed(data) if as_body else data)
        except bus.BusError:
            pass
    try:
        bus.decode_event(data)
    except bus.BusError:
        pass


@given(from_worker, st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_one_flipped_byte_gives_messages_or_a_bus_error(message: bus.FromWorker, place: int, value: int) -> None:
    body = bytearray(bus.pack(message)[4:])
    body[place % len(body)] = value
    try:
        bus.Reader.of_events().feed(framed(bytes(body)))
    except bus.BusError:
        pass


DEEP = b"\x91" * 5_000 + b"\xc0"  # arrays in arrays, in an unknown field
NOT_MESSAGES = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "an array": msgspec.msgpack.encode([1, 2]),
    "an unknown tag": msgspec.msgpack.encode({"type": "Nobody"}),
    "a field missing": msgspec.msgpack.encode({"type": "Drain"}),
    "a wrong type": msgspec.msgpack.encode({"type": "Ack", "n": "1"}),
    "two messages in one": msgspec.msgpack.encode(bus.Ack(1)) * 2,
    "no UTF-8": b"\x83\xa4type\xa6HangUp\xa8call_sid\xa2\xff\xfe\xa6reason\xa1a",
    "too deep": b"\x83\xa4type\xa3Ack\xa1n\x01\xa1x" + DEEP,
}


@pytest.mark.parametrize("body", NOT_MESSAGES.values(), ids=NOT_MESSAGES.keys())
def test_an_invalid_body_is_a_bus_error(body: bytes) -> None:
    with pytest.raises(bus.BusError):
        bus.Reader.of_commands().feed(framed(body))


@pytest.mark.parametrize("body", [b"", b"\xa2\xff\xfe", b"\x83\xa4type\xaaFirstAudio\xa8call_sid\xa1a\xa1x" + DEEP])
def test_invalid_spool_bytes_are_a_bus_error(body: bytes) -> None:
    with pytest.raises(bus.BusError):
        bus.decode_event(body)


def test_control_accepts_no_commands_and_a_worker_no_events() -> None:
    with pytest.raises(bus.BusError):
        bus.Reader.of_events().feed(bus.pack(bus.Ack(1)))
    with pytest.raises(bus.BusError):
        bus.Reader.of_commands().feed(bus.pack(bus.Numbered(1, bus.FirstAudio("CA1", 1.0))))


def test_a_field_of_a_newer_version_is_skipped() -> None:
    """During a reload two versions run side by side."""
    body = msgspec.msgpack.encode({"type": "Ack", "n": 7, "since": [1, 2]})
    assert bus.Reader.of_commands().feed(framed(body)) == [bus.Ack(7)]


def test_a_length_over_the_limit_is_refused_before_its_body_comes() -> None:
    with pytest.raises(bus.BusError, match="over the limit"):
        bus.Reader.of_events().feed(struct.pack("!I", bus.MAX_MESSAGE_BYTES + 1))


def test_a_message_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    empty = len(bus.pack(bus.HangUp("", "r"))) - 4
    overhead = empty + 4  # a string of this length has a length of four bytes more
    longest = bus.HangUp("x" * (bus.MAX_MESSAGE_BYTES - overhead), "r")
    packed = bus.pack(longest)
    assert len(packed) == bus.MAX_MESSAGE_BYTES + 4
    assert bus.Reader.of_commands().feed(packed) == [longest]
    with pytest.raises(bus.BusError, match="over the limit"):
        bus.pack(bus.HangUp(longest.call_sid + "x", "r"))


def test_a_value_without_a_wire_form_is_a_bus_error_that_names_the_message() -> None:
    with pytest.raises(bus.BusError, match="HangUp"):
        bus.pack(bus.HangUp("\ud800", "r"))
    with pytest.raises(bus.BusError, match="CallEvent"):
        bus.encode_event(bus.CallEvent("CA1", "tool", 1.0, {"n": 2**70}))


def test_a_bus_error_is_a_gateway_error() -> None:
    assert issubclass(bus.BusError, GatewayError)
    assert bus.BusError("x").code == "bus_error"


def test_a_refused_version_keeps_its_tag_on_the_wire() -> None:
    """A worker of any version reads it."""
    body = msgspec.msgpack.encode({"type": "Refused", "version": 2, "why": "newer"})
    assert bus.Reader.of_commands().feed(framed(body)) == [bus.VersionRefused(2, "newer")]

"""gw.twin.bench_*: the pure parts of the load: what a caller hears, how bytes are cut, how samples are summed up."""

from __future__ import annotations

import base64

import pytest

from gw.bench.load.audio import PCM_FRAME_BYTES, is_pcmu, noise, session
from gw.bench.load.jitter_buffer import BUFFER_S, JitterBuffer
from gw.bench.load.loop import EDGES_S, over_time, percentile_ms, summary
from gw.bench.load.wire import PTIME_S, WireError, accept_key, audio_bytes, header, masked_text, spans, text, upgrade_answer
from metrics.declare import BOUNDS


def settled(lead_frames: int = 5) -> tuple[JitterBuffer, int]:
    """An ear that heard a talkspurt's burst and half a second of even frames, and the next frame's number."""
    jitter_buffer = JitterBuffer()
    for n in range(40):
        jitter_buffer.push(n, max(0, n - lead_frames) * PTIME_S)
    return jitter_buffer, 40


def at(number: int, late_s: float = 0.0, lead_frames: int = 5) -> float:
    return (number - lead_frames) * PTIME_S + late_s


def test_edges_are_those_of_the_gateways_metrics() -> None:
    assert EDGES_S == BOUNDS


def test_a_talkspurts_first_half_second_sets_its_clock() -> None:
    jitter_buffer = JitterBuffer()
    assert [jitter_buffer.push(n, max(0, n - 5) * PTIME_S) for n in range(25)] == [None] * 25
    assert jitter_buffer.push(25, at(25)) == pytest.approx(0.0, abs=1e-9)


def test_a_late_frame_is_late_by_what_it_was() -> None:
    jitter_buffer, n = settled()
    assert jitter_buffer.push(n, at(n, 0.010)) == pytest.approx(0.010)
    assert jitter_buffer.push(n + 1, at(n + 1)) == pytest.approx(0.0, abs=1e-9)
    assert jitter_buffer.counts() == (0, 0.0, 0, 0)


def test_a_frame_later_than_the_buffer_is_a_gap_that_moves_the_clock() -> None:
    jitter_buffer, n = settled()
    assert jitter_buffer.push(n, at(n, 0.100)) == pytest.approx(0.100)
    assert jitter_buffer.underruns == 1
    assert jitter_buffer.gap_s == pytest.approx(0.100 - BUFFER_S)
    assert jitter_buffer.push(n + 1, at(n + 1, 0.100)) == pytest.approx(BUFFER_S)  # all later by the gap: heard without another
    assert jitter_buffer.underruns == 1


def test_lost_and_disordered_frames_are_counted() -> None:
    jitter_buffer, n = settled()
    jitter_buffer.push(n + 3, at(n + 3))
    jitter_buffer.push(n, at(n))
    assert (jitter_buffer.lost, jitter_buffer.disorder) == (3, 1)


def test_a_clear_begins_a_new_talkspurt_wherever_its_numbers_begin() -> None:
    jitter_buffer, n = settled()
    jitter_buffer.on_clear()
    assert jitter_buffer.push(n + 30, at(n, 5.0)) is None
    assert jitter_buffer.counts() == (0, 0.0, 0, 0)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_messages_of_every_length_are_cut_where_they_end(size: int) -> None:
    body = bytes(n & 0x7F for n in range(size))
    data = masked_text(body) + text(body)
    found, rest = spans(data + b"\x81")
    assert rest == len(data)
    assert [data[start:end] for _, _, start, end in found] == [body, body]
    (_, mask_at, start, _), (_, no_mask, _, _) = found
    assert data[mask_at:start] == b"\0\0\0\0"
    assert no_mask == 0


def test_a_message_that_is_not_whole_waits_whatever_is_missing() -> None:
    for body in (b"hello", b"x" * 300, b"x" * 70_000):
        whole = masked_text(body)
        for cut in sorted({0, 1, 2, 3, 5, 9, 10, len(whole) - 1}):
            assert spans(whole[:cut]) == ([], 0)


def test_an_upgrade_is_answered_with_its_own_key() -> None:
    request = b"GET /media HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3
    assert header(upgrade_answer(request), b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    with pytest.raises(WireError):
        upgrade_answer(b"GET / HTTP/1.1\r\nHost: x")


def test_percentiles_are_values_that_so_many_do_not_exceed() -> None:
    values = [n / 1000 for n in range(1, 1001)]
    assert [percentile_ms(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500.0, 990.0, 999.0, 1000.0]
    assert percentile_ms([0.002], 0.5) == 2.0
    assert percentile_ms([], 0.5) is None


def test_a_summary_counts_by_bucket_and_second() -> None:
    found = summary([0.000_01, 0.001, 2.0])
    assert found["count"] == sum(found["buckets"]) == 3
    assert found["buckets"][0] == found["buckets"][EDGES_S.index(0.001)] == found["buckets"][-1] == 1
    assert over_time([0.001, 0.003, 0.002], [0.1, 0.9, 2.5]) == [[0, 3.0, 3.0], [2, 2.0, 2.0]]


def test_audio_without_numbers_is_late_by_its_first_sample() -> None:
    jitter_buffer = JitterBuffer()
    heard = [jitter_buffer.push_next(2, max(0, n - 1) * 0.04) for n in range(40)]  # 40 ms each, the first two at once
    assert heard.count(None) == 13  # half a second, as of other frames
    assert jitter_buffer.push_next(2, 39 * 0.04 + 0.010) == pytest.approx(0.010)
    assert jitter_buffer.push_next(3, 40 * 0.04) == pytest.approx(0.0, abs=1e-9)
    assert jitter_buffer.push_next(2, 41.5 * 0.04 + 0.1) == pytest.approx(0.100)  # the one before was longer
    assert (jitter_buffer.underruns, jitter_buffer.lost, jitter_buffer.disorder) == (1, 0, 0)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 159, 160, 161])
def test_the_length_of_audio_is_seen_in_its_base64(size: int) -> None:
    data = b'"' + base64.b64encode(bytes(size)) + b'"}='
    assert audio_bytes(data, 1, data.index(b'"', 1)) == size


def test_a_session_is_mu_law_only_where_both_ways_ask_for_it() -> None:
    pcmu = {"format": {"type": "audio/pcmu"}}
    assert is_pcmu(session({"audio": {"input": {**pcmu, "turn_detection": {}}, "output": pcmu}}))
    for asked in ({}, {"audio": None}, {"audio": {"input": pcmu}}, {"audio": {"input": {"format": None}, "output": pcmu}}):
        assert session(asked)["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
        assert not is_pcmu(session(asked))


def test_noise_is_as_long_as_asked_and_never_silence() -> None:
    audio = base64.b64decode(noise(0.2))
    assert len(audio) == 10 * PCM_FRAME_BYTES
    assert len(set(audio)) > 200

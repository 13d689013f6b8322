"""gw.bench.load.audio: session formats, and noise."""

from __future__ import annotations

import base64

from gw.bench.load.audio import PCM_FRAME_BYTES, is_pcmu, noise, session


def test_a_session_is_mu_law_only_if_both_directions_ask_for_it() -> None:
    pcmu = {"format": {"type": "audio/pcmu"}}
    assert is_pcmu(session({"audio": {"input": {**pcmu, "turn_detection": {}}, "output": pcmu}}))
    for asked in ({}, {"audio": None}, {"audio": {"input": pcmu}}, {"audio": {"input": {"format": None}, "output": pcmu}}):
        assert session(asked)["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
        assert not is_pcmu(session(asked))


def test_noise_has_the_requested_length_and_is_never_silence() -> None:
    audio = base64.b64decode(noise(0.2))
    assert len(audio) == 10 * PCM_FRAME_BYTES
    assert len(set(audio)) > 200

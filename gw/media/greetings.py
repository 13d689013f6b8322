"""Recorded greetings: files of the configuration as telephone audio, read once at a worker's start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gw.config import Agent
from gw.errors import ConfigError
from gw.protocol.wav import MAX_S, RATES_HZ, WavError, to_ulaw

#: The longest audio that is accepted, in stereo, and room for other chunks.
MAX_FILE_BYTES: Final = MAX_S * RATES_HZ[-1] * 2 * 2 + (1 << 20)


def load_greetings(agents: Mapping[str, Agent]) -> dict[str, bytes]:
    """Return the audio of each greeting's file, mu-law, by path. Raises ConfigError with a sentence for each unusable file."""
    audio, found = _load(agents)
    if found:
        raise ConfigError(found)
    return audio


def greeting_problems(agents: Mapping[str, Agent]) -> list[str]:
    """Return a sentence for each file that cannot be used."""
    return _load(agents)[1]


def _load(agents: Mapping[str, Agent]) -> tuple[dict[str, bytes], list[str]]:
    audio: dict[str, bytes] = {}
    found: list[str] = []
    for name, agent in agents.items():
        path = agent.first_words.file
        if not path or path in audio:
            continue
        try:
            audio[path] = to_ulaw(_read(Path(path)))
        except WavError as error:
            found.append(f'agents.{name}.greeting.file = "{path}": {error}')
        except OSError as error:
            why = error.strerror or error
            found.append(f'agents.{name}.greeting.file = "{path}" cannot be read: {why}; set the path of a WAV file')
    return audio, found


def _read(path: Path) -> bytes:
    """Return the file's bytes. Raises OSError, WavError."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise WavError(f"the file is longer than {MAX_FILE_BYTES} bytes; expected at most {MAX_S} s of audio")
    return data

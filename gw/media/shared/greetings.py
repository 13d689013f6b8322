"""Recorded words: files of the configuration as telephone audio, read once at a worker's start."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gw.config import Agent
from gw.protocol import wav
from gw.protocol.wav import MAX_S, RATES_HZ, Wav, WavError

log = logging.getLogger(__name__)

#: The longest audio that is accepted, in stereo, and room for other chunks.
MAX_FILE_BYTES: Final = MAX_S * RATES_HZ[-1] * 2 * 2 + (1 << 20)


def load_greetings(agents: Mapping[str, Agent], voicemail: str = "", notice: str = "") -> dict[str, bytes]:
    """Return the mu-law audio of all recorded words, by path.

    `voicemail`: the message for machines; `notice`: of the recording.

    A file that cannot be used is logged and left out; the agent then says its words, and without the notice no call is recorded.
    A start and a reload refuse such a file (`greeting_problems`): it has changed since, and a worker that restarts must serve.
    """
    audio = {}
    for path, found in _read_all(agents, voicemail, notice):
        if isinstance(found, str):
            log.error("a recording is missing; an agent says the words of its greeting: %s", found)
        else:
            audio[path] = wav.to_ulaw(found)
    return audio


def greeting_problems(agents: Mapping[str, Agent], voicemail: str = "", notice: str = "") -> list[str]:
    """Return a sentence for each file that cannot be used."""
    return [found for _, found in _read_all(agents, voicemail, notice) if isinstance(found, str)]


def _read_all(agents: Mapping[str, Agent], voicemail: str, notice: str) -> Iterator[tuple[str, Wav | str]]:
    """Yield each file's path, with its content or a sentence with its fault."""
    files = {f"agents.{name}.greeting.file": agent.first_words.file for name, agent in agents.items()}
    named: set[str] = set()
    for name, path in {**files, "outbound.voicemail": voicemail, "recording.consent.file": notice}.items():
        if not path or path in named:
            continue
        named.add(path)
        key = f'{name} = "{path}"'
        try:
            yield path, wav.parse(_read(Path(path)))
        except WavError as error:
            yield path, f"{key}: {error}"
        except OSError as error:
            yield path, f"{key} cannot be read: {error.strerror or error}; set the path of a WAV file"


def _read(path: Path) -> bytes:
    """Return the file's bytes. Raises OSError, WavError."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise WavError(f"the file is longer than {MAX_FILE_BYTES} bytes; expected at most {MAX_S} s of audio")
    return data

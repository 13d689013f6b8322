"""A human voice for the twins, and conversations made of it.

Decides which recordings there are and how they become a caller's script. The audio is kept as raw mu-law beside this file;
README.md names its source, speaker, words and licence. Never resamples, never synthesises.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

from gw.twin.sound import frames, read_wav, silence, write_wav

__all__ = ["CALLER_PHRASES", "WORDS", "frames", "load", "names", "read_wav", "script", "write_wav"]

#: What each recording says, for transcripts and for people.
WORDS: Final = MappingProxyType(
    {
        "something-wrong": "Something is terribly wrong.",
        "weasels": "Weasels have eaten our phone system.",
        "monkeys": "They have been carried away by monkeys.",
        "hello-world": "Hello world.",
        "hold-on": "Please hold while I try that extension.",
        "connecting": "Thank you. Please hold, while I attempt to connect you with your party!",
        "first-in-line": "Your call is now first in line and will be answered by the next available representative.",
        "nobody-available": "Nobody is available to take your call at the moment.",
        "thanks": "Thank you for trying out the Asterisk Open Source PBX.",
    }
)
#: Those that make sense from a caller; the rest are an agent's.
CALLER_PHRASES: Final = ("something-wrong", "weasels", "monkeys")


def names() -> list[str]:
    """The recordings there are, callers' words first."""
    return list(WORDS)


@cache
def load(name: str) -> bytes:
    """One recording as mu-law, whole frames. Raises KeyError for a name there is none of."""
    if name not in WORDS:
        raise KeyError(name)
    return resources.files(__name__).joinpath(f"{name}.ulaw").read_bytes()


def script(*steps: str | bytes | int) -> list[bytes]:
    """A caller's part of a conversation as frames, one each 20 ms.

    Shape: a name is that recording, bytes are mu-law as they are, a number is that many milliseconds of silence:
    `script(500, "weasels", 3000, "monkeys", 1000)`.
    """
    spoken: list[bytes] = []
    for step in steps:
        audio = load(step) if isinstance(step, str) else silence(step) if isinstance(step, int) else step
        spoken.extend(frames(audio))
    return spoken

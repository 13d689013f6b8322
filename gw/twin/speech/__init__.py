"""Recordings of a human voice, and callers' scripts made of them.

The audio is raw mu-law, in files beside this module; README.md names source, speaker, words and licence.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

from gw.twin.sound import frames, silence

#: Words of each recording, for transcripts and for people.
WORDS: Final = MappingProxyType(
    {
        "something-wrong": "Something is terribly wrong.",
        "weasels": "Weasels have eaten our phone system.",
        "monkeys": "They have been carried away by monkeys.",
        "hello-world": "Hello world.",
        "hold-on": "Please hold while I try that extension.",
        "connecting": "Thank you. Please hold, while I attempt to connect you with your party!",
        "first-in-line": "Your call is now first in line and will be answered by the next available representative.",
        "nobody-available": "Nobody is available to take your call at the moment.",  # prose: quotation
        "thanks": "Thank you for trying out the Asterisk Open Source PBX.",
    }
)
#: Recordings for a caller; the others are an agent's.
CALLER_PHRASES: Final = ("something-wrong", "weasels", "monkeys")


def names() -> list[str]:
    """Return the names of all recordings, callers' phrases first."""
    return list(WORDS)


@cache
def load(name: str) -> bytes:
    """Return a recording as mu-law, whole frames. Raises KeyError for an unknown name."""
    if name not in WORDS:
        raise KeyError(name)
    return resources.files(__name__).joinpath(f"{name}.ulaw").read_bytes()


def script(*steps: str | bytes | int) -> list[bytes]:
    """Return a caller's part of a conversation as frames, one each 20 ms.

    Shape: a name is a recording, bytes are mu-law, a number is milliseconds of silence:
    `script(500, "weasels", 3000, "monkeys", 1000)`.
    """
    spoken: list[bytes] = []
    for step in steps:
        audio = load(step) if isinstance(step, str) else silence(step) if isinstance(step, int) else step
        spoken.extend(frames(audio))
    return spoken

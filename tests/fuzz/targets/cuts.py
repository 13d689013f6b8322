"""Cuts of a byte stream, derived from its bytes: the same input gives the same cuts."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final
from zlib import crc32

#: Single bytes beyond this cost more than they find.
_SINGLE_BYTES: Final = 200
_MAX_PIECES: Final = 1000


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Yield the data in single bytes if short, then in random pieces."""
    if len(data) <= _SINGLE_BYTES:
        yield [data[at : at + 1] for at in range(len(data))]
    random = Random(crc32(data))
    longest = max(random.choice((3, 20, 200, 4000)), len(data) // _MAX_PIECES)
    pieces, at = [], 0
    while at < len(data):
        end = at + random.randint(1, longest)
        pieces.append(data[at:end])
        at = end
    yield pieces

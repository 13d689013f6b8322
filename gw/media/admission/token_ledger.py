"""Who may open a stream: the one-time token, used once on this host.

The voice webhook puts a signed token into the TwiML, the stream must bring it back. Its signature and age are pure
(`gw.protocol.token`); that it is used once, whichever worker it reaches, is decided in a small file of memory that all workers
map: a table of nonces, each claimed under a lock on its own byte range, held for the few stores it takes. Whoever finds it held
lets the hub run and asks again.

    slot   | nonce, 16 bytes | expires, 8 bytes, epoch s |     SLOTS of them; a nonce may lie in any of PROBES slots from its hash
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final

from gw.media.admission.shared_lock import locked

NONCE_BYTES: Final = 16
_SLOT: Final = struct.Struct("!16sQ")
#: 64 s of life at 500 calls a second are 32,000 tokens: the table is never half full.
SLOTS: Final = 1 << 16
PROBES: Final = 64


class TokenLedger:
    """The table of used tokens, shared by the workers of a host."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = SLOTS * _SLOT.size
        try:
            os.posix_fallocate(self._descriptor, 0, size)  # memory that is full refuses here: a store into a hole would kill
            self._map = mmap.mmap(self._descriptor, size)
        except OSError:
            os.close(self._descriptor)
            raise

    def use(self, nonce: bytes, expires_s: int, now_s: int) -> bool:
        """Use a token up. False: it was used before, or the table is full of live ones where it belongs.

        Shape: NONCE_BYTES of random nonce; epoch seconds.
        Raises: SharedBusyError.
        """
        start = int.from_bytes(nonce[:4], "big") % (SLOTS - PROBES)
        offset, length = start * _SLOT.size, PROBES * _SLOT.size
        with locked(self._descriptor, offset, length):
            return self._claim(nonce, expires_s, now_s, start)

    def _claim(self, nonce: bytes, expires_s: int, now_s: int, start: int) -> bool:
        free = -1
        for index in range(start, start + PROBES):
            known, until_s = _SLOT.unpack_from(self._map, index * _SLOT.size)
            if known == nonce and until_s:  # an empty slot is all zeros, and no nonce's
                return False
            if free < 0 and until_s <= now_s:
                free = index
        if free < 0:
            return False
        _SLOT.pack_into(self._map, free * _SLOT.size, nonce, expires_s)
        return True

    def close(self) -> None:
        """Release the file."""
        self._map.close()
        os.close(self._descriptor)

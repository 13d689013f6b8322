"""Ledger of used tokens: each one-time token opens one stream on this host.

The voice webhook puts a signed token into the TwiML, and the stream must return it. `gw.protocol.token` checks signature and age.
That a token is used once, whichever worker it reaches, is decided here: in a table of nonces in shared memory, mapped by all
workers, claimed under a lock on the byte range of the entry.

    entry  | nonce, 16 bytes | expires, 8 bytes, epoch s |     SLOTS of them; a nonce is in one of PROBES entries from its hash
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
#: 64 s of validity at 500 calls a second are 32,000 tokens: the table is never half full.
SLOTS: Final = 1 << 16
PROBES: Final = 64


class TokenLedger:
    """The table of used tokens, shared by the workers of a host."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = SLOTS * _SLOT.size
        try:
            os.posix_fallocate(self._descriptor, 0, size)  # full memory is an error here, not at a later store
            self._map = mmap.mmap(self._descriptor, size)
        except OSError:
            os.close(self._descriptor)
            raise

    def use(self, nonce: bytes, expires_s: int, now_s: int) -> bool:
        """Use a token. False: it was used before, or all its entries hold tokens that are still valid.

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
            if known == nonce and until_s:  # an empty entry is all zeros
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

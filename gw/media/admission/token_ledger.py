"""Ledger of used tokens and answered webhooks, shared by the workers of a host.

The voice webhook puts a signed token into the TwiML, and the stream must return it. `gw.protocol.token` checks signature and age.
The ledger decides that a token is used once, whichever worker it reaches, and that a repeated webhook has one effect. Its three
tables of keys are in shared memory, mapped by all workers, claimed under a lock on the byte range of the entries. The keys of
tokens are derived from the ledger's ID, so a token is valid only where its use is recorded.

    tokens, webhooks, ends of calls, ID
    entry  | nonce or key, 16 bytes | expires, 8 bytes, epoch s |     SLOTS in each table

A key is in one of PROBES entries from its hash. Ends are kept for an hour: in one table with webhooks they would displace these.
"""

from __future__ import annotations

import mmap
import os
import struct
from hashlib import blake2b
from pathlib import Path
from typing import Final

from gw.media.admission.shared_lock import locked

NONCE_BYTES: Final = 16
_SLOT: Final = struct.Struct("!16sQ")
#: 64 s of validity at 500 calls a second are 32,000 tokens: the table is never half full.
SLOTS: Final = 1 << 16
PROBES: Final = 64
_PROBED: Final = struct.Struct("!" + "16sQ" * PROBES)
_WEBHOOKS_AT: Final = SLOTS * _SLOT.size
_ENDS_AT: Final = 2 * _WEBHOOKS_AT
_ID_AT: Final = 3 * _WEBHOOKS_AT


class TokenLedger:
    """The three tables. `id`: random, and the same for every worker until the file is removed."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be made, SharedBusyError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = _ID_AT + NONCE_BYTES
        try:
            os.posix_fallocate(self._descriptor, 0, size)  # full memory is an error here, not at a later store
            self._map = mmap.mmap(self._descriptor, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)  # no page fault in a webhook
        except OSError:
            os.close(self._descriptor)
            raise
        with locked(self._descriptor, _ID_AT, NONCE_BYTES):
            if not any(self._map[_ID_AT:]):
                self._map[_ID_AT:] = os.urandom(NONCE_BYTES)
            self.id = self._map[_ID_AT:]

    def use(self, nonce: bytes, expires_s: int, now_s: int) -> bool:
        """Use a token. False: it was used before, or all its entries hold tokens that are still valid.

        Shape: NONCE_BYTES of random nonce; epoch seconds.
        Raises: SharedBusyError.
        """
        start = _start(nonce)
        with locked(self._descriptor, start, _PROBED.size):
            nonces, expiries = self._entries(start)
            if nonce in nonces and expiries[nonces.index(nonce)]:  # an empty entry is all zeros
                return False
            free = next((index for index, until_s in enumerate(expiries) if until_s <= now_s), None)
            if free is None:
                return False
            _SLOT.pack_into(self._map, start + free * _SLOT.size, nonce, expires_s)
            return True

    def remember(self, key: bytes, until_s: int, now_s: int, *, is_end: bool = False) -> int:
        """Remember a webhook, or a call's end, unless it is remembered already. A full table drops the entry next to expire.

        Shape: NONCE_BYTES of hash; epoch seconds, `until_s` 0 only to look.
        Returns: until when it is remembered already; 0: it was not.
        Raises: SharedBusyError.
        """
        start = (_ENDS_AT if is_end else _WEBHOOKS_AT) + _start(key)
        with locked(self._descriptor, start, _PROBED.size):
            keys, expiries = self._entries(start)
            index = keys.index(key) if key in keys else expiries.index(min(expiries))
            if keys[index] == key and expiries[index] > now_s:
                return expiries[index]
            if until_s:
                _SLOT.pack_into(self._map, start + index * _SLOT.size, key, until_s)
            return 0

    def _entries(self, start: int) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        """Return the keys and the expiries of the entries from an offset."""
        cells = _PROBED.unpack_from(self._map, start)
        return cells[::2], cells[1::2]

    def close(self) -> None:
        """Release the file."""
        self._map.close()
        os.close(self._descriptor)


def key_of(kind: str, text: str) -> bytes:
    """Hash what is remembered: its kind, and a text."""
    return blake2b(f"{kind}\0{text}".encode("utf-8", "surrogatepass"), digest_size=NONCE_BYTES).digest()


def _start(key: bytes) -> int:
    """Offset of a key's first entry in its table."""
    return int.from_bytes(key[:4], "big") % (SLOTS - PROBES) * _SLOT.size

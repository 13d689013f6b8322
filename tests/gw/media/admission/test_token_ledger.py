"""gw.media.admission.token_ledger: each token is used once, by whichever process, while it is valid."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gw.media.admission.token_ledger import NONCE_BYTES, PROBES, SLOTS, TokenLedger

NOW_S = 1_800_000_000
LATER_S = NOW_S + 65

RACER = """
import sys
from pathlib import Path
from gw.media.admission.token_ledger import TokenLedger
ledger = TokenLedger(Path(sys.argv[1]))
nonces = [n.to_bytes(4, "big") * 4 for n in range(3000)]
print("ready", flush=True)
sys.stdin.readline()
print("".join("1" if ledger.use(nonce, int(sys.argv[3]), int(sys.argv[2])) else "0" for nonce in nonces), flush=True)
"""


def nonce_at(slot: int, n: int = 0) -> bytes:
    """A nonce whose entries begin at `slot`."""
    return struct.pack("!I", slot) + n.to_bytes(NONCE_BYTES - 4, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pages" / "tokens.ledger"


def test_a_nonce_is_used_once(path: Path):
    ledger = TokenLedger(path)
    nonce = os.urandom(NONCE_BYTES)
    assert ledger.use(nonce, LATER_S, NOW_S) is True
    assert ledger.use(nonce, LATER_S, NOW_S) is False
    assert ledger.use(os.urandom(NONCE_BYTES), LATER_S, NOW_S) is True
    ledger.close()


def test_a_used_nonce_stays_used_after_a_restart(path: Path):
    ledger = TokenLedger(path)
    nonce = os.urandom(NONCE_BYTES)
    ledger.use(nonce, LATER_S, NOW_S)
    ledger.close()
    again = TokenLedger(path)
    assert again.use(nonce, LATER_S, NOW_S) is False
    again.close()


def test_no_other_user_reads_the_file(path: Path):
    ledger = TokenLedger(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 3 * SLOTS * (NONCE_BYTES + 8) + NONCE_BYTES
    ledger.close()


def test_full_entries_refuse_and_an_expired_one_is_reused(path: Path):
    ledger = TokenLedger(path)
    for n in range(PROBES):
        assert ledger.use(nonce_at(7, n), NOW_S + 10 + n, NOW_S) is True
    assert ledger.use(nonce_at(7, PROBES), LATER_S, NOW_S) is False, "every entry it may have holds a valid token"
    assert ledger.use(nonce_at(7, PROBES), LATER_S, NOW_S + 9) is False
    assert ledger.use(nonce_at(7, PROBES), NOW_S + 200, NOW_S + 10) is True, "the first has expired"
    assert ledger.use(nonce_at(7, PROBES), NOW_S + 200, NOW_S + 10) is False
    assert ledger.use(nonce_at(7, 1), NOW_S + 11, NOW_S + 10) is False, "a valid one is still used"
    ledger.close()


def test_a_nonce_behind_an_expired_entry_is_found(path: Path):
    ledger = TokenLedger(path)
    ledger.use(nonce_at(3, 1), NOW_S + 1, NOW_S)
    ledger.use(nonce_at(3, 2), LATER_S, NOW_S)
    assert ledger.use(nonce_at(3, 2), LATER_S, NOW_S + 5) is False, "the free entry before it does not hide it"
    ledger.close()


@pytest.mark.parametrize("slot", [0, SLOTS - PROBES - 1, SLOTS - PROBES, 0xFFFFFFFF])
def test_entries_at_the_edges_of_the_table(path: Path, slot: int):
    ledger = TokenLedger(path)
    for n in range(PROBES):
        assert ledger.use(nonce_at(slot, n), LATER_S, NOW_S) is True
    assert ledger.use(nonce_at(slot, PROBES), LATER_S, NOW_S) is False
    ledger.close()


def test_two_ledgers_in_one_process_share_the_table(path: Path):
    one, other = TokenLedger(path), TokenLedger(path)
    nonce = os.urandom(NONCE_BYTES)
    assert one.use(nonce, LATER_S, NOW_S) is True
    assert other.use(nonce, LATER_S, NOW_S) is False
    one.close()
    other.close()


def test_of_two_processes_exactly_one_wins_each_nonce(path: Path):
    command = [sys.executable, "-c", RACER, str(path), str(NOW_S), str(LATER_S)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4])
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [racer.communicate(timeout=30)[0].strip() for racer in racers]
    assert [len(result) for result in results] == [3000, 3000]
    assert all({a, b} == {"0", "1"} for a, b in zip(*results, strict=True))


def test_the_whole_table_has_its_memory_from_the_start(tmp_path: Path):
    """With full memory, a store into a hole of a file would kill the process by a signal."""
    path = tmp_path / "ledger"
    ledger = TokenLedger(path)
    assert path.stat().st_blocks * 512 >= path.stat().st_size
    ledger.close()


# -- webhooks ----------------------------------------------------------------------------------------------------------


def test_a_webhook_is_remembered_until_its_time(path: Path):
    ledger, key = TokenLedger(path), os.urandom(NONCE_BYTES)
    assert ledger.remember(key, 0, NOW_S) == 0, "only a look"
    assert ledger.remember(key, LATER_S, NOW_S) == 0
    assert ledger.remember(key, LATER_S + 9, NOW_S + 9) == LATER_S, "the first time counts"
    assert ledger.remember(key, 0, LATER_S - 1) == LATER_S
    assert ledger.remember(key, LATER_S + 60, LATER_S) == 0
    assert ledger.remember(key, 0, LATER_S) == LATER_S + 60
    assert ledger.use(key, LATER_S, NOW_S), "another table"
    ledger.close()


def test_of_too_many_webhooks_the_next_to_expire_is_dropped(path: Path):
    ledger = TokenLedger(path)
    keys = [nonce_at(SLOTS - PROBES - 1, n) for n in range(PROBES + 1)]
    for n, key in enumerate(keys):
        assert ledger.remember(key, LATER_S + n, NOW_S) == 0
    assert ledger.remember(keys[0], 0, NOW_S) == 0
    assert [ledger.remember(key, 0, NOW_S) for key in keys[1:]] == [LATER_S + n for n in range(1, PROBES + 1)]
    ledger.close()


def test_many_ended_calls_displace_no_webhook(path: Path):
    """Ends are kept for an hour, webhooks for a minute: of a full table webhooks would be the next to expire."""
    ledger = TokenLedger(path)
    keys = [nonce_at(9, n) for n in range(2 * PROBES)]
    assert ledger.remember(keys[0], LATER_S, NOW_S) == 0
    for key in keys:
        assert ledger.remember(key, LATER_S + 3600, NOW_S, is_end=True) == 0
    assert ledger.remember(keys[0], 0, NOW_S) == LATER_S
    assert ledger.remember(keys[-1], 0, NOW_S, is_end=True) == LATER_S + 3600
    ledger.close()


def test_an_id_belongs_to_a_file(path: Path, tmp_path: Path):
    one, same, other = TokenLedger(path), TokenLedger(path), TokenLedger(tmp_path / "other.ledger")
    assert one.id == same.id != other.id
    assert len(one.id) == NONCE_BYTES
    for ledger in (one, same, other):
        ledger.close()

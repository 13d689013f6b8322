"""Claims made while the store is away survive a crash and reach the store once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gw import bus
from gw.control.recording import claims as claims_module
from gw.control.recording.claims import Claims
from gw.control.spool import Spool, SpoolError
from gw.control.store import HeldClaim, Stamped, Store, StoreError, StoreUnavailable

ACCOUNT = "AC" + "0" * 32


def claim(n: int = 1, owner: str = "claimant/1-a") -> HeldClaim:
    return HeldClaim(f"CA{n:032d}", ACCOUNT, owner, 1_800_000_000.0 + n)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    spool = Spool(path)
    yield spool
    spool.close()


def test_a_claim_survives_its_process(spool: Spool, path: Path) -> None:
    claims = Claims(spool, claimant="claimant")
    claims.take(claim())
    claims.take(claim(owner="claimant/2-b"))
    claims.note(claim().call_sid, "RE1")
    spool.close()
    again = Spool(path)
    held = Claims(again, claimant="claimant")
    assert (held.holds(claim().call_sid), len(held)) == (True, 1)
    assert again.claims() == [claim()._replace(recording_sid="RE1")], "the first claim stays"
    held.drop(claim().call_sid)
    assert (again.claims(), len(held)) == ([], 0)
    held.drop(claim().call_sid)
    held.note(claim().call_sid, "RE2")
    assert again.claims() == []
    again.close()


def test_claims_are_bounded(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "MAX_CLAIMS", 1)
    claims = Claims(spool, claimant="claimant")
    claims.take(claim(1))
    with pytest.raises(SpoolError, match="until the store is back"):
        claims.take(claim(2))


def test_all_are_delivered_before_and_after_their_wishes(spool: Spool, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BATCH", 2)
    claims = Claims(spool, claimant="claimant")
    conflicts: list[HeldClaim] = []
    claims.on_conflict = conflicts.append
    for n in range(1, 6):
        claims.take(claim(n))
    wish = bus.StartRecording(claim(5).call_sid, ACCOUNT, 1_800_000_000.0)
    store.apply([Stamped(wish, "host", 0, "w0", 1)])
    claims.deliver(store)
    assert (len(claims), spool.claims(), conflicts) == (0, [], [])
    rows = [store.recording(claim(n).call_sid) for n in range(1, 6)]
    assert [(row.state, row.owner) for row in rows if row] == [("claimed", "claimant/1-a")] * 5
    assert rows[4] is not None
    assert rows[4].first_audio_at == 1_800_000_000.0
    claims.take(claim(1))
    claims.deliver(store)  # as after a crash before the claim was dropped
    assert conflicts == []


def test_a_row_of_another_host_is_reported_and_stays(spool: Spool, store: Store) -> None:
    claims = Claims(spool, claimant="claimant")
    conflicts: list[HeldClaim] = []
    claims.on_conflict = conflicts.append
    claims.take(claim())
    claims.note(claim().call_sid, "RE1")
    store.claim_recording(claim().call_sid, ACCOUNT, "other/1-a", 1_800_000_000.0)
    claims.deliver(store)
    row = store.recording(claim().call_sid)
    assert row is not None
    assert (row.owner, conflicts) == ("other/1-a", [claim()._replace(recording_sid="RE1")])


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreError("refused")])
def test_a_claim_that_the_store_refuses_stays(spool: Spool, error: StoreError) -> None:
    class Away:
        def bring_claims(self, some: object) -> dict[str, str]:
            raise error

    claims = Claims(spool, claimant="claimant")
    claims.take(claim())
    if isinstance(error, StoreUnavailable):
        with pytest.raises(StoreUnavailable):
            claims.deliver(Away())  # type: ignore[arg-type]
    else:
        claims.deliver(Away())  # type: ignore[arg-type]
    assert spool.claims() == [claim()]


def test_claims_in_memory_survive_the_corruption_of_their_spool(spool: Spool, path: Path) -> None:
    claims = Claims(spool, claimant="claimant")
    spool.on_replaced = claims.keep_again
    claims.take(claim())
    spool._run(lambda: spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    spool._run(lambda: spool._db.execute("PRAGMA cache_size=0").fetchall())
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(64_000))
    with pytest.raises(SpoolError):
        spool.list_poison(10)
        spool.claims()
        spool.batch(10)
    assert spool.claims() == [claim()]

"""gw.verify.purity.dynamic: real calls under watch are pure, cover every branch, and keep the media plane in its ring."""

from __future__ import annotations

import pytest

from gw.verify.purity import dynamic, live_calls
from gw.verify.purity.check import Static, read
from gw.verify.purity.dynamic import Watched, watch_calls
from gw.verify.purity.report import Report
from tests.timing import scaled


@pytest.fixture(scope="module")
def static() -> Static:
    return read()


@pytest.fixture(scope="module")
def seen(static: Static) -> Watched:
    patch = pytest.MonkeyPatch()
    patch.setattr(live_calls, "CALLS_S", scaled(live_calls.CALLS_S))
    patch.setattr(dynamic, "_WORKER_S", scaled(dynamic._WORKER_S))
    with patch.context():
        return watch_calls(static)


def test_tx_makes_only_allowed_calls(seen: Watched) -> None:
    assert seen.offences == []


def test_the_media_plane_stays_within_its_ring(seen: Watched) -> None:
    assert seen.ring_2 == []
    assert {where for _, where in seen.excused} == {"gw.media.admission.shared_lock._lockf"}


def test_every_operation_of_the_source_was_seen(static: Static, seen: Watched) -> None:
    assert seen.unseen == []
    assert set(static.functions) <= set(seen.calls)


def test_the_calls_carried_audio_and_interruptions(seen: Watched) -> None:
    assert seen.phone_calls == len(live_calls._PLANS)
    assert seen.barge_ins >= 1
    assert seen.frames > 100
    assert seen.calls["gw.media.tx.Tx._count"] > seen.frames, "some were sent and never heard, the rig's among them"


def test_the_report_lists_both_parts(static: Static, seen: Watched) -> None:
    report = Report(static, seen, 1.0)
    assert report.ok()
    document = report.document()
    assert document["watched"]["never_seen"] == []
    assert all(operation["seen"] for operation in document["operations"])
    assert "observed calls were all on it" in report.sentence()
    seen.ring_2.append("rx: opened something")
    try:
        assert not report.ok()
        assert report.tx_problems() == []
        assert "ring 2: 1" in report.sentence()
    finally:
        seen.ring_2.pop()


def test_a_forbidden_module_in_a_worker_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic, "NOT_IN_A_WORKER", ("gevent", "sqlite3"))
    assert dynamic._loaded_in_a_worker() == ["a worker imports gevent"]

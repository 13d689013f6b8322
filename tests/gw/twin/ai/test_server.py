"""gw.twin.ai.server: accepted and refused clients, their scripts and ledgers."""

from __future__ import annotations

import pytest

from gw.twin.ai.script import AiScript, Fault
from gw.twin.ai.server import AiTwin
from gw.twin.websocket import RefusedError
from tests.gw.twin.ai.client import QUICK, audio_of, talking


@pytest.mark.parametrize(("key", "path", "status"), [("", "?model=m", 401), ("wrong", "?model=m", 401), ("sk-test", "", 400)])
def test_clients_without_a_key_or_model_are_refused(key: str, path: str, status: int) -> None:
    with AiTwin(QUICK, api_key="sk-test") as twin:
        with pytest.raises(RefusedError) as refusal, talking(twin, key, path):
            pass
        assert refusal.value.status == status
        assert twin.refusals == [status]
        assert not twin.sessions


@pytest.mark.parametrize("fault", ["refuse_401", "refuse_403", "refuse_500"])
def test_refusals_by_script(fault: Fault) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin:
        with pytest.raises(RefusedError) as refusal, talking(twin):
            pass
        assert refusal.value.status == int(fault[-3:])


def test_each_path_may_have_its_own_script() -> None:
    other = AiScript(greeting=b"\x44" * 480)
    with AiTwin(lambda index, path: other if path.endswith("/b") else QUICK) as twin, talking(twin, path="/b?model=m") as client:
        client.ready()
        client.send("response.create")
        assert audio_of(client.until("response.done")) == other.greeting
        assert twin.sessions[0].path == "/v1/realtime/b"


def test_the_end_is_in_the_ledger() -> None:
    with AiTwin(QUICK) as twin:
        with talking(twin) as client:
            client.ready()
        assert twin.wait_for(lambda twin: twin.sessions[0].is_over)
        assert (twin.sessions[0].closed_by, twin.sessions[0].close_code) == ("peer", 1000)
    assert not twin.wait_for(lambda twin: False, timeout_s=0.01)


def test_an_ai_without_a_key_accepts_everyone() -> None:
    with AiTwin(QUICK, needs_key=False) as twin, talking(twin, "") as client:
        client.ready()
        assert not twin.refusals

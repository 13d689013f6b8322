"""gw.control.ops_http: three pages, rendered once for many requests."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import threading
from collections.abc import Iterator

import gevent
import pytest

from gw.config import Config, Secrets, Server
from gw.control import ops_http
from gw.control.ops_http import OpsHttp, Readiness
from gw.protocol.http import RequestError
from tests.timing import scaled
from tests.wire.http_requests import REFUSED


class Rig:
    def __init__(self, token: str = "", config: Config | None = None) -> None:
        self.rendered = 0
        self.refused: list[str] = []
        self.threads: set[object] = set()
        self.readiness = Readiness(True, [])
        self.http = OpsHttp(
            "127.0.0.1:0",
            render=self.render,
            readiness=lambda: self.readiness,
            refused=self.refused.append,
            token=token,
            config=config,
        )
        self.http.start()

    def render(self) -> bytes:
        self.rendered += 1
        self.threads.add(threading.current_thread())
        return b"gw_up 1\n"

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http.port, timeout=scaled(20))
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.http.stop(timeout_s=0)


def test_the_talk_pages_feed_needs_its_key_and_permits_its_origin() -> None:
    config = Config(server=Server(listen="127.0.0.1:8080"), secrets=Secrets(talk_key="k"))
    rig = Rig(config=config, token="guards /metrics")
    try:
        status, body, headers = rig.ask("/talk/feed?key=k", Origin="http://127.0.0.1:8080")
        assert (status, headers["access-control-allow-origin"]) == (200, "http://127.0.0.1:8080")
        assert json.loads(body) == {"turns": [], "ended": "", "histograms": {"send": [], "lateness": []}}
        assert "access-control-allow-origin" not in rig.ask("/talk/feed?key=k", Origin="http://evil.example.com")[2]
        assert rig.ask("/talk/feed?key=x")[0] == 404
        assert rig.refused == ["not_found"]
    finally:
        rig.http.stop(timeout_s=0)


def test_metrics_are_rendered_once_for_many(rig: Rig) -> None:
    answers = [gevent.spawn(rig.ask, "/metrics") for _ in range(10)]
    gevent.joinall(answers, timeout=scaled(20))
    assert {answer.value[:2] for answer in answers} == {(200, b"gw_up 1\n")}
    assert answers[0].value[2]["content-type"].startswith("text/plain; version=")
    assert rig.rendered == 1
    assert threading.current_thread() not in rig.threads


def test_old_metrics_are_rendered_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "CACHE_S", 0.0)
    rig.ask("/metrics")
    rig.ask("/metrics")
    assert rig.rendered == 2


def test_a_slow_rendering_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "RENDER_S", 0.0)
    assert rig.ask("/metrics")[0] == 503


def test_health_ignores_problems(rig: Rig) -> None:
    rig.readiness = Readiness(False, ["no worker is connected"])
    assert rig.ask("/healthz")[:2] == (200, b"ok\n")


def test_readiness_gives_its_reasons(rig: Rig) -> None:
    status, body, headers = rig.ask("/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
    assert headers["content-type"] == "application/json"
    rig.readiness = Readiness(False, ["no worker is connected"])
    status, body, _ = rig.ask("/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["no worker is connected"]})


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
def test_head_has_the_same_head_and_no_body(rig: Rig, path: str) -> None:
    got, head = rig.ask(path), rig.ask(path, "HEAD")
    assert head[0] == got[0]
    assert head[1] == b""
    assert head[2]["content-length"] == str(len(got[1]))


def test_other_paths_and_methods(rig: Rig) -> None:
    assert rig.ask("/")[0] == 404
    assert rig.ask("/metrics/")[0] == 404
    status, _, headers = rig.ask("/metrics", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_a_request_that_breaks_http_is_refused(rig: Rig) -> None:
    for name, sample in REFUSED.items():
        with socket.create_connection(("127.0.0.1", rig.http.port), timeout=scaled(20)) as sock:
            sock.sendall(sample.sent)
            assert int(sock.recv(1000).split(b" ")[1]) == int(RequestError(sample.fault, "").status[:3]), name  # type: ignore[arg-type]


def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "BOUNDS", ops_http.BOUNDS._replace(head_s=0.05))
    rig = Rig()
    with socket.create_connection(("127.0.0.1", rig.http.port), timeout=scaled(20)) as sock:
        assert sock.recv(1) == b""
    rig.http.stop(timeout_s=0)


def test_silent_connections_delay_no_request(rig: Rig) -> None:
    """The first give way: more of them than there are places."""
    silent = [
        socket.create_connection(("127.0.0.1", rig.http.port), timeout=scaled(20)) for _ in range(ops_http.BOUNDS.places + 10)
    ]
    assert rig.ask("/readyz")[0] == 200
    for sock in silent[:10]:
        assert sock.recv(1) == b""
    assert rig.refused == ["displaced"] * 11
    assert rig.ask("/")[0] == 404
    assert rig.refused[11:] == ["not_found"], "the first request left its place free"
    for sock in silent:
        sock.close()


def test_a_lack_of_descriptors_is_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))  # none to accept it
        try:
            client.connect(("127.0.0.1", rig.http.port))
            gevent.sleep(0.1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert [record.reason for record in caplog.records] == ["accept_failed"]  # type: ignore[attr-defined]
    assert rig.ask("/healthz")[0] == 200


def test_a_port_in_use_is_refused(rig: Rig) -> None:
    with pytest.raises(OSError, match="in use"):
        OpsHttp(f"127.0.0.1:{rig.http.port}", render=rig.render, readiness=lambda: rig.readiness)


def test_nothing_is_logged(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.ask("/healthz")
    with socket.create_connection(("127.0.0.1", rig.http.port), timeout=scaled(20)) as sock:
        sock.sendall(b"garbage\r\n\r\n")
        while sock.recv(1000):
            pass
    assert capfd.readouterr() == ("", "")


def test_the_metrics_and_the_reasons_need_the_token() -> None:
    rig = Rig(token="hush")
    try:
        rig.readiness = Readiness(False, ["the store is down"])
        for refused in ({}, {"Authorization": "Bearer hus"}, {"Authorization": "hush"}, {"Authorization": "Bearer h\u00fcsh"}):
            status, body, headers = rig.ask("/metrics", **refused)
            assert (status, headers["www-authenticate"], rig.rendered) == (401, "Bearer", 0)
            assert b"gw_up" not in body
            status, body, _ = rig.ask("/readyz", **refused)
            assert (status, json.loads(body)) == (503, {"ready": False, "reasons": []})
            assert rig.ask("/healthz", **refused)[0] == 200
        assert rig.ask("/metrics", Authorization="Bearer hush")[:2] == (200, b"gw_up 1\n")
        assert json.loads(rig.ask("/readyz", Authorization="Bearer hush")[1])["reasons"] == ["the store is down"]
    finally:
        rig.http.stop(timeout_s=0)

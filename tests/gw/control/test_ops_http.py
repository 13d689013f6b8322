"""gw.control.ops_http: three pages, rendered once for many requests."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator

import gevent
import pytest

from gw.control import ops_http
from gw.control.ops_http import OpsHttp, Readiness
from tests.timing import scaled


class House:
    def __init__(self) -> None:
        self.rendered = 0
        self.threads: set[object] = set()
        self.readiness = Readiness(True, [])
        self.http = OpsHttp("127.0.0.1:0", render=self.render, readiness=lambda: self.readiness)
        self.http.start()

    def render(self) -> bytes:
        self.rendered += 1
        self.threads.add(threading.current_thread())
        return b"gw_up 1\n"

    def ask(self, path: str, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http.port, timeout=scaled(20))
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.http.stop(timeout_s=0)


def test_metrics_are_rendered_once_for_many(house: House) -> None:
    answers = [gevent.spawn(house.ask, "/metrics") for _ in range(10)]
    gevent.joinall(answers, timeout=scaled(20))
    assert {answer.value[:2] for answer in answers} == {(200, b"gw_up 1\n")}
    assert answers[0].value[2]["content-type"].startswith("text/plain; version=")
    assert house.rendered == 1
    assert threading.current_thread() not in house.threads


def test_old_metrics_are_rendered_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "CACHE_S", 0.0)
    house.ask("/metrics")
    house.ask("/metrics")
    assert house.rendered == 2


def test_a_slow_rendering_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "RENDER_S", 0.0)
    assert house.ask("/metrics")[0] == 503


def test_health_ignores_problems(house: House) -> None:
    house.readiness = Readiness(False, ["no worker is connected"])
    assert house.ask("/healthz")[:2] == (200, b"ok\n")


def test_readiness_gives_its_reasons(house: House) -> None:
    status, body, headers = house.ask("/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
    assert headers["content-type"] == "application/json"
    house.readiness = Readiness(False, ["no worker is connected"])
    status, body, _ = house.ask("/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["no worker is connected"]})


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
def test_head_has_the_same_head_and_no_body(house: House, path: str) -> None:
    got, head = house.ask(path), house.ask(path, "HEAD")
    assert head[0] == got[0]
    assert head[1] == b""
    assert head[2]["content-length"] == str(len(got[1]))


def test_other_paths_and_methods(house: House) -> None:
    assert house.ask("/")[0] == 404
    assert house.ask("/metrics/")[0] == 404
    status, _, headers = house.ask("/metrics", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_a_silent_connection_is_closed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_http, "IDLE_S", 0.05)
    with socket.create_connection(("127.0.0.1", house.http.port), timeout=scaled(20)) as sock:
        assert sock.recv(1) == b""


def test_a_port_in_use_is_refused(house: House) -> None:
    with pytest.raises(OSError, match="in use"):
        OpsHttp(f"127.0.0.1:{house.http.port}", render=house.render, readiness=lambda: house.readiness)


def test_nothing_is_logged(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    house.ask("/healthz")
    with socket.create_connection(("127.0.0.1", house.http.port), timeout=scaled(20)) as sock:
        sock.sendall(b"garbage\r\n\r\n")
        while sock.recv(1000):
            pass
    assert capfd.readouterr() == ("", "")

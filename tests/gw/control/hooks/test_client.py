"""gw.control.hooks.client: each request within its deadline, signed, to permitted addresses, with one verdict."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.server import StreamServer

from gw.config import Config, Hooks, Secrets
from gw.config.hook_url import parse_networks
from gw.control.hooks.addresses import Resolver
from gw.control.hooks.circuit import OPEN_AFTER
from gw.control.hooks.client import Failure, HookAnswer, HookClient, HookError, Outcome, client_of
from gw.control.hooks.places import Places
from gw.protocol.hooks.signature import verify
from gw.protocol.hooks.tool_call import DETAIL_BYTES
from gw.twin.hooks import HTML, HUGE_BYTES, HookTwin
from metrics import declare
from metrics.page import Page
from tests.gw.media.certificates import contexts
from tests.timing import scaled

LOOPBACK = ("127.0.0.0/8",)
BODY = b'{"v":1}'
#: Far more than an answer of the twin takes.
LONG_S = scaled(10.0)
#: For requests that end only with their deadline.
SHORT_S = 0.3


@pytest.fixture
def twin() -> Iterator[HookTwin]:
    with HookTwin("secret") as twin:
        yield twin


class Rig:
    """A client, and the outcomes that it reported."""

    def __init__(self, networks: tuple[str, ...] = LOOPBACK, secrets: tuple[str, ...] = ("secret",), **keys: Any) -> None:
        self.outcomes: list[Outcome] = []
        self.client = HookClient(
            secrets, parse_networks(networks), observe=lambda outcome, _: self.outcomes.append(outcome), **keys
        )

    def send(self, url: str, *, seconds: float = LONG_S, max_bytes: int = 1000, body: bytes = BODY, key: str = "k") -> HookAnswer:
        request = self.client.prepare(url, body, key)
        return self.client.send(request, deadline_s=time.monotonic() + seconds, max_bytes=max_bytes)

    def failure(self, url: str, **keys: Any) -> HookError:
        with pytest.raises(HookError) as caught:
            self.send(url, **keys)
        assert self.outcomes[-1] == caught.value.kind
        return caught.value


def test_the_request_is_signed_and_names_its_key(twin: HookTwin) -> None:
    rig = Rig()
    body = json.dumps({"v": 1, "tool": "lookup"}).encode()
    assert rig.send(twin.url("ok/lookup?x=1"), body=body, key="CA1%2F1%2Fcall_x") == HookAnswer(200, b'{"done": "lookup"}', "")
    (request,) = twin.requests
    assert request.path == "/ok/lookup?x=1"
    assert request.fault == ""
    assert request.key == "CA1%2F1%2Fcall_x"
    assert request.content == body
    assert request.headers["host"] == f"127.0.0.1:{twin.address[1]}"
    assert verify(["secret"], request.headers["submilli-signature"], body, time.time()) == ""
    assert rig.outcomes == ["ok"]


def test_both_secrets_sign_during_a_rotation(twin: HookTwin) -> None:
    assert Rig(secrets=("new", "secret")).send(twin.url()).status == 200
    assert Rig(secrets=("new", "")).send(twin.url()).status == 401


@pytest.mark.parametrize(
    ("path", "status", "body", "outcome"),
    [
        ("html", 200, HTML, "ok"),
        ("empty", 200, b"", "ok"),
        ("nothing", 204, b"", "ok"),
        ("latin1", 200, b"gr\xfc\xdf", "ok"),
        ("gzip", 200, b"\x1f\x8b\x08\0not really", "ok"),
        ("slow", 200, b'{"done": null}', "ok"),
        ("twice", 200, b'{"done": null}', "ok"),
        ("refused", 404, b"no such order", "client_error"),
        ("failed", 500, b"a stack trace", "server_error"),
        ("redirect", 307, b"", "redirect"),
        ("huge", 200, b"x" * (DETAIL_BYTES + 1), "too_large"),
        ("stream", 200, b"x" * (DETAIL_BYTES + 1), "too_large"),
        ("long_refusal", 422, b"x" * (DETAIL_BYTES + 1), "client_error"),
    ],
)
def test_answers(twin: HookTwin, path: str, status: int, body: bytes, outcome: Outcome) -> None:
    rig = Rig()
    answer = rig.send(twin.url(path))
    assert (answer.status, answer.body, rig.outcomes) == (status, body, [outcome])
    assert len(twin.requests) == 1, "one request, and no redirect followed"
    assert twin.wait_for(lambda twin: twin.open == 0), "the connection is closed"
    assert twin.flooded_bytes < HUGE_BYTES // 4


@pytest.mark.parametrize("path", ["dead", "half", "garbage", "continues", "headers", "long_header", "chunks"])
def test_no_answer_that_can_be_read(twin: HookTwin, path: str) -> None:
    error = Rig().failure(twin.url(path))
    assert (error.kind, error.sent) == ("lost", True)
    assert twin.wait_for(lambda twin: twin.open == 0)


@pytest.mark.parametrize("path", ["silent", "late", "drip", "drip_body"])
def test_the_deadline_holds_also_against_a_slow_drip(twin: HookTwin, path: str) -> None:
    error = Rig().failure(twin.url(path), seconds=SHORT_S)
    assert (error.kind, error.sent) == ("timeout", True)
    twin.late_s = 0.0
    assert twin.wait_for(lambda twin: twin.open == 0 or path == "late")


def test_the_outcome_of_each_status() -> None:
    expected = {
        200: "ok",
        299: "ok",
        300: "redirect",
        399: "redirect",
        400: "client_error",
        499: "client_error",
        500: "server_error",
    }
    for status, outcome in expected.items():
        rig = Rig()
        with HookTwin("secret", behaviours={"mine": lambda visit, status=status: visit.answer(status, b"")}) as own:
            assert rig.send(own.url("mine")).status == status
        assert rig.outcomes == [outcome]


def test_exactly_the_limit_is_accepted(twin: HookTwin) -> None:
    rig = Rig()
    for limit in (13, 14, 15):
        assert rig.send(twin.url(), max_bytes=limit).body == b'{"done": null}'
    assert rig.outcomes == ["too_large", "ok", "ok"]


def test_no_time_is_left(twin: HookTwin) -> None:
    error = Rig().failure(twin.url(), seconds=-1.0)
    assert (error.kind, error.sent) == ("timeout", False)
    assert twin.requests == []


def test_retry_after(twin: HookTwin) -> None:
    assert Rig().send(twin.url("wait")).retry_after == "7"


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = Rig().failure(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (error.kind, error.sent) == ("unreachable", False)
    assert Rig().failure("https://no-such-host.invalid/").kind == "unreachable"


def test_a_name_that_is_not_resolved_in_time() -> None:
    def lookup(*args: Any, **keys: Any) -> list[Any]:
        os.read(reader, 1)
        return []

    reader, writer = os.pipe()  # for a native thread
    try:
        error = Rig(resolver=Resolver(lookup)).failure("https://api.example.test/", seconds=SHORT_S)
        assert (error.kind, error.sent) == ("timeout", False)
    finally:
        os.write(writer, b"x")


# -- addresses ----------------------------------------------------------------------------------------------------------


def resolving(*answers: str) -> Resolver:
    """Resolve each name to the next of these addresses."""
    left = list(answers)

    def lookup(host: str, port: int, **keys: Any) -> list[Any]:
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    return Resolver(lookup)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "169.254.169.254"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_private_addresses_are_refused(twin: HookTwin, host: str, scheme: str) -> None:
    error = Rig(networks=("10.0.3.0/24",)).failure(f"{scheme}://{host}:{twin.address[1]}/ok")
    assert (error.kind, error.sent) == ("refused", False)
    assert twin.requests == []
    assert twin.most_open == 0, "not even connected"


def test_a_mapped_address_is_judged_by_the_one_it_carries(twin: HookTwin) -> None:
    assert Rig().send(f"http://[::ffff:127.0.0.1]:{twin.address[1]}/ok").status == 200


def test_a_name_that_is_rebound_between_two_requests(twin: HookTwin) -> None:
    rig = Rig(networks=("127.0.0.1/32",), resolver=resolving("127.0.0.1", "127.0.0.2"))
    address = f"http://api.example.test:{twin.address[1]}/ok"
    assert rig.send(address).status == 200
    assert rig.failure(address).kind == "refused"
    assert twin.requests[0].headers["host"].startswith("api.example.test:")


def test_a_name_is_resolved_once_for_a_request(twin: HookTwin) -> None:
    rig = Rig(networks=("127.0.0.1/32",), resolver=resolving("127.0.0.1", "10.0.0.1"))
    assert rig.send(f"http://api.example.test:{twin.address[1]}/ok").status == 200


def test_a_refused_address_opens_no_circuit(twin: HookTwin) -> None:
    rig = Rig(networks=())
    for _ in range(OPEN_AFTER + 1):
        assert rig.failure(twin.url()).kind == "refused"


def test_proxies_of_the_environment_are_not_used(twin: HookTwin, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Rig().send(twin.url()).status == 200


def test_https_with_the_name_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = contexts(tmp_path, "api.example.test")
    with HookTwin("secret", tls=server) as twin:
        port = twin.address[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
            rig = Rig(resolver=resolving("127.0.0.1"))
            rig.client.open_tls()
        assert rig.send(f"https://api.example.test:{port}/ok").status == 200
        assert twin.requests[0].headers["host"] == f"api.example.test:{port}"
        error = rig.failure(f"https://other.example.test:{port}/ok")
        assert (error.kind, error.sent) == ("unreachable", False)
        assert "certificate" in str(error)
        assert Rig(resolver=resolving("127.0.0.1")).failure(f"https://api.example.test:{port}/ok").kind == "unreachable"
        assert len(twin.requests) == 1


# -- circuit and places -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "kind"), [("failed", None), ("dead", "lost"), ("silent", "timeout")])
def test_the_fifth_failure_opens_the_circuit_of_host_and_port(twin: HookTwin, path: str, kind: Failure | None) -> None:
    rig = Rig()
    for _ in range(OPEN_AFTER):
        if kind is None:
            assert rig.send(twin.url(path)).status == 500
        else:
            assert rig.failure(twin.url(path), seconds=0.1 if kind == "timeout" else LONG_S).kind == kind
    error = rig.failure(twin.url("ok"))
    assert (error.kind, error.sent) == ("busy", False)
    assert len(twin.requests) == OPEN_AFTER
    with HookTwin("secret") as other:
        assert rig.send(other.url()).status == 200


def test_requests_that_wait_for_a_place_are_held_back_when_the_circuit_opens(twin: HookTwin) -> None:
    rig = Rig(places=Places(per_host=1))
    running = [gevent.spawn(rig.failure, twin.url("dead")) for _ in range(OPEN_AFTER + 3)]
    gevent.joinall(running, timeout=LONG_S, raise_error=True)
    assert [greenlet.value.kind for greenlet in running] == ["lost"] * OPEN_AFTER + ["busy"] * 3


def test_eight_connections_for_a_host(twin: HookTwin) -> None:
    rig = Rig()
    running = [gevent.spawn(rig.send, twin.url("slow")) for _ in range(20)]
    gevent.joinall(running, timeout=LONG_S, raise_error=True)
    assert twin.most_open == 8
    assert rig.outcomes == ["ok"] * 20


def test_a_full_queue_is_busy(twin: HookTwin) -> None:
    rig = Rig(places=Places(per_host=1, queue=1))
    running = [gevent.spawn(rig.send, twin.url("slow")) for _ in range(2)]
    assert twin.wait_for(lambda twin: twin.open == 1)
    error = rig.failure(twin.url("slow"))
    assert (error.kind, error.sent) == ("busy", False)
    gevent.joinall(running, timeout=LONG_S, raise_error=True)


def test_a_wait_for_a_place_ends_with_the_deadline(twin: HookTwin) -> None:
    rig = Rig(places=Places(per_host=1))
    holder = gevent.spawn(rig.send, twin.url("slow"))
    assert twin.wait_for(lambda twin: twin.open == 1)
    error = rig.failure(twin.url("ok"), seconds=0.05)
    assert (error.kind, error.sent) == ("timeout", False)
    holder.join(timeout=LONG_S)
    assert rig.send(twin.url("ok")).status == 200


def test_a_killed_request_closes_its_connection_and_is_not_counted(twin: HookTwin) -> None:
    rig = Rig()
    running = gevent.spawn(rig.send, twin.url("silent"))
    assert twin.wait_for(lambda twin: twin.open == 1 and bool(twin.requests))
    running.kill()
    assert twin.wait_for(lambda twin: twin.open == 0)
    assert rig.outcomes == []
    assert rig.client._places.waiting == 0


def test_the_hub_runs_while_a_flood_is_read(twin: HookTwin) -> None:
    turns = []

    def count() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0)

    counting = gevent.spawn(count)
    try:
        Rig().failure(twin.url("continues"))
    finally:
        counting.kill()
    assert len(turns) > 5


def test_a_client_of_the_configuration_counts_on_its_page(twin: HookTwin, tmp_path: Path) -> None:
    page = Page.create(tmp_path / "control.page")
    config = Config(hooks=Hooks(allow_networks=LOOPBACK), secrets=Secrets(hook_secret="new", hook_secret_old="secret"))
    client = client_of(config, "tool", page)
    client.send(client.prepare(twin.url(), BODY), deadline_s=time.monotonic() + LONG_S, max_bytes=1000)
    assert page.counter(declare.HOOK_REQUESTS, kind="tool", outcome="ok").value == 1
    assert sum(page.histogram(declare.HOOK_SECONDS, kind="tool").buckets) == 1
    page.close()
    client_of(config, "event").prepare(twin.url(), BODY)


def test_a_listener_that_never_accepts_tls(tmp_path: Path) -> None:
    def handle(sock: Any, address: object) -> None:
        gevent.sleep(5)

    server = StreamServer(("127.0.0.1", 0), handle)
    server.start()
    error = Rig().failure(f"https://127.0.0.1:{server.server_port}/", seconds=SHORT_S)
    assert (error.kind, error.sent) in (("timeout", False), ("unreachable", False))
    server.stop(timeout=0)

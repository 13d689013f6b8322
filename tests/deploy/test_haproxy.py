"""deploy/haproxy: HAProxy accepts the file, requires TLS, and ends slow or foreign requests.

tests/vms covers the balancer with gateways behind it.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gevent.pywsgi import WSGIServer

from gw.bench.gateway_process import free_ports
from gw.config import Media
from tests.deploy.balancer import MACHINES, SHIPPED, configure, program
from tests.mariadb import make_certificate
from tests.timing import scaled


class Balancer(NamedTuple):
    port: int
    metrics: int
    trust: ssl.SSLContext


@contextlib.contextmanager
def running(folder: Path, machines: Sequence[str], gateway: int, ops: int, state: str) -> Iterator[Balancer]:
    """Run HAProxy, and wait until it has found every machine in `state`. It ends slow requests after half a second.

    `machines`: IP addresses; `gateway`, `ops`: the ports of each.
    """
    make_certificate(folder / "crt.pem", folder / "key.pem")
    both = folder / "both.pem"
    both.write_bytes((folder / "crt.pem").read_bytes() + (folder / "key.pem").read_bytes())
    port, metrics = free_ports(2)
    written = configure(
        folder,
        [f"127.0.0.1:{port}"],
        f"127.0.0.1:{metrics}",
        both,
        machines,
        [("timeout http-request 5s", "timeout http-request 500ms"), ("wait-for-body time 5s", "wait-for-body time 500ms")],
    )
    written.write_text(written.read_text().replace(":8080 check", f":{gateway} check").replace("port 9464", f"port {ops}"))
    checked = subprocess.run(
        [program(), "-c", "-f", str(written)], capture_output=True, text=True, timeout=scaled(30), check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARNING" not in checked.stdout + checked.stderr
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program(), "-db", "-f", str(written)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        made = Balancer(port, metrics, ssl.create_default_context(cafile=str(folder / "crt.pem")))
        for proxy in ("gateways", "owners"):
            for name, _ in MACHINES:
                await_state(made, proxy, name, state)
        yield made
    finally:
        process.kill()
        process.wait()


def await_state(balancer: Balancer, proxy: str, machine: str, state: str) -> None:
    until_s = time.monotonic() + scaled(15.0)
    while f'proxy="{proxy}",server="{machine}",state="{state}"}} 1' not in page(balancer.metrics):
        assert time.monotonic() < until_s, f"HAProxy did not find {machine} {state} in {proxy}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """HAProxy without a gateway behind it."""
    (unused,) = free_ports(1)
    with running(tmp_path_factory.mktemp("haproxy"), ["127.0.0.1"] * len(MACHINES), unused, unused, "DOWN") as made:
        yield made


def page(port: int) -> str:
    """Return the exporter's page; empty while it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=scaled(5.0))
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def ask(balancer: Balancer, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
    connection = http.client.HTTPSConnection("127.0.0.1", balancer.port, timeout=scaled(10.0), context=balancer.trust)
    connection.request(method, path, body)
    answer = connection.getresponse()
    said = answer.status, answer.read().decode()
    connection.close()
    return said


def test_a_caller_hears_a_sentence_when_every_machine_is_down(balancer: Balancer):
    status, body = ask(balancer, "POST", "/twilio/voice", b"CallSid=CA1")
    assert status == 200
    assert "<Say>All our lines are busy." in body
    assert ask(balancer, "POST", "/twilio/status", b"CallSid=CA1")[0] == 503


@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz", "/twilio", "/mediate"])
def test_other_paths_than_twilios_are_not_found(balancer: Balancer, path: str):
    assert ask(balancer, "GET", path)[0] == 404


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_and_plain_text_are_refused(balancer: Balancer):
    with socket.create_connection(("127.0.0.1", balancer.port), timeout=scaled(5.0)) as plain:
        plain.sendall(b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/1.1 200")
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")  # the client must not be the side that refuses
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", balancer.port), timeout=scaled(5.0)) as sock,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        old.wrap_socket(sock)


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /twi", b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nCall"],
    ids=["nothing", "half a line", "half a form"],
)
def test_a_slow_request_is_ended(balancer: Balancer, sent: bytes):
    raw = socket.create_connection(("127.0.0.1", balancer.port), timeout=scaled(5.0))
    with balancer.trust.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
        sock.sendall(sent)
        answer = b""
        while more := sock.recv(4096):  # ends, or the socket's timeout fails the test
            answer += more
    assert answer == b"" or answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.0 408 "))


def test_a_media_socket_follows_its_webhook_though_its_machine_accepts_no_more_calls(tmp_path: Path):
    """HAProxy found that its control restarts, or that it drains: another machine would refuse the stream."""
    ready = {name: True for name, _ in MACHINES}
    addresses = {name: f"127.0.0.{n}" for n, (name, _) in enumerate(MACHINES, 11)}
    gateway, ops = free_ports(2)

    def machine(name: str, environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        is_good = environ["PATH_INFO"] != "/readyz" or ready[name]
        start_response("200 OK" if is_good else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [name.encode()]

    servers = {
        name: [WSGIServer((address, port), partial(machine, name), log=None) for port in (gateway, ops)]
        for name, address in addresses.items()
    }
    try:
        for server in chain(*servers.values()):
            server.start()
        with running(tmp_path, list(addresses.values()), gateway, ops, "UP") as balancer:
            assert [ask(balancer, "GET", f"/media/{name}")[1] for name in addresses] == list(addresses)
            ready["vm-1"] = False
            await_state(balancer, "gateways", "vm-1", "DOWN")
            assert [ask(balancer, "GET", f"/media/{name}")[1] for name in addresses] == list(addresses)
            assert {ask(balancer, "POST", "/twilio/voice", b"CallSid=CA1")[1] for _ in range(4)} == {"vm-2"}
            for server in servers["vm-1"]:
                server.stop()
            await_state(balancer, "owners", "vm-1", "DOWN")
            assert ask(balancer, "GET", "/media/vm-1")[1] == "vm-2", "it refuses the stream at once"
    finally:
        for server in chain(*servers.values()):
            server.stop()


def test_a_tunnel_outlives_the_longest_call():
    (tunnel_s,) = map(int, re.findall(r"timeout tunnel (\d+)s", SHIPPED.read_text()))
    assert tunnel_s > Media().max_call_s


def test_both_backends_have_the_same_machines():
    gateways, owners = (section for section in SHIPPED.read_text().split("\nbackend ")[1:])
    names = [re.findall(r"^    (server .*)$", section, re.MULTILINE) for section in (gateways, owners)]
    assert names[0] == names[1]
    assert all(" tcp-ut " in line for line in names[0])  # HAProxy accepts tcp-ut in default-server, but ignores it there
    assert [line.split()[1] for line in names[0]] == [name for name, _ in MACHINES]
    kept = re.findall(r"^    force-persist if \{ path /media/(\S+) \} \{ srv_is_up\(owners/(\S+)\) \}$", gateways, re.MULTILINE)
    assert kept == [(name, name) for name, _ in MACHINES]

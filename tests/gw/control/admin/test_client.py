"""gw.control.admin.client: answers, refusals, and every way in which no gateway answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest

from gw.control.admin import client
from gw.control.admin.client import AdminClient, NotReachable, Refused
from gw.control.admin.server import AdminServer, Command, CommandError
from gw.control.unix_socket import PrivateListener
from tests.timing import scaled


def missing(_fields: Mapping[str, Any]) -> Any:
    raise CommandError("not_found", "no such call")


def endless(_fields: Mapping[str, Any]) -> Any:
    gevent.sleep(scaled(60))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "admin.sock"
    commands = {name: Command(run, lambda _: False) for name, run in (("echo", dict), ("missing", missing), ("endless", endless))}
    server = AdminServer(PrivateListener(path), commands, on_act=None)
    server.start()
    yield path
    server.stop(timeout_s=0)


def test_arguments_and_data_are_json(path: Path) -> None:
    assert AdminClient(path).request("echo", number=1, text="é", nothing=None) == {"number": 1, "text": "é", "nothing": None}


def test_a_refusal_carries_its_code(path: Path) -> None:
    with pytest.raises(Refused) as caught:
        AdminClient(path).request("missing")
    assert (caught.value.code, str(caught.value)) == ("not_found", "no such call")


def test_a_missing_gateway_is_not_reachable(tmp_path: Path, path: Path) -> None:
    with pytest.raises(NotReachable):
        AdminClient(tmp_path / "nothing.sock").request("echo")
    with pytest.raises(NotReachable, match="within"):
        AdminClient(path, timeout_s=0.05).request("endless")


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Any]:
    """Returns a client of a socket that gives one fixed answer."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "other.sock"))
    listener.listen(1)
    jobs: list[gevent.Greenlet[..., None]] = []

    def serve(answer: bytes) -> None:
        sock, _ = listener.accept()
        sock.recv(1000)
        sock.sendall(answer)
        sock.close()

    def answering(answer: bytes) -> AdminClient:
        jobs.append(gevent.spawn(serve, answer))
        return AdminClient(tmp_path / "other.sock")

    yield answering
    gevent.joinall(jobs, timeout=1)
    listener.close()


@pytest.mark.parametrize("answer", [b"", b"no json\n", b'{"ok": 1}\n', b"{}\n", b"x" * 100])
def test_an_invalid_answer_is_not_reachable(answering: Any, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 50)
    with pytest.raises(NotReachable):
        answering(answer).request("echo")


def test_a_refusal_without_a_reason(answering: Any) -> None:
    with pytest.raises(Refused, match="the gateway gave no reason") as caught:
        answering(b'{"ok": false}\n').request("echo")
    assert caught.value.code == "failed"

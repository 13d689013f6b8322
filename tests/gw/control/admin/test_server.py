"""The admin socket answers every line, whatever it says, and never more than it should."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest

from gw.control.admin import client
from gw.control.admin import server as admin
from gw.control.admin.client import MAX_LINE_BYTES, AdminClient, NotReachable, Refused
from gw.control.admin.server import AdminServer, CommandError
from gw.control.store import StoreUnavailable


def echo(fields: Mapping[str, Any]) -> Any:
    return dict(fields)


def missing(_fields: Mapping[str, Any]) -> Any:
    raise CommandError("not_found", "there is none")


def away(_fields: Mapping[str, Any]) -> Any:
    raise StoreUnavailable("the store is away")


def broken(_fields: Mapping[str, Any]) -> Any:
    raise ZeroDivisionError("by design")


def endless(_fields: Mapping[str, Any]) -> Any:
    gevent.sleep(60)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "admin.sock"
    commands = {"echo": echo, "missing": missing, "away": away, "broken": broken, "endless": endless}
    server = AdminServer(path, commands)
    server.start()
    yield path
    server.stop(timeout_s=0)


def raw(path: Path, data: bytes) -> list[dict[str, Any]]:
    """What comes back for these bytes, until the server closes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return [json.loads(line) for line in answer.splitlines()]


def test_a_command_gets_its_answer(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert AdminClient(path).request("echo", number=1, text="é", nothing=None) == {"number": 1, "text": "é", "nothing": None}


def test_several_lines_on_one_connection(path: Path) -> None:
    assert raw(path, b'{"command":"echo","a":1}\n{"command":"missing"}\n{"command":"echo"}\n') == [
        {"ok": True, "data": {"a": 1}},
        {"ok": False, "error": {"code": "not_found", "message": "there is none"}},
        {"ok": True, "data": {}},
    ]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "bad_request"),
        (b"no json", "bad_request"),
        (b"[1]", "bad_request"),
        (b"\xff\xfe", "bad_request"),
        (b'{"command":"echo","a":"\xff"}', "bad_request"),
        (b"[" * 20_000, "bad_request"),
        (b"{}", "unknown_command"),
        (b'{"command":"launch"}', "unknown_command"),
        (b'{"command":["echo"]}', "unknown_command"),
        (b'{"command":"away"}', "unavailable"),
        (b'{"command":"broken"}', "failed"),
    ],
)
def test_a_line_that_cannot_be_followed_gets_an_error(path: Path, line: bytes, code: str) -> None:
    answers = raw(path, line + b'\n{"command":"echo"}\n')
    assert answers[0]["ok"] is False
    assert answers[0]["error"]["code"] == code
    assert answers[0]["error"]["message"]
    assert answers[1] == {"ok": True, "data": {}}, "the connection goes on"


def test_a_line_without_an_end_is_cut(path: Path) -> None:
    (answer,) = raw(path, b'{"command":"echo","a":"' + b"x" * (MAX_LINE_BYTES + 10))
    assert answer["error"]["code"] == "bad_request"


def test_a_long_line_gets_an_error(path: Path) -> None:
    answers = raw(path, b"x" * (MAX_LINE_BYTES + 1) + b"\n")
    assert answers[0]["error"]["code"] == "bad_request"


def test_a_request_takes_only_so_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "REQUEST_S", 0.05)
    with pytest.raises(Refused) as caught:
        AdminClient(path).request("endless")
    assert caught.value.code == "timeout"


def test_a_silent_connection_is_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "IDLE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        assert sock.recv(1) == b""


def test_the_client_names_why_nobody_answers(tmp_path: Path, path: Path) -> None:
    with pytest.raises(NotReachable):
        AdminClient(tmp_path / "nothing.sock").request("echo")
    with pytest.raises(NotReachable, match="within"):
        AdminClient(path, timeout_s=0.05).request("endless")


@pytest.mark.parametrize("answer", [b"", b"no json\n", b'{"ok": 1}\n', b"{}\n", b"x" * 100])
def test_an_answer_that_is_none(tmp_path: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 50)
    path = tmp_path / "other.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        sock, _ = listener.accept()
        sock.recv(1000)
        sock.sendall(answer)
        sock.close()

    server = gevent.spawn(serve)
    with pytest.raises(NotReachable):
        AdminClient(path).request("echo")
    server.join(1)
    listener.close()


def test_a_refusal_carries_its_code(path: Path) -> None:
    with pytest.raises(Refused) as caught:
        AdminClient(path).request("missing")
    assert (caught.value.code, str(caught.value)) == ("not_found", "there is none")

"""gw.control.admin.server: every line gets one answer, within the bounds."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest

from gw.control.admin import server as admin
from gw.control.admin.client import MAX_LINE_BYTES, AdminClient, Refused
from gw.control.admin.server import AdminServer, CommandError
from gw.control.store import StoreUnavailable


def echo(fields: Mapping[str, Any]) -> Any:
    return dict(fields)


def missing(_fields: Mapping[str, Any]) -> Any:
    raise CommandError("not_found", "no such call")


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
    """Send bytes; return the answers until the server closes the connection."""
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
        {"ok": False, "error": {"code": "not_found", "message": "no such call"}},
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
def test_an_invalid_line_gets_an_error(path: Path, line: bytes, code: str) -> None:
    answers = raw(path, line + b'\n{"command":"echo"}\n')
    assert answers[0]["ok"] is False
    assert answers[0]["error"]["code"] == code
    assert answers[0]["error"]["message"]
    assert answers[1] == {"ok": True, "data": {}}, "the connection stays open"


def test_a_line_without_an_end_is_cut(path: Path) -> None:
    (answer,) = raw(path, b'{"command":"echo","a":"' + b"x" * (MAX_LINE_BYTES + 10))
    assert answer["error"]["code"] == "bad_request"


def test_a_long_line_gets_an_error(path: Path) -> None:
    answers = raw(path, b"x" * (MAX_LINE_BYTES + 1) + b"\n")
    assert answers[0]["error"]["code"] == "bad_request"


def test_stuck_clients_exclude_no_other(path: Path) -> None:
    stuck = []
    for _ in range(admin.MAX_WAITING + 10):
        stuck.append(socket.socket(socket.AF_UNIX))
        stuck[-1].settimeout(5)
        stuck[-1].connect(str(path))
        gevent.sleep(0)
    assert AdminClient(path).request("echo", n=1) == {"n": 1}
    for sock in stuck[:10]:
        assert sock.recv(1) == b"", "the longest waits end"
    for sock in stuck:
        sock.close()


def test_the_time_of_a_request_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

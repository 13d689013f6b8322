"""gw.control.admin.server: every line gets one answer, within the bounds."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from gw.control.admin import server as admin
from gw.control.admin.client import MAX_LINE_BYTES, AdminClient, Refused, read_only
from gw.control.admin.server import Act, AdminServer, Command, CommandError, NoArguments, acts, reads
from gw.control.store import StoreUnavailable
from gw.control.unix_socket import PrivateListener
from tests.timing import scaled


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
    read = {"echo": echo, "missing": missing, "away": away, "broken": broken, "endless": endless}
    commands = {name: Command(run, lambda _: False) for name, run in read.items()}
    server = AdminServer(PrivateListener(path), commands, on_act=None)
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


# -- commands that act -------------------------------------------------------------------------------------------------


class _Sid(msgspec.Struct, forbid_unknown_fields=True):
    call_sid: str = ""
    fault: str = ""


def _act(args: _Sid) -> Any:
    match args.fault:
        case "missing":
            raise CommandError("not_found", "no such call")
        case "away":
            raise StoreUnavailable("the store is away")
        case "broken":
            raise ZeroDivisionError("by design")
        case "endless":
            gevent.sleep(60)
    return {"call_sid": args.call_sid or "CA9"}


COMMANDS = {
    "look": reads(NoArguments, lambda _: []),
    "act": acts(_Sid, _act),
    "erase": acts(_Sid, _act, erases=True),
    "level": acts(_Sid, _act, when=lambda fields: "fault" in fields),
}


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[list[Act]]:
    """The acts on `acting.sock`; `acting-ro.sock` is the same, read-only."""
    made: list[Act] = []
    path = tmp_path / "acting.sock"
    servers = [
        AdminServer(PrivateListener(path), COMMANDS, on_act=made.append),
        AdminServer(PrivateListener(read_only(path)), COMMANDS, on_act=None),
    ]
    for server in servers:
        server.start()
    yield made
    for server in servers:
        server.stop(timeout_s=0)


def test_an_act_is_recorded_with_the_peers_uid(tmp_path: Path, recorded: list[Act]) -> None:
    client = AdminClient(tmp_path / "acting.sock")
    client.request("act", call_sid="CA1")
    client.request("act")
    client.request("erase", call_sid="CA1")
    assert recorded == [
        Act("act", "CA1", {"call_sid": "CA1"}, os.getuid(), "done"),
        Act("act", "CA9", {}, os.getuid(), "done"),
        Act("erase", "", {"call_sid": "CA1"}, os.getuid(), "done"),
    ]


CLIENT_OF_ANOTHER_USER = """
import os, socket
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.connect({path!r})
sock.sendall(b'{{"command": "act"}}\\n')
sock.recv(100)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_users_uid_is_recorded(tmp_path: Path, recorded: list[Act]) -> None:
    path = tmp_path / "acting.sock"
    path.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    script = CLIENT_OF_ANOTHER_USER.format(path=str(path))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=scaled(20))
    assert [act.uid for act in recorded] == [65534]


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"fault": "missing"}, "not_found"),
        ({"fault": "away"}, "unavailable"),
        ({"fault": "broken"}, "failed"),
        ({"fault": "endless"}, "timeout"),
        ({"unknown": 1}, "bad_request"),
        ({"call_sid": 5}, "bad_request"),
    ],
)
def test_a_refused_act_is_recorded_too(
    tmp_path: Path, recorded: list[Act], monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], outcome: str
) -> None:
    monkeypatch.setattr(admin, "REQUEST_S", 0.05)
    with pytest.raises(Refused) as caught:
        AdminClient(tmp_path / "acting.sock").request("act", **fields)
    assert caught.value.code == outcome
    assert [(act.fields, act.call_sid, act.outcome) for act in recorded] == [(fields, "", outcome)]


def test_an_act_that_the_stop_interrupts_is_recorded(tmp_path: Path) -> None:
    made: list[Act] = []
    server = AdminServer(PrivateListener(tmp_path / "x.sock"), COMMANDS, on_act=made.append)
    asking = gevent.spawn(server.answer, b'{"command":"act","fault":"endless"}', 7)
    gevent.sleep(0)
    asking.kill()
    server.stop(timeout_s=0)
    assert [(act.uid, act.outcome) for act in made] == [(7, "interrupted")]


def test_reading_is_not_recorded(tmp_path: Path, recorded: list[Act]) -> None:
    client = AdminClient(tmp_path / "acting.sock")
    assert client.request("look") == []
    client.request("level")
    assert recorded == []
    client.request("level", fault="")
    assert len(recorded) == 1


def test_the_read_only_socket_refuses_what_acts(tmp_path: Path, recorded: list[Act]) -> None:
    client = AdminClient(tmp_path / "acting-ro.sock")
    assert client.request("look") == []
    assert client.request("level") == {"call_sid": "CA9"}
    for command, fields in (("act", {}), ("level", {"fault": ""})):
        with pytest.raises(Refused, match=f"{command} acts, and this socket is read-only") as caught:
            client.request(command, **fields)
        assert caught.value.code == "read_only"
    assert recorded == []

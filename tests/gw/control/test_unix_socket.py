"""gw.control.unix_socket: a socket file is replaced only if it has no listener."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from gw.control.unix_socket import MAX_PATH_BYTES, PrivateListener, uid_of_peer


def test_the_socket_is_private_and_removed_by_close(tmp_path: Path) -> None:
    path = tmp_path / "var" / "x.sock"
    listener = PrivateListener(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert not path.exists()
    listener.close()


def test_a_stale_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    listener = PrivateListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


def test_a_live_listener_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    first = PrivateListener(path)
    with pytest.raises(OSError, match="another process listens"):
        PrivateListener(path)
    assert path.exists()
    first.close()


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        PrivateListener(path)
    assert path.read_text() == "precious"


def test_the_socket_of_another_process_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    first = PrivateListener(path)
    path.rename(tmp_path / "moved.sock")
    second = PrivateListener(path)
    first.close()
    assert path.exists()
    second.close()


def test_a_path_that_is_too_long_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        PrivateListener(tmp_path / ("x" * MAX_PATH_BYTES))


def test_an_unusable_path_is_reported(tmp_path: Path) -> None:
    """The error of bind(2) names no path."""
    path = Path("/proc/self/x.sock")
    with pytest.raises(OSError, match=str(path)):
        PrivateListener(path)


OWN_GROUP = grp.getgrgid(os.getgid()).gr_name


def test_the_socket_is_given_to_a_group(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    listener = PrivateListener(path, OWN_GROUP, key="ops.admin_group")
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, os.getgid())
    listener.close()
    assert not path.exists()


def test_a_group_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r'ops.admin_group = "nonesuch": there is no such group: create it with groupadd'):
        PrivateListener(tmp_path / "x.sock", "nonesuch", key="ops.admin_group")
    assert list(tmp_path.iterdir()) == []


def test_a_group_of_others_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)  # root, who may run this test, is refused nothing
    with pytest.raises(OSError, match="must be a member of the group"):
        PrivateListener(tmp_path / "x.sock", OWN_GROUP, key="ops.admin_group")
    assert list(tmp_path.iterdir()) == []


def test_the_uid_of_a_peer_is_known(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    assert uid_of_peer(ours) == os.getuid()
    ours.close()
    theirs.close()

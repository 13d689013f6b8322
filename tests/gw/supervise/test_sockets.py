"""gw.supervise.sockets: the lock of var_dir, takeover after a kill, the port, and systemd sockets."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest

from gw.bench.gateway_process import free_ports
from gw.procfs import birth_of
from gw.supervise import sockets
from gw.supervise.sockets import Lock, StartError, lock, public_socket, take_over
from tests.timing import scaled

ROOT = Path(__file__).resolve().parents[3]


def child(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Another process, after its first line of output."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with gevent.Timeout(scaled(30)):
        assert process.stdout.readline() == b"there\n"
    return process


@pytest.fixture
def processes():
    with ExitStack() as ending:
        yield lambda process: (ending.callback(process.communicate, timeout=scaled(30)), ending.callback(process.kill))


# -- var_dir ----------------------------------------------------------------------------------------------------------

LOCKS = """
import sys
from pathlib import Path
from gw.supervise.sockets import lock
lock(Path(sys.argv[1]))
print("there", flush=True)
sys.stdin.read()
"""


def test_var_dir_is_locked_and_private_to_its_owner(tmp_path):
    ours = lock(tmp_path / "a" / "var")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "var", tmp_path / "a" / "var" / "gateway.lock")] == [
        0o700,
        0o600,
    ]
    assert not os.get_inheritable(ours.fd)
    with pytest.raises(StartError, match=rf"a gateway \(pid {os.getpid()}\) runs in"):
        lock(tmp_path / "a" / "var")
    lock(tmp_path / "b").release()
    ours.release()
    again = lock(tmp_path / "a" / "var")
    assert not again.unclean, "the previous gateway ended cleanly"
    again.release()


def test_a_killed_gateway_leaves_an_unclean_lock(tmp_path, processes):
    killed = child(LOCKS, tmp_path)
    processes(killed)
    with pytest.raises(StartError, match=rf"\(pid {killed.pid}\)"):
        lock(tmp_path)
    killed.kill()
    killed.wait(scaled(30))
    ours = lock(tmp_path)
    assert ours == Lock(ours.fd, unclean=True)
    ours.release()


def test_a_var_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "var").write_text("a file")
    with pytest.raises(StartError, match=r"cannot be used: .*set ops\.var_dir"):
        lock(tmp_path / "var")


# -- takeover ---------------------------------------------------------------------------------------------------------

CONTROL = """
import signal, socket, sys
deaf = sys.argv[2] == "deaf"
signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else signal.SIG_DFL)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("there", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("manner", ["polite", "deaf"])
def test_the_former_control_is_ended(tmp_path, processes, monkeypatch, manner: str):
    if manner == "deaf":
        monkeypatch.setattr(sockets, "CONTROL_GONE_S", 0.2)
    control = child(CONTROL, tmp_path / "bus.sock", manner)
    processes(control)
    assert birth_of(control.pid) is not None
    take_over(tmp_path / "bus.sock")
    assert birth_of(control.pid) is None
    assert control.wait(scaled(30)) == (-9 if manner == "deaf" else -15)


def test_without_a_former_control_takeover_does_nothing(tmp_path):
    take_over(tmp_path / "bus.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "bus.sock"))
    take_over(tmp_path / "bus.sock")


# -- the port ---------------------------------------------------------------------------------------------------------


def test_a_port_is_bound_and_takes_connections():
    with public_socket("127.0.0.1:0", {}) as listener, socket.create_connection(listener.getsockname()) as caller:
        taken, address = listener.accept()
        assert address == caller.getsockname()
        taken.close()


def test_a_port_in_use_is_refused_or_retried():
    (port,) = free_ports(1)
    taken, listen = socket.create_server(("127.0.0.1", port)), f"127.0.0.1:{port}"
    for patience_s in (0.0, 0.1):
        with pytest.raises(StartError, match=f"cannot listen on {listen}: Address already in use"):
            public_socket(listen, {}, patience_s=patience_s)
    waiting = gevent.spawn(public_socket, listen, {}, patience_s=scaled(20))
    gevent.sleep(0.01)
    assert not waiting.ready()
    taken.close()
    listener = waiting.get(timeout=scaled(20))
    assert listener.getsockname() == ("127.0.0.1", port)
    listener.close()


def test_an_address_of_another_machine():
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:0"):
        public_socket("192.0.2.1:0", {}, patience_s=scaled(60))  # only a port in use is retried
    with pytest.raises(StartError, match="cannot be used"):
        public_socket("no-such-host.invalid:1", {})


# -- systemd ----------------------------------------------------------------------------------------------------------


def passed(monkeypatch: pytest.MonkeyPatch, fd: int, count: str = "1") -> dict[str, str]:
    """An environment in which systemd has passed `fd`."""
    monkeypatch.setattr(sockets, "SYSTEMD_FIRST_FD", fd)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}


def test_a_passed_socket_takes_precedence_over_the_configuration(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as made:
        for loopback_only in (False, True):
            environ = passed(monkeypatch, os.dup(made.fileno()))
            with public_socket("192.0.2.1:1", environ, loopback_only=loopback_only) as taken:
                assert taken.getsockname() == made.getsockname()


@pytest.mark.parametrize("environ", [{"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}])
def test_a_socket_passed_to_another_process_is_ignored(environ: dict[str, str]):
    with public_socket("127.0.0.1:0", environ) as listener:
        assert listener.getsockname()[1] > 0


def test_more_than_one_socket_is_refused(monkeypatch):
    with pytest.raises(StartError, match="systemd passed 2 sockets"):
        public_socket("127.0.0.1:0", passed(monkeypatch, -1, "2"))


def test_a_descriptor_that_cannot_serve_is_refused(monkeypatch, tmp_path):
    with socket.socket() as silent, socket.socket(socket.AF_UNIX) as local, (tmp_path / "file").open("w") as file:
        local.bind(str(tmp_path / "local"))
        local.listen()
        for fd, says in ((silent.fileno(), "takes no TCP"), (local.fileno(), "takes no TCP"), (file.fileno(), "not a socket")):
            with pytest.raises(StartError, match=says):
                public_socket("127.0.0.1:0", passed(monkeypatch, fd if says == "not a socket" else os.dup(fd)))


def test_without_credentials_only_loopback_serves(monkeypatch):
    with socket.create_server(("0.0.0.0", 0)) as made:
        with pytest.raises(StartError, match=r"systemd listens on 0\.0\.0\.0"):
            public_socket("127.0.0.1:0", passed(monkeypatch, os.dup(made.fileno())), loopback_only=True)
        public_socket("127.0.0.1:0", passed(monkeypatch, os.dup(made.fileno()))).close()

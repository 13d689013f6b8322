"""gw.supervise.config_snapshot: all processes get the same bytes, and the new code's errors are passed on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gw.config.load import FOLDER_VARIABLE
from gw.supervise import config_snapshot
from gw.supervise.config_snapshot import ReloadError, Snapshot, SupervisorSettings, check, try_out
from tests.program import program

ROOT = Path(__file__).resolve().parents[3]
GOOD = """
[server]
listen = "127.0.0.1:0"
workers = 3
[ops]
var_dir = "elsewhere"
"""


@pytest.fixture
def taken(tmp_path):
    """Makes snapshots, closed at the end."""
    made: list[Snapshot] = []

    def take(text: str | None = GOOD) -> Snapshot:
        path = tmp_path / "submilli.toml"
        if text is not None:
            path.write_text(text)
        made.append(Snapshot(None if text is None else path, os.environ))
        return made[-1]

    yield take
    for snapshot in made:
        snapshot.close()


# -- the snapshot -----------------------------------------------------------------------------------------------------


def test_every_child_reads_the_whole_snapshot(taken, tmp_path):
    snapshot = taken("as it was")
    (tmp_path / "submilli.toml").write_text("half an ed")
    assert snapshot.options == ["--config", snapshot.path]
    for _ in range(2):  # each open starts at the beginning
        read = subprocess.run(["cat", snapshot.path], pass_fds=snapshot.pass_fds, capture_output=True, check=True)
        assert read.stdout == b"as it was"
    assert not os.get_inheritable(snapshot.fd), "inherited only on request"


def test_children_know_the_folder_of_the_file(taken, tmp_path):
    """They read the file by a descriptor, and other files are relative to it."""
    assert taken().environ[FOLDER_VARIABLE] == str(tmp_path)


def test_without_a_file_children_read_none(taken):
    snapshot = taken(None)
    assert (snapshot.options, snapshot.pass_fds) == ([], ())
    snapshot.close()


def test_closing_twice_is_harmless(taken):
    snapshot = taken()
    fd = snapshot.fd
    snapshot.close()
    with pytest.raises(OSError):
        os.fstat(fd)
    snapshot.close()
    assert (snapshot.options, snapshot.pass_fds) == ([], ())


def test_a_file_that_cannot_be_read_or_is_too_long(tmp_path, monkeypatch):
    with pytest.raises(ReloadError, match=r"none\.toml cannot be read: No such file"):
        Snapshot(tmp_path / "none.toml", {})
    with pytest.raises(ReloadError, match="Is a directory"):
        Snapshot(tmp_path, {})
    monkeypatch.setattr(config_snapshot, "MAX_FILE_BYTES", 10)
    (tmp_path / "long.toml").write_bytes(b"x" * 11)
    with pytest.raises(ReloadError, match=r"long\.toml is longer than 10 bytes"):
        Snapshot(tmp_path / "long.toml", {})
    (tmp_path / "long.toml").write_bytes(b"x" * 10)
    Snapshot(tmp_path / "long.toml", {}).close()


# -- the check by the new code ----------------------------------------------------------------------------------------


def judged(snapshot: Snapshot, code: str) -> SupervisorSettings:
    """The check, by the given Python code."""
    return check([sys.executable, "-c", code], snapshot, "submilli.toml")


def test_the_check_returns_the_settings_of_the_supervisor(taken, tmp_path):
    settings = check(program(), taken(), "submilli.toml")
    assert (settings.listen, settings.workers, settings.var_dir) == ("127.0.0.1:0", 3, f"{tmp_path}/elsewhere")


def test_every_problem_is_reported(taken):
    snapshot = taken('[server]\nlisten = "nowhere"\n[media]\nlead = 5\n')
    with pytest.raises(ReloadError, match=r"media\.lead.*; server\.listen"):
        check(program(), snapshot, "submilli.toml")


def test_problems_name_the_file_not_the_descriptor(taken):
    told = "import json, sys; print(json.dumps({'problems': [f'{sys.argv[2]} is no TOML', 'x']}))"
    with pytest.raises(ReloadError) as raised:
        judged(taken(), told)
    assert str(raised.value) == "submilli.toml is no TOML; x"


SERVER = '{"listen": "a:1", "workers": "auto", "pin": true, "stop_timeout_s": 1, "reload_timeout_s": 2, "of_newer_code": []}'


def test_unknown_fields_of_newer_code_are_ignored(taken):
    told = '{"problems": [], "config": {"server": ' + SERVER + ', "ops": {"var_dir": "v"}, "else": 1}, "else": 2}'
    assert judged(taken(), f"print({told!r})") == SupervisorSettings("a:1", "auto", True, 1.0, 2.0, "v")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("", "no error text"),
        ("raise SystemExit('ImportError: no module')", "ImportError: no module"),
        ("import sys; print('first', file=sys.stderr); sys.exit('last')", ": last"),
        ("print('[]')", "no error text"),
        ("print('{\"problems\": []}')", "no error text"),
        ('print(\'{"problems": [], "config": {"server": {}, "ops": {"var_dir": "v"}}}\')', "no error text"),
    ],
    ids=["silent", "failed", "last words", "no object", "no config", "no server"],
)
def test_a_failing_check_is_reported_by_its_last_error_line(taken, code: str, error: str):
    with pytest.raises(ReloadError, match=r"the new code cannot check submilli\.toml") as raised:
        judged(taken(), code)
    assert str(raised.value).endswith(error)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import json; print(json.dumps({'problem': 'the port is in use'}))", "the port is in use"),
        ("raise SystemExit('ImportError: no module')", "the new code does not start: ImportError: no module"),
        ("print('{}')", "the new code does not start: no error text"),
        ("print('[]')", "the new code does not start: no error text"),
        ("import time; time.sleep(60)", "the trial of the new processes did not end within 1 s"),
    ],
    ids=["refused", "failed", "no problem", "no object", "hangs"],
)
def test_a_failing_trial_is_reported(taken, monkeypatch, code: str, error: str):
    monkeypatch.setattr(config_snapshot, "TRIAL_TIMEOUT_S", 1.0)
    running = SupervisorSettings("a:1", 1, True, 1.0, 2.0, "v", "b:2", "admin.sock")
    with Path(os.devnull).open() as file:
        assert try_out([sys.executable, "-c", code], taken(), file.fileno(), running) == error


def test_the_trial_receives_the_addresses_of_the_running_control(taken):
    code = "import json, sys; print(json.dumps({'problem': ' '.join(sys.argv[3:])}))"
    running = SupervisorSettings("a:1", 1, True, 1.0, 2.0, "v", "b:2", "admin.sock")
    with Path(os.devnull).open() as file:
        fd = file.fileno()
        problem = try_out([sys.executable, "-c", code], taken(), fd, running)
    assert problem == f"trial --scoreboard-fd {fd} --ops-listen b:2 --admin-socket admin.sock"


def test_a_long_error_is_cut(taken):
    with pytest.raises(ReloadError) as raised:
        judged(taken(), "raise SystemExit('x' * 10_000)")
    assert len(str(raised.value)) == 500


def test_code_that_is_missing_or_does_not_end(taken, monkeypatch):
    with pytest.raises(ReloadError, match=r"no-such-program cannot be started: No such file"):
        check(["no-such-program"], taken(), "submilli.toml")
    monkeypatch.setattr(config_snapshot, "CHECK_TIMEOUT_S", 0.1)
    with pytest.raises(ReloadError, match=r"did not end within 0\.1 s"):
        judged(taken(), "import time; time.sleep(60)")


def test_each_snapshot_reads_the_credentials(tmp_path: Path) -> None:
    secret = tmp_path / "OPENAI_API_KEY"
    environ = {"PATH": "/bin", "SUBMILLI_CREDENTIALS": str(tmp_path)}
    secret.write_text("first")
    first = Snapshot(None, environ)
    secret.write_text("second")
    assert (first.environ, Snapshot(None, environ).environ) == (
        {"PATH": "/bin", "OPENAI_API_KEY": "first"},
        {"PATH": "/bin", "OPENAI_API_KEY": "second"},
    )
    secret.unlink()
    secret.mkdir()
    with pytest.raises(ReloadError, match=f"{secret} cannot be read: it is not a file"):
        Snapshot(None, environ)

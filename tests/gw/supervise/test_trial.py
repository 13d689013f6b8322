"""gw.supervise.trial: real parts, constructed beside a running gateway's addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from gw.config import Agent, Config, Greeting, Ops, Store
from gw.supervise.trial import problem_of


def config_in(folder: Path, **ops: str) -> Config:
    """A valid configuration with free addresses; `ops` replaces some."""
    given = {"listen": "127.0.0.1:0", "admin_socket": str(folder / "admin.sock"), "var_dir": str(folder / "var"), **ops}
    return Config(ops=Ops(**given), store=Store(url=f"sqlite:///{folder}/store.db"))  # type: ignore[arg-type]


def test_a_valid_configuration_leaves_no_trace(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    assert problem_of(config, "127.0.0.1:1", str(tmp_path / "former.sock")) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", ""])
def test_addresses_of_the_running_control_are_not_in_use(tmp_path: Path, host: str) -> None:
    """Its port counts under any host: a listener on every interface has that of each."""
    with socket.create_server(("127.0.0.1", 0)) as held, socket.socket(socket.AF_UNIX) as admin:
        admin.bind(str(tmp_path / "admin.sock"))
        admin.listen()
        port = held.getsockname()[1]
        config = config_in(tmp_path, listen=f"{host}:{port}")
        assert problem_of(config, f"127.0.0.1:{port}", str(tmp_path / "admin.sock")) == ""
        assert "admin.sock" in problem_of(config, f"127.0.0.1:{port}", str(tmp_path / "former.sock"))
        assert "in use" in problem_of(config, "127.0.0.1:1", str(tmp_path / "admin.sock"))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"listen": "192.0.2.1:0"}, "192.0.2.1"),  # RFC 5737: no machine has this address
        ({"admin_socket": "FOLDER/file/admin.sock"}, "Not a directory|File exists"),
        ({"admin_socket": "/" + "x" * 200}, "too long for a Unix socket"),
    ],
)
def test_what_control_would_refuse_is_reported(tmp_path: Path, changes: dict[str, str], error: str) -> None:
    (tmp_path / "file").touch()
    config = config_in(tmp_path, **{key: value.replace("FOLDER", str(tmp_path)) for key, value in changes.items()})
    problem = problem_of(config, "127.0.0.1:1", str(tmp_path / "admin.sock"))
    assert any(part in problem for part in error.split("|")), problem


def test_a_greetings_file_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    """A worker would serve without it."""
    greeting = Greeting(file=str(tmp_path / "hello.wav"), text="Hello.")
    config = msgspec.structs.replace(config_in(tmp_path), agents={"default": Agent(greeting=greeting)})
    assert "hello.wav" in problem_of(config, "127.0.0.1:1", "")


def test_a_worker_that_would_not_start_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no prompts in the new code")

    monkeypatch.setattr("gw.media.shared.context.Prompts", refuse)
    assert problem_of(config_in(tmp_path), "127.0.0.1:1", "") == "no prompts in the new code"
    assert list(tmp_path.iterdir()) == [], "control was closed"


def test_a_store_that_cannot_be_opened_by_its_url_is_reported(tmp_path: Path) -> None:
    """Its configuration alone is tried: a store that is away does not fail a reload."""
    config = config_in(tmp_path)
    wrong = msgspec.structs.replace(config, store=Store(url="mysql+pymysql://u@127.0.0.1/d?ssl_mode=x"))
    assert "ssl_mode" in problem_of(wrong, "127.0.0.1:1", "")
    away = msgspec.structs.replace(config, store=Store(url="mysql+pymysql://u@127.0.0.1:9/d"))
    assert problem_of(away, "127.0.0.1:1", "") == ""

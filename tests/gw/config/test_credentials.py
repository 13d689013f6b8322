"""gw.config.credentials: files replace variables, and an unusable file is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gw.config.credentials import MAX_BYTES, tokens_in, with_credentials
from gw.config.load import load, problems
from gw.errors import ConfigError


def test_a_file_replaces_the_variable(tmp_path: Path) -> None:
    own, systemd = tmp_path / "own", tmp_path / "systemd"
    for folder in (own, systemd):
        folder.mkdir()
        (folder / "TWILIO_AUTH_TOKEN").write_text(f"{folder.name}\n")
    (systemd / "OPENAI_API_KEY").write_text("key")
    (own / "TWILIO_AUTH_TOKEN_OLD").write_text("")
    (own / "PATH").write_text("/evil")
    environ = {
        "PATH": "/bin",
        "TWILIO_AUTH_TOKEN": "variable",
        "TWILIO_AUTH_TOKEN_OLD": "variable",
        "SUBMILLI_DB_PASSWORD": "variable",
        "SUBMILLI_CREDENTIALS": str(own),
        "CREDENTIALS_DIRECTORY": str(systemd),
    }
    assert with_credentials(environ) == (
        {
            "PATH": "/bin",
            "TWILIO_AUTH_TOKEN": "own",
            "TWILIO_AUTH_TOKEN_OLD": "",
            "OPENAI_API_KEY": "key",
            "SUBMILLI_DB_PASSWORD": "variable",
        },
        [],
    )


def test_the_files_of_accounts_are_found_by_their_names(tmp_path: Path) -> None:
    """The configuration, which names the accounts, is read later."""
    own, systemd = tmp_path / "own", tmp_path / "systemd"
    for folder in (own, systemd):
        folder.mkdir()
        (folder / "TWILIO_AUTH_TOKEN_SUPPORT").write_text(folder.name)
    (systemd / "TWILIO_AUTH_TOKEN_SUPPORT_OLD").write_text("old")
    (systemd / "TWILIO_SHARED_KEY_SALES").write_text("key")
    (systemd / "TWILIO_ACCOUNT").write_text("no secret")
    assert with_credentials({"SUBMILLI_CREDENTIALS": str(own), "CREDENTIALS_DIRECTORY": str(systemd)}) == (
        {"TWILIO_AUTH_TOKEN_SUPPORT": "own", "TWILIO_AUTH_TOKEN_SUPPORT_OLD": "old", "TWILIO_SHARED_KEY_SALES": "key"},
        [],
    )


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"the secrets in {file} cannot be listed: Not a directory" in with_credentials({"SUBMILLI_CREDENTIALS": str(file)})[1]


def test_folders_may_be_missing(tmp_path: Path) -> None:
    assert with_credentials({"SUBMILLI_CREDENTIALS": str(tmp_path / "none"), "CREDENTIALS_DIRECTORY": ""}) == ({}, [])


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"x" * (MAX_BYTES + 1), "longer than 4096 bytes"), (b"\xff", "not UTF-8"), (None, "not a file")],
)
def test_an_unusable_file_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "TWILIO_AUTH_TOKEN"
    path.mkdir() if content is None else path.write_bytes(content)
    environ = {"SUBMILLI_CREDENTIALS": str(tmp_path), "TWILIO_AUTH_TOKEN": "variable"}
    (problem,) = with_credentials(environ)[1]
    assert str(path) in problem and why in problem
    assert problem in problems(None, environ)
    with pytest.raises(ConfigError):
        load(None, environ)
    assert load(None, environ, serving=False), "a command that reads data needs no secret"


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "OPENAI_API_KEY")
    assert "not a file" in with_credentials({"SUBMILLI_CREDENTIALS": str(tmp_path)})[1][0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_of_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "OPENAI_API_KEY").touch(0o000)
    assert "Permission denied" in with_credentials({"SUBMILLI_CREDENTIALS": str(tmp_path)})[1][0]


def test_a_line_break_within_a_secret_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "OPENAI_API_KEY").write_text("one\r\ntwo\r\n")
    environ = {"SUBMILLI_CREDENTIALS": str(tmp_path)}
    assert with_credentials(environ) == ({"OPENAI_API_KEY": "one\r\ntwo"}, [])
    assert [problem for problem in problems(None, environ) if problem.startswith("OPENAI_API_KEY begins or ends")]


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ('[[agents.a.mcp]]\nauthorization_env = "CRM_TOKEN"\n[[agents.b.mcp]]\nauthorization_env = "B"', {"CRM_TOKEN", "B"}),
        ('[[agents.a.mcp]]\nauthorization_env = "../x"\n[[agents.b.mcp]]\nauthorization_env = 7\n[[agents.c.mcp]]\n', set()),
        ("[agents]\na = 7", set()),
        ("agents = 7", set()),
        ("not TOML", set()),
        ("", set()),
    ],
)
def test_the_tokens_of_mcp_servers_are_named_by_the_file(content: str, tokens: set[str]) -> None:
    assert tokens_in(content.encode()) == tokens
    assert tokens_in(b"\xff") == frozenset()

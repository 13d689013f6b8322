"""gw.media.shared.greetings: the files of all agents, read once; all unusable ones are named together."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gw.config import Agent, Greeting
from gw.media.shared import greetings
from gw.media.shared.greetings import greeting_problems, load_greetings
from tests.gw.protocol.test_wav import wav


def recorded(path: Path) -> Agent:
    return Agent(greeting=Greeting(file=str(path), text="Hello."))


def test_each_file_is_read_once(tmp_path: Path) -> None:
    hello = tmp_path / "hello.wav"
    hello.write_bytes(wav(bytes(800), code=7, bits=8))
    agents = {"default": recorded(hello), "sales": recorded(hello), "other": Agent(), "says": Agent(greeting=Greeting(say="Hi."))}
    assert load_greetings(agents) == {str(hello): bytes(800)}
    assert greeting_problems(agents) == []


def test_all_unusable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greetings, "MAX_FILE_BYTES", 1000)
    song, long = tmp_path / "song.mp3", tmp_path / "long.wav"
    song.write_bytes(b"ID3")
    long.write_bytes(wav(bytes(1000), code=7, bits=8))
    agents = {"default": recorded(song), "sales": recorded(tmp_path / "absent.wav"), "folder": recorded(tmp_path)}
    first, second, third, fourth = greeting_problems({**agents, "long": recorded(long)})
    assert first.startswith(f'agents.default.greeting.file = "{song}": the file is not a WAV file')
    absent = f'"{tmp_path}/absent.wav" cannot be read: No such file or directory; set the path of a WAV file'
    assert second == f"agents.sales.greeting.file = {absent}"
    assert "Is a directory" in third
    assert "is longer than 1000 bytes" in fourth
    assert greeting_problems(agents) == [first, second, third]


def test_a_worker_serves_without_a_file_that_has_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    absent = recorded(tmp_path / "absent.wav")
    with caplog.at_level(logging.ERROR):
        assert load_greetings({"default": absent, "sales": absent}) == {}
    (record,) = caplog.records
    assert "absent.wav" in record.getMessage()

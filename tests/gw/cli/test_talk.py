"""gw.cli.talk: where the page is, and its refusals. `tests/browser/test_talk.py` talks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gw.twin.sound import write_wav
from tests.gw.cli.conftest import CommandLine


def test_the_page_of_a_running_gateway_is_printed_and_opened(
    cli: CommandLine, gateway: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened.part && mv {tmp_path}/opened.part {tmp_path}/opened\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("DISPLAY", ":0")
    url = "http://127.0.0.1:8080/talk?key=k"
    assert cli.run("talk", "--no-browser").stdout == f"Talk to it: {url}\n"
    assert not (tmp_path / "opened").exists()
    assert cli.document("talk") == {"url": url}
    assert cli.run("talk").stdout == f"Talk to it: {url}\n"
    for _ in range(200):
        if (tmp_path / "opened").exists():
            break
        time.sleep(0.02)
    assert (tmp_path / "opened").read_text() == f"{url}\n"


def test_without_a_desktop_the_url_is_enough(cli: CommandLine, gateway: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "Open this URL in a browser on this machine." in cli.run("talk").stdout


def test_a_gateway_with_credentials_has_no_page(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cli.config.write_text(
        cli.config.read_text() + f'[twilio]\naccount_sid = "AC{"0" * 32}"\n[server]\npublic_url = "https://x.example"\n'
    )
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")
    write_wav(tmp_path / "in.wav", b"\x10" * 160)
    for words in ([], ["--wav", str(tmp_path / "in.wav")]):
        refused = cli.run("talk", *words)
        assert refused.exit_code == 1
        assert "served without Twilio credentials only" in refused.stderr


def test_a_file_needs_a_running_gateway(cli: CommandLine, tmp_path: Path) -> None:
    cli.config.write_text(cli.config.read_text() + '[server]\nlisten = "127.0.0.1:9"\n')
    write_wav(tmp_path / "in.wav", b"\x10" * 160)
    missing = cli.run("talk", "--wav", str(tmp_path / "in.wav"))
    assert missing.exit_code == 3
    assert "start one with: gateway.py serve" in missing.stderr


@pytest.mark.parametrize(
    ("words", "fault"), [(["--out", "x.wav"], "--out needs --wav"), (["--wav", "missing.wav"], "missing.wav cannot be read")]
)
def test_wrong_usage_names_the_fault(cli: CommandLine, words: list[str], fault: str) -> None:
    result = cli.run("talk", *words)
    assert result.exit_code == 2
    assert fault in " ".join(result.stderr.split())

"""The talk page in a real browser, whose microphone plays a file, and `talk --wav`: through a gateway process to the AI twin."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gw.twin import speech
from gw.twin.sound import FRAME_BYTES, SILENT_FRAME, frames, read_wav, silence, to_pcm, to_ulaw, write_wav
from tests.browser.chromium import Chromium
from tests.browser.talking import Running, microphone, serving
from tests.timing import scaled

#: Frames on their way when the caller hangs up.
ON_THE_WAY = 10


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("talk")) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def from_the_terminal(running: Running) -> Iterator[subprocess.Popen[str]]:
    """A call that takes ten seconds, beside the one in the browser."""
    folder = running.config.parent
    write_wav(folder / "in.wav", speech.load("monkeys"))
    calling = running.start("talk", "--wav", str(folder / "in.wav"), "--out", str(folder / "heard.wav"), "--json")
    yield calling
    calling.kill()
    calling.wait()


def joined(browser: Chromium, name: str) -> bytes:
    """Return the audio in one of the page's lists."""
    text = browser.value(f"talk.{name}.map(toText).join(' ')")
    return b"".join(base64.b64decode(one) for one in text.split())


def audible(audio: bytes) -> list[bytes]:
    """Return the frames that are not digital silence: the gateway may add such a frame for a microphone that stalls."""
    return [frame for frame in frames(audio) if frame != SILENT_FRAME]


def test_a_conversation_in_the_browser(running: Running, tmp_path: Path) -> None:
    words = tmp_path / "words.wav"
    write_wav(words, silence(3000) + speech.load("weasels") + silence(60_000))
    with Chromium(1100, 1000, *microphone(words)) as browser:
        browser.go_to(f"{running.url}&raw=1")
        browser.click("call")
        browser.until("talk.state === 'live'")
        browser.until("talk.turns.length === 1 && talk.marks > 1 && talk.echoed === talk.marks", scaled(20))
        browser.until("talk.words.length >= 3")
        browser.value("document.querySelectorAll('#keys button')[4].click()")
        browser.click("hang-up")
        browser.until("talk.state === 'over'")
        sent, heard, received = (joined(browser, name) for name in ("sent", "heard", "received"))
        shown: dict[str, Any] = json.loads(browser.value("JSON.stringify({...talk, sent: 0, heard: 0, received: 0})"))
        assert (browser.complaints, browser.not_loaded) == ([], [])
    (session,) = [one for one in running.ai.sessions if one.tag is None]  # the call from the terminal has a tag
    uplink = bytes(session.uplink)
    assert len(session.turns_ms) == 1, "the microphone's words are one turn"
    spoken, reached = audible(sent), audible(uplink)
    assert len(reached) > 100
    assert reached == spoken[: len(reached)], "every byte of the microphone reached the AI"
    assert len(spoken) - len(reached) < ON_THE_WAY
    assert received == session.audio[: len(received)]
    assert received.startswith(b"".join(bytes(one.audio) for one in session.responses[:2]))
    assert heard == received[: len(heard)]
    assert len(received) - len(heard) < 100 * FRAME_BYTES
    (turn,) = shown["turns"]
    assert turn["totalMs"] == pytest.approx(sum(turn[f"{part}Ms"] for part in ("frame", "gateway", "ahead", "rest")), abs=1)
    assert -60 <= turn["restMs"] <= scaled(300), turn  # 60 on a machine that does nothing else
    assert 0 < turn["totalMs"] < scaled(2000), turn  # half a second, but frames that come together hide some of it
    assert ("agent", "Hello world.") in [(one["role"], one["text"]) for one in shown["words"]]
    assert ("caller", "Something is terribly wrong.") in [(one["role"], one["text"]) for one in shown["words"]]  # the twin's text
    assert shown["clears"] == 0
    assert shown["frames"]["send"][-1][1] > 100
    assert shown["frames"]["lateness"][-1][1] > 100


def test_a_file_instead_of_the_microphone(running: Running, from_the_terminal: subprocess.Popen[str]) -> None:
    printed, errors = from_the_terminal.communicate(timeout=60)
    assert from_the_terminal.returncode == 0, errors
    (found,) = json.loads(printed)
    (session,) = [one for one in running.ai.sessions if one.tag is not None]
    folder = running.config.parent
    assert b"".join(audible(read_wav(folder / "in.wav"))) in b"".join(audible(bytes(session.uplink)))
    assert [turn["latency_ms"] is not None for turn in found["turns"]] == [True]
    greeting = to_ulaw(to_pcm(bytes(session.responses[0].audio)))  # a WAV has one zero, mu-law two
    heard = read_wav(folder / "heard.wav")
    silent = SILENT_FRAME[:1]  # a busy machine is late within a frame too
    assert greeting.replace(silent, b"") in heard.replace(silent, b"")


def test_the_url_of_a_running_gateway(running: Running) -> None:
    asked = running.run("talk", "--json")
    assert json.loads(asked.stdout) == {"url": running.url}

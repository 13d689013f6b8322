"""gw.demo.run: length, words and chunks of the demo's conversations."""

from __future__ import annotations

from gw.demo.run import DemoScript
from gw.twin import speech


def test_a_conversation_has_the_requested_length() -> None:
    for seconds in (1, 10, 15, 60):
        script = DemoScript.lasting(seconds)
        assert script.seconds >= seconds
        assert script.exchanges == 0 or DemoScript(script.exchanges - 1).seconds < seconds


def test_the_last_response_is_the_goodbye_and_hangs_up() -> None:
    script = DemoScript(2)
    agent = script.agent(1)
    assert agent.hang_up_after == script.responses == 3
    assert agent.audio_of(1, asked=True) == speech.load("hello-world")
    assert agent.audio_of(3, asked=False) == speech.load("thanks")
    assert agent.agent_words[2] == speech.WORDS["thanks"]


def test_sessions_have_different_words_and_chunks() -> None:
    first, second = DemoScript(2).agent(0), DemoScript(2).agent(1)
    assert first.audio_of(2, asked=False) != second.audio_of(2, asked=False)
    assert first.chunks(first.greeting, 0, 1) != second.chunks(second.greeting, 0, 1)
    assert DemoScript(2).phrase(0, 0) != DemoScript(2).phrase(1, 0)

"""gw.demo.run: length, words and chunks of the demo's conversations."""

from __future__ import annotations

from gw.demo.run import TOOL, DemoScript
from gw.twin import speech


def test_a_conversation_has_the_requested_length() -> None:
    for seconds in (1, 10, 15, 60):
        script = DemoScript.lasting(seconds)
        assert script.seconds >= seconds
        assert script.exchanges == 0 or DemoScript(script.exchanges - 1).seconds < seconds


def test_the_last_response_is_the_goodbye_and_hangs_up() -> None:
    script = DemoScript(2)
    agent = script.agent(0)
    assert agent.hang_up_after == script.responses == 3
    assert agent.audio_of(1, asked=True) == speech.load("hello-world")
    assert agent.audio_of(3, asked=False) == speech.load("thanks")
    assert agent.agent_words[2] == speech.WORDS["thanks"]


def test_sessions_have_different_words_and_chunks() -> None:
    first, second = DemoScript(2).agent(0), DemoScript(2).agent(2)
    assert first.audio_of(2, asked=False) != second.audio_of(2, asked=False)
    assert first.chunks(first.greeting, 0, 1) != second.chunks(second.greeting, 0, 1)
    assert DemoScript(2).phrase(0, 0) != DemoScript(2).phrase(1, 0)


def test_every_third_agent_looks_something_up_before_its_first_answer() -> None:
    agents = [DemoScript(2).agent(session) for session in range(6)]
    assert [[call.name for calls in agent.calls.values() for call in calls] for agent in agents] == [[], [TOOL], []] * 2
    agent, plain = agents[1], agents[0]
    assert [bool(agent.audio_of(n, asked=True)) for n in (1, 2, 3, 4)] == [True, False, True, True]
    assert (agent.hang_up_after, agent.audio_of(4, asked=True)) == (4, plain.audio_of(3, asked=True))
    assert agent.audio_of(3, asked=True) == speech.load("hold-on"), "the answer has the result: an extension"
    assert agent.agent_words == (speech.WORDS["hello-world"], "", speech.WORDS["hold-on"], speech.WORDS["thanks"])
    short = DemoScript(1).agent(1)
    assert short.audio_of(3, asked=True) == speech.load("thanks")
    assert short.agent_words == (speech.WORDS["hello-world"], "", speech.WORDS["thanks"])
    assert not DemoScript(0).agent(1).calls

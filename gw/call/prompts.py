"""Texts of the system items that announce a requested response to the agent.

They are instructions: the agent finds its own words, in the language of the conversation.
"""

from __future__ import annotations

from typing import Final

from gw.call.dialogue.commands import Prompt
from gw.config import Greeting

_NOTE: Final = "Note from the telephone system, not from the caller. Do not read it out; speak the language of the conversation. "

_TEXTS: Final = {
    Prompt.ANSWER: "",
    Prompt.FILLER: "A tool takes a moment. Say only the following to the caller, and nothing about the tool's result:",
    Prompt.RETURN: (
        "The line broke off for a moment and is back. Mention that in a few words, and continue where the conversation stopped."
    ),
    Prompt.RETURNED: (
        "A transfer of the caller did not succeed, and the caller is back. Mention that in a few words, and continue the "
        "conversation."
    ),
    Prompt.CONTINUE: (
        "A technical fault cut off your last sentence. Continue where it broke off, without repeating your words or mentioning "
        "the fault."
    ),
    Prompt.REPEAT: (
        "A technical fault swallowed the caller's last words. Apologise in a few words, and ask the caller to repeat them."
    ),
    Prompt.ARE_YOU_THERE: (
        "Neither of you has spoken for a while. Ask in one short sentence whether the caller is still there, in other words than "
        "before."
    ),
    Prompt.GOODBYE: (
        "You are ending the call without a goodbye. Say goodbye now, in one short sentence. Ask nothing, and use no tool."
    ),
    Prompt.CLOSING: (
        "The call ends now. Explain that and say goodbye, in two short sentences at most. Ask nothing, since no answer can be "
        "heard, and use no tool."
    ),
}


_NO_GREETING: Final = Greeting()
#: Before the words of a greeting that the agent speaks verbatim.
_SAY: Final = (
    "Note from the telephone system, not from the caller. Say exactly the following words, without adding, leaving out or "
    "translating any: "
)


def text_of(prompt: Prompt, words: Greeting = _NO_GREETING) -> str:
    """Return the text of the system item before a requested response; empty: none. `filler_of` has that of a filler.

    `words`: the agent's greeting. Its instructions are sent unchanged. The agent says the words of a recording that is missing.
    """
    if prompt is Prompt.GREETING:
        given = words.say or words.text
        return _SAY + given if given else words.prompt
    text = _TEXTS[prompt]
    return text and _NOTE + text


def may_use_tools(prompt: Prompt, words: Greeting) -> bool:
    """Return whether a requested response may call tools: not while it speaks given words."""
    return not (prompt is Prompt.GREETING and (words.say or words.text))


def budget_warning() -> str:
    """Return the text of the warning before a budget is spent. It requests no response."""
    return (
        f"{_NOTE}The call is cut off soon, because it nears its limit. Start nothing new, and lead the conversation to its end "
        "with your next answers."
    )


def filler_of(text: str) -> str:
    """Return the system item before a response that bridges the wait for a tool. `text`: the agent's words."""
    return f"{text_of(Prompt.FILLER)} {text}"


def result_of(tool: str, output: str) -> str:
    """Return the system item with the result of a tool that ran in the background."""
    return (
        f"{_NOTE}The tool {tool}, which ran in the background, has ended. The caller needs what matters of its output: {output}"
    )


def warning_of(left_ms: int) -> str:
    """Return the text of the warning before the longest call ends. It requests no response."""
    return (
        f"{_NOTE}The call is cut off in {round(left_ms / 1000)} seconds. Start nothing new, and lead the conversation to its end "
        "with your next answers."
    )

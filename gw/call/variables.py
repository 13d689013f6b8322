"""Variables in an agent's texts: `{{name}}` is replaced by its value, literally and once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gw.config import CALL_VARIABLES, MAX_VARIABLE_CHARS, VARIABLE_NAME, Agent, Greeting, Route

_PLACE: Final = re.compile(rf"\{{\{{({VARIABLE_NAME})\}}\}}")
#: Control characters of a caller's number or name: a line of its own would look like an instruction.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MAX_CHARS: Final = 200


#: Prefix of a variable in the query of an outbound call's webhook, and in its stream's parameters.
PREFIX: Final = "var_"


def given(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in a URL's query or a stream's parameters: those of an outbound call."""
    named = {name.removeprefix(PREFIX): value for name, value in parameters.items() if name.startswith(PREFIX)}
    return {name: value for name, value in named.items() if re.fullmatch(VARIABLE_NAME, name) and name not in CALL_VARIABLES}


def with_given(route: Route, parameters: Mapping[str, str]) -> Route:
    """Return the route with an outbound call's variables beside its own. `parameters`: a URL's query, or a stream's."""
    more = given(parameters)
    return msgspec.structs.replace(route, variables={**route.variables, **more}) if more else route


def carried(query: Mapping[str, str]) -> dict[str, str]:
    """Return the dial and the variables that every stream of an outbound call has.

    `query`: of a URL, or a stream's parameters.
    """
    dial = {"dial": query["dial"][:_MAX_CHARS]} if query.get("dial") else {}
    return {**dial, **{f"{PREFIX}{name}": value[:MAX_VARIABLE_CHARS] for name, value in given(query).items()}}


def plain(text: str) -> str:
    """Return text of a peer on one line, within a bound."""
    return _CONTROL.sub(" ", text)[:_MAX_CHARS].strip()


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace every variable by its value; one without a value by nothing. A value is not searched again."""
    return _PLACE.sub(lambda found: values.get(found[1], ""), text) if "{{" in text else text


def fill_agent(agent: Agent, values: Mapping[str, str]) -> Agent:
    """Return the agent with its instructions and greeting filled."""
    words = agent.greeting
    if isinstance(words, Greeting):
        given = {name: fill(getattr(words, name), values) for name in ("prompt", "say", "text")}
        words = msgspec.structs.replace(words, **given)
    else:
        words = fill(words, values)
    instructions = fill(agent.instructions, values)
    if (instructions, words) == (agent.instructions, agent.greeting):
        return agent
    return msgspec.structs.replace(agent, instructions=instructions, greeting=words)


def named(agent: Agent) -> frozenset[str]:
    """Return the variables that an agent's texts name."""
    words = agent.first_words
    return frozenset(name for text in (agent.instructions, words.prompt, words.say, words.text) for name in _PLACE.findall(text))

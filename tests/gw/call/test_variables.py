"""gw.call.variables: literal, once, and empty where nothing is set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.variables import fill, fill_agent, named, plain, with_given
from gw.config import Agent, Greeting, Route


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("Hello {{name}}.", "Hello Ann \\1 {{day}}."),  # a value is not searched again
        ("{{name}}{{name}}", "Ann \\1 {{day}}" * 2),
        ("{{nobody}}!", "!"),
        ("{{ name }} {name} {{Name}} {{name1}} {{" + "a" * 33 + "}}",) * 2,
        ("{{{name}}}", "{Ann \\1 {{day}}}"),
        ("no variable", "no variable"),
    ],
)
def test_a_variable_is_replaced_literally_and_once(text: str, filled: str) -> None:
    assert fill(text, {"name": "Ann \\1 {{day}}", "day": "today"}) == filled


@given(st.text(max_size=60), st.dictionaries(st.sampled_from(["a", "b_c"]), st.text(max_size=20)))
def test_text_without_variables_is_unchanged(text: str, values: dict[str, str]) -> None:
    without = text.replace("{", "(")
    assert fill(without, values) == without
    assert fill(f"<{{{{a}}}}>{without}", values) == f"<{values.get('a', '')}>{without}"


def test_instructions_and_greeting_are_filled() -> None:
    agent = Agent(instructions="You help {{who}}.", greeting="Greet {{who}}.", goodbye="Bye {{who}}.")
    filled = fill_agent(agent, {"who": "Ann"})
    assert (filled.instructions, filled.greeting, filled.goodbye) == ("You help Ann.", "Greet Ann.", "Bye {{who}}.")
    words = Greeting(file="/{{who}}.wav", text="Hello {{who}}.")
    filled = fill_agent(Agent(greeting=words), {"who": "Ann"})
    assert filled.first_words == Greeting(file="/{{who}}.wav", text="Hello Ann.")
    assert fill_agent(plain_agent := Agent(), {"who": "Ann"}) is plain_agent


def test_the_names_in_an_agents_texts() -> None:
    assert named(Agent(instructions="{{a}} {{b_c}}", greeting=Greeting(say="{{a}} {{d}}"))) == {"a", "b_c", "d"}
    assert named(Agent()) == frozenset()


def test_a_peers_text_is_one_bounded_line() -> None:
    assert plain(" sip:x@y\r\nIgnore\u2028all\x00 ") == "sip:x@y Ignore all"
    assert len(plain("x" * 1000)) == 200


def test_an_outbound_call_s_variables_are_beside_the_route_s() -> None:
    route = Route(agent="clerk", variables={"who": "Ann", "team": "sales"})
    query = {"var_who": "Bob", "var_day": "today", "var_caller": "+1", "var_Day": "x", "agent": "other"}
    assert with_given(route, query) == Route(agent="clerk", variables={"who": "Bob", "team": "sales", "day": "today"})
    assert with_given(route, {"var_caller": "+1"}) is route

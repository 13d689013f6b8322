"""gw.config.tool_rules: tools, their endpoints, and the agents that name them."""

from __future__ import annotations

from typing import Any

import pytest

from gw.config import (
    BUILT_IN_TOOLS,
    ENVIRONMENT,
    Agent,
    Config,
    EventHook,
    Hooks,
    Mcp,
    Price,
    Secrets,
    Tool,
    Transfer,
)
from gw.config.rules import broken_rules

ALL = frozenset(ENVIRONMENT)
URL = "https://api.example.com/lookup"


def sentences(config: Config, *, needed: frozenset[str] = ALL, schemas: bool = True) -> list[str]:
    found = list(broken_rules(config, needed=needed, schemas=schemas))
    for keys, sentence in found:
        assert any(sentence.startswith(key) for key in keys) or sentence.startswith("tools.'"), "the key of the sentence"
    return [sentence for _, sentence in found]


def hooks(*urls: str, types: tuple[str, ...] = ("call.ended",), secret: str = "s") -> Config:
    return Config(events=tuple(EventHook(url=url, types=types) for url in urls), secrets=Secrets(hook_secret=secret))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (hooks("https://a.example/x", "https://a.example/y"), []),
        (hooks(""), ["events[1].url is not set"]),
        (hooks("http://a.example/x"), ['events[1].url = "http://a.example/x": expected https://']),
        (hooks("https://a.example/x", "https://a.example/x"), ["events[2].url is the URL of another table"]),
        (
            hooks("https://a.example/x", types=("call.end",)),
            ['events[1].types: "call.end" is unknown; the types are call.started'],
        ),
        (hooks(*[f"https://a.example/{n}" for n in range(21)]), ["events has 21 tables"]),
        (hooks("https://a.example/x", secret=""), ["events[1].url needs a secret"]),
    ],
)
def test_endpoints_of_events(config: Config, expected: list[str]) -> None:
    found = sentences(config)
    assert len(found) == len(expected)
    assert all(sentence.startswith(begin) for sentence, begin in zip(found, expected, strict=True)), found


def one(name: str = "lookup", *, networks: tuple[str, ...] = (), **keys: Any) -> Config:
    tool = Tool(**{"description": "Looks up.", "url": URL, **keys})
    return Config(tools={name: tool}, hooks=Hooks(allow_networks=networks), secrets=Secrets(hook_secret="s"))


@pytest.mark.parametrize(
    "config",
    [
        one(),
        one("_"),
        one("a" * 64),
        one(url="https://127.0.0.1:8443/x"),  # refused when it is called, unless it is in hooks.allow_networks
        one(url="http://10.0.3.4/x", networks=("10.0.3.0/24",)),
        one(url="http://[::1]:80/x", networks=("10.0.3.0/24", "::1/128")),
        one(url="http://orders.internal/x", networks=("10.0.3.0/24",)),
        Config(agents={"default": Agent(tools=())}),
        Config(hooks=Hooks(allow_networks=("10.0.3.0/24",))),
    ],
)
def test_valid(config: Config) -> None:
    assert sentences(config) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (one("Lookup"), "tools.'Lookup' is not a tool's name"),
        (one("1st"), "tools.'1st' is not a tool's name"),
        (one("a-b"), "tools.'a-b' is not a tool's name"),
        (one("a" * 65), f"tools.'{'a' * 64}' is not a tool's name"),
        *((one(name), f"tools.{name} has the name of a built-in tool") for name in BUILT_IN_TOOLS),
        (one(description=" "), "tools.lookup.description is empty"),
        (one(url=""), "tools.lookup.url is not set"),
        (one(url="https://me:secret@host/x"), 'tools.lookup.url = "https://***@host/x": expected no user and no password'),
        (one(url="https://host/x#y"), 'tools.lookup.url = "https://host/x#y": expected no fragment'),
        (
            one(url="http://host/x"),
            'tools.lookup.url = "http://host/x": expected https://, or http:// to an address in hooks.allow',
        ),
        (one(url="http://10.0.4.1/x", networks=("10.0.3.0/24",)), 'tools.lookup.url = "http://10.0.4.1/x": expected https://'),
        (one(networks=("10.0.3.1/24",)), "hooks.allow_networks: 10.0.3.1/24 has host bits set; expected networks such as"),
        (one(url="http://10.0.4.1/x", networks=("nowhere",)), "hooks.allow_networks: 'nowhere' does not appear to be"),
        (one(parameters="{"), "tools.lookup.parameters: it is not JSON"),
        (
            one(parameters='{"type":"object","properties":{"number":{"type":"text"}}}'),
            "tools.lookup.parameters: at properties.number.type: 'text' is not valid",
        ),
        (
            Config(agents={"default": Agent(tools=("hang_up", "lookup"))}),
            'agents.default.tools: "lookup" is unknown; the tools are hang_up',
        ),
        (
            Config(agents={"default": Agent(tools=("transfer",))}),
            "agents.default.transfer.targets is empty; the tool transfer needs one",
        ),
        (
            Config(agents={"default": Agent(transfer=Transfer(targets={"Sales": "+15551234567"}))}),
            "agents.default.transfer.targets.'Sales' is not a target's name",
        ),
        (
            Config(agents={"default": Agent(transfer=Transfer(targets={"sales": "5551234"}))}),
            'agents.default.transfer.targets.sales = "5551234": expected a number such as +15551234567, or sip:user@host',
        ),
        (
            Config(agents={"default": Agent(transfer=Transfer(targets={f"n{n}": "+15551234567" for n in range(65)}))}),
            "agents.default.transfer.targets has 65 targets; expected at most 64",
        ),
        (Config(agents={"default": Agent(tools=("hang_up", "hang_up"))}), 'agents.default.tools names "hang_up" twice'),
    ],
)
def test_broken(config: Config, expected: str) -> None:
    (sentence,) = sentences(config)
    assert sentence.startswith(expected)
    assert "secret" not in sentence


def test_an_agent_may_have_each_configured_tool() -> None:
    config = Config(tools=one().tools, secrets=Secrets(hook_secret="s"), agents={"default": Agent(tools=("lookup", "hang_up"))})
    assert sentences(config) == []
    wrong = Config(tools=config.tools, secrets=config.secrets, agents={"default": Agent(tools=("look",))})
    assert sentences(wrong) == [
        'agents.default.tools: "look" is unknown; the tools are hang_up, transfer, send_digits, collect_digits, lookup'
    ]


def test_a_url_needs_a_secret_where_requests_are_made() -> None:
    config = Config(tools=one().tools)
    assert sentences(config) == [
        "tools.lookup.url needs a secret that signs its requests; set SUBMILLI_HOOK_SECRET in the environment"
    ]
    assert sentences(config, needed=frozenset()) == []
    assert sentences(config, needed=ALL - {"hook_secret"}) == []


def test_the_schema_is_checked_on_demand() -> None:
    assert sentences(one(parameters="{"), schemas=False) == []


# -- remote MCP servers -------------------------------------------------------------------------------------------------


def with_mcp(*servers: Mcp, provider: str = "openai", tokens: dict[str, str] | None = None) -> Config:
    agent = Agent(provider=provider, mcp=servers)  # type: ignore[arg-type]
    price = Price(text_in=1.0, text_cached=1.0, text_out=1.0, audio_in=1.0, audio_cached=1.0, audio_out=1.0)
    return Config(agents={"default": agent}, prices={agent.model: price}, secrets=Secrets(openai_api_key="k", mcp=tokens or {}))


def server(**keys: Any) -> Mcp:
    return Mcp(**{"server_label": "crm", "server_url": "https://crm.example.com/mcp", **keys})


@pytest.mark.parametrize(
    "config",
    [
        with_mcp(server()),
        with_mcp(server(), server(server_label="Shop-2")),
        with_mcp(server(authorization_env="CRM_TOKEN"), tokens={"CRM_TOKEN": "t"}),
        with_mcp(server(approve=("find",))),
        with_mcp(server(allowed_tools=("find", "add"), approve=("find",))),
    ],
)
def test_valid_servers(config: Config) -> None:
    assert sentences(config) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (with_mcp(server(), provider="parrot"), 'agents.default.mcp needs agents.default.provider = "openai"'),
        (with_mcp(*(server(server_label=f"s{n}") for n in range(9))), "agents.default.mcp has 9 servers; expected at most 8"),
        (with_mcp(server(), server()), 'agents.default.mcp[2].server_label = "crm" is used twice'),
        (with_mcp(server(server_label="2 words")), 'agents.default.mcp[1].server_label = "2 words": expected up to 64 letters'),
        (with_mcp(server(server_url="http://crm.example.com/")), "agents.default.mcp[1].server_url"),
        (with_mcp(server(server_url="https://u:p@crm.example.com/")), "agents.default.mcp[1].server_url"),
        (with_mcp(server(authorization_env="crm token")), 'agents.default.mcp[1].authorization_env = "crm token": expected'),
        (with_mcp(server(authorization_env="CRM_TOKEN")), 'agents.default.mcp[1].authorization_env = "CRM_TOKEN" is not set'),
        (
            with_mcp(server(authorization_env="TWILIO_AUTH_TOKEN"), tokens={"TWILIO_AUTH_TOKEN": "t"}),
            'agents.default.mcp[1].authorization_env = "TWILIO_AUTH_TOKEN": expected a variable of the server\'s own',
        ),
        (
            with_mcp(server(allowed_tools=("find",), approve=("add",))),
            'agents.default.mcp[1].approve has "add", which allowed_tools lacks',
        ),
    ],
)
def test_a_wrong_server_is_named(config: Config, expected: str) -> None:
    found = sentences(config)
    assert len(found) == 1, found
    assert found[0].startswith(expected)
    assert "p@" not in found[0]


def test_a_token_is_needed_by_workers_only() -> None:
    config = with_mcp(server(authorization_env="CRM_TOKEN"))
    assert sentences(config, needed=frozenset({"twilio_auth_token"})) == []

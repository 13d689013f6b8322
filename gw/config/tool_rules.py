"""Checks of tools and of the endpoints they call. Yields the keys involved and a sentence, like `gw.config.rules`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from gw.config import (
    BUILT_IN_TOOLS,
    DIALLED,
    EVENT_TYPES,
    MAX_MCP,
    Agent,
    Config,
    EventHook,
    Mcp,
    Tool,
    field_of,
)
from gw.config.hook_url import HookUrl, Network, is_within, parse_hook_url, parse_networks, shown
from gw.config.json_schema import Schema, SchemaError

#: Source: OpenAI API, names of functions; the letters of capitals are left out, so that two names differ in more than case.
_TOOL_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,63}")

#: Targets of an agent's transfers: the model reads all their names.
MAX_TARGETS: Final = 64

#: Endpoints of events: each has connections, and a job for each event.
MAX_EVENT_HOOKS: Final = 20


#: A label is part of the API's names of tools; a variable, of a file's name too.
_LABEL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


def broken_tool_rules(config: Config, *, needed: frozenset[str], schemas: bool) -> Iterator[tuple[set[str], str]]:
    """Yield every broken rule. Parameters as of `gw.config.rules.broken_rules`."""
    networks: tuple[Network, ...] | None = None
    try:
        networks = parse_networks(config.hooks.allow_networks)
    except ValueError as error:
        key = "hooks.allow_networks"
        yield {key}, f"{key}: {error}; expected networks such as 10.0.3.0/24 or fd00:3::/64, with all host bits zero"
    for name, tool in config.tools.items():
        yield from _tool(f"tools.{name}", name, tool, networks, schemas=schemas)
    if len(config.events) > MAX_EVENT_HOOKS:
        yield {"events"}, f"events has {len(config.events)} tables; expected up to {MAX_EVENT_HOOKS}"
    for n, hook in enumerate(config.events, 1):
        yield from _event_hook(f"events[{n}]", hook, networks)
        if hook.url in [other.url for other in config.events[: n - 1]]:
            yield {f"events[{n}].url"}, f"events[{n}].url is the URL of another table; join the two"
    if config.route.url and (problem := url_problem(config.route.url, networks)) is not None:
        yield {"route.url", "hooks.allow_networks"}, f"route.url{problem}"
    tables = [*(f"tools.{name}" for name in config.tools), *(["events[1]"] if config.events else [])]
    tables += ["route"] if config.route.url else []
    if tables and "hook_secret" in needed and not config.secrets.hook_secret:
        table = tables[0]
        yield (
            {"tools", "events", table, f"{table}.url"},
            f"{table}.url needs a secret that signs its requests; set SUBMILLI_HOOK_SECRET in the environment",
        )
    yield from _tools_of_agents(config)
    for name, agent in config.agents.items():
        yield from _transfer(f"agents.{name}", agent)
        yield from _mcp_of_agent(config, f"agents.{name}", agent, is_needed="openai_api_key" in needed)


def _tool(
    path: str, name: str, tool: Tool, networks: tuple[Network, ...] | None, *, schemas: bool
) -> Iterator[tuple[set[str], str]]:
    if not _TOOL_NAME.fullmatch(name):
        yield (
            {path},
            f"tools.{name[:64]!r} is not a tool's name; expected up to 64 lower-case letters, digits and _, no digit first",
        )
    elif name in BUILT_IN_TOOLS:
        yield {path}, f"{path} has the name of a built-in tool; choose another"
    if not tool.description.strip():
        yield {path, f"{path}.description"}, f"{path}.description is empty; describe the tool for the AI"
    if (problem := url_problem(tool.url, networks)) is not None:
        yield {path, f"{path}.url", "hooks.allow_networks"}, f"{path}.url{problem}"
    if schemas:
        try:
            Schema(tool.parameters)
        except SchemaError as error:
            yield {path, f"{path}.parameters"}, f"{path}.parameters: {error}"


def _event_hook(path: str, hook: EventHook, networks: tuple[Network, ...] | None) -> Iterator[tuple[set[str], str]]:
    if (problem := url_problem(hook.url, networks)) is not None:
        yield {path, f"{path}.url", "hooks.allow_networks"}, f"{path}.url{problem}"
    for name in hook.types:
        if name not in EVENT_TYPES:
            yield {f"{path}.types"}, f'{path}.types: "{name[:50]}" is unknown; the types are {", ".join(EVENT_TYPES)}'


def url_problem(text: str, networks: tuple[Network, ...] | None) -> str | None:
    """Return the end of a sentence that begins with the URL's key, or None.

    `networks` None: not known.
    """
    if not text:
        return " is not set; set the https:// URL of the endpoint"
    try:
        url = parse_hook_url(text)
    except ValueError as error:
        return f' = "{shown(text)}": expected {error}'
    if url.scheme == "http" and networks is not None and not _may_be_within(url, networks):
        return f' = "{shown(text)}": expected https://, or http:// to an address in hooks.allow_networks'
    return None


def _may_be_within(url: HookUrl, networks: tuple[Network, ...]) -> bool:
    """Return whether a host may be in one of the networks. A name is resolved only when the endpoint is called."""
    try:
        return is_within(ipaddress.ip_address(url.host), networks)
    except ValueError:
        return bool(networks)


def _tools_of_agents(config: Config) -> Iterator[tuple[set[str], str]]:
    known = [*BUILT_IN_TOOLS, *config.tools]
    for name, agent in config.agents.items():
        key = f"agents.{name}.tools"
        for tool in dict.fromkeys(agent.tools):
            if tool not in known:
                yield {key, "tools"}, f'{key}: "{tool}" is unknown; the tools are {", ".join(known)}'
            elif agent.tools.count(tool) > 1:
                yield {key}, f'{key} names "{tool}" twice; remove one'


def _transfer(path: str, agent: Agent) -> Iterator[tuple[set[str], str]]:
    key, targets = f"{path}.transfer.targets", agent.transfer.targets
    if "transfer" in agent.tools and not targets:
        yield {key, f"{path}.tools"}, f'{key} is empty; the tool transfer needs one, for example {{ sales = "+15551234567" }}'
    if len(targets) > MAX_TARGETS:
        yield {key}, f"{key} has {len(targets)} targets; expected at most {MAX_TARGETS}"
    for name, to in targets.items():
        if not _TOOL_NAME.fullmatch(name):
            shown_name = name[:64]
            yield {key}, f"{key}.{shown_name!r} is not a target's name; expected up to 64 lower-case letters, digits and _"
        if not DIALLED.fullmatch(to):
            yield {f"{key}.{name}", key}, f'{key}.{name} = "{to[:60]}": expected a number such as +15551234567, or sip:user@host'


def _mcp_of_agent(config: Config, path: str, agent: Agent, *, is_needed: bool) -> Iterator[tuple[set[str], str]]:
    key = f"{path}.mcp"
    if agent.mcp and agent.provider != "openai":
        yield (
            {key, f"{path}.provider"},
            f'{key} needs {path}.provider = "openai"; an agent of another provider cannot call servers',
        )
    if len(agent.mcp) > MAX_MCP:
        yield {key}, f"{key} has {len(agent.mcp)} servers; expected at most {MAX_MCP}"
    labels = [server.server_label for server in agent.mcp]
    for n, server in enumerate(agent.mcp, 1):
        yield from _mcp(config, f"{key}[{n}]", server, is_needed=is_needed)
        if labels.index(server.server_label) < n - 1:
            yield (
                {f"{key}[{n}].server_label"},
                f'{key}[{n}].server_label = "{server.server_label[:64]}" is used twice; choose another',
            )


def _mcp(config: Config, path: str, server: Mcp, *, is_needed: bool) -> Iterator[tuple[set[str], str]]:
    if not _LABEL.fullmatch(server.server_label):
        key, shown_label = f"{path}.server_label", server.server_label[:64]
        yield {key}, f'{key} = "{shown_label}": expected up to 64 letters, digits, _ and -, a letter first'
    key = f"{path}.server_url"
    try:
        scheme = parse_hook_url(server.server_url).scheme
    except ValueError as error:
        yield {key}, f'{key} = "{shown(server.server_url)}": expected {error}'
    else:
        if scheme != "https":
            yield {key}, f'{key} = "{shown(server.server_url)}": expected https://, since the provider calls it over the internet'
    key, variable = f"{path}.authorization_env", server.authorization_env
    if variable and not _VARIABLE.fullmatch(variable):
        yield {key}, f'{key} = "{variable[:64]}": expected the name of an environment variable, in capitals'
    elif variable and field_of(variable) is not None:
        yield {key}, f'{key} = "{variable}": expected a variable of the server\'s own; this one is a secret of the gateway'
    elif variable and is_needed and not config.secrets.mcp.get(variable):
        yield {key}, f'{key} = "{variable}" is not set; set {variable} in the environment'
    strange = [name for name in server.approve if server.allowed_tools and name not in server.allowed_tools]
    if strange:
        yield {f"{path}.approve", f"{path}.allowed_tools"}, f'{path}.approve has "{strange[0]}", which allowed_tools lacks'

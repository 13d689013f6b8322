"""Checks that involve several keys: addresses, URLs, credentials, agents.

Each rule yields the keys involved and a sentence; `gw.config.load` drops sentences about keys that already failed. No rule opens,
resolves or connects anything.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from gw.config import ACCOUNT_ENVIRONMENT, DIALLED, AccountSecrets, Agent, Config, Consent, Greeting, host_and_port
from gw.config.outbound_rules import broken_outbound_rules
from gw.config.route_rules import Broken, broken_route_rules
from gw.config.store_url import parse_store_url
from gw.config.tool_rules import broken_tool_rules
from gw.errors import ConfigError

_ACCOUNT_SID: Final = re.compile(r"AC[0-9a-fA-F]{32}")
#: A subaccount's name is part of the variables of its secrets; `old` would be that of the main account's former token.
_ACCOUNT_NAME: Final = re.compile(r"(?!(?:.*_)?old$)[a-z][a-z0-9_]{0,31}")
#: Accounts besides the main one. The upgrade of a media socket names no account, so its signature is checked for each.
MAX_SUBACCOUNTS: Final = 15
#: An agent's name is part of a URL and of a stream's parameters.
_AGENT_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: An option of a database URL that is a password; PyMySQL has two names for it.
_PASSWORD_OPTION: Final = re.compile(r"([?&][^=&]*pass(?:word|wd)?[^=&]*=)[^&]*", re.IGNORECASE)
#: `sun_path` of unix(7), less the closing zero byte.
_SOCKET_PATH_BYTES: Final = 107
#: The longest name of a socket in var_dir.
_BUS_SOCKET: Final = "bus.sock"


def broken_rules(config: Config, *, needed: frozenset[str], schemas: bool = True) -> Iterator[Broken]:
    """Yield every broken rule.

    `needed`: the secrets that may not be missing, a running gateway's; fields of Secrets. `schemas`: whether the schemas of tools
    are checked, which imports a library that a worker does without.
    """
    yield from _addresses(config)
    yield from _proxies(config)
    yield from _public_url(config)
    yield from _twilio(config, needed)
    yield from _subaccounts(config, needed)
    yield from _ops(config, needed)
    yield from _overflow(config)
    yield from _store(config)
    yield from _sockets(config)
    yield from _agents(config, needed)
    yield from broken_tool_rules(config, needed=needed, schemas=schemas)
    yield from _consent(config)
    yield from _budget(config)
    yield from broken_route_rules(config)
    yield from broken_outbound_rules(config)


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address or `localhost`. An empty host means every interface."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_password(url: str) -> str:
    """Replace the password in a URL, after the user or in an option, by ***."""
    shown = re.sub(r"^([a-z0-9+.-]+://[^:/@]*):.*@", r"\1:***@", url, flags=re.IGNORECASE)
    return _PASSWORD_OPTION.sub(r"\1***", shown)


def _addresses(config: Config) -> Iterator[Broken]:
    places = {}
    for key, listen in (("server.listen", config.server.listen), ("ops.listen", config.ops.listen)):
        try:
            places[key] = host_and_port(listen)
        except ValueError as error:
            yield {key}, f"{key}: {error}"
    if len(places) == 2 and places["server.listen"] == places["ops.listen"] and places["ops.listen"][1]:
        keys = set(places)
        yield keys, f'ops.listen = "{config.ops.listen}" is also the address of server.listen; use another port'


def _proxies(config: Config) -> Iterator[Broken]:
    for network in config.server.proxy_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield {"server.proxies"}, f'server.proxies: "{network}" is not a network, for example 10.0.0.0/24 or 2001:db8::/48'


def _is_local(listen: str) -> bool:
    """Return whether an address is on loopback. True also for an invalid one, which has its own error."""
    try:
        return is_loopback(host_and_port(listen)[0])
    except ValueError:
        return True


def _public_url(config: Config) -> Iterator[Broken]:
    key, text = "server.public_url", config.server.public_url
    outside = not _is_local(config.server.listen)
    if text:
        url = _url(text)
        plain = text.startswith(("http://", "https://")) and not re.search(r"\s", text)  # paths are appended to it unchanged
        if url is None or not plain or url.query or url.fragment or url.username is not None:
            yield {key}, f'{key} = "{without_password(text)}": expected https://host, with or without a path'
        elif url.scheme != "https" and not is_loopback(url.hostname or ""):
            yield {key}, f'{key} = "{text}": expected https://, by which Twilio opens media streams; http:// only for loopback'
        elif outside and url.scheme != "https":
            yield {key, "server.listen"}, f'{key} = "{text}": expected https://, because server.listen is not a loopback address'
    elif outside:
        yield {key, "server.listen"}, f"{key} is not set; set the https:// URL by which Twilio reaches this gateway"


def _twilio(config: Config, needed: frozenset[str]) -> Iterator[Broken]:
    account = config.twilio.account_sid
    if account and not _ACCOUNT_SID.fullmatch(account):
        yield {"twilio.account_sid"}, _not_a_sid("twilio.account_sid", account)
    url = _url(config.twilio.api_base)
    if url is None or not (url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))):
        shown = without_password(config.twilio.api_base)
        yield {"twilio.api_base"}, f'twilio.api_base = "{shown}": expected https://host, or http:// on loopback'
    if "twilio_auth_token" not in needed:
        return
    if account and _ACCOUNT_SID.fullmatch(account) and not config.secrets.twilio_auth_token:
        yield {"twilio.account_sid"}, "twilio.account_sid is set without a token; set TWILIO_AUTH_TOKEN in the environment"
    elif not config.signed and not _is_local(config.server.listen):
        yield (
            {"server.listen", "twilio.account_sid"},
            f'server.listen = "{config.server.listen}" is not a loopback address, and without Twilio credentials anyone could '
            "place calls; set twilio.account_sid, and TWILIO_AUTH_TOKEN in the environment, or listen on 127.0.0.1:8080",
        )


def _subaccounts(config: Config, needed: frozenset[str]) -> Iterator[Broken]:
    accounts = config.twilio.accounts
    if accounts and not config.twilio.account_sid:
        yield {"twilio.account_sid", "twilio.accounts"}, "twilio.accounts needs twilio.account_sid, the main account"
    if len(accounts) > MAX_SUBACCOUNTS:
        yield {"twilio.accounts"}, f"twilio.accounts has {len(accounts)} accounts; at most {MAX_SUBACCOUNTS} are allowed"
    sids = {config.twilio.account_sid.lower(): "twilio.account_sid"}
    secrets = dict.fromkeys(_signing(config.secrets), "twilio")
    for name, account in accounts.items():
        path, key = f"twilio.accounts.{name}", f"twilio.accounts.{name}.account_sid"
        if not _ACCOUNT_NAME.fullmatch(name):
            yield (
                {path},
                f"twilio.accounts.{name[:64]!r} is not an account's name; expected at most 32 lower-case letters, digits and _, "
                "with a letter first and without _old at the end",
            )
            continue
        if not _ACCOUNT_SID.fullmatch(account.account_sid):
            yield {key}, _not_a_sid(key, account.account_sid)
        elif (other := sids.setdefault(account.account_sid.lower(), key)) != key:
            yield {key, other}, f"{key} is also {other}; each account has its own SID"
        own = config.secrets.accounts.get(name, AccountSecrets())
        if "twilio_auth_token" in needed and not own.twilio_auth_token:
            variable = ACCOUNT_ENVIRONMENT["twilio_auth_token"].format(name.upper())
            yield {key}, f"{path} has no token; set {variable} in the environment"
        for secret in _signing(own):
            if (other := secrets.setdefault(secret, path)) != path:
                yield {path}, f"{path} has a secret of {other}; a signature has to identify the account"


def _signing(secrets: AccountSecrets) -> set[str]:
    """Return the secrets with which Twilio may sign."""
    return {secrets.twilio_auth_token, secrets.twilio_auth_token_old, secrets.twilio_shared_key} - {""}


def _not_a_sid(key: str, text: str) -> str:
    return f"{key} has {len(text)} characters; expected AC and 32 hex digits"


def _ops(config: Config, needed: frozenset[str]) -> Iterator[Broken]:
    if "ops_token" in needed and not config.secrets.ops_token and not _is_local(config.ops.listen):
        yield (
            {"ops.listen"},
            f'ops.listen = "{config.ops.listen}" is not a loopback address, and without a token anyone could read the metrics; '
            "set SUBMILLI_OPS_TOKEN in the environment, or listen on 127.0.0.1:9464",
        )


def _overflow(config: Config) -> Iterator[Broken]:
    overflow = config.overflow
    if overflow.answer != "dial" and not overflow.text and not (overflow.answer == "queue" and overflow.queue):
        yield {"overflow.text"}, "overflow.text is empty; set the text spoken to the caller"
    if overflow.answer == "queue" and not overflow.queue:
        yield {"overflow.queue"}, 'overflow.queue is empty; overflow.answer = "queue" needs the name of a queue'
    if overflow.answer == "dial" and not DIALLED.fullmatch(overflow.dial):
        yield (
            {"overflow.dial"},
            f'overflow.dial = "{overflow.dial[:60]}": expected a number such as +15551234567, or sip:user@host',
        )


def _store(config: Config) -> Iterator[Broken]:
    try:
        parse_store_url(config.store.url)
    except ConfigError as error:
        yield {"store.url"}, str(error)
    keep_days, at_twilio_days = config.store.keep_days, config.recording.keep_days
    if keep_days and at_twilio_days > keep_days:
        yield (
            {"recording.keep_days", "store.keep_days"},
            f"recording.keep_days = {at_twilio_days} is longer than store.keep_days = {keep_days}, and the gateway "
            f"deletes a recording by its call's row; set store.keep_days = {at_twilio_days} or longer, or 0",
        )


def _sockets(config: Config) -> Iterator[Broken]:
    bus = Path(config.ops.var_dir) / _BUS_SOCKET
    for key, path in (("ops.admin_socket", Path(config.ops.admin_socket)), ("ops.var_dir", bus)):
        length = len(os.fsencode(path))
        if length > _SOCKET_PATH_BYTES:
            yield ({key}, f"{key}: the socket path {path} has {length} bytes; at most {_SOCKET_PATH_BYTES} are allowed")


def _agents(config: Config, needed: frozenset[str]) -> Iterator[Broken]:
    if "default" not in config.agents:
        yield {"agents"}, "agents.default is missing; it answers calls that name no agent"
    for name, agent in config.agents.items():
        path = f"agents.{name}"
        if not _AGENT_NAME.fullmatch(name):
            yield {path}, f"agents.{name[:64]!r} is not an agent's name; expected at most 64 letters, digits, - and _"
        yield from _agent(config, path, agent, needed)


def _agent(config: Config, path: str, agent: Agent, needed: frozenset[str]) -> Iterator[Broken]:
    url = _url(agent.base_url)
    local = url is not None and url.scheme == "ws" and is_loopback(url.hostname or "")
    if url is None or not (url.scheme == "wss" or local) or url.username is not None:
        shown = without_password(agent.base_url)
        yield {f"{path}.base_url"}, f'{path}.base_url = "{shown}": expected wss://host/path, or ws:// on loopback'
    elif "openai_api_key" in needed and agent.provider == "openai" and not local and not config.secrets.openai_api_key:
        keys = {f"{path}.provider", f"{path}.base_url"}
        yield keys, f'{path}.provider = "openai" needs a key; set OPENAI_API_KEY in the environment'
    if agent.fallback == "transfer" and not DIALLED.fullmatch(agent.transfer_to):
        shown = agent.transfer_to[:60]
        yield {f"{path}.transfer_to"}, f'{path}.transfer_to = "{shown}": expected a number such as +15551234567, or sip:user@host'
    yield from _greeting(f"{path}.greeting", agent.greeting)
    turns = agent.turns
    if turns.interruptions == "gateway" and turns.resume_after_s * 1000 <= turns.min_speech_ms:
        keys = {f"{path}.turns.resume_after_s", f"{path}.turns.min_speech_ms"}
        yield (
            keys,
            f"{path}.turns.resume_after_s = {turns.resume_after_s:g}: expected more than min_speech_ms = {turns.min_speech_ms}; "
            "shorter speech would interrupt the agent",
        )


def _consent(config: Config) -> Iterator[Broken]:
    notice = config.recording.consent
    if isinstance(notice, Consent) and not notice.is_set:
        yield {"recording.consent"}, "recording.consent has neither file nor text; set one of them, or leave the key out"


def _greeting(key: str, words: str | Greeting) -> Iterator[Broken]:
    if isinstance(words, str):
        return
    given = [name for name in ("prompt", "say", "file") if getattr(words, name)]
    if len(given) != 1:
        shown = " and ".join(given) or "none of them"
        yield {key}, f'{key} has {shown}: expected one of prompt, say and file, or "" to wait for the caller'
    elif words.file and not words.text:
        yield {key}, f"{key}.text is empty; set the words in the file, which the AI and the transcript receive"
    elif words.text and not words.file:
        yield {key}, f"{key}.text has no file; set file, or use say"


def _budget(config: Config) -> Iterator[Broken]:
    """A limit on a cost that is not known would never be reached."""
    if not config.budget.is_limited:
        return
    for name, agent in config.agents.items():
        key = f"agents.{name}.model"
        if agent.provider == "openai" and agent.model not in config.prices:
            model = agent.model[:60]
            yield {key, "prices"}, f'{key} = "{model}" has no price, and [budget] limits its cost; add [prices."{model}"]'


def _url(text: str) -> SplitResult | None:
    """Return the URL's parts; None without a host or with an invalid port."""
    try:
        url = urlsplit(text)
        return url if url.hostname and url.port != 0 else None
    except ValueError:
        return None

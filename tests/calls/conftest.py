"""Worlds of tests: the AI twin, the gateway with a new MariaDB database, and the Twilio twin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import gw.config
from gw.bench.gateway_process import free_ports
from gw.config import Agent
from gw.twin.ai.script import AiScript, conversation
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import TwilioTwin
from tests import schema
from tests.calls.gateway import ACCOUNT, AUTH_TOKEN, PUBLIC_URL, Gateway
from tests.mariadb import PASSWORD, MariaDB


class World:
    """Parts of a world: `twilio` places calls, `ai` has the AI's ledgers, `gateway` store and metrics."""

    def __init__(self, ai: AiTwin, gateway: Gateway, twilio: TwilioTwin) -> None:
        self.ai = ai
        self.gateway = gateway
        self.twilio = twilio


WorldMaker = Callable[..., contextlib.AbstractContextManager[World]]


@contextlib.contextmanager
def open_world(
    var_dir: Path,
    store: gw.config.Store,
    script: AiScript | Callable[[int, str], AiScript],
    *,
    agents: Callable[[AiTwin], Mapping[str, Agent]] = lambda ai: {},
    signed: bool = True,
    **options: Any,
) -> Iterator[World]:
    """Open a world.

    The default agent uses the AI twin. `agents` returns more agents, or another default; `options` are the gateway's.
    """
    rest_port = free_port()
    schema.upgrade_at(store, PASSWORD)
    with (
        AiTwin(script) as ai,
        Gateway(
            var_dir,
            store,
            agent=Agent(provider="openai", base_url=ai.url),
            agents=agents(ai),
            signed=signed,
            **{"api_base": f"http://127.0.0.1:{rest_port}", **options},
        ) as gateway,
        TwilioTwin(
            gateway.url,
            account_sid=ACCOUNT,
            auth_token=AUTH_TOKEN if signed else "",
            public_url=PUBLIC_URL if signed else None,
            rest_port=rest_port,
        ) as twilio,
    ):
        yield World(ai, gateway, twilio)


@pytest.fixture(scope="module")
def shared_store(mariadb_server: MariaDB) -> gw.config.Store:
    """Configuration of a store on a new MariaDB database, for all tests of a module."""
    mariadb_server.start()
    return gw.config.Store(url=mariadb_server.fresh())


@pytest.fixture
def world(tmp_path: Path, mariadb_config: gw.config.Store) -> WorldMaker:
    """Opens worlds: `with world(script, signed=True, agent={...}, **gateway_options) as w`.

    Two worlds at a time need different `var_dir` and `store` options.
    """

    def make(
        script: AiScript | Callable[[int, str], AiScript] | None = None,
        *,
        agent: dict[str, Any] | None = None,
        var_dir: str = "var",
        **options: Any,
    ) -> contextlib.AbstractContextManager[World]:
        def agents(ai: AiTwin) -> dict[str, Agent]:
            return {"default": msgspec.structs.replace(Agent(provider="openai", base_url=ai.url), **(agent or {}))}

        store = options.pop("store", mariadb_config)
        return open_world(tmp_path / var_dir, store, script or conversation(), agents=agents, **options)

    return make


def free_port() -> int:
    """Return a free loopback port."""
    return free_ports(1)[0]

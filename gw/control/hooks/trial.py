"""Calls an endpoint once, outside any telephone call, and keeps the requests and answers: for `tools try` and `hooks try`.

The request is real, and so is its effect; its call has the SID of no call.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Final

import msgspec

from gw.config import Config
from gw.config.hook_url import parse_networks
from gw.control.hooks.client import HookAnswer, HookClient, HookError, HookRequest
from gw.control.hooks.routes import Routes
from gw.control.hooks.tools import Tools
from gw.protocol.hooks import signature
from gw.protocol.hooks.route_call import encode_decision, request_body
from gw.protocol.hooks.tool_call import CallFacts, ToolCall

#: The SID of no call.
SAMPLE_SID: Final = "CA" + "0" * 32
#: Bound on a sample, and on its answer.
SAMPLE_S: Final = 10.0
SAMPLE_BYTES: Final = 65_536


class Exchange(msgspec.Struct, frozen=True):
    """A request as sent, and what came back: `status` and `answer`, or `problem`."""

    url: str
    headers: dict[str, str]
    body: str
    signature_fault: str  # of the check that a receiver makes; empty: valid
    status: int | None
    answer: str
    problem: str
    ms: float


class Trial(msgspec.Struct, frozen=True):
    """The outcome of a trial. `output`: what the AI would be given, or the decision on a route; of a sample, empty."""

    outcome: str
    output: str
    ms: float
    exchanges: list[Exchange]

    @property
    def ok(self) -> bool:
        """True after an answer with 2xx."""
        return self.outcome == "ok"


class _Witness(HookClient):
    """A client that keeps what it sends and receives."""

    def __init__(self, config: Config) -> None:
        self._known = (config.secrets.hook_secret, config.secrets.hook_secret_old)
        super().__init__(self._known, parse_networks(config.hooks.allow_networks))
        self.exchanges: list[Exchange] = []

    def send(self, request: HookRequest, *, deadline_s: float, max_bytes: int) -> HookAnswer:
        began_s = time.monotonic()
        try:
            answer = super().send(request, deadline_s=deadline_s, max_bytes=max_bytes)
        except HookError as error:
            self._keep(request, None, "", str(error), began_s)
            raise
        self._keep(request, answer.status, answer.body.decode("utf-8", "replace"), "", began_s)
        return answer

    def _keep(self, request: HookRequest, status: int | None, answer: str, problem: str, began_s: float) -> None:
        ms = round(1000 * (time.monotonic() - began_s), 1)
        fault = signature.verify(self._known, request.headers[signature.HEADER], request.body, time.time())
        url = f"{request.url.scheme}://{request.url.authority}{request.url.target}"
        self.exchanges.append(Exchange(url, request.headers, request.body.decode(), fault, status, answer, problem, ms))


def try_tool(config: Config, name: str, arguments: str) -> Trial:
    """Call a configured tool as control would. The secrets have to be there."""
    witness = _Witness(config)
    tools = Tools(config, witness)
    facts = CallFacts(
        sid=SAMPLE_SID,
        agent="default",
        direction="inbound",
        from_="+15550000000",
        to="+15550000001",
        started_at=_now(),
    )
    body = ToolCall(id=f"{SAMPLE_SID}/1/try_{secrets.token_hex(8)}", tool=name, arguments=arguments, call=facts)
    began_s = time.monotonic()
    answer = tools.call(body, attempt=1, deadline_s=began_s + config.tools[name].timeout_s)
    return Trial(answer.status, answer.output, round(1000 * (time.monotonic() - began_s), 1), witness.exchanges)


def try_hook(config: Config, url: str) -> Trial:
    """Send a signed sample to an endpoint. The secrets have to be there. Raises ValueError for an invalid URL."""
    witness = _Witness(config)
    identifier = f"evt_try_{secrets.token_hex(8)}"
    content = {"v": 1, "id": identifier, "type": "hook.test", "at": _now(), "call": None, "data": {}}
    request = witness.prepare(url, msgspec.json.encode(content), identifier)
    began_s = time.monotonic()
    try:
        status = witness.send(request, deadline_s=began_s + SAMPLE_S, max_bytes=SAMPLE_BYTES).status
        outcome = "ok" if 200 <= status < 300 else f"http_{status}"
    except HookError as error:
        outcome = error.kind
    return Trial(outcome, "", round(1000 * (time.monotonic() - began_s), 1), witness.exchanges)


def try_route(config: Config, caller: str, called: str) -> Trial:
    """Ask the configured endpoint who answers a call, as control would. The secrets have to be there."""
    witness = _Witness(config)
    routes = Routes(config, witness)
    form = {
        "CallSid": SAMPLE_SID,
        "AccountSid": config.twilio.account_sid or "AC" + "0" * 32,
        "From": caller,
        "To": called,
        "CallStatus": "ringing",
        "Direction": "inbound",
        "ApiVersion": "2010-04-01",
    }
    began_s = time.monotonic()
    found = routes.ask(SAMPLE_SID, request_body(SAMPLE_SID, form), deadline_s=began_s + routes.timeout_s)
    outcome: str = found.failure or "ok"
    output = found.why
    if found.decision is not None:
        output = encode_decision(found.decision)
        if found.decision.agent and found.decision.agent not in config.agents:
            known = ", ".join(sorted(config.agents))
            outcome = "unknown_agent"
            output += f" names an agent that is not configured; use one of: {known}. A caller would hear overflow.text."
    if found.failure:
        output += f"; route.on_failure = {config.route.on_failure} would apply"
    return Trial(outcome, output, round(1000 * (time.monotonic() - began_s), 1), witness.exchanges)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

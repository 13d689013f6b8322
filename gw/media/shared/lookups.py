"""Routes that the user's endpoint decides: asks control, and keeps the answers for the streams of these calls.

A stream's signed parameters have the agent, and a name of the answer: whether the call is recorded, and a digest of the rest.
Variables and greeting never go to Twilio: the worker that has the stream takes them from here, or else asks control.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from time import monotonic
from typing import Final, NamedTuple

import gevent

from gw import bus
from gw.config import REFUSE, Config, Route
from gw.latest import Latest
from gw.protocol.hooks.route_call import Decision, encode_decision

log = logging.getLogger(__name__)

#: Time for control's answer beyond the endpoint's own.
MARGIN_S: Final = 0.5
#: Between two attempts to reach a control that is away.
PAUSE_S: Final = 0.1
#: Time for the variables of a call whose stream has started: its caller hears silence.
VARIABLES_S: Final = 1.0
#: Decisions kept for streams, which come within a second of the webhook.
MAX_KEPT: Final = 500
_ID_CHARS: Final = 12
#: Begin the names of such routes. Those of static routes are digests alone.
_RECORDED: Final = "asked-"
_UNRECORDED: Final = "asked-off-"


class Looked(NamedTuple):
    """A call's route. `failure`: why route.on_failure decided; `is_refused`: the caller hears overflow.text."""

    route: Route
    greeting: str | None = None
    failure: str = ""
    is_refused: bool = False

    @property
    def id(self) -> str:
        """The route's name in a stream's parameters: the same for equal answers. Empty for an agent alone."""
        has_more = bool(self.route.variables) or self.greeting is not None
        digest = _digest(self.route, self.greeting) if has_more else ""
        return f"{_RECORDED if self.route.record else _UNRECORDED}{digest}" if digest or not self.route.record else ""


class Lookups:
    """One worker's questions to the user's endpoint, through control."""

    def __init__(self, config: Config) -> None:
        self._lookup = config.route
        self.put: Callable[[bus.Ask, float], bus.Answer | None] = lambda question, limit_s: None
        self._kept: Latest[str, Decision] = Latest(MAX_KEPT)  # by call SID

    @property
    def is_configured(self) -> bool:
        """True with an endpoint."""
        return bool(self._lookup.url)

    def ask(self, fields: Mapping[str, str], account_sid: str) -> Looked:
        """Ask who answers a call. Waits for control, and tries again while that is away, within the time limit."""
        call_sid, until_s = fields["CallSid"], monotonic() + self._lookup.timeout_s + MARGIN_S
        question = bus.Ask(0, call_sid, "route", account_sid, dict(fields))
        answer = None
        while answer is None and (left_s := until_s - monotonic()) > 0:
            answer = self.put(question, left_s)
            if answer is None:
                gevent.sleep(max(0.0, min(PAUSE_S, until_s - monotonic())))
        if answer is None or answer.route is None:
            failure = (answer.reason if answer is not None else "") or "control is away"
            log.warning(
                "the route endpoint decided nothing (%s): route.on_failure = %s",
                failure,
                self._lookup.on_failure,
                extra={"call_sid": call_sid, "reason": "route_failed"},
            )
            is_refused = self._lookup.on_failure == REFUSE
            return Looked(Route(agent="" if is_refused else self._lookup.on_failure), None, failure, is_refused)
        self._kept[call_sid] = answer.route
        return _looked(answer.route)

    def of_stream(self, route_id: str, call_sid: str, account_sid: str, *, is_start: bool = True) -> Looked | None:
        """Return the route of this name in a stream's parameters; None for any other route.

        `is_start`: the stream starts, and the answer is needed no more; else it is kept for a stream that follows. May wait for
        control, for a moment. Without its answer the variables are empty.
        """
        if not route_id.startswith(_RECORDED):
            return None
        records = not route_id.startswith(_UNRECORDED)
        if route_id in (_RECORDED, _UNRECORDED):
            return Looked(Route(record=records))
        decision = self._kept.pop(call_sid, None)
        if decision is None:
            answer = self.put(bus.Ask(0, call_sid, "variables", account_sid), VARIABLES_S)
            decision = None if answer is None else answer.route
        if decision is not None and not is_start:
            self._kept[call_sid] = decision
        if decision is None:
            log.error("control did not answer: the variables of the call's route are empty", extra={"call_sid": call_sid})
            decision = Decision()
        return Looked(Route(variables=decision.variables, record=records), decision.greeting)


def _looked(decision: Decision) -> Looked:
    route = Route(
        agent=decision.agent,
        variables=decision.variables,
        record=decision.record,
        refuse=decision.refuse,
        dial=decision.dial,
    )
    return Looked(route, decision.greeting)


def _digest(route: Route, greeting: str | None) -> str:
    decision = Decision(variables=dict(sorted(route.variables.items())), greeting=greeting)
    return sha256(encode_decision(decision).encode()).hexdigest()[:_ID_CHARS]

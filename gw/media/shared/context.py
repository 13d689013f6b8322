"""The parts that all calls of one worker share: configuration, cells of the shared page, pool, TLS context."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, NamedTuple, Protocol

import gevent
from gevent.pool import Pool

from gw import bus
from gw.call.audio.hold_tone import hold_tone
from gw.call.cost.token_minute import TokenMinute
from gw.call.resume import NextStep, Resumed, next_step
from gw.call.state import CallState, Event, Reason, State
from gw.call.variables import with_given
from gw.config import Agent, Config
from gw.latest import Latest
from gw.logs.limited import LimitedLog
from gw.media.admission.budget_board import BudgetBoard
from gw.media.admission.shared_lock import SharedBusyError
from gw.media.admission.slots import AdmissionSlots
from gw.media.admission.token_ledger import TokenLedger, key_of
from gw.media.ai.leg import AiLeg
from gw.media.ai.openai_leg import OpenAiLeg
from gw.media.ai.parked import ParkedLegs
from gw.media.ai.parrot_leg import ParrotLeg, Prompts
from gw.media.ai.warm import WarmLegs
from gw.media.hub.clock import Clock
from gw.media.hub.greenlets import PoolGreenlet
from gw.media.shared.greetings import load_greetings
from gw.media.shared.lookups import Looked, Lookups
from gw.media.shared.routing import Routing
from gw.media.tx import TxCells
from gw.media.uplink import UplinkCells
from gw.protocol.signature import SigningSecrets
from gw.protocol.token import ledger_key
from metrics.declare import (
    AI_ERRORS,
    AI_RECONNECTS,
    BARGEIN,
    CALL_SURPLUS,
    CALLS,
    CALLS_ENDED,
    FIRST_AUDIO,
    INTERRUPTIONS,
    LOCKS_BUSY,
    PONGS,
    REQUESTS_REFUSED,
    STREAMS_REFUSED,
    TRANSFERS,
    TX_DROPPED,
)
from metrics.page import Page

log = logging.getLogger(__name__)

#: Endings kept for Twilio's action webhook, which comes within a second of a stream's end.
MAX_ENDINGS: Final = 1000
#: Pause between two questions to control.
ASK_PAUSE_S: Final = 0.1
#: Time for which other workers know that the caller of an ended call is owed nothing.
SHARED_S: Final = 60


class CallCells:
    """The calls' cells in the worker's shared page."""

    def __init__(self, page: Page) -> None:
        self.alive = {State(value): page.gauge(CALLS, state=value) for value in CALLS.labels["state"]}
        self.ended = {Reason(value): page.counter(CALLS_ENDED, reason=value) for value in CALLS_ENDED.labels["reason"]}
        self.refused = {value: page.counter(STREAMS_REFUSED, reason=value) for value in STREAMS_REFUSED.labels["reason"]}
        self.requests_refused = {
            value: page.counter(REQUESTS_REFUSED, reason=value) for value in REQUESTS_REFUSED.labels["reason"]
        }
        self.dropped = {value: page.counter(TX_DROPPED, reason=value) for value in TX_DROPPED.labels["reason"]}
        self.surplus = {value: page.counter(CALL_SURPLUS, kind=value) for value in CALL_SURPLUS.labels["kind"]}
        self.reconnects = {value: page.counter(AI_RECONNECTS, reason=value) for value in AI_RECONNECTS.labels["reason"]}
        self.ai_errors = {value: page.counter(AI_ERRORS, kind=value) for value in AI_ERRORS.labels["kind"]}
        self.interruptions = {value: page.counter(INTERRUPTIONS, verdict=value) for value in INTERRUPTIONS.labels["verdict"]}
        outcomes = TRANSFERS.labels["outcome"]
        self.transfers = {value.replace("_", "-"): page.counter(TRANSFERS, outcome=value) for value in outcomes}
        self.locks_busy = page.counter(LOCKS_BUSY)
        self.pongs = {leg: page.counter(PONGS, leg=leg) for leg in PONGS.labels["leg"]}
        self.bargein = page.histogram(BARGEIN)
        self.first_audio = page.histogram(FIRST_AUDIO)


class CountedState(CallState):
    """A call's state, counted in `gw_calls`."""

    __slots__ = ("_alive",)

    def __init__(self, cells: CallCells) -> None:
        super().__init__()
        self._alive = cells.alive
        self._alive[self.now].add(1)

    def on_event(self, event: Event) -> State:
        """Take one step and count it. Raises StateError."""
        before = self.now
        after = super().on_event(event)
        self._alive[before].add(-1)
        if after is not State.ENDED:
            self._alive[after].add(1)
        return after


class Ending(NamedTuple):
    """The end of a call's stream. `speak`: the caller is owed words."""

    reason: Reason
    agent: str
    speak: bool
    account_sid: str = ""


class OpenCall(Protocol):
    """A call's session, as others see it."""

    last_message_s: float  # monotonic

    @property
    def account_sid(self) -> str:
        """The call's account."""

    @property
    def answered_at(self) -> float:
        """Start of the stream, epoch seconds."""

    def end(self, reason: Reason, detail: str = "") -> None:
        """End now. Idempotent; never waits."""

    @property
    def open_jobs(self) -> list[str]:
        """The names of the jobs whose results this call awaits."""

    def on_job_settled(self, settled: bus.JobSettled) -> None:
        """Take a job's result. Never waits."""

    def on_answered_by(self, verdict: str) -> None:
        """Take Twilio's verdict on the party that answered. Never waits."""

    def expect_stop(self, for_s: float) -> dict[str, str]:
        """Expect Twilio's `stop` for an operator's transfer. Returns the parameters that every stream of the call has."""

    @property
    def is_announced(self) -> bool:
        """True once the caller has heard that the call is recorded, or need not."""

    def resumed_by(self) -> Resumed:
        """Return what another stream resumes that takes this one's place."""


class MediaContext:
    """One worker's shared parts."""

    def __init__(self, config: Config, page: Page, ledger: TokenLedger, slots: AdmissionSlots | None = None) -> None:
        """`slots`: this worker's view of the machine's admission slots; without it the worker is alone."""
        self.config = config
        self.page = page
        self.ledger = ledger
        self.slots = slots or AdmissionSlots.alone(config.server.max_calls_per_worker)
        self.routing = Routing(config)
        self.budget_board = BudgetBoard(config.budget)
        self.token_minutes = {agent.model: TokenMinute() for agent in config.agents.values()}
        # the supervisor gives its workers a common key where the environment has neither
        shared_key = (config.secrets.token_key or config.secrets.twilio_auth_token).encode() or os.urandom(32)
        self.token_key = ledger_key(shared_key, ledger.id)
        self.signing_secrets = {  # by account SID
            sid: SigningSecrets((own.twilio_auth_token, own.twilio_auth_token_old), own.twilio_shared_key)
            for _, sid, own in config.accounts
        }
        self.clock = Clock()
        self.tls = ssl.create_default_context()
        self.prompts = Prompts()
        self.holding = hold_tone() if config.media.holding_sound else b""
        words = (config.outbound.voicemail, config.recording.notice.file)
        self.greetings = load_greetings(config.agents, *words)  # by path, with the message for machines and the notice
        self.tx_cells = TxCells(page)
        self.uplink_cells = UplinkCells(page)
        self.cells = CallCells(page)
        self.refusals = LimitedLog(logging.getLogger("gw.media.session"), burst=20)  # each names its call
        self.recording_pool = Pool(config.recording.pool_size, greenlet_class=PoolGreenlet)
        self.warm = WarmLegs(
            page, self.ai_leg, self.slots.is_reserved, config.server.max_calls_per_worker, config.media.ai_connect_s
        )
        self.parked = ParkedLegs(config.server.max_calls_per_worker)
        self.calls: dict[str, OpenCall] = {}  # by call SID, from `start` to the reported end
        self.streams = 0  # open media sockets, also before their `start`
        self.pending = 0  # connections without a complete request
        self.overdue = 0  # of these, the ones too late to be counted as future media sockets
        self.draining = False  # new calls are refused: by an operator, or because the gateway stops
        self.leaving = False  # other workers replace this one: no connection is accepted, an admitted call is
        self.late = False
        self.hold_max_s: Callable[[float], float] = lambda since_s: -1.0  # since a monotonic time
        self.emit: Callable[[bus.Event], None] = lambda event: None
        self.cancel_job: Callable[[str], None] = lambda job_id: None
        self.ask: Callable[..., bus.Answer | None] = lambda call_sid, about, account_sid, **more: None  # as `BusClient.ask`
        self.lookups = Lookups(config)
        self.keep_digits: Callable[[str, str, str], bool] = lambda call_sid, ref, digits: False
        self.endings: Latest[str, Ending] = Latest(MAX_ENDINGS)  # by call SID

    def open_calls(self) -> dict[str, tuple[float, str]]:
        """Return the start of each open call's stream, and its account, by call SID."""
        return {call_sid: (call.answered_at, call.account_sid) for call_sid, call in self.calls.items()}

    def name_of(self, call_sid: str, account_sid: str) -> str:
        """Return the call's name in tokens and in the ledger: no other account's webhook leads to it."""
        is_main = account_sid in ("", self.config.twilio.account_sid) or not self.config.signed
        return call_sid if is_main else f"{account_sid} {call_sid}"

    def ask_again(self, call_sid: str, about: str, account_sid: str, limit_s: float, **more: str) -> bus.Answer | None:
        """Ask control until it answers, for `limit_s` and the last answer: a control that restarts takes seconds."""
        until_s = monotonic() + limit_s
        while True:
            answer = self.ask(call_sid, about, account_sid, **more)
            if (answer is not None and (answer.step or about == "whisper")) or monotonic() >= until_s:
                return answer
            gevent.sleep(ASK_PAUSE_S)

    def route_of(self, parameters: Mapping[str, str], call_sid: str, account_sid: str, *, is_start: bool = True) -> Looked:
        """Return the route that a call's streams name, with all variables of the call.

        `parameters`: of a stream or its TwiML. `is_start`: the stream starts. May wait for control, for a moment.
        """
        looked = self.lookups.of_stream(parameters.get("route", ""), call_sid, account_sid, is_start=is_start)
        if looked is None:
            looked = Looked(self.routing.of_stream(parameters, call_sid))
        return looked._replace(route=with_given(looked.route, parameters))

    def account_of(self, call_sid: str) -> str:
        """Return the account of a call whose stream is, or was, here; empty for others."""
        call = self.calls.get(call_sid) or self.endings.get(call_sid)
        return "" if call is None else call.account_sid

    def keep_ending(self, call_sid: str, reason: Reason, agent: str, speak: bool = False, account_sid: str = "") -> None:
        """Keep how a call's stream ended for the action webhook. `speak`: the caller is owed words."""
        self.endings[call_sid] = Ending(reason, agent, speak, account_sid)

    def share_ending(self, call_sid: str) -> None:
        """Let every worker know that a caller is owed nothing: Twilio may ask another one, while control is away.

        May wait for a lock.
        """
        ending = self.endings.get(call_sid)
        if ending is None or next_step(ending.reason, resumes=0, on_lost="goodbye", speak=ending.speak) is not NextStep.HANG_UP:
            return
        now_s = int(time.time())
        try:
            name = self.name_of(call_sid, ending.account_sid)
            self.ledger.remember(key_of("owed nothing", name), now_s + SHARED_S, now_s, is_end=True)
        except SharedBusyError:
            log.warning("the end of a call is not shared: other workers hold the lock", extra={"call_sid": call_sid})

    def is_owed_nothing(self, name: str) -> bool:
        """Return whether this call ended at some worker, and its caller is owed nothing.

        `name`: of the call, by `name_of`. May wait for a lock.
        """
        try:
            return self.ledger.remember(key_of("owed nothing", name), 0, int(time.time()), is_end=True) > 0
        except SharedBusyError:
            return False

    def open_jobs(self) -> dict[str, list[str]]:
        """Return the names of the jobs that calls await, by call SID."""
        return {call_sid: jobs for call_sid, call in self.calls.items() if (jobs := call.open_jobs)}

    def ai_leg(self, agent: Agent) -> AiLeg:
        """Make an AI leg for one call."""
        if agent.provider == "parrot":
            return ParrotLeg(self.prompts)
        secrets = self.config.secrets
        return OpenAiLeg(agent, secrets.openai_api_key, self.tls, self.cells.pongs["ai"].add, self.config.tools, secrets.mcp)

    def may_open(self) -> bool:
        """Return whether one more media socket is accepted: a slot is free, or an admitted call expected."""
        return (not self.draining and self.streams < self.config.server.max_calls_per_worker) or self.slots.reserved > 0

    def publish(self) -> None:
        """Publish this worker's load and flags to the other workers."""
        pending = self.pending - self.overdue
        self.slots.publish(streams=self.streams, pending=pending, draining=self.draining, leaving=self.leaving, late=self.late)

    def refusal_of_cost(self, caller: str, agent: Agent) -> str:
        """Return why the AI would cost too much for one more call: budget | tokens; "" if it does not.

        `caller`: the number of an inbound call's caller, otherwise empty.
        """
        if self.budget_board.is_spent(caller):
            return "budget"
        if agent.provider == "openai" and not self.token_minutes[agent.model].carries_one_more(monotonic()):
            return "tokens"
        return ""

    def reserve(self, call_sid: str) -> str:
        """Reserve a slot for an announced call. Returns "", or the refusal: full | late | drained."""
        return "drained" if self.draining else self.slots.reserve(call_sid)

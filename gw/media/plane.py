"""What all calls of one worker share: its configuration, its places in the shared page, its pool, its one TLS context."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from gevent.pool import Pool

from gw import bus
from gw.call.holding import holding_sound
from gw.call.state import Reason, State
from gw.config import Agent, Config
from gw.media.admission import TokenLedger
from gw.media.ai_leg import AiLeg, OpenAiLeg
from gw.media.clock import Clock
from gw.media.greenlets import PoolGreenlet
from gw.media.parrot_leg import ParrotLeg, Prompts
from gw.media.rx import UplinkCells
from gw.media.tx import TxCells
from metrics.declare import AI_ERRORS, AI_RECONNECTS, BARGEIN, CALLS, CALLS_ENDED, FIRST_AUDIO, STREAMS_REFUSED, TX_DROPPED
from metrics.page import Page

if TYPE_CHECKING:
    from gw.media.call import Call


class CallCells:
    """The calls' places in the worker's shared page."""

    def __init__(self, page: Page) -> None:
        self.alive = {State(value): page.gauge(CALLS, state=value) for value in CALLS.labels["state"]}
        self.ended = {Reason(value): page.counter(CALLS_ENDED, reason=value) for value in CALLS_ENDED.labels["reason"]}
        self.refused = {value: page.counter(STREAMS_REFUSED, reason=value) for value in STREAMS_REFUSED.labels["reason"]}
        self.dropped = {value: page.counter(TX_DROPPED, reason=value) for value in TX_DROPPED.labels["reason"]}
        self.reconnects = {value: page.counter(AI_RECONNECTS, reason=value) for value in AI_RECONNECTS.labels["reason"]}
        self.ai_errors = {value: page.counter(AI_ERRORS, kind=value) for value in AI_ERRORS.labels["kind"]}
        self.bargein = page.histogram(BARGEIN)
        self.first_audio = page.histogram(FIRST_AUDIO)


class MediaPlane:
    """One worker's shared parts. `calls` holds every call from its `start` to its end, by call SID."""

    def __init__(self, config: Config, page: Page, ledger: TokenLedger) -> None:
        self.config = config
        self.page = page
        self.ledger = ledger
        #: the supervisor makes one for its workers where neither the environment nor an auth token gives one
        self.token_key = (config.secrets.token_key or config.secrets.twilio_auth_token).encode() or os.urandom(32)
        self.clock = Clock()
        self.tls = ssl.create_default_context()
        self.prompts = Prompts()
        self.holding = holding_sound() if config.media.holding_sound else b""
        self.tx_cells = TxCells(page)
        self.uplink_cells = UplinkCells(page)
        self.cells = CallCells(page)
        self.recording_pool = Pool(config.recording.pool_size, greenlet_class=PoolGreenlet)
        self.calls: dict[str, Call] = {}
        self.streams = 0  # media sockets open, those that have not started included
        self.draining = False
        self.hold_max_s: Callable[[], float] = lambda: -1.0
        self.emit: Callable[[bus.Event], None] = lambda event: None

    def ai_leg(self, agent: Agent) -> AiLeg:
        """A new AI leg for one call."""
        if agent.provider == "parrot":
            return ParrotLeg(self.prompts)
        return OpenAiLeg(agent, self.config.secrets.openai_api_key, self.tls)

    def has_room(self) -> bool:
        """Whether one more call is taken."""
        return not self.draining and self.streams < self.config.server.max_calls

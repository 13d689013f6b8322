"""Script of an AI session: its speech and its faults, decided before the call. Pure.

The same script and seed give the same chunks in the same sequence, so a run can be repeated.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

from gw.twin import speech
from gw.twin.ai.faults import RESPONSES, TURNS, Call, Strike
from gw.twin.ai.ledger import McpTool
from gw.twin.sound import RATE_HZ

ConnectFault = Literal[
    "refuse_401",  # an HTTP answer other than 101
    "refuse_403",
    "refuse_429",
    "refuse_500",
    "mute",  # TCP is up, but the handshake is not answered
    "silent",  # the websocket is up, but no event comes
    "close_first",  # the websocket is up and closed immediately
]
SessionFault = Literal[
    "wrong_format",  # session.updated confirms PCM16
    "beta_names",  # event names and formats of the retired beta
    "update_refused",  # session.update is answered by an error
    "never_ready",  # session.update is not answered
    "deaf",  # from the first response on, nothing is read
    "rate_limited",  # every response.create is answered by rate_limit_exceeded
    "response_refused",  # the first response.create is answered by an error that names it
]
#: The oldest faults of `gw.twin.ai.faults`; that file has all.
ResponseFault = Literal[
    "close",  # a close frame in the middle of a response
    "reset",  # the connection breaks
    "stall",  # the response stops, and so does everything but pongs
    "freeze",  # nothing is sent or read, the connection stays up
    "one_bad_event",  # harmless: a delta that is a number
    "bad_json",  # this and the next two, and bad_base64: several, as many as end a session
    "bad_type",  # a delta that is a number
    "missing_field",  # a delta without its audio
    "bad_utf8",
    "bad_base64",
    "binary_message",
    "oversize_message",  # over 16 MiB
    "bad_websocket",  # a frame with reserved bits
    "unknown_event",  # harmless: the API adds events without notice
    "error_benign",  # harmless: a race both sides expect
    "error_fatal",
    "session_expired",  # the error, then a close
]
Fault = ConnectFault | SessionFault | ResponseFault
CONNECT_FAULTS: Final[tuple[ConnectFault, ...]] = get_args(ConnectFault)
SESSION_FAULTS: Final[tuple[SessionFault, ...]] = get_args(SessionFault)
RESPONSE_FAULTS: Final[tuple[ResponseFault, ...]] = get_args(ResponseFault)

#: Sizes of deltas: one byte, less than a frame, a few frames and a bit, more than 4 KB. None of them is whole frames.
_SIZES: Final = ((1, 1), (2, 159), (161, 479), (481, 2399), (4097, 9601))
_WEIGHTS: Final = (1, 2, 4, 6, 2)


@dataclass(frozen=True)
class AiScript:
    """A session's part. Audio is mu-law."""

    answers: tuple[bytes, ...] = ()  # one response each, in turn; after the last from the start
    greeting: bytes = b""  # the first response, if the client asks for it; empty: answers[0]
    goodbye: bytes = b""  # the response that hangs up, if not empty
    hang_up_after: int | None = None  # number of the response (1 is the first) that calls the tool `hang_up`
    hang_up_tool: str = "hang_up"
    tool: str = "look_up"  # called by faults
    calls: Mapping[int, tuple[Call, ...]] = field(default_factory=dict)  # of tools, by number of the response that makes them
    mcp: Mapping[int, McpTool] = field(default_factory=dict)  # wanted from a server, by number of the response that asks
    mcp_lists: bool = True  # the servers' tools can be listed
    agent_words: tuple[str, ...] = ("I hear you.",)
    caller_words: tuple[str, ...] = ("Something was said.",)
    seed: int = 0
    speed: float = 10.0  # times real time; math.inf: no pauses
    whole: bool = False  # each response in one delta
    ready_delay_s: float = 0.0  # before session.updated
    thinking_s: float = 0.0  # before a response's first audio
    trailing_s: float = 0.0  # how long deltas of a cancelled response still arrive
    lifetime_s: float = 3600.0  # until the end that session.created names
    expires: bool = False  # end the session then: an error, then a close
    ends_after_s: float | None = None  # end it then instead, whatever end it named
    hears_after_s: float | None = None  # time from session.updated to speech_started, in any audio
    limit_s: float = 4.0  # duration of a rate limit
    token_limit: int = 1_000_000  # in a minute, of this session; what is left is sent with each response
    thinks_s: float = 7.0  # how long the arguments of `thinks_aloud` come
    fault: Fault | None = None  # of the connection or the session
    strikes: tuple[Strike, ...] = ()  # faults of responses and turns

    def with_fault(self, fault: str, response: int = 1, deltas: int | None = None, times: int = 1) -> AiScript:
        """Return the same script with one fault more.

        `response`: number of the first response, or of the caller's turn, that it strikes; requests that were refused or ignored
        count. `deltas`: audio deltas before it, or another place of `gw.twin.ai.faults`. Raises: KeyError for an unknown name.
        """
        for name in (*CONNECT_FAULTS, *SESSION_FAULTS):
            if name == fault:
                return replace(self, fault=name)
        place = 0 if fault in TURNS else RESPONSES[fault].place
        return replace(self, strikes=(*self.strikes, Strike(fault, response, times, place if deltas is None else deltas)))

    def audio_of(self, number: int, asked: bool) -> bytes:
        """Return the audio of response `number` (1 is the first); `asked`: the client requested it."""
        if self.goodbye and number == self.hang_up_after:
            return self.goodbye
        if self.greeting:
            if number == 1 and asked:
                return self.greeting
            number -= 1
        return self.answers[(number - 1) % len(self.answers)] if self.answers else b""

    def chunks(self, audio: bytes, session: int, number: int) -> list[bytes]:
        """Cut `audio` into deltas of uneven size, the same each time.

        Long audio includes a delta of a single byte and one of more than 4 KB.
        """
        if self.whole:
            return [audio] if audio else []
        chance = random.Random(f"{self.seed}/{session}/{number}")
        sizes = [1, chance.randint(4097, 9601)] if len(audio) > 12_000 else []
        while sum(sizes) < len(audio):
            low, high = chance.choices(_SIZES, _WEIGHTS)[0]
            sizes.append(chance.randint(low, high))
        chance.shuffle(sizes)
        pieces, at = [], 0
        for size in sizes:
            pieces.append(audio[at : at + size])
            at += size
        return [piece for piece in pieces if piece]

    def pauses_s(self, chunks: list[bytes], session: int, number: int) -> list[float]:
        """Return the pause after each delta: its duration divided by the speed, varied by up to a half."""
        chance = random.Random(f"{self.seed}/{session}/{number}/pause")
        if math.isinf(self.speed):
            return [0.0] * len(chunks)
        return [len(chunk) / RATE_HZ / self.speed * chance.uniform(0.5, 1.5) for chunk in chunks]


def conversation(**changes: object) -> AiScript:
    """Return a whole conversation in a human voice: a greeting and three answers."""
    answers = ("connecting", "first-in-line", "nobody-available")
    script = AiScript(
        answers=tuple(speech.load(name) for name in answers),
        greeting=speech.load("hello-world"),
        goodbye=speech.load("thanks"),
        agent_words=tuple(speech.WORDS[name] for name in ("hello-world", *answers)),
        caller_words=tuple(speech.WORDS[name] for name in speech.CALLER_PHRASES),
    )
    return replace(script, **changes)  # type: ignore[arg-type]


def lasting(seconds: float) -> bytes:
    """Return speech of that length: the agent's recordings, repeated."""
    size = int(seconds * RATE_HZ)
    audio = b"".join(speech.load(name) for name in speech.names() if name not in speech.CALLER_PHRASES)
    return (audio * (size // len(audio) + 1))[:size]

"""What the rest of a gateway's work does to its calls' lateness: quiet windows and pressed ones, in turns.

Three kinds, in turns in one run, each a gateway of its own with the same store:

    alone      the steady calls and nothing else
    coming     beside them callers who come and go, ten a second; nobody is recorded
    pressed    the same callers, all recorded by the real REST client at a REST twin; `/metrics` is asked each second; and in the
               window's middle the store answers nothing for five seconds

What recordings, scrapes and a dead store cost is the difference of the last two: who comes and goes costs in both. What coming
and going costs by itself is the difference of the first two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import gevent
from rich.console import Group
from rich.text import Text

from gw.bench.compare import figures, medians, ratios
from gw.bench.load_process import Twin
from gw.bench.result import Measured, Page
from gw.bench.run import Load, Tell, measure_beside
from gw.bench.stalling_store import StallingStore, open_store
from gw.bench.subject import BenchError, Gateway
from gw.terminal import figure_table, ms

KINDS: Final = ("alone", "coming", "pressed")
#: What may change at most, and of what.
CLAIM: Final = 0.10
_SHOWN: Final = ("tx_p50_ms", "tx_p99_ms", "tx_p99.9_ms", "caller_p99_ms", "caller_p99.9_ms")
CALLS_PER_S: Final = 10
_CALL_S: Final = 3.0
_SCRAPE_S: Final = 1.0
STALL_S: Final = 5.0
#: In the window, before the store stalls and after it answers again.
BEFORE_S: Final = 2.0
AFTER_S: Final = 2.0
_TRIES: Final = 2


class PressedGateway(Gateway):
    """A gateway with callers who come and go; when `pressed`, with recordings, scrapes and a store that stalls as well."""

    def __init__(self, command: Sequence[str], out: Path, load: Load, store: StallingStore, kind: str) -> None:
        self._pressed = kind == "pressed"
        super().__init__(
            command,
            out / "gateway",
            workers=load.workers,
            calls=load.calls + 100,
            watched=load.watched,
            recorded=self._pressed,
            store_url=store.url,
        )
        self._out = out
        self._store = store
        self._comes = kind != "alone"
        self._login: tuple[str, str] = ("", "")
        self._rest: Twin | None = None
        self._churn: Twin | None = None
        self.recorded = self.came = self.refused = self.backlog = self.scrapes = 0

    def start(self, *, account_sid: str, auth_token: str, ai_url: str) -> None:
        self._login = account_sid, auth_token
        if self._pressed:
            log = self._out / "twin-rest.log"
            self._rest = Twin("gw.bench.load.rest", "--account-sid", account_sid, first_line=auth_token, log=log)
            self.api_base = self._rest.ready["url"]
        super().start(account_sid=account_sid, auth_token=auth_token, ai_url=ai_url)

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            for twin in (self._rest, self._churn):
                if twin is not None:
                    twin.stop()

    def on_standing(self) -> None:
        if self._comes:
            account_sid, token = self._login
            arguments = ("--url", self.url, "--account-sid", account_sid)
            self._churn = Twin("gw.bench.load.churn", *arguments, first_line=token, log=self._out / "twin-churn.log")
            self._churn.order("churn", per_s=CALLS_PER_S, seconds=_CALL_S, path="/twilio/voice")

    @contextmanager
    def in_window(self) -> Iterator[None]:
        recorded, came, refused = self._counts()
        pressing = [gevent.spawn(self._scrape), gevent.spawn(self._stall)] if self._pressed else []
        try:
            yield
            for greenlet in pressing:
                if greenlet.ready() and greenlet.exception is not None:
                    raise BenchError(f"the pressure could not be kept up: {greenlet.exception}")
        finally:
            gevent.killall(pressing, timeout=STALL_S)
        now = self._counts()
        self.recorded, self.came, self.refused = now[0] - recorded, now[1] - came, now[2] - refused

    def _counts(self) -> tuple[int, int, int]:
        """Recordings that began, calls that came, calls that were refused."""
        recorded = 0 if self._rest is None else self._rest.order("report")["began"]
        if self._churn is None:
            return recorded, 0, 0
        placed = self._churn.order("placed")
        return recorded, placed["placed"], placed["refused"]

    def _scrape(self) -> None:
        while True:
            backlog = Page(self.metrics()).value("gw_store_backlog_events")
            self.backlog = max(self.backlog, int(backlog))
            self.scrapes += 1
            gevent.sleep(_SCRAPE_S)

    def _stall(self) -> None:
        gevent.sleep(BEFORE_S)
        self._store.stall(STALL_S)


@dataclass
class Window:
    """One measured window and what was done in it."""

    measured: Measured
    recorded: int
    came: int
    refused: int
    backlog: int
    scrapes: int

    def failures(self) -> list[str]:
        """What a caller of the steady calls would have noticed, and what did not happen as it should have."""
        far = self.measured.far
        found = []
        if self.measured.standing < self.measured.calls:
            found.append(f"{self.measured.calls - self.measured.standing} steady calls ended")
        if far["underruns"] or far["lost"]:
            found.append(f"{far['underruns']} underruns at a 60 ms buffer, {far['lost']} frames lost")
        if self.refused:
            found.append(f"{self.refused} callers were refused")
        return found

    def document(self) -> dict[str, Any]:
        return {
            **figures(self.measured),
            "worker_share": round(self.measured.measured_share, 3),
            "recorded": self.recorded,
            "came": self.came,
            "refused": self.refused,
            "scrapes": self.scrapes,
            "backlog": self.backlog,
            "void": self.measured.void(),
            "noted": self.measured.noted(),
            "failures": self.failures(),
        }


@dataclass
class Found:
    """All rounds; the void ones count only where there is no other."""

    calls: int
    seconds: float
    store: str
    good: list[dict[str, Window]] = field(default_factory=list)
    void: list[dict[str, Window]] = field(default_factory=list)

    def take(self, windows: dict[str, Window]) -> None:
        is_void = any(one.measured.void() for one in windows.values())
        (self.void if is_void else self.good).append(windows)

    @property
    def rounds(self) -> list[dict[str, Window]]:
        return self.good or self.void

    def of(self, kind: str) -> list[Window]:
        return [windows[kind] for windows in self.rounds]

    def change(self, before: str, after: str) -> dict[str, float]:
        """Ratios of the rounds' own pairs."""
        return ratios([(figures(one[before].measured), figures(one[after].measured)) for one in self.rounds])

    def document(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "seconds": self.seconds,
            "store": self.store,
            "claim": CLAIM,
            "change": {
                "pressed_to_coming": self.change("coming", "pressed"),
                "coming_to_alone": self.change("alone", "coming"),
            },
            "medians": {kind: medians([figures(one.measured) for one in self.of(kind)]) for kind in KINDS},
            "rounds": [{kind: one.document() for kind, one in windows.items()} for windows in self.rounds],
            "void_rounds": len(self.void),
            "void": not self.good,
        }

    def failures(self) -> list[str]:
        return sorted({f"{kind}: {failure}" for kind in KINDS for one in self.of(kind) for failure in one.failures()})


def press(command: Sequence[str], out: Path, load: Load, rounds: int, tell: Tell) -> Found:
    """All rounds; a void window is measured once more. Raises GatewayError; BenchError for a window too short for a stall."""
    if load.seconds < BEFORE_S + STALL_S + AFTER_S:
        raise BenchError(f"a store that stalls for {STALL_S:g} s needs a window of {BEFORE_S + STALL_S + AFTER_S:g} s")
    found: Found | None = None
    for number in range(1, rounds + 1):
        windows: dict[str, Window] = {}
        for kind in KINDS:
            say = partial(_say, tell, f"round {number}, {kind}")
            for _ in range(_TRIES):
                store = open_store(out)  # each window's gateway has one of its own: nothing is left of the one before
                try:
                    found = found or Found(load.calls, load.seconds, store.name)
                    windows[kind] = window(command, out, load, store, kind, say)
                finally:
                    store.close()
                if not windows[kind].measured.void():
                    break
        assert found is not None
        found.take(windows)
    assert found is not None
    return found


def _say(tell: Tell, where: str, step: str) -> None:
    tell(f"{where}: {step}")


def window(command: Sequence[str], out: Path, load: Load, store: StallingStore, kind: str, tell: Tell) -> Window:
    """One window of a kind. Raises GatewayError."""
    gateway = PressedGateway(command, out, load, store, kind)
    measured = measure_beside(gateway, gateway, out, replace(load, maxima=False), tell)
    return Window(measured, gateway.recorded, gateway.came, gateway.refused, gateway.backlog, gateway.scrapes)


def tables(found: Found) -> Group:
    """Medians of the kinds, their changes, and the claim."""
    made = figure_table("ms", *(f">{name}" for name in ("late p50", "p99", "p99.9", "caller p99", "p99.9", "worker")), "")
    titles = {
        "alone": f"{found.calls} calls alone",
        "coming": f"and {CALLS_PER_S} a second come and go",
        "pressed": "and are recorded, scraped, store dead",
    }
    for kind in KINDS:
        windows = found.of(kind)
        middle = medians([figures(one.measured) for one in windows])
        share = sum(one.measured.measured_share for one in windows) / max(1, len(windows))
        came, recorded = sum(one.came for one in windows), sum(one.recorded for one in windows)
        seen = f"{came} came" + (f", {recorded} recordings began" if recorded else "") if came else ""
        made.add_row(titles[kind], *(ms(middle.get(key)) for key in _SHOWN), f"{share:.0%}", seen)
    parts: list[Any] = [made, Text()]
    changes = found.change("coming", "pressed")
    for key, what in (("tx_p99.9_ms", "TX lateness p99.9"), ("caller_p99.9_ms", "at the caller p99.9")):
        if key in changes:
            by = changes[key] - 1
            good = by < CLAIM
            parts.append(
                Text(
                    f"{what}: {by:+.0%} by recordings, scrapes and a {found.store} that answers nothing for {STALL_S:g} s"
                    f" (claimed: under {CLAIM:.0%})",
                    "green" if good else "red",
                )
            )
    backlog = max(one.backlog for one in found.of("pressed"))
    parts.append(Text(f"While the store was dead {backlog} events waited in the spool.", "dim"))
    if found.void:
        parts.append(Text(f"{len(found.void)} rounds were void{'' if found.good else ': these figures are of such'}.", "yellow"))
    parts += [Text(failure, "red") for failure in found.failures()]
    return Group(*parts)

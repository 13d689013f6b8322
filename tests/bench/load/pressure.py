"""Measure how the rest of a gateway's work changes its calls' lateness: quiet windows and pressed ones, in turns.

    .venv/bin/python tests/bench/load/pressure.py [--calls 100] [--seconds 15] [--rounds 5] [--json]

Three kinds, in turns in one run, each a new gateway with the same kind of store:

    alone      the long calls only
    coming     beside them ten short calls a second come and go, not recorded
    pressed    the same short calls, all recorded by the real REST client at a REST twin; `/metrics` is read each second; in the
               window's middle the store answers nothing for five seconds

The difference of the last two is the cost of recordings, scrapes and a dead store: the short calls cost in both. The difference
of the first two is the cost of the short calls. Exit code 1: every round was void, or a caller would have noticed.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import click
import gevent
from rich.console import Group
from rich.text import Text

from gw.bench import report
from gw.bench.load_process import LoadProcess
from gw.bench.result import Measured, MetricsPage
from gw.bench.run import Load, OnStep, measure_with
from gw.bench.subject import BenchError, Gateway
from gw.cli.bench import options
from gw.cli.context import Settings, json_option
from gw.terminal import figure_table, ms
from tests.bench.compare import figures, medians, ratios
from tests.bench.load.stalling_store import StallingStore, open_store

KINDS: Final = ("alone", "coming", "pressed")
#: The claim: pressure changes lateness p99.9 by less than this share.
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
    """A gateway beside short calls; if `pressed`, with recordings, scrapes and a stalling store."""

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
        self._has_short_calls = kind != "alone"
        self.login: tuple[str, str] = ("", "")  # account SID, auth token
        self._rest: LoadProcess | None = None
        self._churn: LoadProcess | None = None
        self.recorded = self.came = self.refused = self.backlog = self.scrapes = 0

    def start(self, *, account_sid: str, auth_token: str, ai_url: str) -> None:
        self.login = account_sid, auth_token
        if self._pressed:
            log = self._out / "twin-rest.log"
            self._rest = LoadProcess("tests.bench.load.rest", "--account-sid", account_sid, first_line=auth_token, log=log)
            self.api_base = self._rest.ready["url"]
        super().start(account_sid=account_sid, auth_token=auth_token, ai_url=ai_url)

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            for process in (self._rest, self._churn):
                if process is not None:
                    process.stop()

    def on_calls_placed(self) -> None:
        if self._has_short_calls:
            account_sid, token = self.login
            arguments = ("--url", self.url, "--account-sid", account_sid)
            self._churn = LoadProcess("tests.bench.load.churn", *arguments, first_line=token, log=self._out / "twin-churn.log")
            self._churn.order("churn", per_s=CALLS_PER_S, seconds=_CALL_S, path="/twilio/voice")

    @contextmanager
    def around_window(self) -> Iterator[None]:
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
        """Recordings begun, short calls placed, short calls refused."""
        recorded = 0 if self._rest is None else self._rest.order("report")["began"]
        if self._churn is None:
            return recorded, 0, 0
        placed = self._churn.order("placed")
        return recorded, placed["placed"], placed["refused"]

    def _scrape(self) -> None:
        while True:
            backlog = MetricsPage(self.metrics()).value("gw_store_backlog_events")
            self.backlog = max(self.backlog, int(backlog))
            self.scrapes += 1
            gevent.sleep(_SCRAPE_S)

    def _stall(self) -> None:
        gevent.sleep(BEFORE_S)
        self._store.stall(STALL_S)


@dataclass
class Window:
    """One measured window and the side load in it."""

    measured: Measured
    recorded: int
    came: int
    refused: int
    backlog: int
    scrapes: int

    @classmethod
    def of(cls, measured: Measured, gateway: PressedGateway) -> Window:
        """Combine a measurement with its gateway's counts."""
        return cls(measured, gateway.recorded, gateway.came, gateway.refused, gateway.backlog, gateway.scrapes)

    def failures(self) -> list[str]:
        """Return a sentence for each fault that a caller would have noticed."""
        far = self.measured.far
        found = []
        if self.measured.alive < self.measured.calls:
            found.append(f"{self.measured.calls - self.measured.alive} steady calls ended")
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
class Rounds:
    """All rounds; void ones count only where every round was void."""

    calls: int
    seconds: float
    store: str
    good: list[dict[str, Window]] = field(default_factory=list)
    void: list[dict[str, Window]] = field(default_factory=list)

    def add(self, windows: dict[str, Window]) -> None:
        is_void = any(one.measured.void() for one in windows.values())
        (self.void if is_void else self.good).append(windows)

    @property
    def counted(self) -> list[dict[str, Window]]:
        return self.good or self.void

    def of(self, kind: str) -> list[Window]:
        return [windows[kind] for windows in self.counted]

    def change(self, before: str, after: str) -> dict[str, float]:
        """Return the median ratio of each figure, `after` to `before`, over the rounds' own pairs."""
        return ratios([(figures(one[before].measured), figures(one[after].measured)) for one in self.counted])

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
            "rounds": [{kind: one.document() for kind, one in windows.items()} for windows in self.counted],
            "void_rounds": len(self.void),
            "void": not self.good,
        }

    def failures(self) -> list[str]:
        return sorted({f"{kind}: {failure}" for kind in KINDS for one in self.of(kind) for failure in one.failures()})


def press(command: Sequence[str], out: Path, load: Load, rounds: int, on_step: OnStep) -> Rounds:
    """Measure all rounds; a void window is measured once more.

    Raises: GatewayError; BenchError for a window too short for a stall.
    """
    if load.seconds < BEFORE_S + STALL_S + AFTER_S:
        raise BenchError(f"a store that stalls for {STALL_S:g} s needs a window of {BEFORE_S + STALL_S + AFTER_S:g} s")
    found: Rounds | None = None
    for number in range(1, rounds + 1):
        windows: dict[str, Window] = {}
        for kind in KINDS:
            show = partial(_show, on_step, f"round {number}, {kind}")
            for _ in range(_TRIES):
                store = open_store(out)  # a new one for each window's gateway: nothing is left of the one before
                try:
                    found = found or Rounds(load.calls, load.seconds, store.name)
                    windows[kind] = window(command, out, load, store, kind, show)
                finally:
                    store.close()
                if not windows[kind].measured.void():
                    break
        assert found is not None
        found.add(windows)
    assert found is not None
    return found


def _show(on_step: OnStep, where: str, step: str) -> None:
    on_step(f"{where}: {step}")


def window(command: Sequence[str], out: Path, load: Load, store: StallingStore, kind: str, on_step: OnStep) -> Window:
    """Measure one window of a kind. Raises GatewayError."""
    gateway = PressedGateway(command, out, load, store, kind)
    return Window.of(measure_with(gateway, gateway, out, replace(load, maxima=False), on_step), gateway)


def tables(found: Rounds) -> Group:
    """Return the medians of the kinds, their changes, and the claim."""
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
    for key, name in (("tx_p99.9_ms", "TX lateness p99.9"), ("caller_p99.9_ms", "at the caller p99.9")):
        if key in changes:
            by = changes[key] - 1
            good = by < CLAIM
            parts.append(
                Text(
                    f"{name}: {by:+.0%} by recordings, scrapes and a {found.store} that answers nothing for {STALL_S:g} s"
                    f" (claimed: under {CLAIM:.0%})",
                    "green" if good else "red",
                )
            )
    backlog = max(one.backlog for one in found.of("pressed"))
    parts.append(Text(f"While the store was dead {backlog} events waited in the spool.", "dim"))
    if found.void:
        parts.append(
            Text(f"{len(found.void)} rounds were void{'' if found.good else ', and these figures are theirs'}.", "yellow")
        )
    parts += [Text(failure, "red") for failure in found.failures()]
    return Group(*parts)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--calls", type=click.IntRange(1, 2000), default=100, show_default=True, help="Long calls.")
@click.option("--seconds", type=click.FloatRange(2, 3600), default=15, show_default=True, help="Length of each window.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Media workers, a core each.")
@click.option("--rounds", type=click.IntRange(1, 99), default=1, show_default=True, help="Rounds of three windows each.")
@options.pattern_option
@options.tls_option
@options.patience_option
@options.out_option
@json_option
def main(
    calls: int, seconds: float, workers: int, rounds: int, pattern: str, tls: bool, patience: float, out: Path, as_json: bool
) -> None:
    load = Load(calls=calls, seconds=seconds, pattern=pattern, workers=workers, patience_s=patience, tls=tls)
    with options.show_steps(as_json) as on_step:
        found = press(Settings(None).command_line(), out, load, rounds, on_step)
    document = found.document()
    report.write(out / "pressure.json", document)
    options.print_result(document, as_json, lambda: (tables(found), f"Read: {out}/pressure.json"))
    sys.exit(1 if document["void"] or found.failures() else 0)


if __name__ == "__main__":
    main()

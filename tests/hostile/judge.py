"""Verdict on one attack: the figures of its round, and a sentence for each promise it broke. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from gw.verify.budget.chance import Base, holds_by_chance

#: TX lateness p99 beside an attack, beyond the same calls' without it.
LATER_MS: Final = 2.0
#: From a signed newcomer's connect to its answer: the webhook and the upgrade together.
NEWCOMER_MS: Final = 100.0
#: Growth of the worker's memory in an attack; more shows a buffer without a bound.
GROWTH_MB: Final = 64.0
#: Refusals are counted and not logged one by one; a call's events are logged within a bound for each call.
LOG_BYTES_PER_S: Final = 4000.0
LOG_BYTES_PER_CALL: Final = 25_000
#: A load process later than this at p99, and others on the worker's core: the round measured the machine.
LOAD_LATE_MS: Final = 5.0
OTHERS: Final = 0.05
#: Share of holds that an interrupt lengthens (gw.verify.budget.judge: QUICK_HOLDS is ten times that).
CHANCE_HOLDS: Final = 1e-5


def ours(long_holds: Mapping[str, int], kernel_sends: int) -> int:
    """Return the holds over 1 ms of CPU, without the kernel's within a send."""
    return sum(long_holds.values()) - min(long_holds.get("tx", 0), kernel_sends)


@dataclass(frozen=True)
class Round:
    """Figures of one attack."""

    name: str
    seconds: float
    calls: int
    alive: int
    base_late_ms: float | None  # TX lateness p99 without the attack; None: not measured
    late_ms: float | None
    far_base_ms: float | None  # the same at the good callers
    far_late_ms: float | None
    underruns: int
    gap_ms: float
    broken_frames: int
    newcomers_ms: Sequence[float]
    newcomers_lost: Sequence[str]
    ready_ms: Sequence[float]
    seen: Mapping[str, int]  # by the attacker
    stopped: str
    refused: Mapping[str, float]
    ended: Mapping[str, float]
    connections: Mapping[str, float]
    holds: int
    long_holds: Mapping[str, int]
    base: Base  # the same calls without an attack, in the whole run so far
    cpu_s: float  # of the worker, during the attack
    worst_hold_ms: float
    kernel_sends: int
    lost_processes: Sequence[str]
    grown_mb: float
    worker_share: float
    other_share: float
    shared_cores: bool
    load_late_ms: Mapping[str, float]
    log_bytes: int
    printed: Sequence[str]

    def void(self) -> list[str]:
        """Return why timed figures are the machine's and not the gateway's."""
        found = [f"{name} was late itself: {late:g} ms" for name, late in self.load_late_ms.items() if late > LOAD_LATE_MS]
        if self.shared_cores:
            found.append("one core for all")
        if self.other_share > OTHERS:
            found.append(f"others used {self.other_share:.0%} of the worker's core")
        return found

    def survived(self) -> list[str]:
        """Return what broke, whatever the machine's speed."""
        found = []
        if self.lost_processes:
            found.append(f"ended: {', '.join(self.lost_processes)}")
        if self.alive < self.calls:
            found.append(f"{self.calls - self.alive} good calls ended")
        if self.broken_frames:
            found.append(f"{self.broken_frames} frames lost or out of order")
        if self.printed:
            found.append(f"printed {len(self.printed)}: {self.printed[0][:60]}")
        if self.log_bytes > LOG_BYTES_PER_S * self.seconds + LOG_BYTES_PER_CALL * self.seen.get("placed", 0):
            found.append(f"logged {self.log_bytes / self.seconds / 1000:.0f} KB/s")
        if self.grown_mb > GROWTH_MB:
            found.append(f"memory grew by {self.grown_mb:.0f} MB")
        if self.newcomers_lost:
            found.append(f"{len(self.newcomers_lost)} newcomers not answered: {self.newcomers_lost[0]}")
        if (seen := self.seen.get("refused", 0)) != (counted := sum(self.refused.values())):
            found.append(f"refused {seen:g}, counted {counted:g}")
        return found

    def allowed_holds(self) -> int:
        """Return how many holds over 1 ms the machine explains."""
        return holds_by_chance(self.base.expected(self.cpu_s) + self.holds * CHANCE_HOLDS)

    def punctual(self) -> list[str]:
        """Return what was late."""
        found = []
        if self.underruns:
            found.append(f"{self.underruns} underruns, {self.gap_ms:.0f} ms")
        if self.late_ms is None:
            found.append("no frame was sent")
        elif self.base_late_ms is not None and self.late_ms > self.base_late_ms + LATER_MS:
            found.append(f"TX p99 {self.late_ms:g} ms, {self.base_late_ms:g} without")
        if self.newcomers_ms and (worst := max(self.newcomers_ms)) > NEWCOMER_MS:
            found.append(f"a newcomer waited {worst:.0f} ms")
        if self.ready_ms and (worst := max(self.ready_ms)) > 10 * NEWCOMER_MS:
            found.append(f"/readyz took {worst:.0f} ms")
        if (long := ours(self.long_holds, self.kernel_sends)) > (allowed := self.allowed_holds()):
            found.append(f"{long} holds over 1 ms, up to {self.worst_hold_ms:g}; without an attack {allowed} at most")
        return found

    def document(self) -> dict[str, Any]:
        """Return figures and verdicts for scripts."""
        return {**asdict(self), "void": self.void(), "survived": self.survived(), "punctual": self.punctual()}

"""The truth about digits that a caller types for a tool, and their law.

Each function returns the truth after an act of a party. `Truth.taken` predicts how the machine ends a collection: in which step,
with which digits, and what is wrong with them.
"""

from __future__ import annotations

from typing import Literal

from gw.call.dialogue import commands as do
from gw.call.dialogue.commands import Command
from gw.call.dialogue.rules import CONCEAL_MS
from gw.verify.conversation.state import OpenCall, Scenario, Truth, Typing, settled


def opened(scenario: Scenario, truth: Truth, call: OpenCall) -> Truth:
    """A tool collects digits from now on. Keys that wait for their turn are the first."""
    keys, typing = truth.pressed, Typing(call.call_id, counts=not scenario.asked.is_sensitive)
    truth = truth._replace(open_tools=(*truth.open_tools, call), typing=typing, pressed="")
    return _typed(scenario, truth, keys)


def pressed(scenario: Scenario, truth: Truth, key: str) -> Truth:
    """The caller presses a key while a tool collects digits."""
    typing = truth.typing
    assert typing is not None
    if typing.is_kept:
        return truth
    if not typing.counts:
        return truth._replace(typing=typing._replace(early=typing.early + key))
    if key == scenario.asked.finish_on:
        return _ended(scenario, truth, "too_few")
    truth = truth._replace(typing=typing._replace(digits=typing.digits + key, still_ms=0))
    return _ended(scenario, truth, "too_few") if len(typing.digits) + 1 == scenario.asked.most else truth


def paused(scenario: Scenario, truth: Truth, *, was_heard: bool) -> Truth:
    """No recording hears the caller. `was_heard`: one did until now, so that the first keys do not count."""
    typing = truth.typing
    assert typing is not None
    counting = typing._replace(counts=True, early="", is_partial=was_heard and bool(typing.early), still_ms=0)
    return _typed(scenario, truth._replace(typing=counting), "" if was_heard else typing.early)


def not_paused(scenario: Scenario, truth: Truth) -> Truth:
    """The recording cannot be paused: nothing is collected."""
    assert truth.typing is not None
    call_id = truth.typing.call_id
    return settled(scenario, truth._replace(typing=None, unpaused=(*truth.unpaused, call_id)), call_id)


def kept(scenario: Scenario, truth: Truth) -> Truth:
    """Control keeps the digits it was handed, or does not answer."""
    assert truth.typing is not None
    return settled(scenario, truth._replace(typing=None), truth.typing.call_id)


def asked(truth: Truth) -> Truth:
    """The agent is heard, or the caller: the first pause begins afterwards."""
    typing = truth.typing
    assert typing is not None
    if not typing.counts or typing.digits or not typing.still_ms:
        return truth
    return truth._replace(typing=typing._replace(still_ms=0))


def later(scenario: Scenario, truth: Truth, ms: int, *, is_asked: bool) -> Truth:
    """Time passes for a collection. `is_asked`: the agent was heard, or the caller, until now."""
    typing = truth.typing
    if typing is None:
        return truth
    waits_for_caller = typing.counts and not typing.is_kept
    starts_anew = waits_for_caller and is_asked and not typing.digits
    typing = typing._replace(still_ms=0 if starts_anew else typing.still_ms + ms)
    truth = truth._replace(typing=typing)
    if typing.still_ms < (scenario.asked.pause_ms if waits_for_caller else CONCEAL_MS):
        return truth
    if waits_for_caller:
        return _ended(scenario, truth, "timeout")
    return kept(scenario, truth) if typing.is_kept else not_paused(scenario, truth)


def is_broken(scenario: Scenario, before: Truth, out: list[Command], truth: Truth) -> bool:
    """Return whether a step breaks the law of digits."""
    taken = [one for one in out if isinstance(one, do.TakeDigits)]
    sent = [one.keys for one in out if isinstance(one, do.SendKeys)]
    opens = truth.typing is not None and before.typing is None
    is_concealing = truth.typing is not None and scenario.asked.is_sensitive
    return (
        taken != [one for one in (truth.taken,) if one is not None]
        or truth.concealed is not is_concealing
        or (opens and not any(isinstance(one, do.Collect) for one in out))
        or not set("".join(sent)) <= set(truth.turned)
    )


def _typed(scenario: Scenario, truth: Truth, keys: str) -> Truth:
    for key in keys:
        if truth.typing is not None:
            truth = pressed(scenario, truth, key)
    return truth


def _ended(scenario: Scenario, truth: Truth, why: Literal["timeout", "too_few"]) -> Truth:
    """The digits are complete, or too few. Control keeps sensitive ones that are whole, and then settles the call."""
    typing, asked = truth.typing, scenario.asked
    assert typing is not None
    shortfall = "too_early" if typing.is_partial else why if len(typing.digits) < asked.least else ""
    keeps = asked.is_sensitive and bool(typing.digits) and not typing.is_partial
    taken = do.TakeDigits(typing.call_id, typing.digits, shortfall, asked.is_sensitive, keeps)
    if keeps:
        return truth._replace(taken=taken, typing=typing._replace(is_kept=True, still_ms=0))
    return settled(scenario, truth._replace(taken=taken, typing=None), typing.call_id)

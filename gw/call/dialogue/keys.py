"""Keys of the caller: a turn of the conversation, or digits that a tool collects."""

from __future__ import annotations

from typing import Literal

from gw.call.dialogue import answers, tools
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import rules as limits
from gw.call.dialogue.commands import Prompt, ToolOutcome
from gw.call.dialogue.facts import NEVER, Facts, Phase
from gw.call.digits import Collection, Shortfall


def on_key(facts: Facts, event: given.Key) -> None:
    facts.prompts = 0
    if facts.phase is not Phase.TALK:
        return
    if facts.collection is not None:
        _collect(facts, event.digit)
        return
    if event.digit != "#" or not facts.rules.collect_keys:
        facts.keys += event.digit
    if event.digit == "#" or len(facts.keys) >= facts.rules.max_keys or not facts.rules.collect_keys:
        send_keys(facts)
    else:
        facts.keys_at = facts.now + limits.KEYS_MS


def send_keys(facts: Facts) -> None:
    """Send the keys as one turn, and owe an answer."""
    keys, facts.keys, facts.keys_at = facts.keys, "", NEVER
    if not keys:
        return
    if facts.is_ready:
        facts.out.append(do.SendKeys(keys))
        facts.sent_keys = (facts.sent_keys + keys)[-facts.rules.max_keys :]
    else:
        facts.held_keys = (facts.held_keys + keys)[-facts.rules.max_keys :]
    answers.owe(facts, Prompt.ANSWER, insists=True)


def open_collection(facts: Facts, event: given.ToolCall) -> None:
    """Collect digits. Keys that wait for their turn are the first. Sensitive ones count once the recording is paused."""
    assert event.asked is not None
    asked, (keys, facts.keys, facts.keys_at) = event.asked, (facts.keys, "", NEVER)
    facts.collection = Collection(event.call_id, asked, is_open=not asked.is_sensitive)
    facts.out.append(do.Collect(event.call_id))
    if asked.is_sensitive:
        facts.out.append(do.Conceal(True))
    facts.digits_at = facts.now + (limits.CONCEAL_MS if asked.is_sensitive else asked.pause_ms)
    _collect(facts, keys)


def _collect(facts: Facts, keys: str) -> None:
    """Add keys to the collection. What comes behind its end is dropped."""
    for key in keys:
        made = facts.collection
        if made is None or made.is_taken:
            return
        if made.is_open and key == made.asked.finish_on:
            _take_digits(facts, "too_few")
            continue
        facts.collection = made = made._replace(digits=(made.digits + key)[: made.asked.most])
        if made.is_open:
            facts.digits_at = facts.now + made.asked.pause_ms
            if made.is_full:
                _take_digits(facts, "too_few")


def on_concealed(facts: Facts, event: given.Concealed) -> None:
    """Let the keys count. Those before were recorded with the caller's voice: the agent has to ask again."""
    made = facts.collection
    if made is None or made.is_open:
        return
    early = made.digits
    facts.collection = made._replace(digits="", is_open=True, is_partial=bool(early) and event.was_heard)
    facts.digits_at = facts.now + made.asked.pause_ms
    if not event.was_heard:
        _collect(facts, early)


def on_not_concealed(facts: Facts, _: given.NotConcealed | None = None) -> None:
    if facts.collection is not None and not facts.collection.is_open:
        _settle_collection(facts, "not_paused")


def on_digits_at(facts: Facts) -> None:
    made = facts.collection
    if made is None:
        return
    if not made.is_open:
        on_not_concealed(facts)
    elif made.is_taken:
        _settle_collection(facts, "unknown_outcome")
    else:
        heard_ms = facts.now if facts.plays or facts.quiet_ms == NEVER else facts.quiet_ms
        (tool,) = (one for one in facts.open_tools if one.call_id == made.call_id)
        due = min(heard_ms + made.asked.pause_ms, tool.by_ms - limits.TOOL_MARGIN_MS) if not made.digits else facts.now
        if due > facts.now:
            facts.digits_at = due  # a pause begins when the agent has asked
        else:
            _take_digits(facts, "timeout")


def _take_digits(facts: Facts, why: Literal["timeout", "too_few"]) -> None:
    """End the collection. Control keeps sensitive digits that are whole, and then settles the call."""
    assert facts.collection is not None
    made = facts.collection = facts.collection._replace(is_taken=True)
    shortfall: Shortfall = made.shortfall(why)
    keeps = made.asked.is_sensitive and bool(made.digits) and shortfall != "too_early"
    facts.out.append(do.TakeDigits(made.call_id, made.digits, shortfall, made.asked.is_sensitive, keeps))
    facts.digits_at = facts.now + limits.CONCEAL_MS
    if not keeps:
        _settle_collection(facts, "settled")


def _settle_collection(facts: Facts, result: ToolOutcome) -> None:
    assert facts.collection is not None
    for tool in facts.open_tools:
        if tool.call_id == facts.collection.call_id:
            tools.settle_tool(facts, tool, result)
            return

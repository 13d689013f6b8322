"""Defects of `gw.call.dialogue.keys`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import keys
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    keys,
    on_key=(Row("keys typed for a tool go to the AI", check.DIGITS, "if facts.collection is not None:", "if False:"),),
    send_keys=(Row("keys are not answered", check.KEYS, "answers.owe(facts, Prompt.ANSWER, insists=True)"),),
    open_collection=(
        Row("keys pressed before a collection are lost", check.DIGITS, "_collect(facts, keys)"),
        Row("keys pressed before a collection go to the AI too", check.DIGITS, '"", NEVER)', "facts.keys, facts.keys_at)"),
        Row("the caller's secret is heard", check.SECRET, "facts.out.append(do.Conceal(True))"),
        Row("digits count before the pause", check.SECRET, "is_open=not asked.is_sensitive", "is_open=True"),
    ),
    _collect=(
        Row("a terminator ends no collection", check.DIGITS, "key == made.asked.finish_on", "False"),
        Row("the last digit ends no collection", check.DIGITS, "if made.is_full:", "if False:"),
        Row("a key does not begin a pause anew", check.DIGITS, "facts.digits_at = facts.now + made.asked.pause_ms"),
    ),
    on_concealed=(
        Row("digits typed before the pause count", check.SECRET, 'digits="", ', ""),
        Row("digits typed before the pause are dropped without a word", check.SECRET, "bool(early) and event.was_heard", "False"),
        Row("digits that no recording heard are dropped", check.SECRET, "if not event.was_heard:", "if False:"),
    ),
    on_not_concealed=(
        Row("a recording that cannot be paused is awaited", check.SECRET, '_settle_collection(facts, "not_paused")'),
    ),
    on_digits_at=(
        Row("a pause ends no collection", check.DIGITS, '_take_digits(facts, "timeout")'),
        Row(
            "a collection ends before the agent has asked",
            check.DIGITS,
            "facts.now if facts.plays or facts.quiet_ms == NEVER else facts.quiet_ms",
            "0",
        ),
        Row("control is awaited for ever", check.SECRET, '_settle_collection(facts, "unknown_outcome")'),
    ),
    _take_digits=(
        Row("too few digits count as enough", check.DIGITS, "made.shortfall(why)", '""'),
        Row("keys behind the end of a collection count", check.SECRET, "is_taken=True", "is_taken=False"),
        Row("digits are settled before control keeps them", check.SECRET, "if not keeps:", "if True:"),
        Row("control keeps a part of the digits", check.SECRET, ' and shortfall != "too_early"', ""),
    ),
)

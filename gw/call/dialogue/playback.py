"""Playback to the caller: audio that is queued, paused, discarded, heard; recorded words; the protected greeting."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.facts import NEVER, Facts, Floor, Phase

#: The cause of an interruption in each state of it.
_VERDICTS: Final[dict[Floor, do.Verdict]] = {Floor.OPEN: "model", Floor.HELD: "cut", Floor.JUDGED: "cut_words"}


def on_recorded(facts: Facts, event: given.Recorded) -> None:
    """Play recorded words, without the AI, whose session may not be ready yet."""
    facts.plays, facts.has_greeted = True, facts.has_greeted or event.greets
    expect_heard(facts, event.length_ms)
    if event.greets:
        protect(facts)
    if event.notice_ms:  # heard to its end, whatever the caller says
        facts.protect_by = facts.now + event.notice_ms + max(facts.heard_ms, facts.rules.protect_greeting_ms * event.greets)
    facts.out.append(do.Play())


def on_notice_heard(facts: Facts, _: given.NoticeHeard) -> None:
    """End the protection of the notice. A recorded greeting behind it has its own."""
    facts.protect_by = NEVER
    if facts.has_greeted and facts.floor is Floor.OPEN:
        protect(facts)


def protect(facts: Facts) -> None:
    """Let nothing interrupt the greeting, for its time. It may begin while the notice is protected."""
    if facts.rules.protect_greeting_ms:
        notice_by = 0 if facts.protect_by == NEVER else facts.protect_by
        facts.protect_by = max(notice_by, facts.now + facts.rules.protect_greeting_ms)


def on_protect_by(facts: Facts) -> None:
    """From here on the greeting can be interrupted: `speech` reads the timer."""


def expect_heard(facts: Facts, queued_ms: int) -> None:
    """Bound the time until the caller has heard what is queued."""
    facts.heard_by = facts.now + queued_ms + facts.heard_ms
    if facts.floor is Floor.HELD:
        facts.heard_by += facts.rules.resume_after_ms
        facts.held_at = facts.now
    if facts.phase is Phase.CLOSING:
        facts.close_by = facts.heard_by + facts.rules.goodbye_ms


def on_delayed(facts: Facts, event: given.Delayed) -> None:
    if facts.plays:
        expect_heard(facts, event.queued_ms)


def on_starved(facts: Facts, _: given.Starved) -> None:
    """Note that what plays has fallen silent: a response is slower than its audio, or Twilio's report is late or lost."""
    facts.starved = facts.plays


def all_heard(facts: Facts) -> None:
    """Note that nothing is left to hear."""
    facts.plays, facts.starved, facts.heard_by = False, False, NEVER


def on_heard_by(facts: Facts) -> None:
    """The report that all was heard does not come: closing words may be lost with the stream."""
    if facts.phase is Phase.CLOSING:
        facts.has_spoken = False
    all_heard(facts)


def hold(facts: Facts) -> None:
    """Pause the playout while the caller speaks. The bound on hearing it moves along."""
    if facts.floor is Floor.HELD:
        facts.heard_by += facts.now - facts.held_at
    else:
        facts.out.append(do.HoldAudio())
        facts.heard_by += facts.rules.resume_after_ms
    facts.floor, facts.held_at, facts.judge_at = Floor.HELD, facts.now, NEVER


def release(facts: Facts) -> None:
    """End a judged interruption."""
    if facts.floor is Floor.HELD:
        if facts.plays:
            facts.heard_by += facts.now - facts.held_at - facts.rules.resume_after_ms
        facts.held_at = NEVER
        facts.out.append(do.ReleaseAudio())
    facts.floor = Floor.OPEN
    facts.cut_at = facts.judge_at = NEVER


def discard(facts: Facts) -> None:
    """Discard the audio that the caller has not heard."""
    if facts.plays:
        facts.out.append(do.Interrupt(_VERDICTS[facts.floor]))
        all_heard(facts)
    release(facts)

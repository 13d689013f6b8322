"""Defects of `gw.call.dialogue.ending`."""

from __future__ import annotations

from typing import Final

from gw.call.dialogue import ending
from gw.verify.conversation import check
from gw.verify.conversation.mutants.defects import Row, mutants

MUTANTS: Final = mutants(
    ending,
    hang_up=(
        Row("a goodbye counts as heard that was not spoken", check.TOOLS, "facts.has_spoken = spoken", "facts.has_spoken = True"),
        Row(
            "a goodbye into which the caller speaks ends the call",
            check.FINISHES_GOODBYE,
            "facts.speaks and facts.floor is Floor.OPEN",
            "False",
        ),
    ),
    ask_goodbye=(
        Row("a silent hang-up is not asked for a goodbye", check.TOOLS, "answers.owe_only(facts, Prompt.GOODBYE)"),
        Row("a goodbye is asked for again and again", check.GOODBYE, " and not facts.has_asked_goodbye", ""),
    ),
    may_take_back=(
        Row("a goodbye cannot be taken back", check.GOODBYE, " or facts.taken_back < limits.MAX_TAKEN_BACK", ""),
        Row("a goodbye can be taken back for ever", check.LAST_GOODBYE, "facts.taken_back < limits.MAX_TAKEN_BACK", "True"),
        Row("a spent budget can be taken back", check.SPENT, " or facts.spent", ""),
        Row("a limit can be taken back", check.LIMIT_JUDGED, " or facts.limit_at == NEVER", ""),
        Row("an idle caller who speaks again is hung up on", check.IDLE_CALLER, "Reason.AI_HANGUP or", "Reason.IDLE_LIMIT and"),
    ),
    take_back=(
        Row(
            "a goodbye that is taken back still ends the call",
            check.GOODBYE,
            "facts.phase, facts.closing, facts.close_by = Phase.TALK, None, NEVER",
            "facts.phase, facts.closing = Phase.TALK, None",
        ),
        Row("a judged interruption drops the limit", check.LIMIT_JUDGED, " or not may_take_back(facts)", ""),
    ),
    begin_closing=(
        Row("the end leaves a call open", check.TOOLS, 'tools.pass_on(facts, tool.call_id, "cancelled")'),
        Row("the caller stays concealed while the call ends", check.SECRET_ENDS, "tools.close_collection(facts)"),
        Row(
            "a call that leaves its stream is answered as cancelled",
            check.HANGS_UP_LEAVING,
            "if not tools.has_left(facts, tool)",
            "",
        ),
    ),
    on_answered_by=(
        Row("a second verdict cuts a person off", check.MACHINE_JUDGED, "if facts.party", 'if facts.party not in ("", "person")'),
        Row("a second verdict repeats the message", check.MACHINE_JUDGED, "if facts.party:", "if False:"),
        Row(
            "the agent keeps talking to an answering machine",
            check.MACHINE_JUDGED,
            "begin_closing(facts, Reason.MACHINE, facts.rules.goodbye_ms)",
        ),
        Row(
            "the message for a machine follows the agent's words",
            check.MACHINE_JUDGED,
            'facts.out.append(do.Interrupt("machine"))',
        ),
        Row("a machine is not left the message", check.MACHINE_JUDGED, "facts.out.append(do.Play())"),
        Row("the message for a machine is cut off", check.MACHINE_JUDGED, "facts.plays = True"),
        Row("a fax is left the message", check.MACHINE, 'event.party == "machine" and event.message_ms', "True"),
        Row(
            "a response under way is heard after the message for a machine",
            check.MACHINE_TOOL,
            "answers.drop_response(facts, cancel=True)",
        ),
        Row("a request under way holds up the end of a machine's call", check.MACHINE_TOOL, "answers.cancel_request(facts)"),
    ),
    announce_limit=(
        Row("a limit ends a call that leaves its stream", check.SPENT_LEAVING, "facts.left_for is", "True or facts.left_for is"),
        Row("a spent budget is ignored", check.SPENT, "(facts.spent or facts.limit_at == NEVER)", "facts.limit_at == NEVER"),
        Row("the longest call has no end", check.LIMIT, "(facts.spent or facts.limit_at == NEVER)", "facts.spent"),
        Row("a spent budget is reported as the longest call", check.SPENT, "Reason.BUDGET if facts.spent else ", ""),
    ),
    announce_end=(
        Row(
            "a limit ends the call in mid-sentence",
            check.LIMIT,
            "begin_closing(facts, reason, limits.CLOSING_MS)",
            "facts.closing, facts.has_spoken = reason, True; end(facts)",
        ),
        Row("an answer under way counts as the closing words", check.SPENT, ", insists=True", ""),
    ),
    on_warn_at=(Row("the end of the longest call is not announced", check.LIMIT, "facts.out.append(do.WarnOfEnd())"),),
    on_stream_ended=(
        Row("a broken stream counts as a hang-up", check.ODD, "closing = event.reason", "closing = Reason.CALLER_HANGUP"),
        Row("a stream's end does not end", check.ODD, "end(facts, hung_up=event.reason is Reason.CALLER_HANGUP)"),
        Row("the stop of a transferred stream is a hang-up", check.LEAVING, "facts.left_for is not None", "False"),
    ),
    on_end_wanted=(
        Row("an operator's end is silent", check.ODD, "has_spoken = event.reason, False", "has_spoken = event.reason, True"),
    ),
    is_over=(
        Row("an end overtakes a transfer", check.HANGS_UP_LEAVING, "facts.left_for is", "True or facts.left_for is"),
        Row("hanging up does not wait for the goodbye", check.TOOLS, "not facts.plays and", ""),
        Row(
            "a goodbye ends while its interruption is judged",
            check.JUDGED_GOODBYE,
            "not facts.plays and facts.floor is not Floor.JUDGED",
            "not facts.plays",
        ),
        Row("the fallback never ends", check.FAILURES, "return is_heard and", "return False and"),
    ),
    end=(
        Row("an end is not final", check.PLAIN, "facts.phase = Phase.ENDED"),
        Row("the fallback is silent", check.FAILURES, "speak = not hung_up and", "speak = False and"),
        Row("a caller who hung up is spoken to", check.ODD, "not hung_up and ", ""),
        Row(
            "words by TwiML follow the message for a machine",
            check.MACHINE_JUDGED,
            "and facts.closing is not Reason.MACHINE ",
            "",
        ),
        Row("the caller stays concealed after the stream", check.SECRET_ENDS, "tools.close_collection(facts)"),
    ),
)

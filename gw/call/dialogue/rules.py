"""Time limits and capabilities of a dialogue, made once for each agent. Times in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from gw.call.leave import LEAVING_TOOLS, SEND_DIGITS, TRANSFER
from gw.call.state import Reason
from gw.config import Agent, Media, Say, Tool
from gw.protocol.ai import COLLECT_DIGITS_TOOL, HANG_UP_TOOL

Interruptions = Literal["model", "gateway", "none"]
#: The bridge over the wait for a slow tool: the holding sound, nothing, or a sentence of the agent's and then the sound.
Filler = Literal["sound", "none", "say"]

#: Pauses before a failed answer is requested again; then the fallback speaks.
RETRY_PAUSES_MS: Final = (300, 1000)
#: Longest wait that a rate limit may ask for.
MAX_WAIT_MS: Final = 20_000
#: Time the AI has to begin its own response after the caller's turn, before one is requested.
OWN_RESPONSE_MS: Final = 700
#: The same if a tool's result is owed with it.
AFTER_TOOL_MS: Final = 300
#: Pause of a replacement session before it speaks: the caller may be speaking already.
LISTEN_MS: Final = 400
#: The same if the caller's words were lost and may come again.
LISTEN_AGAIN_MS: Final = 900
#: Time a cancelled response has to end.
CANCEL_MS: Final = 500
#: Further time for any other sign of life of the AI: the caller may have stopped speaking meanwhile, which it does not report.
SILENT_MS: Final = 1500
#: Longest turn of a caller. An AI that never reports its end must not silence the agent for ever.
MAX_SPEECH_MS: Final = 60_000
#: Time for the words of a short sound, from the report of its end. The playout runs meanwhile.
JUDGE_MS: Final = 300
#: Bound on closing words, from their request.
CLOSING_MS: Final = 10_000
#: Pause between two keys that ends their collection.
KEYS_MS: Final = 3000
#: Interruptions of a goodbye that return to the conversation.
MAX_TAKEN_BACK: Final = 2
#: Open tool calls, and tool calls in all.
MAX_OPEN_TOOLS: Final = 8
MAX_TOOLS: Final = 100
#: Allowance for control to settle a tool, beyond the tool's own bound: a control that restarts takes seconds.
TOOL_MARGIN_MS: Final = 5000
#: Bound on one collection of digits, whatever the caller types.
COLLECT_MS: Final = 180_000
#: Time for the recording to be paused before a caller may type sensitive digits, and for control to keep them.
CONCEAL_MS: Final = 6000
#: Tool calls whose identifiers are kept: all that may be carried out, and the latest of the others.
MAX_KNOWN_TOOLS: Final = 2 * MAX_TOOLS
#: Allowance for the report that the caller heard everything, beyond the length of what was queued.
HEARD_MS: Final = 2000
#: Audio ahead of the caller's ear beyond which no further response is requested: an agent may call tools without end.
AHEAD_MS: Final = 5000
#: Unreadable events within the window that cost the session.
MAX_UNREADABLE: Final = 5
UNREADABLE_WINDOW_MS: Final = 10_000
#: A session this old was a success: the next failure starts a new window.
STABLE_MS: Final = 10_000
#: Pauses before the attempts at a session; the last one repeats.
OPEN_PAUSES_MS: Final = (200, 400, 800, 1600, 2000)
MAX_OPENS: Final = 10
#: Shorter lifetimes are implausible: a clock is wrong. Rollovers are at least this far apart.
MIN_LIFETIME_MS: Final = 60_000
LIFETIME_MS: Final = 3_600_000
#: A session is replaced in a quiet moment from this time before its end on, or between two utterances shortly before it.
ROLLOVER_QUIET_MS: Final = 300_000
ROLLOVER_FORCED_MS: Final = 30_000
ROLLOVER_RETRY_MS: Final = 5000
#: A replacement waits so long for the words of the caller's last turn: the next session is sent them.
TEXT_MS: Final = 3000


#: Names under which calls of remote MCP servers, and questions about them, are tools. Not names that a configuration can have.
MCP_CALL: Final = "MCP call"
MCP_APPROVAL: Final = "MCP approval"
#: Bound on a call of an MCP server. The provider has its own; this one is for a provider that never answers.
MCP_TIMEOUT_MS: Final = 60_000
#: Time the AI has to continue after an approval, before a response is requested.
AFTER_APPROVAL_MS: Final = 1000


#: Bound on Twilio's new instructions for a call, from the request to the end of the stream.
LEAVE_MS: Final = 6000


class ToolRules(NamedTuple):
    """Rules of one tool's calls."""

    waits: bool = True  # the answer waits for the result; False: it runs in the background
    timeout_ms: int = 8000
    filler: Filler = "sound"
    filler_after_ms: int = 1200  # from the later of the call and the end of what is heard
    cancels: bool = False  # an interruption ends it
    collects: bool = False  # the caller types digits meanwhile, and is owed nothing
    yields: bool = False  # another call, or a response that begins, ends it: nothing is answered for it then
    leaves: Reason | None = None  # once all words are heard, it ends the stream for this reason


class Rules(NamedTuple):
    """Rules of one agent's dialogues."""

    greets: bool = True
    resumes: bool = False  # this stream continues a call
    returns: bool = False  # which left its former stream on purpose
    interruptions: Interruptions = "model"
    cut_after_ms: int = 900  # from the report that speech began to the cut, unless its end is reported before
    resume_after_ms: int = 2000
    protect_greeting_ms: int = 0
    tools: Mapping[str, ToolRules] = MappingProxyType({})  # by name; hanging up is not among them
    hang_up_tool: str = "hang_up"  # empty: the agent cannot hang up
    answer_ms: int = 15_000  # from a request or a start to the first audio
    stall_ms: int = 5000  # longest pause in a response that speaks
    open_ms: int = 5000  # bound on one attempt at a session
    window_ms: int = 8000  # longest time without a session
    goodbye_ms: int = 10_000  # bound on the last words, beyond their queued audio
    hold_after_ms: int = 900  # silence of an owed answer before the holding sound; with the default it is heard within a second
    idle_ms: int = 15_000
    idle_prompts: int = 2
    max_call_ms: int = 3_600_000
    warn_ms: int = 60_000  # before the end of the longest call
    collect_keys: bool = True  # False: every key is a separate turn
    max_keys: int = 20


def rules_of(
    agent: Agent,
    media: Media,
    tools: Mapping[str, Tool] = MappingProxyType({}),
    *,
    resumes: bool,
    returns: bool = False,
    elapsed_ms: int = 0,
) -> Rules:
    """Return the rules of one call.

    `tools`: all that are configured; the agent has the ones it names. `resumes`: the stream continues a call. `returns`: after a
    transfer or digits. `elapsed_ms`: the call's time on earlier streams, part of the longest call.
    """
    turns = agent.turns
    is_parrot = agent.provider == "parrot"  # it cannot be prompted, and the key "#" is its command to hang up
    prompts = turns.idle_prompts if turns.idle_prompt_s and not is_parrot else 0
    idle_s = media.idle_limit_s / (prompts + 1)  # the limit bounds the whole silence
    return Rules(
        greets=bool(agent.greeting),
        resumes=resumes,
        returns=returns,
        interruptions=turns.interruptions,
        # the end of a short sound is reported only when the pause after it has lasted `silence_ms`
        cut_after_ms=min(turns.min_speech_ms + turns.silence_ms, _ms(turns.resume_after_s)),
        resume_after_ms=_ms(turns.resume_after_s),
        protect_greeting_ms=turns.protect_greeting_ms,
        tools={name: _tool_rules(tools[name]) for name in agent.tools if name in tools}
        | {name: _LEAVING_RULES[name] for name in LEAVING_TOOLS if name in agent.tools}
        | (_COLLECT_RULES if COLLECT_DIGITS_TOOL in agent.tools else {})
        | (_MCP_RULES if agent.mcp else {}),
        hang_up_tool=HANG_UP_TOOL if HANG_UP_TOOL in agent.tools else "",
        answer_ms=_ms(media.ai_answer_s),
        stall_ms=_ms(media.ai_stall_s),
        open_ms=_ms(media.ai_connect_s),
        window_ms=_ms(media.ai_reconnect_s),
        goodbye_ms=_ms(media.goodbye_s),
        hold_after_ms=_ms(media.hold_after_s),
        idle_ms=_ms(min(turns.idle_prompt_s, idle_s) if prompts else idle_s),
        idle_prompts=prompts,
        max_call_ms=max(0, _ms(media.max_call_s) - elapsed_ms),
        warn_ms=_ms(turns.warn_before_end_s),
        collect_keys=agent.keys.mode == "collect" and not is_parrot,
        max_keys=agent.keys.max_digits,
    )


_LEAVING_RULES: Final = {
    TRANSFER: ToolRules(timeout_ms=LEAVE_MS, cancels=True, leaves=Reason.TRANSFERRED),
    SEND_DIGITS: ToolRules(timeout_ms=LEAVE_MS, cancels=True, leaves=Reason.DIGITS_SENT),
}
_COLLECT_RULES: Final = {COLLECT_DIGITS_TOOL: ToolRules(timeout_ms=COLLECT_MS, filler="none", collects=True)}
_MCP_RULES: Final = {
    MCP_CALL: ToolRules(timeout_ms=MCP_TIMEOUT_MS),
    MCP_APPROVAL: ToolRules(timeout_ms=AFTER_APPROVAL_MS - TOOL_MARGIN_MS, filler="none", yields=True),
}


def _tool_rules(tool: Tool) -> ToolRules:
    return ToolRules(
        waits=tool.mode == "wait",
        timeout_ms=_ms(tool.timeout_s),
        filler="say" if isinstance(tool.filler, Say) else tool.filler,
        filler_after_ms=_ms(tool.filler_after_s),
        cancels=tool.on_interrupt == "cancel",
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

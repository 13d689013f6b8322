"""`verify conversation`: explores conversations in every order of inputs, against the twelve rules of the dialogue.

Each scenario has its agent's rules, its parties' possible acts, and a number of faults in one run. A scenario that reaches the
bound on states proves nothing and is reported as incomplete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gw.call.dialogue.facts import NEVER
from gw.call.dialogue.rules import AFTER_APPROVAL_MS, TOOL_MARGIN_MS, Interruptions, Rules, ToolRules
from gw.call.digits import Asked
from gw.call.state import Reason
from gw.verify import scenario_report as report
from gw.verify.conversation.model import ConversationModel
from gw.verify.conversation.state import RULES, Scenario
from gw.verify.explorer import Explored, Explorer

#: About 2 KB a state.
MAX_STATES: Final = 400_000
_FAR: Final = NEVER // 2


def _faults(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: A tool without a filler.
_SILENT: Final = ToolRules(timeout_ms=60_000, filler="none")
#: A tool that ends the stream.
_LEAVES: Final = ToolRules(timeout_ms=6000, filler="none", cancels=True, leaves=Reason.TRANSFERRED)
_BOOK: Final = _SILENT._replace(waits=False)
#: Without the timers that a scenario is not about: no idle limit, no longest call, no holding sound.
_TIMELESS: Final = Rules(max_call_ms=_FAR, warn_ms=0, idle_prompts=0, idle_ms=_FAR, hold_after_ms=_FAR, tools={"lookup": _SILENT})
_IDLE: Final = _TIMELESS._replace(idle_ms=15_000)
_JUDGED: Final = _TIMELESS._replace(interruptions="gateway")


def _with_tools(*, hold_after_ms: int = _FAR, interruptions: Interruptions = "model", **tools: ToolRules) -> Rules:
    tools = {"lookup": _SILENT, **tools}
    return _TIMELESS._replace(hold_after_ms=hold_after_ms, interruptions=interruptions, tools=tools)


_SAYS: Final = _with_tools(lookup=_SILENT._replace(filler="say"))
_ALL: Final = _faults("fail lasting limit empty refuse")

SILENCE: Final = Scenario("a silent caller", _IDLE._replace(idle_prompts=2, hold_after_ms=1000), turns=0)
PLAIN: Final = Scenario("two turns", _IDLE, turns=2)
JUDGED: Final = Scenario("two turns, judged interruptions", _JUDGED, turns=2)
FAILURES: Final = Scenario("answers fail", _TIMELESS, faults=_ALL, budget=2)
HOLD: Final = Scenario("a holding sound", _TIMELESS._replace(hold_after_ms=900), faults=_faults("starve fail limit"), budget=1)
HOLD_JUDGED: Final = Scenario(
    "a holding sound, judged interruptions", _JUDGED._replace(hold_after_ms=900), faults=_faults("starve session"), budget=1
)
RETRIES: Final = Scenario("answers fail thrice", _TIMELESS, turns=0, faults=_faults("fail"), budget=3)
SESSIONS: Final = Scenario("sessions fail", _TIMELESS, faults=_faults("session lasting stall"), budget=2)
TOOLS: Final = Scenario("a tool, then a goodbye", _TIMELESS, tools=("lookup", "hang_up"), faults=_faults("repeat"), budget=1)
UNKNOWN_TOOL: Final = Scenario("an unknown tool", _IDLE, turns=0, tools=("unknown", "lookup"), faults=_faults("repeat"), budget=1)
TOOL_ELSEWHERE: Final = Scenario(
    "a tool over two sessions", _IDLE, turns=0, tools=("lookup",), faults=_faults("session stall"), budget=1
)
LATE_RESULTS: Final = Scenario(
    "late results", _TIMELESS, turns=0, tools=("lookup",), faults=_faults("late stall repeat slow"), budget=2
)
TWO_TOOLS: Final = Scenario(
    "two tools at a time", _TIMELESS, turns=0, tools=("lookup", "lookup"), faults=_faults("repeat session"), budget=1
)
TWO_TOOLS_SPOKEN_INTO: Final = Scenario(
    "two tools, and a turn", _TIMELESS._replace(greets=False), turns=2, tools=("lookup", "lookup")
)
BACKGROUND: Final = Scenario("a tool in the background", _with_tools(book=_BOOK), tools=("book",))
BACKGROUND_AND_TOOL: Final = Scenario(
    "a tool beside one in the background", _with_tools(book=_BOOK), turns=0, tools=("book", "lookup")
)
BACKGROUND_LATE: Final = Scenario(
    "late results in the background",
    _with_tools(book=_BOOK),
    turns=0,
    tools=("book",),
    faults=_faults("session late stall repeat"),
    budget=1,
)
FILLER: Final = Scenario(
    "a sentence while a tool is slow",
    _SAYS._replace(hold_after_ms=900),
    turns=0,
    tools=("lookup",),
    faults=_faults("fail limit"),
    budget=1,
)
FILLER_ELSEWHERE: Final = Scenario(
    "a sentence while a tool is slow, over two sessions",
    _SAYS,
    turns=0,
    tools=("lookup",),
    faults=_faults("session"),
    budget=1,
)
FILLER_TWICE: Final = Scenario(
    "a sentence while two tools are slow",
    _SAYS,
    turns=0,
    tools=("lookup", "lookup"),
)
FILLER_SPOKEN_INTO: Final = Scenario(
    "a sentence while a tool is slow, and a turn",
    _SAYS._replace(greets=False),
    turns=2,
    tools=("lookup",),
)
FILLER_SOUND: Final = Scenario(
    "a sound while a tool is slow",
    _with_tools(hold_after_ms=900, lookup=_SILENT._replace(filler="sound")),
    turns=0,
    tools=("lookup", "lookup"),
    faults=_faults("starve"),
    budget=1,
)
CANCELLED: Final = Scenario(
    "an interrupted tool", _with_tools(lookup=_SILENT._replace(cancels=True)), tools=("lookup",), faults=_faults("late"), budget=1
)
CANCELLED_JUDGED: Final = Scenario(
    "an interrupted tool, judged interruptions",
    _with_tools(lookup=_SILENT._replace(cancels=True), interruptions="gateway"),
    tools=("lookup",),
)
APPROVAL: Final = Scenario(
    "an approval, after which the AI continues, or does not",
    _with_tools(approval=ToolRules(timeout_ms=AFTER_APPROVAL_MS - TOOL_MARGIN_MS, filler="none", yields=True)),
    tools=("approval", "lookup"),
    faults=_faults("repeat"),
    budget=1,
)
LEAVING: Final = Scenario("a transfer", _with_tools(transfer=_LEAVES), tools=("transfer",), faults=_faults("session"), budget=1)
LEAVING_LATER: Final = Scenario(
    "a transfer beside another tool, or twice", _with_tools(transfer=_LEAVES), turns=0, tools=("transfer", "lookup", "transfer")
)
LEAVING_KEYS: Final = Scenario(
    "a transfer with keys",
    _with_tools(transfer=_LEAVES),
    turns=0,
    tools=("transfer",),
    keys="1#",
    faults=_faults("fail"),
    budget=1,
)
LEAVING_JUDGED: Final = Scenario(
    "a transfer, judged interruptions", _with_tools(transfer=_LEAVES, interruptions="gateway"), tools=("transfer",)
)
LEAVING_FINISHES: Final = Scenario(
    "a transfer of an agent that finishes", _with_tools(transfer=_LEAVES, interruptions="none"), tools=("transfer",)
)
RETURNED: Final = Scenario(
    "a call that is back", _TIMELESS._replace(resumes=True, returns=True), faults=_faults("session fail"), budget=1
)
TOOL_ROLLOVER: Final = Scenario("a session expires while a tool runs", _TIMELESS, turns=0, tools=("lookup",), expires_ms=70_000)
SLOW_TOOL: Final = Scenario("a tool slower than the idle limit", _IDLE._replace(idle_ms=8000), turns=0, tools=("lookup",))
TOOL_IN_CLOSING: Final = Scenario("a tool called while closing", _IDLE, turns=0, tools=("lookup",))
MACHINE: Final = Scenario("an answering machine", _IDLE, faults=_faults("verdict session"), budget=2)
MACHINE_TOOL: Final = Scenario(
    "an answering machine, while a tool is carried out",
    _TIMELESS,
    turns=0,
    tools=("lookup",),
    faults=_faults("verdict session hangup"),
    budget=2,
)
MACHINE_JUDGED: Final = Scenario(
    "an answering machine, judged interruptions", _JUDGED, faults=_faults("verdict"), budget=2, recorded_ms=3000
)
MACHINE_CLOSING: Final = Scenario(
    "an answering machine, and a goodbye", _TIMELESS, tools=("hang_up",), faults=_faults("verdict"), budget=2
)
GOODBYE: Final = Scenario("a goodbye taken back", _TIMELESS, tools=("hang_up", "hang_up"))
LAST_GOODBYE: Final = Scenario("the last goodbye", _TIMELESS, turns=2, tools=("hang_up", "hang_up"), taken_back=1)
JUDGED_GOODBYE: Final = Scenario(
    "a goodbye, judged interruptions", _JUDGED, turns=2, tools=("hang_up",), faults=_faults("trailing"), budget=1
)
JUDGED_SESSIONS: Final = Scenario(
    "sessions fail, judged interruptions", _JUDGED, faults=_faults("session stall slow refuse"), budget=1
)
LONG_HOLD: Final = Scenario("a long interruption", _JUDGED._replace(cut_after_ms=3000, resume_after_ms=5000), turns=2)
PROTECTED: Final = Scenario("a protected greeting", _TIMELESS._replace(protect_greeting_ms=2500), turns=2)
RECORDED: Final = Scenario(
    "a recorded greeting", _IDLE._replace(hold_after_ms=900), faults=_faults("session"), budget=1, recorded_ms=3000
)
RECORDED_JUDGED: Final = Scenario(
    "a recorded greeting, judged interruptions", _JUDGED._replace(protect_greeting_ms=1500), turns=2, recorded_ms=3000
)
FINISHES: Final = Scenario(
    "an agent that finishes", _TIMELESS._replace(interruptions="none"), turns=2, faults=_faults("more"), budget=1
)
FINISHES_GOODBYE: Final = Scenario(
    "a goodbye of an agent that finishes", _TIMELESS._replace(interruptions="none"), tools=("hang_up",)
)
KEYS: Final = Scenario("keys", _TIMELESS, keys="1#", faults=_faults("fail"), budget=1)
KEYS_UNHEARD: Final = Scenario("keys without a session", _TIMELESS, turns=0, keys="1#", faults=_faults("session"), budget=1)
ODD: Final = Scenario(
    "odd events", _TIMELESS, faults=_faults("unasked trailing unreported unreadable frames stream hangup operator"), budget=1
)
_COLLECTS: Final = _with_tools(collect=ToolRules(timeout_ms=_FAR, filler="none", collects=True))
_PIN: Final = Asked(least=2, most=2, pause_ms=4000, is_sensitive=True)
DIGITS: Final = Scenario(
    "digits for a tool", _COLLECTS, turns=0, tools=("collect",), keys="123#", asked=Asked(least=2, most=3, pause_ms=4000)
)
DIGITS_ELSEWHERE: Final = DIGITS._replace(
    name="digits for a tool, over two sessions", keys="1", faults=_faults("session"), budget=1, asked=Asked(most=1, pause_ms=4000)
)
DIGITS_SPOKEN_INTO: Final = DIGITS._replace(name="digits for a tool, and a turn", turns=1, keys="1#")
SECRET: Final = Scenario(
    "sensitive digits",
    _COLLECTS,
    turns=0,
    tools=("collect",),
    keys="123",
    faults=_faults("unrecorded unpaused"),
    budget=1,
    asked=_PIN,
)
SECRET_ENDS: Final = SECRET._replace(
    name="sensitive digits, and the end of the session or the stream",
    keys="1",
    faults=_faults("session stream hangup operator late"),
    asked=_PIN._replace(least=1),
)
SECRET_TWICE: Final = SECRET._replace(
    name="sensitive digits twice, or at a time",
    tools=("collect", "collect"),
    keys="12",
    faults=frozenset(),
    budget=0,
    asked=_PIN._replace(least=1, most=1),
)
NOTICED: Final = Scenario(
    "a notice, then a recorded greeting", _JUDGED._replace(protect_greeting_ms=1500), turns=2, recorded_ms=3000, notice_ms=2000
)
NOTICED_ALONE: Final = Scenario(
    "a notice, then a greeting", _TIMELESS, turns=0, faults=_faults("session"), budget=1, notice_ms=2000
)
NOTICED_PROTECTED: Final = Scenario(
    "a notice, then a protected greeting", _TIMELESS._replace(protect_greeting_ms=1500), notice_ms=4000
)
UNREADABLE: Final = Scenario("unreadable events", _TIMELESS, turns=0, faults=_faults("unreadable"), budget=5)
UNREADABLE_SLOWLY: Final = Scenario(
    "unreadable events, slowly", _IDLE._replace(idle_ms=6000, idle_prompts=3), turns=0, faults=_faults("unreadable"), budget=5
)
IDLE_CALLER: Final = Scenario("a caller who is idle, then speaks", _IDLE._replace(idle_prompts=1))
IDLE_FAILS: Final = Scenario("idle prompts fail", _IDLE._replace(idle_ms=2500, idle_prompts=1), faults=_faults("limit"), budget=1)
LONG_SPEECH: Final = Scenario("speech longer than the idle limit", _IDLE._replace(idle_ms=1500), turns=0)
LIMIT: Final = Scenario("the longest call", _TIMELESS._replace(max_call_ms=20_000, warn_ms=8000))
LIMIT_IN_SPEECH: Final = Scenario(
    "the longest call ends in a sentence", _TIMELESS._replace(max_call_ms=9000, warn_ms=1500), turns=0
)
LIMIT_JUDGED: Final = Scenario(
    "the longest call ends in a judged interruption", _JUDGED._replace(max_call_ms=700, cut_after_ms=1500), tools=("hang_up",)
)
SPENT: Final = Scenario("a budget is spent", _TIMELESS, tools=("hang_up",), faults=_faults("budget"), budget=1)
SPENT_JUDGED: Final = Scenario(
    "a budget is spent in a judged interruption", _JUDGED, tools=("hang_up",), faults=_faults("budget"), budget=1
)
SPENT_LEAVING: Final = Scenario(
    "a budget is spent during a transfer",
    _with_tools(transfer=_LEAVES),
    turns=0,
    tools=("transfer",),
    faults=_faults("budget session lasting"),
    budget=3,
)
HANGS_UP_LEAVING: Final = Scenario(
    "a goodbye during a transfer",
    _with_tools(transfer=_LEAVES),
    turns=0,
    tools=("transfer", "hang_up"),
    faults=_faults("unasked"),
    budget=1,
)
RESUMED_TOOL: Final = Scenario(
    "a tool of an earlier stream",
    _TIMELESS._replace(resumes=True),
    turns=0,
    tools=("lookup", "lookup"),
    faults=_faults("session late"),
    budget=1,
    resumed=True,
)
RESUMED_BACKGROUND: Final = Scenario(
    "a tool of an earlier stream in the background", _with_tools(book=_BOOK)._replace(resumes=True), tools=("book",), resumed=True
)
CLOSING_FAILS: Final = Scenario("closing words fail", _IDLE, turns=0, faults=_faults("fail lasting"), budget=1)
ROLLOVER: Final = Scenario("a session expires", _TIMELESS, expires_ms=400_000, faults=_faults("successor session"), budget=1)
WRONG_CLOCK: Final = Scenario("a wrong clock", _TIMELESS, turns=0, expires_ms=1000)

SCENARIOS: Final = (
    *(SILENCE, PLAIN, JUDGED, FAILURES, HOLD, HOLD_JUDGED, RETRIES, SESSIONS),
    *(TOOLS, UNKNOWN_TOOL, TOOL_ELSEWHERE, LATE_RESULTS, SLOW_TOOL, TOOL_IN_CLOSING),
    *(TWO_TOOLS, TWO_TOOLS_SPOKEN_INTO, BACKGROUND, BACKGROUND_AND_TOOL, BACKGROUND_LATE),
    *(RESUMED_TOOL, RESUMED_BACKGROUND),
    *(FILLER, FILLER_ELSEWHERE, FILLER_TWICE, FILLER_SPOKEN_INTO, FILLER_SOUND),
    *(CANCELLED, CANCELLED_JUDGED, APPROVAL, TOOL_ROLLOVER),
    *(LEAVING, LEAVING_LATER, LEAVING_KEYS, LEAVING_JUDGED, LEAVING_FINISHES, RETURNED),
    *(GOODBYE, LAST_GOODBYE, JUDGED_GOODBYE, JUDGED_SESSIONS, LONG_HOLD, PROTECTED),
    *(RECORDED, RECORDED_JUDGED, MACHINE, MACHINE_TOOL, MACHINE_JUDGED, MACHINE_CLOSING),
    *(FINISHES, FINISHES_GOODBYE, KEYS, KEYS_UNHEARD),
    *(DIGITS, DIGITS_ELSEWHERE, DIGITS_SPOKEN_INTO, SECRET, SECRET_ENDS, SECRET_TWICE),
    *(NOTICED, NOTICED_ALONE, NOTICED_PROTECTED),
    *(ODD, UNREADABLE, UNREADABLE_SLOWLY, IDLE_CALLER, IDLE_FAILS, LONG_SPEECH),
    *(
        LIMIT,
        LIMIT_IN_SPEECH,
        LIMIT_JUDGED,
        SPENT,
        SPENT_JUDGED,
        SPENT_LEAVING,
        HANGS_UP_LEAVING,
        CLOSING_FAILS,
        ROLLOVER,
        WRONG_CLOCK,
    ),
)

#: Assumptions of the model, as much part of the proof as the states.
GRANTED: Final = (
    "the AI reports each party's acts in the order in which they happen",
    "the AI refuses a request that meets an active response before it does anything else",
    "a cancelled response ends, immediately or after the machine's bound on it; one that never does is the end of its session",
    "a caller's turn that the AI does not end within a minute is over",
    "a party that gives no sign for a whole bound spends a fault, or never acts again",
    "queued audio is heard, or its bound passes",
    "two timers more than ten minutes apart do not meet",
    "the edges carry out every command, in sequence",
)


Judged = report.Judged[Scenario]


class ConversationReport(report.ScenarioReport[Scenario]):
    """Results of all scenarios."""

    invariants = RULES
    granted = GRANTED
    key = "rules"


def check(
    scenarios: Sequence[Scenario] = SCENARIOS, on_judged: Callable[[Judged], None] = lambda judged: None
) -> ConversationReport:
    """Explore these scenarios, one after the other; `on_judged` receives each result."""
    judged = []
    for scenario in scenarios:
        judged.append(Judged(scenario, explore(scenario)))
        on_judged(judged[-1])
    return ConversationReport(tuple(judged))


def explore(scenario: Scenario, *, stop_at_first: bool = False) -> Explored:
    """Explore one scenario with the present machine."""
    return Explorer(ConversationModel(scenario), max_states=MAX_STATES, stop_at_first=stop_at_first).run()

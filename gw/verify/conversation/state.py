"""State of a modelled conversation: the machine's fields, and the truth about the parties, kept apart from its account of it."""

from __future__ import annotations

from typing import Final, NamedTuple

from gw.call.dialogue import commands as do
from gw.call.dialogue.rules import Rules
from gw.call.digits import Asked

#: Timers beyond this time never come in a scenario, and past times beyond it are all alike.
FAR_MS: Final = 600_000

NO_DEAD_AIR: Final = "1 no dead air: who is owed an answer gets one, or words"
NOT_OVER_THE_CALLER: Final = "2 the AI does not speak while the caller does"
AS_HEARD: Final = "3 the AI's history is what the caller heard"
GOODBYE: Final = "4 a goodbye is heard, and can be taken back"
TOOL_ONCE: Final = "5 a tool call is answered exactly once"
LIMIT_ANNOUNCED: Final = "6 a limit is announced, and cuts no speaker off"
STREAM_IS_NOT_CALL: Final = "7 a stream's end is not the call's"
SESSION_LIVES: Final = "8 a healthy session is kept"
ONE_EVENT: Final = "9 an unreadable event costs itself"
ENDS: Final = "10 a call ends once, in bounded time, with words"
DIGITS: Final = "11 keys that a tool collects reach that tool alone, sensitive ones unheard"
NOTICE: Final = "12 the notice of the recording is heard to its end"
RULES: Final = (
    *(NO_DEAD_AIR, NOT_OVER_THE_CALLER, AS_HEARD, GOODBYE, TOOL_ONCE),
    *(LIMIT_ANNOUNCED, STREAM_IS_NOT_CALL, SESSION_LIVES, ONE_EVENT, ENDS, DIGITS, NOTICE),
)


class OpenCall(NamedTuple):
    """A tool call that is carried out. `response`: the number of its response."""

    call_id: str
    response: int
    name: str


class Typing(NamedTuple):
    """Digits that the caller types for a tool. `counts`: keys count; sensitive ones once the recording is paused."""

    call_id: str
    counts: bool
    digits: str = ""
    early: str = ""  # typed before they count
    is_partial: bool = False  # some were recorded, and are dropped
    is_kept: bool = False  # control was handed the digits
    still_ms: int = 0  # since the last event that its end waits for


class Scenario(NamedTuple):
    """One exploration: the agent's rules, and how often what may happen."""

    name: str
    rules: Rules
    turns: int = 1  # of the caller
    tools: tuple[str, ...] = ()  # names of the calls the agent makes
    keys: str = ""
    faults: frozenset[str] = frozenset()
    budget: int = 0  # faults in one run
    expires_ms: int = 0  # lifetime of a session
    taken_back: int = 0  # goodbyes before the beginning
    recorded_ms: int = 0  # length of a recorded greeting
    notice_ms: int = 0  # length of the notice before it
    asked: Asked = Asked()  # by a tool that collects digits
    resumed: bool = False  # the first of `tools` was called in an earlier stream


class Truth(NamedTuple):
    """Acts and receipts of the parties, independent of the machine."""

    session: str = "opening"  # opening | ready
    is_first: bool = True  # session
    restated: bool = True  # the session has the conversation so far
    swap: str = ""  # a successor: opening | ready
    creates: int = 0  # requests the AI has not taken up
    doomed: int = 0  # of these, the ones we cancelled
    own: bool = False  # the AI's voice detection asked for a response
    active: str = ""  # the response under way at the AI
    sounded: bool = False  # it had audio
    called: bool = False  # it called a tool
    called_new: bool = False  # one that no earlier response called
    cancelled: bool = False  # by the caller's voice or by us: its end is on the way
    responses: int = 0
    trailing: str = ""  # an ended response, of which audio may still come
    speaking: bool = False
    held: bool = False  # playout paused
    judged: bool = False  # it runs again, and words may still come
    speech: int = 0  # the caller's turns so far
    texted: bool = True  # the words of the last turn came
    queued: bool = False  # audio the caller has not heard
    starved: bool = False  # what came of it is heard; the rest of the response is late, or the report of it
    toned: bool = False  # the holding sound plays
    silent_ms: int = 0  # since the caller waits and hears nothing, where there is a holding sound
    owed_ms: int = -1  # since an answer is owed without cover; -1: none is owed
    owed_from: int = 0  # responses before this one do not answer
    insists: bool = False  # nor does one that met our request
    open_tools: tuple[OpenCall, ...] = ()
    leaves: str = ""  # the open call for which control ends the stream
    due: tuple[str, ...] = ()  # calls that control settled, whose results the AI does not have
    wanted: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    results: tuple[str, ...] = ()  # of calls in the background
    filled: bool = False  # a sentence was requested to bridge the wait for a tool
    tools: int = 0
    keys: int = 0
    pressed: str = ""  # keys that wait for their terminator
    turned: str = ""  # keys that were a turn
    typing: Typing | None = None
    taken: do.TakeDigits | None = None  # the end of a collection in this step
    unpaused: tuple[str, ...] = ()  # collections for which the recording was not paused
    concealed: bool = False  # neither AI nor recording hears the caller
    noticing: bool = False  # the notice of the recording is not heard to its end
    worded: bool = False  # the agent's closing words were queued
    unconfirmed: bool = False  # no report came that the closing words were heard
    closing_asked: bool = False
    words_from: int = 0  # closing words of a limit come in this response or a later one
    crossed: bool = False  # the request for them was refused, and not repeated
    hang_up: bool = False  # the agent hung up, and nothing took that back
    taken_back: int = 0
    unreadable: tuple[int, ...] = ()  # times before now, within the window
    silent_frames: bool = False
    replaced: bool = False  # the caller's missing frames, by silence
    slow: bool = False  # the AI takes long to end what was cancelled
    wait_ms: int = 0  # the AI asked us to wait so long
    lasting: bool = False  # the AI refuses permanently
    cut_until: int = 0  # responses up to this one were interrupted
    waited_ms: int = 0  # since the AI gave a sign of the answer it owes
    prompts: int = 0  # idle prompts in a row
    goodbyes: int = 0  # requests for a goodbye, since the agent hung up
    warned: bool = False
    unsent_keys: bool = False
    unanswered_keys: bool = False  # the session has them, and no audio has answered
    idle_asked: bool = False  # the last request was an idle prompt, of which nothing was heard
    greeted: bool = False  # by a recorded greeting
    greeting_asked: bool = False  # nothing of it was heard yet
    protect_ms: int = 0  # the greeting is not interrupted for that many milliseconds
    unplayed: bool = False  # audio of the response under way was dropped
    dead: bool = False  # no party does anything any more
    excused: bool = False  # a session may be replaced: it failed, or gave no sign
    broken: tuple[str, ...] = ()
    limited: bool = False  # the longest call is over, or the budget is spent
    unannounced: bool = False  # no session was ready to announce the end: Twilio speaks
    party: str = ""  # by Twilio's first verdict
    ended: str = ""


class State(NamedTuple):
    """A state of the model."""

    machine: tuple[object, ...]
    truth: Truth
    faults: int


def awaits_tool(scenario: Scenario, truth: Truth, response: int = 0) -> bool:
    """A tool is carried out for whose result an answer waits. `response`: of the calls of this one."""
    calls = truth.open_tools
    return bool(calls) and any(response in (0, call.response) and scenario.rules.tools[call.name].waits for call in calls)


def owed(truth: Truth) -> Truth:
    """An answer is owed from now on, by a response that the AI begins later."""
    if truth.hang_up or truth.closing_asked:
        return truth
    owed_from = truth.responses + 1 + truth.creates + (truth.own and not truth.speaking)
    return truth._replace(owed_ms=0, owed_from=owed_from, insists=True)


def settled(scenario: Scenario, truth: Truth, call_id: str) -> Truth:
    """A tool has a result, which the AI gets as it comes. The answer waits for the response's other calls."""
    (call,) = (one for one in truth.open_tools if one.call_id == call_id)
    left = tuple(one for one in truth.open_tools if one is not call)
    truth = truth._replace(open_tools=left, due=(*truth.due, call_id), filled=truth.filled and bool(left))
    is_active = truth.active and not truth.cancelled and call.response == truth.responses
    rules = scenario.rules.tools[call.name]
    if is_active or (rules.waits and awaits_tool(scenario, truth, call.response)):
        return truth
    if rules.filler == "none":
        truth = truth._replace(silent_ms=0)
    return owed(truth)


def refused(truth: Truth) -> Truth:
    """The AI refused a request: a later response answers."""
    owed_from = truth.owed_from - (truth.owed_from > truth.responses + 1)
    return truth._replace(goodbyes=0, creates=truth.creates - 1, doomed=max(0, truth.doomed - 1), owed_from=owed_from)


def without_session(truth: Truth) -> Truth:
    """The session is gone, with everything under way in it."""
    is_saying = truth.active and not truth.cancelled
    has_results = truth.called_new and not any(call.response == truth.responses for call in truth.open_tools)
    lost = (is_saying and (truth.sounded or has_results)) or truth.speaking  # words of the agent, or of the caller
    if lost and not truth.hang_up and not truth.closing_asked:
        truth = truth._replace(owed_ms=max(0, truth.owed_ms), owed_from=truth.responses + 1)
    return truth._replace(
        unsent_keys=truth.unsent_keys or truth.unanswered_keys,
        unanswered_keys=False,
        prompts=truth.prompts - truth.idle_asked,
        idle_asked=False,
        session="opening",
        restated=True,
        creates=0,
        doomed=0,
        own=False,
        active="",
        unplayed=False,
        cancelled=False,
        trailing="",
        speaking=False,
        judged=False,
        texted=True,
        owed_from=min(truth.owed_from, truth.responses + 1),
    )

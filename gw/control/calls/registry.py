"""Registry of calls: the owner of each, its end, its account, and what a stream that resumes it must know.

    is_owned    a worker has the call's stream, or is expected back with it
    is_known    a worker has it, or had it within KEEP_S, since this process began
    is_over     Twilio reported the call's end
    is_foreign  a report comes from another account than the call's
    Call        the rest: the latest stream and how it ended, agent, conversation

A worker owns the calls of its Hello and of its CallStarted, until its CallEnded. The latest stream owns its call, in whatever
order the workers' events come. A call is dropped KEEP_S after its last owner left it: Twilio asks for the next step within
seconds of a stream's end. Values only, without clock, greenlet or store: `now_s` is monotonic.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import zip_longest
from typing import Final

import msgspec

from gw import bus
from gw.call.conversation import Conversation
from gw.call.resume import LEFT
from gw.call.turns import Turn
from gw.control.rows import CallDetails
from gw.latest import Latest

#: From a call's last owner to its removal. A later question is answered from the store.
KEEP_S: Final = 60.0
#: Calls without an owner; one more drops the oldest. Owned calls are as many as the workers have slots.
MAX_LEFT: Final = 20_000
#: SIDs of calls that Twilio reported over; one more drops the oldest. Kept longer than the calls: the spool may deliver a report
#: again hours later, once the store is back, and a recording may be wanted again.
MAX_OVER: Final = 10_000


class Call(msgspec.Struct):
    """Facts about one call. `whole`: since its beginning; None before the first event."""

    owner: str = ""  # instance of the worker that has it
    is_recalled: bool = False  # by events of an earlier process alone
    account_sid: str = ""
    agent: str = ""
    began_at: float = 0.0
    stream_sid: str = ""  # the latest stream's; empty if unknown
    answered_at: float = 0.0  # the latest stream's
    reason: str = ""  # why the latest stream ended
    speak: bool = False
    reported: bool = False  # its worker reported that end
    resumes: int = 0
    returns: set[int] = msgspec.field(default_factory=set)  # of these: not after a failure
    spent_usd: float = 0.0  # by the store
    transferred: bool = False  # by REST
    variables: dict[str, str] = {}  # of its route
    told: set[str] = set()  # jobs of tools whose results the AI was given
    whole: bool | None = None
    is_recorded: bool = False  # its recording was requested
    conversation: Conversation = msgspec.field(default_factory=Conversation)

    @property
    def failures(self) -> int:
        """Number of resumes after a failure."""
        return self.resumes - len(self.returns)

    @property
    def is_lost(self) -> bool:
        """True without an owner and without an end: the worker died, or has left its stream."""
        return not (self.owner or self.reason)


class Calls:
    """All known calls, by SID. Owned calls are never dropped."""

    def __init__(self, *, several_accounts: bool = False) -> None:
        """`several_accounts`: not all calls are of one account, so that a report may come from another one than its call's."""
        self._several_accounts = several_accounts
        self._calls: dict[str, Call] = {}
        self._left: OrderedDict[str, float] = OrderedDict()  # those without an owner: since when, oldest first
        self._over: Latest[str, None] = Latest(MAX_OVER)

    # -- questions --------------------------------------------------------------------------------------------------------

    def is_owned(self, call_sid: str) -> bool:
        return call_sid in self._calls and call_sid not in self._left

    def is_known(self, call_sid: str) -> bool:
        return call_sid in self._calls and not self._calls[call_sid].is_recalled

    def is_over(self, call_sid: str) -> bool:
        return call_sid in self._over

    def is_foreign(self, call_sid: str, account_sid: str) -> bool:
        """Return whether a call is known to be of another account."""
        call = self._calls.get(call_sid)
        return call is not None and self.differ(call.account_sid, account_sid)

    def differ(self, one: str, other: str) -> bool:
        """Return whether two accounts are known, and not the same."""
        return self._several_accounts and bool(one and other) and one != other

    def owner(self, call_sid: str) -> str:
        """Return the instance of the worker that has the call; empty without one."""
        call = self._calls.get(call_sid)
        return "" if call is None else call.owner

    def stream_began_at(self, call_sid: str) -> float | None:
        """Return when the stream of an owned call began, epoch seconds; None without an owner."""
        return self._calls[call_sid].answered_at if self.is_owned(call_sid) else None

    def owned(self) -> set[str]:
        return self._calls.keys() - self._left.keys()

    def get(self, call_sid: str, now_s: float) -> Call | None:
        """Return the facts of a call that had an event, kept for KEEP_S from now."""
        call = self._calls.get(call_sid)
        if call is None or call.whole is None:
            return None
        if not call.owner:
            self._leave(call_sid, call, now_s)
        return call

    # -- facts ------------------------------------------------------------------------------------------------------------

    def on_hello(self, hello: bus.Hello, now_s: float) -> None:
        """Replace the calls of a worker by those that it has now. A call whose end it reported does not return."""
        self._forget(now_s)
        for call_sid in self._owned_by(hello.instance) - set(hello.calls):
            self._leave(call_sid, self._calls[call_sid], now_s)
        for call_sid, at, account_sid in zip_longest(hello.calls, hello.answered_at, hello.account_sids):
            call, at = self._of(call_sid, now_s), at or 0.0
            call.account_sid = call.account_sid or account_sid or ""
            is_newer = at > call.answered_at
            if not is_newer and (call.reported or (call.owner and at < call.answered_at)):
                continue
            self._own(call_sid, call, hello.instance)
            if is_newer:
                call.answered_at, call.stream_sid, call.reason, call.reported = at, "", "", False

    def on_worker_lost(self, instance: str, now_s: float) -> set[str]:
        """Take a worker's calls. Returns them."""
        lost = self._owned_by(instance)
        for call_sid in lost:
            self._leave(call_sid, self._calls[call_sid], now_s)
        return lost

    def on_event(self, instance: str, event: bus.Event, now_s: float) -> str:
        """Note an event of a worker.

        Returns: the other worker that has an older stream of a call that started; empty without one.
        """
        self._forget(now_s)
        match event:
            case bus.CallStarted():
                return self._on_started(instance, event, now_s)
            case bus.StartRecording() if event.call_sid in self._calls:
                call = self._calls[event.call_sid]
                call.account_sid = call.account_sid or event.account_sid
                call.is_recorded = True
            case bus.Turn():
                self._noted(event.call_sid, now_s).conversation.add([_turn(event)])
            case bus.CallEnded():
                self._on_ended(instance, event, now_s)
            case bus.CallEvent(kind="tool_called"):
                self._of(event.call_sid, now_s).told.add(str(event.data.get("id")))
            case bus.CallEvent(kind="variables"):
                call = self._of(event.call_sid, now_s)
                call.variables = {name: str(value) for name, value in event.data.items()}
            case bus.CallEvent(kind="resumed"):
                call = self._noted(event.call_sid, now_s)
                n = int(event.data.get("n") or 0)
                if n > call.resumes and not call.conversation.turns:
                    call.whole = False  # its beginning was another process's: the store has it
                call.resumes = max(call.resumes, n)
                if event.data.get("after") in LEFT:
                    call.returns.add(n)
            case _:
                pass
        return ""

    def recall(self, event: bus.Event, now_s: float) -> None:
        """Note an event that an earlier process accepted, and that the store may lack. It changes no owner and no end."""
        match event:
            case bus.CallStarted():
                call = self._noted(event.call_sid, now_s)
                call.agent, call.account_sid, call.began_at = event.agent, event.account_sid, call.began_at or event.answered_at
            case bus.Turn() | bus.CallEvent() | bus.StartRecording():
                self.on_event("", event, now_s)
            case _:
                return
        if (recalled := self._calls.get(event.call_sid)) is not None:
            recalled.is_recalled = True

    def on_over(self, call_sid: str) -> None:
        """Twilio reports the call's end."""
        self._over[call_sid] = None

    def on_transferred(self, call_sid: str) -> None:
        """Twilio transferred the caller."""
        call = self._calls.get(call_sid)
        if call is not None:
            call.transferred = True

    def on_row(self, call_sid: str, row: CallDetails, now_s: float) -> Call:
        """Complete a call by its row: events that came before or during the read count too. Returns its facts."""
        call = self._of(call_sid, now_s)
        if call.whole:
            return call
        stored, later = {turn.n for turn in row.turns}, call.conversation.turns
        call.conversation = Conversation()
        call.conversation.add(
            Turn(turn.n, turn.role, turn.text, turn.item_id or "", turn.start_ms, turn.interrupted, turn.heard_ms)
            for turn in row.turns
        )
        call.conversation.add(turn for turn in later if turn.n not in stored)
        back = [event.at for event in row.events if event.kind == "resumed"]
        has_ended = row.ended_at is not None and row.ended_at > max(back, default=0.0)
        if has_ended and not (call.reason or call.stream_sid or call.owner):  # else a stream started since, whatever the row says
            call.reason = row.reason or ""
        call.whole, call.resumes = True, max(call.resumes, len(back))
        call.returns |= {
            int(event.data.get("n") or 0) for event in row.events if event.kind == "resumed" and event.data.get("after") in LEFT
        }
        call.account_sid = call.account_sid or row.account_sid or ""
        call.spent_usd = row.cost_usd or 0.0
        call.is_recorded = call.is_recorded or row.recording is not None
        call.variables = call.variables or row.variables
        call.told |= {str(event.data.get("id")) for event in row.events if event.kind == "tool_called"}
        call.agent, call.began_at = call.agent or row.agent or "", row.answered_at or call.began_at
        return call

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _on_started(self, instance: str, event: bus.CallStarted, now_s: float) -> str:
        call = self._of(event.call_sid, now_s)
        if self.differ(call.account_sid, event.account_sid):
            return ""
        former, is_older = call.owner, event.answered_at < call.answered_at
        call.whole = call.whole is not False
        call.account_sid = event.account_sid
        if not (is_older and former):
            self._own(event.call_sid, call, instance)
        if is_older:
            return ""
        call.agent, call.began_at = event.agent, call.began_at or event.answered_at
        call.stream_sid, call.answered_at, call.reason, call.reported = event.stream_sid, event.answered_at, "", False
        return "" if former == instance else former

    def _on_ended(self, instance: str, event: bus.CallEnded, now_s: float) -> None:
        call = self._noted(event.call_sid, now_s)
        if call.owner not in ("", instance):
            return  # another worker has a later stream
        if not call.stream_sid or event.stream_sid in ("", call.stream_sid):
            call.reason, call.speak, call.reported = event.reason, event.speak, True
        self._leave(event.call_sid, call, now_s)

    def _of(self, call_sid: str, now_s: float) -> Call:
        call = self._calls.get(call_sid)
        if call is None:
            call = self._calls[call_sid] = Call()
            self._leave(call_sid, call, now_s)
        call.is_recalled = False
        return call

    def _noted(self, call_sid: str, now_s: float) -> Call:
        """Return a call of which an event came that is not its start."""
        call = self._of(call_sid, now_s)
        call.whole = bool(call.whole)
        return call

    def _own(self, call_sid: str, call: Call, instance: str) -> None:
        call.owner = instance
        self._left.pop(call_sid, None)

    def _leave(self, call_sid: str, call: Call, now_s: float) -> None:
        call.owner = ""
        self._left[call_sid] = now_s
        self._left.move_to_end(call_sid)
        while len(self._left) > MAX_LEFT:
            del self._calls[self._left.popitem(last=False)[0]]

    def _owned_by(self, instance: str) -> set[str]:
        return {call_sid for call_sid, call in self._calls.items() if call.owner == instance}

    def _forget(self, now_s: float) -> None:
        while self._left and next(iter(self._left.values())) <= now_s - KEEP_S:
            del self._calls[self._left.popitem(last=False)[0]]


def _turn(event: bus.Turn) -> Turn:
    return Turn(
        event.n, event.role, event.text, event.item_id, event.start_ms, event.interrupted, event.heard_ms, event.length_ms
    )

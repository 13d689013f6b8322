"""The states of a job, and the transitions between them. Pure.

    wanted ---> claimed ---> done | failed | unknown
      |  ^         |
      |  +---------+  tried again: later, or because its request was not sent, or because it is idempotent
      +---> expired

`claimed` is on disk before the request is sent. A job found claimed at the start may have been sent: it is repeated under the
same id if its handler declares it idempotent, so that the endpoint can recognise it, and is `unknown` otherwise.

The open events of one call for one endpoint are in sequence: only the first is due. An event that was not delivered keeps its
body, so that it can be sent again.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from gw.protocol.hooks.tool_call import ErrorWord, failed

State = Literal["wanted", "claimed", "done", "failed", "expired", "unknown"]
#: Causes of a transition.
Cause = Literal[
    "full",  # too many jobs of its kind wait
    "refused",  # no handler, or a body too long
    "due",  # a runner is free
    "late",  # its deadline passed before a runner was free
    "done",
    "failed",
    "unclear",  # its request may have taken effect
    "again",  # its handler asks for another attempt
    "unsent",  # claimed by this process, which did not learn that, and sent nothing; or its body is not complete yet
    "found",  # claimed by an earlier process, and not idempotent
    "found_idempotent",
    "retry",  # an operator asks for another attempt
]

TRANSITIONS: Final[dict[State, dict[Cause, State]]] = {
    "wanted": {"due": "claimed", "late": "expired", "full": "failed", "refused": "failed"},
    "claimed": {
        "done": "done",
        "failed": "failed",
        "unclear": "unknown",
        "again": "wanted",
        "unsent": "wanted",
        "found": "unknown",
        "found_idempotent": "wanted",
    },
    "done": {},
    "failed": {"retry": "wanted"},
    "expired": {"retry": "wanted"},
    "unknown": {},
}
#: States of a job without a result.
OPEN: Final[tuple[State, ...]] = ("wanted", "claimed")
#: Kinds of jobs that begin so are events for one endpoint.
EVENT: Final = "event"
#: The kind of a tool's call; with a host behind it, of the calls to that host.
TOOL: Final = "tool"
#: `next_at` of an event behind another one.
BEHIND: Final = 1e12
#: Longest body of a new job: several times the arguments of a tool call with the facts of its call.
MAX_BODY_CHARS: Final = 64 << 10


class Job(msgspec.Struct, frozen=True):
    """One row of the table. Times are epoch seconds. A settled job has no body, unless it may be needed again."""

    id: str
    kind: str
    call_sid: str
    state: State
    attempts: int
    next_at: float  # the next attempt; of a settled job, when it was settled
    deadline_at: float
    body: str
    outcome: str  # a word for people and metrics: "ok", or why there is no result
    result: str
    at: float  # when it was accepted

    @property
    def is_open(self) -> bool:
        """True without a result."""
        return self.state in OPEN

    @property
    def is_event(self) -> bool:
        """True for an event for one of the user's endpoints."""
        return self.kind.startswith(EVENT)

    @property
    def is_tool(self) -> bool:
        """True for a call of a tool."""
        return self.kind.partition(" ")[0] == TOOL

    @property
    def is_due(self) -> bool:
        """True for an open job with a time of its next attempt."""
        return self.is_open and self.next_at < BEHIND

    @property
    def is_dead(self) -> bool:
        """True for an event that was not delivered."""
        return self.is_event and self.state in ("failed", "expired")


class Ended(msgspec.Struct, frozen=True):
    """An attempt that settles its job. `unclear`: the request may have taken effect."""

    cause: Literal["done", "failed", "unclear"]
    outcome: str
    result: str


class Again(msgspec.Struct, frozen=True):
    """An attempt that is followed by another one, while the deadline permits."""

    after_s: float


class Rewritten(msgspec.Struct, frozen=True):
    """No request was sent: the job has another body now, or the same, and is due after a time."""

    body: str
    after_s: float = 0.0


Outcome = Ended | Again | Rewritten


def want(job_id: str, kind: str, call_sid: str, body: str, *, deadline_at: float, now: float) -> Job:
    """Return a new job, due immediately."""
    job = Job(job_id, kind, call_sid, "wanted", 0, now, deadline_at, body, "", "", now)
    if len(body) > MAX_BODY_CHARS:
        return refuse(job, "invalid_arguments", f"The request is longer than {MAX_BODY_CHARS} characters.", now)
    return job


def refuse(job: Job, word: ErrorWord, detail: str, now: float) -> Job:
    """Settle a new job that cannot be run."""
    return _failed(job, "refused", word, detail, now)


def on_full(job: Job, now: float) -> Job:
    """Settle a new job because too many wait."""
    return _failed(job, "full", "busy", "Too many requests are waiting.", now)


def on_due(job: Job, now: float) -> Job:
    """Claim a waiting job for its next attempt, or let it expire. Raises KeyError in another state."""
    if now > job.deadline_at:
        return _failed(job, "late", "timeout", "The request was not sent in time.", now)
    return msgspec.structs.replace(job, state=TRANSITIONS[job.state]["due"], attempts=job.attempts + 1)


def on_outcome(job: Job, outcome: Outcome, now: float) -> Job:
    """End an attempt of a claimed job. Raises KeyError in another state."""
    if isinstance(outcome, Rewritten):
        return msgspec.structs.replace(on_unsent(job), body=outcome.body, next_at=now + outcome.after_s)
    if isinstance(outcome, Again):
        return msgspec.structs.replace(job, state=TRANSITIONS[job.state]["again"], next_at=now + outcome.after_s)
    return _settled(job, outcome.cause, outcome.outcome, outcome.result, now)


def on_unsent(job: Job) -> Job:
    """Return a claimed job whose request this process has not sent. Raises KeyError in another state."""
    return msgspec.structs.replace(job, state=TRANSITIONS[job.state]["unsent"], attempts=job.attempts - 1)


def on_found(job: Job, now: float, *, idempotent: bool, renewed_s: float) -> Job:
    """Resume a job that an earlier process left claimed. Raises KeyError in another state.

    `renewed_s`: a repeated job has at least this time until its deadline.
    """
    if not idempotent:
        detail = "The gateway was interrupted while the request was under way."
        return _failed(job, "found", "unknown_outcome", detail, now)
    state = TRANSITIONS[job.state]["found_idempotent"]
    return msgspec.structs.replace(job, state=state, next_at=now, deadline_at=max(job.deadline_at, now + renewed_s))


def on_behind(job: Job) -> Job:
    """Let a new event wait for the one before it."""
    return msgspec.structs.replace(job, next_at=BEHIND)


def on_retry(job: Job, now: float, *, deadline_at: float) -> Job:
    """Want an event that was not delivered once more. Raises KeyError in another state."""
    state = TRANSITIONS[job.state]["retry"]
    return msgspec.structs.replace(
        job, state=state, attempts=0, next_at=now, deadline_at=deadline_at, outcome="", result="", at=now
    )


def _failed(job: Job, cause: Cause, word: ErrorWord, detail: str, now: float) -> Job:
    return _settled(job, cause, word, failed(word, detail).output, now)


def _settled(job: Job, cause: Cause, outcome: str, result: str, now: float) -> Job:
    whole = result.encode("utf-8", "replace").decode()  # half a surrogate has no place on disk
    state = TRANSITIONS[job.state][cause]
    after = msgspec.structs.replace(job, state=state, next_at=now, outcome=outcome, result=whole)
    is_named = after.is_tool and len(after.body) <= MAX_BODY_CHARS  # to a stream that resumes the call
    is_kept = after.is_dead or is_named  # an event: to be sent again
    return after if is_kept else msgspec.structs.replace(after, body="")

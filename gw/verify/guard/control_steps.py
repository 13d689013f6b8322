"""Steps of control, the store, Twilio and its webhooks in the recording model.

Lifecycles, claims, answers and reconcile passes are the production code's (`parts`, `claim_row`); this file decides only which
question is asked when. Twilio obeys: each create on a live call makes a recording; on a call that is over the create is refused
with 21220; a list names every recording. Twilio keeps every recording: 20404 occurs only for a call without one, and passes.
"""

from __future__ import annotations

from typing import Final

from gw.control.recording.lifecycle import Claim, ClaimHere, ClaimResult, Create, Later, Leave, Lifecycle, List, Outcome, Reclaim
from gw.control.recording.rows import WRITE_S
from gw.control.store import claimant_of
from gw.verify.explorer import FREE, SURE, Step
from gw.verify.guard import claim_row as ops
from gw.verify.guard.claim_row import RowStore, plain
from gw.verify.guard.parts import NOW_S, Parts, later, wait_ms_of
from gw.verify.guard.state import (
    LOST,
    NEVER,
    ControlState,
    ModelState,
    excused,
    less,
    put_control,
    recorded,
    spent,
    with_hook,
    without_hook,
)

WRITE_MS: Final = round(1000 * WRITE_S)
_Steps = list[Step[ModelState]]


class ControlSteps:
    """Steps of control, the store, Twilio and the webhooks."""

    def __init__(self, parts: Parts, rows: RowStore, faults: frozenset[str]) -> None:
        self._parts = parts
        self._rows = rows
        self._faults = faults
        self._retry_s = parts.retry_s

    def name(self, state: ModelState, host: int) -> str:
        """The control process on `host`, in a step's label."""
        return "control" if len(state.controls) == 1 else f"control {'AB'[host]}"

    def add(self, state: ModelState, steps: _Steps) -> None:
        """Add the steps out of this state."""
        for host, control in enumerate(state.controls):
            if control.up:
                self._serve(state, host, control, steps)
            elif control.back_ms == 0:
                back = put_control(state, host, control._replace(back_ms=NEVER))
                steps.append(Step(f"{self.name(state, host)} is back", back, SURE))
        if state.hooks:
            self._webhooks(state, steps)

    # -- the lifecycle ---------------------------------------------------------------------------------------

    def on_event(self, control: ControlState, kind: str) -> ControlState:
        """Control's subscribers receive an event."""
        return self._with(control, self._parts.after_event(control.lifecycle, kind), keep=True)

    def later(self, control: ControlState, ms: int) -> ControlState:
        looks = control.looks
        return control._replace(
            back_ms=less(control.back_ms, ms),
            wait_ms=max(0, control.wait_ms - ms),
            lifecycle=None if control.lifecycle is None else self._aged(control.lifecycle, ms),
            looks=None if looks is None else looks._replace(in_ms=max(0, looks.in_ms - ms)),
        )

    def _aged(self, lifecycle: Lifecycle, ms: int) -> Lifecycle:
        return lifecycle if isinstance(lifecycle.action, Outcome) else later(lifecycle, ms)

    def _with(self, control: ControlState, lifecycle: Lifecycle | None, *, keep: bool = False) -> ControlState:
        """Control with this lifecycle. `keep`: an unchanged action under way continues."""
        before = control.lifecycle
        if lifecycle is None or isinstance(lifecycle.action, Leave | Later):
            return control._replace(lifecycle=None, wait_ms=0, answer=None, holding=False)
        if isinstance(lifecycle.action, Outcome):
            lifecycle = Lifecycle(plain(lifecycle.action), NOW_S, self._retry_s)  # the history no longer matters
        if keep and before is not None and before.action == lifecycle.action:
            return control._replace(lifecycle=lifecycle)
        return control._replace(lifecycle=lifecycle, wait_ms=wait_ms_of(lifecycle), answer=None, holding=False)

    def _serve(self, state: ModelState, host: int, control: ControlState, steps: _Steps) -> None:
        who = self.name(state, host)
        if control.here and not state.store_ms:
            self._deliver(state, host, control, steps)
        elif control.wish and not state.store_ms:
            written = self._apply(put_control(state, host, control._replace(wish=False)), ops.WriteWish())
            steps.append(Step(f"{who}: the forwarder writes the wish to the store", written, SURE))
        if control.lifecycle is None:
            if state.row and not state.store_ms:
                self._pass(state, host, control, steps)
        elif isinstance(control.lifecycle.action, Outcome):
            self._write(state, host, control, control.lifecycle.action, steps)
        elif control.wait_ms == 0:
            if control.answer is not None:
                self._answer(state, host, control, control.lifecycle, steps)
            elif isinstance(control.lifecycle.action, Claim | ClaimHere | Reclaim):
                self._claim(state, host, control, control.lifecycle, steps)
            else:
                self._ask(state, host, control, control.lifecycle, steps)

    def _put(self, state: ModelState, host: int, control: ControlState, lifecycle: Lifecycle | None) -> ModelState:
        return put_control(state, host, self._with(control, lifecycle))

    # -- the store ------------------------------------------------------------------------------------------------------

    def _apply(self, state: ModelState, operation: ops.Operation) -> ModelState:
        written = self._rows.apply(state.row, operation)
        return state._replace(row=written.form, age_ms=0 if written.moved else state.age_ms)

    def _owner(self, host: int, control: ControlState) -> str:
        return f"{'AB'[host]}/{control.life}"

    def _claim(self, state: ModelState, host: int, control: ControlState, lifecycle: Lifecycle, steps: _Steps) -> None:
        action, who = lifecycle.action, self.name(state, host)
        owner = self._owner(host, control)
        if isinstance(action, ClaimHere):
            owned = self._owns(state, host)
            kept = control._replace(here=control.here or control.life) if owned else control
            after = self._put(state, host, kept, lifecycle.on_claim("ours" if owned else "away", NOW_S))
            steps.append(Step(f"{who} claims in its spool" if owned else f"{who} leaves the wish in its spool", after, SURE))
            return
        if state.store_ms:
            gone = None if isinstance(action, Reclaim) else lifecycle.on_claim("away", NOW_S)
            steps.append(Step(f"{who} cannot claim: the store is away", self._put(state, host, control, gone), SURE))
            return
        if isinstance(action, Reclaim):
            taken = self._rows.apply(state.row, ops.ReclaimRow(owner, action.from_owner)).done
            after = self._apply(state, ops.ReclaimRow(owner, action.from_owner))
            label = f"{who} takes over the claim of {action.from_owner}" if taken else f"{who} finds the claim taken"
            steps.append(
                Step(label, self._put(after, host, control, lifecycle.on_claim("ours" if taken else "theirs", NOW_S)), SURE)
            )
            return
        assert isinstance(action, Claim)
        if any(other.here and other.back_ms != LOST for at, other in enumerate(state.controls) if at != host):
            return  # granted: a claim in a spool reaches the store first
        ours = self._rows.apply(state.row, ops.ClaimRow(owner)).done
        after = self._apply(state, ops.ClaimRow(owner))
        label = f"{who} claims the row" if ours else f"{who} finds the row claimed"
        answer: ClaimResult = "theirs"
        if ours:
            answer, control = ("found" if control.here else "ours"), control._replace(here=0)
        steps.append(Step(label, self._put(after, host, control, lifecycle.on_claim(answer, NOW_S)), SURE))
        if ours and state.budget and "commit unclear" in self._faults:
            lost = self._put(excused(spent(after)), host, control, lifecycle.on_claim("away", NOW_S))
            steps.append(Step(f"{who} claims the row, and the answer is lost", lost, FREE))

    def _deliver(self, state: ModelState, host: int, control: ControlState, steps: _Steps) -> None:
        """Deliver the spool's claim to the store, as the forwarder does, and the recorder before a create."""
        owner = f"{'AB'[host]}/{control.here}"
        after = self._apply(state, ops.DeliverClaim(owner))
        row = self._rows.row(after.row)
        assert row is not None
        theirs = claimant_of(row.owner) != "AB"[host]
        lifecycle = control.lifecycle
        if theirs and lifecycle is not None and not isinstance(lifecycle.action, Outcome):
            lifecycle = lifecycle.on_taken()
        after = put_control(after, host, control._replace(here=0, lifecycle=lifecycle))
        label = "finds the row claimed by another host" if theirs else "delivers its claim to the store"
        steps.append(Step(f"{self.name(state, host)} {label}", after, SURE))

    def _owns(self, state: ModelState, host: int) -> bool:
        return any(stream.host == host and stream.phase in ("open", "ending") for stream in state.streams)

    def _write(self, state: ModelState, host: int, control: ControlState, outcome: Outcome, steps: _Steps) -> None:
        who, over = self.name(state, host), control._replace(lifecycle=None, wait_ms=0, holding=False)
        if not state.store_ms:
            written = put_control(self._apply(state, ops.WriteOutcome(outcome)), host, over)
            steps.append(Step(f"{who} writes the row: {outcome.state}", written, SURE))
        elif not control.holding:
            held = put_control(state, host, control._replace(holding=True, wait_ms=WRITE_MS))
            steps.append(Step(f"{who} cannot write the row: the store is away", held, SURE))
        elif control.wait_ms == 0:
            steps.append(Step(f"{who} gives up writing the row", put_control(state, host, over), SURE))

    def _pass(self, state: ModelState, host: int, control: ControlState, steps: _Steps) -> None:
        """The reconcile pass, if it would act."""
        who, row = self.name(state, host), (state.row, state.age_ms)
        owned = self._owns(state, host)
        claimant = "AB"[host]
        done = self._parts.passed(row, claimant, owned, control.looks, state.recordings)
        if done.lifecycle is not None:
            steps.append(Step(f"{who}: the pass takes the row up", self._put(state, host, control, done.lifecycle), SURE))
        if not done.asked:
            return
        looked = put_control(state, host, control._replace(looks=done.looks))
        if done.outcome is not None:
            written = self._apply(looked, ops.WriteOutcome(plain(done.outcome)))
            steps.append(Step(f"{who}: the pass asks Twilio and writes the row: {done.outcome.state}", written, SURE))
        else:
            steps.append(Step(f"{who}: the pass asks Twilio, the recording continues", looked, SURE))
        if state.budget:
            for name in ("20404", "20429", "503", "time-out"):
                if name in self._faults and not (name == "20404" and state.recordings):
                    failed = self._parts.passed(row, claimant, owned, control.looks, name)
                    after = spent(put_control(state, host, control._replace(looks=failed.looks)))
                    if failed.outcome is not None:
                        after = self._apply(after, ops.WriteOutcome(plain(failed.outcome)))
                    steps.append(Step(f"{who}: the pass asks Twilio: {name}", after, FREE))

    # -- Twilio ---------------------------------------------------------------------------------------------------------

    def _ask(self, state: ModelState, host: int, control: ControlState, lifecycle: Lifecycle, steps: _Steps) -> None:
        who = self.name(state, host)
        if control.here and not state.store_ms and isinstance(lifecycle.action, Create):
            return  # the claim is delivered to the store first
        lifecycle = lifecycle.when_due(owned=self._owns(state, host))
        if isinstance(lifecycle.action, Outcome | Leave):
            steps.append(Step(f"{who} stops trying", self._put(state, host, control, lifecycle), SURE))
            return
        control = control._replace(lifecycle=lifecycle)
        creates = isinstance(lifecycle.action, Create)
        assert creates or isinstance(lifecycle.action, List)
        what = "create" if creates else "list"
        done: ModelState = state
        answer: object
        if not creates:
            answer = state.recordings
        elif state.over:
            answer = "21220"
        else:
            done = recorded(state)
            answer = f"started RE{len(done.recordings)}"
        result = "it is made" if creates and not state.over else answer if creates else f"{len(state.recordings)} listed"
        asked = put_control(done, host, control._replace(answer=answer))
        steps.append(Step(f"{who} asks Twilio to {what}: {result}", asked, SURE))
        if state.budget:
            self._faulty(state, done, host, control, what, steps)

    def _faulty(self, state: ModelState, done: ModelState, host: int, control: ControlState, what: str, steps: _Steps) -> None:
        """Add every other end of the request."""
        who = self.name(state, host)

        def add(name: str, base: ModelState, note: str, wait_ms: int = 0) -> None:
            base = spent(base if name in ("21220", "20404") else excused(base))
            after = put_control(base, host, control._replace(answer=name, wait_ms=wait_ms))
            steps.append(Step(f"{who} asks Twilio to {what}: {name}{note}", after, FREE))

        if what == "create" and "21220" in self._faults and not state.over:
            add("21220", state, "")
        for name in ("20404", "20429", "unreachable"):
            if name in self._faults and not (name == "20404" and state.recordings):
                add(name, state, "")
        for name, wait_ms in (("503", 0), ("time-out", self._parts.rest_bound_ms)):
            if name in self._faults:
                if done != state:
                    add(name, done, ", but it is made", wait_ms)
                add(name, state, ", nothing is made" if what == "create" else "", wait_ms)

    def _answer(self, state: ModelState, host: int, control: ControlState, lifecycle: Lifecycle, steps: _Steps) -> None:
        owned = self._owns(state, host)
        after = self._parts.answered(lifecycle, control.answer, owned)
        if control.answer == "20404" and not owned and not state.over:
            state = excused(state)._replace(refused=True)
        who = self.name(state, host)
        steps.append(Step(f"{who} has Twilio's answer", self._put(state, host, control, after), SURE))

    # -- webhooks -------------------------------------------------------------------------------------------------------

    def _webhooks(self, state: ModelState, steps: _Steps) -> None:
        for hook in dict.fromkeys(state.hooks):
            if hook.late_ms:
                continue
            gone = without_hook(state, hook)
            name = "the call's end" if hook.status == "over" else f"recording {hook.of} {hook.status}"
            arrivals: list[tuple[str, ModelState]] = []
            for host, control in enumerate(state.controls):
                if not control.up:
                    continue
                who = self.name(state, host)
                if hook.status == "over":
                    arrivals.append((who, put_control(gone, host, self.on_event(control, "over"))))
                elif not state.store_ms:  # otherwise the webhook waits in the spool
                    outcome = self._parts.webhook(hook.status, f"RE{hook.of}")
                    arrivals.append((who, gone if outcome is None else self._apply(gone, ops.WriteOutcome(plain(outcome)))))
            for who, after in arrivals:
                steps.append(Step(f"webhook '{name}' reaches {who}", after, SURE))
                if state.budget and "webhook twice" in self._faults:
                    steps.append(Step(f"webhook '{name}' reaches {who}, and comes again", spent(with_hook(after, hook)), FREE))

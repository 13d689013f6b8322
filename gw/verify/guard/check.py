"""`verify guard`: explores one call's recording, its pauses, and one tool call, in every order and with every fault.

Each scenario has its hosts, its faults and a number of faults in one run. `SCENARIOS` end in seconds, `DEEP` adds longer ones. A
scenario that reaches the bound on states proves nothing and is reported as incomplete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from gw.verify import scenario_report as report
from gw.verify.explorer import Explorer
from gw.verify.guard.claim_row import RowStore
from gw.verify.guard.jobs import JOB_FAULTS, JOB_INVARIANTS, JobModel, JobScenario
from gw.verify.guard.model import ALL_FAULTS, INVARIANTS, GuardModel, Scenario
from gw.verify.guard.pauses import PAUSE_FAULTS, PAUSE_INVARIANTS, PauseModel, PauseScenario

#: About 1 KB a state.
MAX_STATES: Final = 4_000_000

TWILIO: Final = frozenset({"21220", "20404", "20429", "503", "time-out", "unreachable"})
WEBHOOKS: Final = frozenset(
    (
        *("webhook never", "webhook twice", "webhook late", "recording absent", "recording failed"),
        *("time-out", "control killed"),
    )
)

SCENARIOS: Final = (
    Scenario("one host, every fault", ALL_FAULTS, 2),
    Scenario("two hosts, every fault", ALL_FAULTS, 1, hosts=2),
    Scenario("the call leaves its stream and returns, every fault", ALL_FAULTS, 1, moves=True),
    Scenario("Twilio fails in every way", TWILIO, 3),
    Scenario("webhooks and restarts", WEBHOOKS, 3),
    Scenario("a notice of the recording, every fault", ALL_FAULTS, 1, notice=True),
    JobScenario("a tool call, every fault", JOB_FAULTS, 2),
    JobScenario("a call of an idempotent tool, every fault", JOB_FAULTS, 2, idempotent=True),
    JobScenario("a transfer, every fault", JOB_FAULTS - {"cancelled"}, 2, leaves=True),
    PauseScenario("a pause for digits, every fault", PAUSE_FAULTS, 2),
    PauseScenario("two pauses for digits", frozenset({"answer doubled"}), 1, collections=2),
    PauseScenario("a pause for digits beside an operator's", frozenset({"control killed"}), 1, operator=(True,)),
    PauseScenario("a pause for digits within an operator's", frozenset(), 0, operator=(True, False)),
    PauseScenario("an operator's pause before the recording starts", frozenset(), 0, operator=(True,), late=True),
    PauseScenario("a pause for digits before the recording starts", frozenset({"control killed", "time-out"}), 1, late=True),
)
#: Minutes and 3 GB instead of seconds.
DEEP: Final = (
    *SCENARIOS,
    Scenario("two hosts, the stream moves, a claim is unclear", frozenset({"commit unclear"}), 1, hosts=2, chunks=0, moves=True),
    Scenario("two hosts, the stream moves, the store is away", frozenset({"store down"}), 1, hosts=2, chunks=0, moves=True),
    Scenario("one host, every fault, thrice", ALL_FAULTS, 3),
    Scenario("two hosts, every fault, twice", ALL_FAULTS, 2, hosts=2),
    JobScenario("a tool call, every fault, thrice", JOB_FAULTS, 3),
    JobScenario("a call of an idempotent tool, every fault, thrice", JOB_FAULTS, 3, idempotent=True),
    PauseScenario("two pauses for digits, every fault", PAUSE_FAULTS, 1, collections=2),
)

#: Assumptions of the model, as much part of the proof as the states.
GRANTED: Final = (
    "a request takes effect at Twilio before its sender gives up, or never",
    "a row is read and written in one step; a claim is the store's own SQL",
    "killed processes restart; a lost host does not, and the calls it had claimed need not be recorded",
    "a delay lasts as long as gw/verify/guard/fault_steps.py states",
    "no party that could act waits for more than a minute; random waits take their nominal length",
    "a fault that takes time (a death, an outage, a failure of Twilio) suspends the promise of 2 s",
    "Twilio echoes the mark behind the notice when the caller has heard it",
    "a call without a stream here that Twilio refuses (20404) need not be recorded",
    "the store is away for every host or for none; claims in a spool reach it before any other claim",
    "a host has the list of calls alive at its workers",
    "the endpoint of an idempotent tool does nothing twice for one Idempotency-Key",
    "a cancellation that is lost with its connection or its process has no effect: the late result is dropped",
    "Twilio takes a request for a transfer from a control that died before the next one asks, and ends the stream with it",
    "a worker with the call's stream connects within the time that a restarted control waits for it",
    "an operator whose act was interrupted looks at the recording, and acts again",
    "Twilio refuses a status that the recording has, and lists the recording",
    "a worker's instance, and the results of its jobs, are kept for longer than it waits for them",
)


AnyScenario = Scenario | JobScenario | PauseScenario
Judged = report.Judged[AnyScenario]


class GuardReport(report.ScenarioReport[AnyScenario]):
    """Results of all scenarios. `operations`: operations the store ran for them, and questions to the jobs' service."""

    invariants = (*INVARIANTS, *JOB_INVARIANTS, *PAUSE_INVARIANTS)
    granted = GRANTED

    def __init__(self, judged: tuple[Judged, ...], operations: int) -> None:
        super().__init__(judged)
        self.operations = operations

    def figures(self) -> dict[str, Any]:
        return {"store_operations": self.operations}

    def fields_of(self, scenario: AnyScenario) -> dict[str, Any]:
        return {"hosts": scenario.hosts}


def check(scenarios: Sequence[AnyScenario] = SCENARIOS, on_judged: Callable[[Judged], None] = lambda judged: None) -> GuardReport:
    """Explore these scenarios, one after the other; `on_judged` receives each result."""
    rows = RowStore()
    asked = 0
    try:
        judged = []
        for scenario in scenarios:
            if isinstance(scenario, Scenario):
                explored = Explorer(GuardModel(scenario, rows), max_states=MAX_STATES).run()
            else:
                jobs = JobModel(scenario, rows.page) if isinstance(scenario, JobScenario) else PauseModel(scenario, rows.page)
                explored = Explorer[Any](jobs, max_states=MAX_STATES).run()
                asked += jobs.parts.asked
                jobs.parts.close()
            judged.append(Judged(scenario, explored))
            on_judged(judged[-1])
        return GuardReport(tuple(judged), rows.tried + asked)
    finally:
        rows.close()

"""gw.media.shared.lookups: a route decided by the endpoint is found by the streams of its call."""

from __future__ import annotations

import pytest

from gw import bus
from gw.config import Config, Route, RouteLookup
from gw.media.shared.lookups import MAX_KEPT, Looked, Lookups
from gw.protocol.hooks.route_call import Decision

FIELDS = {"CallSid": "CA1", "From": "+1"}
ANN = Decision(agent="sales", variables={"name": "Ann"}, greeting="Hi {{name}}", record=False)


class Control:
    def __init__(self, *answers: bus.Answer | None) -> None:
        self.answers = list(answers)
        self.asked: list[bus.Ask] = []

    def put(self, question: bus.Ask, limit_s: float) -> bus.Answer | None:
        assert 0 < limit_s <= 2.5
        self.asked.append(question)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def lookups(control: Control, **keys: object) -> Lookups:
    made = Lookups(Config(route=RouteLookup(url="https://example.com/", **{"timeout_s": 0.3, **keys})))  # type: ignore[arg-type]
    made.put = control.put
    return made


def test_without_an_endpoint_none_is_asked() -> None:
    assert not Lookups(Config()).is_configured
    assert lookups(Control(None)).is_configured


def test_a_decision_is_kept_for_the_stream() -> None:
    control = Control(bus.Answer(1, route=ANN))
    made = lookups(control)
    looked = made.ask(FIELDS, "AC1")
    assert looked.route == Route(agent="sales", variables={"name": "Ann"}, record=False)
    assert (looked.greeting, looked.failure, looked.is_refused) == ("Hi {{name}}", "", False)
    assert control.asked == [bus.Ask(0, "CA1", "route", "AC1", FIELDS)]
    assert made.of_stream(looked.id, "CA1", "AC1") == Looked(Route(variables={"name": "Ann"}, record=False), "Hi {{name}}")
    for is_start in (False, True):  # the stream broke: control is asked by the webhook, for the stream that follows too
        again = made.of_stream(looked.id, "CA1", "AC1", is_start=is_start)
        assert again is not None
        assert again.route.variables == {"name": "Ann"}
    assert control.asked[1:] == [bus.Ask(0, "CA1", "variables", "AC1")]
    assert made._kept == {}


def test_names_are_of_the_content() -> None:
    plain = Looked(Route(agent="sales"))
    assert plain.id == ""
    unrecorded = Looked(Route(agent="sales", record=False))
    made = lookups(Control(None))
    assert made.of_stream(unrecorded.id, "CA1", "") == Looked(Route(record=False))
    one, other = (Looked(Route(variables={"a": "1", "b": text})).id for text in ("2", "3"))
    assert one == Looked(Route(variables={"b": "2", "a": "1"})).id != other
    assert len({one, other, Looked(Route(), "").id, ""}) == 4
    for name in ("", "0123456789ab"):
        assert made.of_stream(name, "CA1", "") is None


@pytest.mark.parametrize("on_failure", ["default", "refuse"])
def test_without_a_decision_the_configuration_decides(on_failure: str, caplog: pytest.LogCaptureFixture) -> None:
    made = lookups(Control(bus.Answer(1, reason="timeout")), on_failure=on_failure)
    looked = made.ask(FIELDS, "")
    assert (looked.failure, looked.is_refused, looked.route.agent) == (
        "timeout", on_failure == "refuse", "" if on_failure == "refuse" else "default"
    )  # fmt: skip
    assert "decided nothing (timeout)" in caplog.text


def test_a_control_that_is_away_may_come_back_in_time() -> None:
    control = Control(None, None, bus.Answer(1, route=ANN))
    assert lookups(control).ask(FIELDS, "").failure == ""
    assert len(control.asked) == 3


def test_a_control_that_stays_away() -> None:
    assert lookups(Control(None)).ask(FIELDS, "").failure == "control is away"


def test_a_stream_whose_variables_are_gone_continues_without(caplog: pytest.LogCaptureFixture) -> None:
    looked = lookups(Control(None)).of_stream(Looked(Route(variables={"a": "1"})).id, "CA1", "")
    assert looked == Looked(Route())
    assert "are empty" in caplog.text


def test_kept_decisions_are_bounded() -> None:
    made = lookups(Control(bus.Answer(1, route=ANN)))
    for n in range(MAX_KEPT + 5):
        made.ask({"CallSid": f"CA{n}"}, "")
    assert len(made._kept) == MAX_KEPT

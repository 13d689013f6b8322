"""gw.call.responses against a server that allows one response at a time and starts some unasked."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gw.call.responses import Responses
from tests.examples import examples


class Server:
    """One session of an AI. Requests during a response are refused; messages take time, in sequence, in both directions."""

    def __init__(self) -> None:
        self.responses = Responses()
        self.up = 0  # requests on their way
        self.down: deque[tuple[str, str]] = deque()
        self.active: str | None = None
        self.made = self.wanted = self.owned = self.refused = 0

    def drive(self, script: list[str]) -> None:
        """Call the methods of the script, then let everything in progress end."""
        for what in script:
            getattr(self, what)()
        for _ in range(len(script) * 6):
            self.arrive()
            self.finish()
            self.deliver()

    def want(self) -> None:
        self.wanted += 1
        self.ask(self.responses.request())

    def ask(self, yes: bool) -> None:
        if yes:
            assert self.responses.active_id is None, "asked during a known response"
            self.up += 1

    def start(self) -> None:
        self.made += 1
        self.active = f"r{self.made}"
        self.down.append(("started", self.active))

    def arrive(self) -> None:
        """Let a request reach the server."""
        if self.up:
            self.up -= 1
            if self.active is None:
                self.start()
            else:
                self.refused += 1
                self.down.append(("refused", ""))

    def own(self) -> None:
        """Start a response unasked."""
        if self.active is None:
            self.owned += 1
            self.start()

    def finish(self) -> None:
        if self.active is not None:
            self.down.append(("done", self.active))
            self.active = None

    def deliver(self) -> None:
        if not self.down:
            return
        what, response_id = self.down.popleft()
        if what == "started":
            self.responses.on_started(response_id)
        elif what == "refused":
            self.responses.on_refused()
        else:
            self.ask(self.responses.on_done(response_id))


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.sampled_from(["want", "arrive", "own", "finish", "deliver", "deliver"]), min_size=5, max_size=60))
def test_any_crossing_ends_idle_and_only_a_crossing_is_refused(script: list[str]) -> None:
    server = Server()
    server.drive(script)
    assert (server.up, server.active, list(server.down)) == (0, None, [])
    assert server.responses.is_idle
    assert server.responses.active_id is None
    assert server.refused <= server.owned
    assert bool(server.made) or not server.wanted


def test_a_second_request_waits_for_the_end_of_the_first() -> None:
    responses = Responses()
    assert responses.is_idle
    assert responses.request()
    assert not responses.is_idle
    assert not responses.request()
    assert not responses.request()
    responses.on_started("r1")
    assert responses.active_id == "r1"
    assert responses.on_done("r1"), "one more is asked for, whatever the number of requests"
    assert not responses.is_idle
    responses.on_started("r2")
    assert not responses.on_done("r2")
    assert responses.is_idle


def test_the_end_of_an_older_response_has_no_effect() -> None:
    responses = Responses()
    responses.on_started("r1")
    responses.on_started("r2")
    assert not responses.on_done("r1")
    assert responses.active_id == "r2"
    assert not responses.is_idle


def test_a_refused_request_is_answered_by_the_response_it_crossed() -> None:
    responses = Responses()
    assert responses.request()
    responses.on_refused()
    assert not responses.request()
    assert responses.on_done("its own")


def test_an_unexpected_refusal_changes_nothing() -> None:
    responses = Responses()
    responses.on_refused()
    assert responses.is_idle
    responses.on_started("r1")
    responses.on_refused()
    assert responses.active_id == "r1"


def test_a_lost_ai_leaves_nothing_open() -> None:
    responses = Responses()
    responses.on_started("r1")
    responses.request()
    responses.on_lost()
    assert responses.is_idle
    assert responses.active_id is None
    assert not responses.on_done("r1")


def test_a_permanent_refusal_ends_the_request() -> None:
    responses = Responses()
    assert responses.request()
    assert not responses.request()
    responses.on_failed()
    assert responses.is_idle
    responses.on_started("r1")
    responses.on_failed()  # a late error does not concern the current response
    assert not responses.is_idle
    assert not responses.on_done("r1")


class ToolServer(Server):
    """A server with tools: an output arrives before its request, and only a later response contains the output.

    A response lasts longer than a message travels: messages sent before it began have arrived by its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.way: deque[str] = deque()
        self.outputs = self.sent = self.known = self.older = 0

    def ask(self, yes: bool) -> None:
        super().ask(yes)
        if yes:
            self.way.append("request")

    def tool(self) -> None:
        self.sent += 1
        self.way.append("output")
        self.ask(self.responses.request(insist=True))

    def arrive(self) -> None:
        if not self.way:
            return
        self.older -= 1
        if self.way.popleft() == "output":
            self.outputs += 1
        else:
            super().arrive()

    def start(self) -> None:
        super().start()
        self.known, self.older = self.outputs, len(self.way)

    def finish(self) -> None:
        if self.older <= 0 and not any(what == "done" for what, _ in self.down):
            super().finish()


@example(
    ["own", "tool", "finish", "deliver", "deliver", "want", "own"]
)  # a second request must not stop the first from insisting
@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.sampled_from(["tool", "want", "arrive", "own", "finish", "deliver", "deliver"]), min_size=5, max_size=60))
def test_every_output_of_a_tool_is_in_a_later_response(script: list[str]) -> None:
    server = ToolServer()
    server.drive(script)
    assert (list(server.way), server.active, list(server.down)) == ([], None, [])
    assert server.responses.is_idle
    assert server.known == server.sent


def test_a_refused_request_for_a_tools_output_is_asked_again() -> None:
    responses = Responses()
    assert responses.request(insist=True)
    responses.on_started("its own")
    responses.on_refused()
    assert responses.on_done("its own"), "that response did not contain the output"
    responses.on_refused()
    assert not responses.on_done("another of its own"), "this response did"


def test_the_last_eight_ended_responses_are_finished() -> None:
    responses = Responses()
    responses.on_started("r0")
    assert not responses.is_finished("r0")
    for n in range(9):
        responses.on_started(f"r{n}")
        responses.on_done(f"r{n}")
    assert [responses.is_finished(f"r{n}") for n in range(9)] == [False] + [True] * 8


def test_an_insisting_request_survives_one_response_begun_before_it() -> None:
    responses = Responses()
    assert responses.request(insist=True)
    responses.on_started("older")
    assert not responses.on_done("older")
    responses.on_refused()
    assert responses.is_idle and responses.request(), "asked again with the next request"
    responses.on_started("r1")
    assert responses.on_done("r1")


def test_a_queued_request_insists_once_sent() -> None:
    responses = Responses()
    assert responses.request()
    assert not responses.request(insist=True)
    assert not responses.request()
    responses.on_started("r1")
    assert responses.on_done("r1")
    responses.on_started("older")
    responses.on_refused()
    assert responses.on_done("older")
    responses.on_started("r2")
    assert not responses.on_done("r2")


def test_a_request_without_insisting_is_not_repeated() -> None:
    responses = Responses()
    responses.on_started("r1")
    assert not responses.request()
    assert not responses.request()
    assert responses.on_done("r1")
    responses.on_started("crossed")
    responses.on_refused()
    assert not responses.on_done("crossed")


@pytest.mark.parametrize("queued", [False, True])
def test_two_ended_responses_later_a_refusal_repeats_nothing(queued: bool) -> None:
    responses = Responses()
    if queued:
        responses.on_started("r0")
        assert not responses.request(insist=True)
        assert responses.on_done("r0")
    else:
        assert responses.request(insist=True)
    for response_id in ("older", "newer"):
        responses.on_started(response_id)
        assert not responses.on_done(response_id)
    responses.on_refused()
    responses.on_started("r1")
    assert not responses.on_done("r1")


@pytest.mark.parametrize("queued", [False, True])
def test_an_insisting_request_outlives_a_response_that_came_and_went_while_it_travelled(queued: bool) -> None:
    responses = Responses()
    if queued:
        responses.on_started("r1")
        assert not responses.request(insist=True)
        assert responses.on_done("r1")
    else:
        assert responses.request(insist=True)
    responses.on_started("came and went")
    assert not responses.on_done("came and went")
    responses.on_started("crossed")
    responses.on_refused()
    assert responses.on_done("crossed")

"""Who asks for responses, against a server that allows one at a time and starts some of its own."""

from __future__ import annotations

from collections import deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gw.call.responses import MAX_FINISHED, Responses
from tests.examples import examples


class Server:
    """One session of an AI: a request while a response is under way is refused; messages take time, in order, both ways."""

    def __init__(self) -> None:
        self.responses = Responses()
        self.up = 0  # requests on their way
        self.down: deque[tuple[str, str]] = deque()
        self.active: str | None = None
        self.made = self.wanted = self.owned = self.refused = 0

    def drive(self, script: list[str]) -> None:
        """Do what the script says, one method after the other, then let everything under way come to its end."""
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
            assert self.responses.active_id is None, "asked while a response is known to be under way"
            self.up += 1

    def start(self) -> None:
        self.made += 1
        self.active = f"r{self.made}"
        self.down.append(("started", self.active))

    def arrive(self) -> None:
        """A request reaches the server."""
        if self.up:
            self.up -= 1
            if self.active is None:
                self.start()
            else:
                self.refused += 1
                self.down.append(("refused", ""))

    def own(self) -> None:
        """The server starts a response of its own."""
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


def test_a_second_wish_waits_for_the_end_of_the_first() -> None:
    responses = Responses()
    assert responses.is_idle
    assert responses.request()
    assert not responses.is_idle
    assert not responses.request()
    assert not responses.request()
    responses.on_started("r1")
    assert responses.active_id == "r1"
    assert responses.on_done("r1"), "one more is asked for, however often it was wanted"
    assert not responses.is_idle
    responses.on_started("r2")
    assert not responses.on_done("r2")
    assert responses.is_idle


def test_the_end_of_an_older_response_ends_nothing() -> None:
    responses = Responses()
    responses.on_started("r1")
    responses.on_started("r2")
    assert not responses.on_done("r1")
    assert responses.active_id == "r2"
    assert not responses.is_idle


def test_a_refused_request_is_answered_by_the_response_that_stood_in_its_way() -> None:
    responses = Responses()
    assert responses.request()
    responses.on_refused()
    assert not responses.request()
    assert responses.on_done("its own")


def test_a_refusal_nobody_waits_for_changes_nothing() -> None:
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


def test_a_request_that_is_refused_for_good_leaves_nothing_to_wait_for() -> None:
    responses = Responses()
    assert responses.request()
    assert not responses.request()
    responses.on_failed()
    assert responses.is_idle
    responses.on_started("r1")
    responses.on_failed()  # an error that came late says nothing of a response under way
    assert not responses.is_idle
    assert not responses.on_done("r1")


class ToolServer(Server):
    """And tools: an output arrives before the request that follows it, and only a response begun after it knows it.

    A response lasts longer than a message is on its way: what was said before it began, by either side, has arrived by its end.
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


@example(["own", "tool", "finish", "deliver", "deliver", "want", "own"])  # a second wish must not make the first one patient
@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.sampled_from(["tool", "want", "arrive", "own", "finish", "deliver", "deliver"]), min_size=5, max_size=60))
def test_every_output_of_a_tool_is_known_to_a_later_response(script: list[str]) -> None:
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
    assert responses.on_done("its own"), "that response did not know the output"
    responses.on_refused()
    assert not responses.on_done("another of its own"), "this one did"


def test_a_response_is_over_once_its_end_was_told() -> None:
    responses = Responses()
    responses.on_started("r0")
    assert not responses.is_finished("r0")
    for n in range(MAX_FINISHED + 1):
        responses.on_started(f"r{n}")
        responses.on_done(f"r{n}")
    assert responses.is_finished(f"r{MAX_FINISHED}")
    assert not responses.is_finished("r0"), "what is remembered is bounded"

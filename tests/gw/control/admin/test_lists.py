"""gw.control.admin.lists: lists are opened, filled, run, stopped and read, over a real store and a Twilio twin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from sqlalchemy import event

from gw.config import MAX_VARIABLES
from gw.control.admin.lists import PAGE, ListCommands
from gw.control.admin.server import CommandError
from gw.control.twilio_api.accounts import Accounts
from tests.gw.control.outbound.rig import Rig
from tests.gw.control.outbound.rows import LIST

CALLER = "+15557654321"


class Lists(Rig):
    """The commands."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        super().__init__(folder, **rules)
        self.commands = ListCommands(self.config, self.lines, self.service, self.accounts).table()

    def ask(self, command: str, **fields: Any) -> Any:
        return msgspec.to_builtins(self.commands[command].run({"list_id": LIST, **fields}))

    def opened(self, **changes: Any) -> Any:
        return self.ask("list_open", **{"name": "list.csv", "caller": CALLER, "total": 3, **changes})

    def filled(self, *numbers: int) -> None:
        self.opened(total=len(numbers))
        self.ask("list_add", lines=[entry(n) for n in numbers])


def entry(n: int, **changes: Any) -> dict[str, Any]:
    return {"n": n, "to": f"+1555000{n:04d}", "agent": "default", "zone": "UTC", **changes}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Lists]]:
    made: list[Lists] = []

    def make(**rules: Any) -> Lists:
        made.append(Lists(tmp_path, **rules))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make: Callable[..., Lists]) -> Lists:
    return make()


def refused(rig: Lists, command: str, **fields: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        rig.ask(command, **fields)
    return caught.value


def test_a_list_is_sent_in_pieces_and_each_may_come_again(rig: Lists) -> None:
    first = rig.opened()
    assert (first["has_all"], first["counts"], first["list"]["from_number"]) == (False, {}, CALLER)
    for numbers in ((2, 3), (3, 4), (2, 3)):
        assert rig.ask("list_add", lines=[entry(n) for n in numbers]) == {"added": 2}
    again = rig.opened(name="renamed.csv")
    assert (again["has_all"], again["counts"], again["list"]["name"]) == (True, {"waiting": 3}, "list.csv")
    assert [row["to_number"] for row in rig.ask("list_lines")] == [f"+1555000{n:04d}" for n in (2, 3, 4)]


def test_a_list_continues_with_the_number_and_the_account_that_it_began_with(rig: Lists) -> None:
    rig.opened()
    error = refused(rig, "list_open", name="list.csv", caller="+15550000000", total=3)
    assert (error.code, str(error)) == ("failed", f"the list was begun with --from {CALLER}; continue it with the same")


def test_an_account_must_be_configured(rig: Lists) -> None:
    error = refused(rig, "list_open", name="list.csv", caller=CALLER, total=3, account="west")
    assert (error.code, str(error)) == ("not_found", "no account 'west'; there is no [twilio.accounts.NAME]")
    rig.commands = ListCommands(rig.config, rig.lines, rig.service, Accounts(type(rig.config)())).table()
    assert str(refused(rig, "list_open", name="list.csv", caller=CALLER, total=3)) == "there are no Twilio credentials"


def test_a_piece_with_an_invalid_line_is_refused_whole(rig: Lists) -> None:
    assert refused(rig, "list_add", lines=[entry(2)]).code == "not_found", "the list is not open"
    rig.opened()
    error = refused(rig, "list_add", lines=[entry(2), entry(3, agent="nobody")])
    assert (error.code, str(error)) == ("not_found", "line 3: no agent 'nobody'; use one of: default, sales")
    error = refused(rig, "list_add", lines=[entry(2), entry(4, variables={"v" + "x" * n: "x" for n in range(MAX_VARIABLES + 1)})])
    assert error.code == "bad_request" and f"there are {MAX_VARIABLES + 1} variables" in str(error)
    assert rig.ask("list_lines") == []


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("list_open", {"name": "list.csv", "caller": CALLER, "total": 0}),
        ("list_open", {"name": "list.csv", "caller": "anonymous", "total": 1}),
        ("list_open", {"name": "list.csv", "caller": CALLER, "total": 1, "list_id": "0123456789AB"}),
        ("list_add", {"lines": []}),
        ("list_add", {"lines": [entry(n) for n in range(1, 502)]}),
        ("list_add", {"lines": [entry(2, to="0123")]}),
        ("list_add", {"lines": [entry(2, color="red")]}),
        ("list_run", {"begin": "yes"}),
        ("list_stop", {"begin": True}),
        ("list_lines", {"after": -1}),
    ],
)
def test_wrong_arguments_are_refused(rig: Lists, command: str, fields: dict[str, Any]) -> None:
    assert refused(rig, command, **fields).code == "bad_request"


def test_a_list_runs_while_it_is_asked_for(rig: Lists) -> None:
    rig.filled(2, 3)
    rig.start()
    assert rig.ask("list_run") == {"counts": {"waiting": 2}, "next_at": 0.0, "runs": False, "stopped": "", "problem": ""}
    gevent.sleep(0.1)
    assert rig.dialled == {}
    assert rig.ask("list_run", begin=True)["runs"] is True
    rig.until(lambda: rig.ask("list_run")["counts"] == {"placed": 2}, "each line has its call")
    rig.report(2)
    rig.report(3, "completed")
    answer = rig.ask("list_run")
    assert (answer["counts"], answer["runs"]) == ({"waiting": 1, "answered": 1}, True)
    assert answer["next_at"] > time.time(), "the busy number waits"
    assert rig.ask("list_stop") == {"counts": {"waiting": 1, "answered": 1}}
    assert rig.ask("list_run")["runs"] is False
    assert refused(rig, "list_run", list_id="0" * 12, begin=True).code == "not_found"


def test_an_answer_about_a_running_list_costs_one_query(rig: Lists) -> None:
    rig.filled(2, 3)
    rig.ask("list_run", begin=True)
    asked: list[str] = []
    engine = rig.store._backend._engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda c, cursor, statement, *more: asked.append(statement))
    rig.ask("list_run")
    assert len([one for one in asked if one.startswith("SELECT")]) == 1, asked


def test_the_answer_has_the_reason_why_a_list_waits(make: Callable[..., Lists]) -> None:
    rig = make(stop_at_failures=1)
    rig.filled(2)
    rig.refusal = "drained by an operator"
    rig.ask("list_run", begin=True)
    rig.turn()
    assert rig.ask("list_run")["problem"] == "drained by an operator"
    rig.refusal = ""
    rig.twilio.rest.fail("21220", operation="call_create")
    rig.start()
    rig.until(lambda: rig.ask("list_run")["stopped"] != "", "it stops")
    answer = rig.ask("list_run")
    assert (answer["runs"], answer["counts"]) == (False, {"rejected": 1})
    assert answer["stopped"] == "1 dials in a row failed (outbound.stop_at_failures)"


def test_unknown_dials_are_made_again_on_request(rig: Lists) -> None:
    rig.filled(2)
    assert rig.lines.claim(LIST, 2, 1, "dial/2", time.time())
    row = rig.lines.one(LIST, 2)
    assert row is not None
    rig.service.on_lost(row)
    assert rig.ask("list_run", begin=True)["counts"] == {"unknown": 1}
    rig.ask("list_run", unknown=True)
    assert rig.state(2)[0] == "unknown", "only with begin"
    assert rig.ask("list_run", begin=True, unknown=True)["counts"] == {"waiting": 1}


def test_lines_are_read_by_place_and_by_time(rig: Lists) -> None:
    rig.filled(*range(2, 2 + PAGE - 1))
    rig.ask("list_add", lines=[entry(n) for n in range(2000, 2010)])
    assert [row["n"] for row in rig.ask("list_lines", after=2)][:2] == [3, 4]
    assert len(rig.ask("list_lines")) == PAGE
    since = time.time()
    assert rig.lines.claim(LIST, 5, 1, "dial/5", since)
    rig.report(5, CallSid="CA1")
    assert [(row["n"], row["result"]) for row in rig.ask("list_lines", since=since)] == [(5, "busy")]
    assert rig.ask("list_lines", since=time.time() + 60.0) == []


def test_only_what_changes_a_list_is_recorded(rig: Lists) -> None:
    acting = {name: command.acts({}) for name, command in rig.commands.items()}
    assert acting == {"list_open": True, "list_add": True, "list_run": False, "list_stop": True, "list_lines": False}
    assert rig.commands["list_run"].acts({"begin": True})

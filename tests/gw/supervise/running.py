"""A tiny gateway for the supervisor's tests.

`running.py JOURNAL serve` supervises; `... control` and `... worker` are real children. A child appends its events to the
journal, one a line: `<name> <pid> ready|term|hurry|leave`. Files beside the journal change the child they name: `refuse` (exit
1 before ready), `deaf` (ignore signals), `silent` (never become ready), `ticks` (send heartbeats). `... config check` answers
as the gateway does, or with an error for the files `bad`, `mute` and `moved`; `... trial` refuses for the file `taken`.

A test starts up to ten of these, so each imports what its part needs, and only `serve` is patched for gevent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

if TYPE_CHECKING:
    from gw.config import Config


def config_in(
    folder: Path, listen: str = "127.0.0.1:0", workers: int | Literal["auto"] = 1, stop_timeout_s: float = 5.0
) -> Config:
    from gw.config import Config, Ops, Server

    return Config(
        server=Server(listen=listen, workers=workers, stop_timeout_s=stop_timeout_s), ops=Ops(var_dir=str(folder / "var"))
    )


def ordered(journal: Path, order: str, name: str) -> bool:
    path = journal.parent / order
    return path.exists() and path.read_text() == name


def check(journal: Path) -> None:
    """Print the configuration, as `config check --json` of the present code does."""
    from gw.config.load import show

    config = config_in(journal.parent, workers=2)
    if ordered(journal, "moved", "config"):
        config = config_in(journal.parent, listen="127.0.0.1:1")
    problems = ["media.lead is unknown"] if ordered(journal, "bad", "config") else []
    if not ordered(journal, "mute", "config"):
        print(json.dumps({"problems": problems, "config": show(config)}))


def child(journal: Path, name: str, ready_fd: int, scoreboard_fd: int, row: int) -> None:
    from gw.scoreboard import Scoreboard
    from gw.supervise.child import HURRY, LEAVE, end_with_parent

    end_with_parent(os.environ)

    def note(what: str) -> None:
        with journal.open("a") as file:
            file.write(f"{name} {os.getpid()} {what}\n")

    def on_term(*_: object) -> None:
        note("term")
        if not ordered(journal, "deaf", name):
            sys.exit(0)

    def on_leave(*_: object) -> None:
        note("leave")
        if not ordered(journal, "deaf", name):
            sys.exit(0)

    if ordered(journal, "refuse", name):
        sys.exit(1)
    signal.signal(signal.SIGTERM, on_term)
    signal.signal(LEAVE, on_leave)
    signal.signal(HURRY, lambda *_: note("hurry"))
    if not ordered(journal, "silent", name):
        note("ready")
        os.write(ready_fd, b"1")
        os.close(ready_fd)
    own = Scoreboard.attach(scoreboard_fd).row(row)
    while True:
        if ordered(journal, "ticks", name):
            own.heartbeat()
        time.sleep(0.05)


def serve(journal: Path) -> None:
    from gevent import monkey

    monkey.patch_all()
    from gw.supervise.supervisor import Supervisor

    supervisor = Supervisor(config_in(journal.parent), [sys.executable, __file__, str(journal)])
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    supervisor.run()


if __name__ == "__main__":
    where, role, options = Path(sys.argv[1]), sys.argv[2], [one for one in sys.argv[3:] if one != "--low-priority"]
    if role == "serve":
        serve(where)
    elif role == "config":
        check(where)
    elif role == "trial":
        print(json.dumps({"problem": "the port is in use" if ordered(where, "taken", "control") else ""}))
    else:
        valued = dict(zip(options[::2], options[1::2], strict=False))
        handed = (int(valued[name]) for name in ("--ready-fd", "--scoreboard-fd", "--row"))
        child(where, role + valued.get("--index", ""), *handed)

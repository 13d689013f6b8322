"""A command line in this process, with its own folder, configuration and store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import msgspec
import pytest

from gw.bus import CallEnded, CallEvent, CallStarted, StartRecording, Turn
from gw.call.quality import Quality
from gw.cli import root
from gw.config import Store as StoreConfig
from gw.control.admin.server import AdminServer, Command, CommandError
from gw.control.fleet import listed
from gw.control.rows import CallFilter
from gw.control.store import Stamped, Store
from gw.control.unix_socket import PrivateListener
from tests import schema

#: Two calls of this morning, in seconds since the epoch.
BEGAN = 1_795_300_000.0
ENDED = "CA" + "a" * 32
LIVE = "CA" + "b" * 32

#: Commands that change nothing.
READS = frozenset(
    ("status", "fleet", "holds", "calls", "call", "audit", "recordings", "poison_list", "poison_export", "hooks_list")
)

#: A hold with a deep stack, and one that was not sampled.
HOLDS = [
    {
        "worker": 1,
        "pid": 4711,
        "at": BEGAN,
        "kind": "ai_in",
        "wall_s": 0.00412,
        "cpu_s": 0.0039,
        "stack": [{"file": f"gw/media/depth{n}.py", "line": 40 + n, "function": f"deep{n}"} for n in range(6)],
    },
    {"worker": 0, "pid": 4710, "at": BEGAN, "kind": "hub", "wall_s": 0.0011, "cpu_s": 0.0, "stack": []},
]

#: The answer of a gateway without a call.
STATUS = {
    "version": "1",
    "host": "vm1",
    "pid": 1,
    "started_at": BEGAN,
    "uptime_s": 90.0,
    "signed": True,
    "readiness": {"ready": True, "reasons": []},
    "workers": [],
    "machine": {"calls": 0, "reserved": 0},
    "calls": 0,
    "backlog": 0,
    "poison": 0,
    "claims": 0,
    "cut_values": 0,
    "twilio": {"circuit": "closed", "problem": ""},
    "store": {"kind": "sqlite", "reachable": True, "revision": "0007", "schema": "ready", "problem": ""},
    "recordings": {"completed": 0},
}


@dataclass
class CommandLine:
    """Runs commands with the configuration in `folder`."""

    folder: Path
    config: Path
    admin_socket: Path
    store_url: str

    def run(self, *words: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(root, ["--config", str(self.config), *words], prog_name="gateway.py")

    def document(self, *words: str) -> Any:
        """Return the JSON document of a command, which must succeed."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    for name in (
        "SUBMILLI_CONFIG",
        "TWILIO_AUTH_TOKEN",
        "OPENAI_API_KEY",
        "SUBMILLI_DB_PASSWORD",
        "SUBMILLI_TOKEN_KEY",
        "SUBMILLI_TALK_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    made = CommandLine(tmp_path, tmp_path / "submilli.toml", tmp_path / "admin.sock", f"sqlite:///{tmp_path}/store.db")
    made.config.write_text(
        f'[ops]\nadmin_socket = "{made.admin_socket}"\nvar_dir = "{tmp_path}/var"\n\n[store]\nurl = "{made.store_url}"\n'
    )
    return made


@pytest.fixture
def store(cli: CommandLine) -> Iterator[Store]:
    """The configured store, with one ended and one live call."""
    made = Store(StoreConfig(url=cli.store_url), "")
    schema.upgrade(made)
    events = [
        CallStarted(ENDED, "MZ1", "AC1", "default", "inbound", "+15550001", "+15550002", BEGAN, BEGAN + 1),
        StartRecording(ENDED, "AC1", BEGAN + 1.2),
        Turn(ENDED, 1, "agent", "Hello there.", "item_1", 40, heard_ms=900),
        Turn(ENDED, 2, "caller", "Stop it.", "item_2", 1500, interrupted=True),
        CallEvent(ENDED, "keys", BEGAN + 3, {"count": 1}),
        CallEnded(
            ENDED,
            BEGAN + 188,
            "ai_hangup",
            "success",
            "",
            Quality(frames_sent=9000, frames_expected=9000, send_p999_s=0.00012, lateness_p50_s=0.0003, underrun_ms=0),
        ),
        CallStarted(LIVE, "MZ2", "AC1", "default", "inbound", "+15550003", "+15550002", BEGAN + 60, BEGAN + 61),
    ]
    made.apply([Stamped(event, "host", 0, "instance", n) for n, event in enumerate(events, 1)])
    yield made
    made.close()


@pytest.fixture
def gateway(cli: CommandLine, store: Store) -> Iterator[list[str]]:
    """A running gateway: the real admin server over the real store. Lists the SIDs and numbers it received."""
    received: list[str] = []

    def hangup(fields: Any) -> Any:
        if fields["call_sid"] != LIVE:
            raise CommandError("not_found", f"the call {fields['call_sid']} has ended already")
        received.append(fields["call_sid"])
        return {"call_sid": fields["call_sid"], "worker": True, "rest": "no_credentials"}

    def retry(fields: Any) -> Any:
        if fields["call_sid"] != ENDED:
            raise CommandError("not_found", f"no recording was requested for {fields['call_sid']}")
        row = store.recording(ENDED)
        assert row is not None
        return {"done": row.state != "wanted", "recording": row}

    def transfer(fields: Any) -> Any:
        received.append(fields["to"])
        return {"call_sid": fields["call_sid"], "to": fields["to"]}

    def loglevel(fields: Any) -> Any:
        if fields["process"] not in ("", "control"):
            raise CommandError("not_found", f"no process {fields['process']}")
        return {"processes": {"control": fields["level"] or "info"}}

    def drain_machine(fields: Any) -> Any:
        if fields["machine"] != "vm2":
            raise CommandError("not_found", f"no live gateway on a machine {fields['machine']!r}; the live ones: vm2")
        return {"gateway": "gw-2", "machine": "vm2", "draining": fields["on"]}

    def dial(fields: Any) -> Any:
        if fields["agent"] != "default":
            raise CommandError("not_found", f"no agent {fields['agent']!r}; use one of: default")
        return {"call_sid": ENDED, "to": fields["to"], "from": fields["caller"], "agent": fields["agent"]}

    def calls(fields: Any) -> Any:
        which = msgspec.convert(fields.get("which", {}), type=CallFilter)
        return store.calls(limit=fields["limit"], open_only=fields["open_only"], which=which)

    def forget(fields: Any) -> Any:
        if fields["call_sid"] == LIVE:
            raise CommandError("failed", f"{LIVE} has not ended: end it with gateway.py calls hangup")
        spool = {"entries": 1, "poison": 0, "claims": 0}
        left = [] if fields["twilio"] else ["Twilio has the recording RE1: delete it there"]
        twilio = ["RE1"] if fields["twilio"] else []
        return {
            "call_sid": ENDED,
            "store": store.forget(ENDED).rows,
            "spool": spool,
            "twilio": twilio,
            "file": "/r/x.wav",
            "remains": left,
        }

    refused = [
        {"id": n, "instance": "w0", "n": n, "worker": 0, "bytes": 3, "why": "no", "at": BEGAN, "body": "YmFk"} for n in (7, 8)
    ]

    def hooks_retry(fields: Any) -> Any:
        if fields["after"] and fields["ids"]:
            raise CommandError("timeout", "the command took longer than 15 s")
        return {"queued": 1, "left": 0 if fields["after"] or len(fields["ids"]) == 1 else 1, "after": 7}

    event = {"id": "evt_1", "url": "https://a.example/x", "call_sid": ENDED, "state": "failed"}
    event |= {"attempts": 3, "at": BEGAN, "next_at": None, "why": "gone"}
    answers: dict[str, Callable[[Any], Any]] = {
        "status": lambda _: {**STATUS, "readiness": {"ready": not received, "reasons": received}},
        "drain": lambda fields: {"draining": fields["on"], "workers": 1},
        "drain_machine": drain_machine,
        "fleet": lambda _: listed(*store.gateways(), 3600.0),
        "loglevel": loglevel,
        "holds": lambda _: HOLDS,
        "calls": calls,
        "call": lambda fields: store.call(fields["call_sid"]),
        "audit": lambda fields: store.acts(limit=fields["limit"], since=fields["since"]),
        "recordings": lambda fields: store.recordings(limit=fields["limit"], state=fields["state"]),
        "hangup": hangup,
        "transfer": transfer,
        "dial": dial,
        "talk": lambda _: {"url": "http://127.0.0.1:8080/talk?key=k"},
        "recordings_retry": retry,
        "recordings_reconcile": lambda _: {"unsettled": 3, "taken_up": 1, "asked": 1, "settled": 1, "left": 1},
        "poison_list": lambda _: [{"id": 7, "instance": "w0", "n": 9, "worker": 0, "bytes": 120, "why": "no", "at": BEGAN}],
        "poison_export": lambda fields: [row for row in refused if row["id"] > fields["after"]],
        "poison_drop": lambda fields: {"dropped": len(fields["ids"]) or 2, "set_aside": 0},
        "forget": forget,
        "hooks_list": lambda fields: [event] if fields["state"] == "dead" else [],
        "hooks_retry": hooks_retry,
        "hooks_drop": lambda fields: {"dropped": len(fields["ids"]) or 2, "left": 0, "after": 9},
        "poison_retry": lambda fields: {"queued": len(fields["ids"]) or 2, "set_aside": 0},
    }
    commands = {name: Command(answer, lambda _, reads=name in READS: not reads) for name, answer in answers.items()}
    server = AdminServer(PrivateListener(cli.admin_socket), commands, on_act=lambda act: None)
    server.start()
    yield received
    server.stop()

"""Two gateways of one hostname and one `var_dir` path on one store: each leaves the other's calls and recordings alone.

    python tests/faults/pair.py [--calls N] [--remove 0|1] [--seed S]

Calls go to both while control of either is killed, Twilio answers 20429 and the store goes away. Then one gateway is removed
permanently, under calls. Each runs in a mount namespace in which its folder has the same path; that needs root. Workers are not
killed, so a call with the end `worker_lost` before the removal was ended by the other gateway. Exit code 1: a condition was
broken.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Final  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gevent  # noqa: E402
import pymysql  # noqa: E402

from gw.bench.gateway_process import GatewayProcess  # noqa: E402
from gw.call.state import Reason  # noqa: E402
from gw.control.store.recordings import SETTLED  # noqa: E402
from gw.twin.sound import SILENT_FRAME  # noqa: E402
from gw.twin.twilio.account import TwilioTwin  # noqa: E402
from gw.twin.twilio.stream import CallPlan  # noqa: E402
from tests.faults.links.orders import Helper  # noqa: E402
from tests.faults.run import say  # noqa: E402
from tests.faults.world import AUTH_TOKEN, SERVE, role_of  # noqa: E402
from tests.mariadb import PASSWORD, USER, MariaDB  # noqa: E402
from tests.timing import scaled  # noqa: E402

MAX_CALL_S: Final = 40.0
SETTINGS: Final = {"server": "workers = 1\n", "media": f"max_call_s = {MAX_CALL_S}\n", "recording": "enabled = true\n"}
CALLS_A_MINUTE: Final = 80.0
#: Between two kills of a control process: an earlier one has passed its grace for lost calls.
KILL_S: Final = 15.0
#: A minute of the run: Twilio refuses for longer than a retry waits, then the store is away.
REFUSES_S: Final = (20.0, 34.0)
AWAY_S: Final = (45.0, 51.0)
#: For the rows of the gateway that is gone: the longest call, then the others' margin, their looks and Twilio's.
SETTLE_S: Final = MAX_CALL_S + 360.0
#: Makes the folder `$0` appear as `$1`, with shared memory of its own as on another machine, and becomes the rest.
_SAME: Final = 'mount --bind "$0" "$1" && mount -t tmpfs tmpfs /dev/shm && shift && exec "$@"'


class _Gateway(GatewayProcess):
    """A gateway whose `var_dir` has, for itself, the path `same`."""

    def __init__(self, folder: Path, same: Path, store_url: str) -> None:
        self._same = same
        command = ["unshare", "--mount", "sh", "-c", _SAME, str(folder / "var"), str(same), *SERVE]
        super().__init__(command, folder, SETTINGS, store_url)
        self.var_dir.mkdir()
        (self.var_dir / "bus").symlink_to("bus.sock")  # where serve.py expects the proxy

    def configuration(self, account_sid: str, api_base: str, ai_url: str) -> str:
        return super().configuration(account_sid, api_base, ai_url).replace(str(self.var_dir), str(self._same))

    def kill(self, name: str = "") -> None:
        """Kill the processes of a role; all of them without one."""
        for pid in self.pids():
            if role_of(pid) == name or not name:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class _Pair:
    """Two gateways under calls, and the observation of their store."""

    def __init__(self, mariadb: MariaDB, gateways: list[_Gateway], twilio: TwilioTwin, database: str) -> None:
        self._mariadb = mariadb
        self._gateways = gateways
        self._twilio = twilio
        self._database = database
        self.kills = 0
        self.lost: set[str] = set()  # calls with the end `worker_lost`, as seen while both gateways lived

    def place(self, count: int, seed: str) -> None:
        """Place calls at both gateways in turn."""
        chance = random.Random(seed)
        for n in range(count):
            url = self._gateways[n % 2].url
            plan = CallPlan(speech=(SILENT_FRAME,) * chance.randint(200, 1200), max_s=MAX_CALL_S)
            self._twilio.place(plan, voice_url=f"{url}/twilio/voice", status_url=f"{url}/twilio/status")
            gevent.sleep(chance.uniform(0.5, 1.5) * 60 / CALLS_A_MINUTE)

    def disturb(self) -> None:
        """Kill control in turn, and break Twilio's API and the store; never returns."""
        began_s, refuses, away = time.monotonic(), False, False
        while True:
            at_s = time.monotonic() - began_s
            if at_s >= (self.kills + 1) * KILL_S:
                self._gateways[self.kills % 2].kill("control")
                self.kills += 1
            if refuses != (refuses := REFUSES_S[0] <= at_s % 60 < REFUSES_S[1]):
                self._twilio.rest.fail("20429", 1_000_000) if refuses else self._twilio.rest.heal()
            if away != (away := AWAY_S[0] <= at_s % 60 < AWAY_S[1]):
                self._mariadb.kill() if away else self._mariadb.revive()
            gevent.sleep(0.2)

    def calm(self) -> None:
        """Undo every disturbance."""
        self._twilio.rest.heal()
        self._mariadb.revive()

    def watch(self) -> None:
        """Collect calls that were ended as lost; never returns."""
        while True:
            with contextlib.suppress(pymysql.err.MySQLError):  # the store is away
                self.lost |= {sid for (sid,) in self.ask("SELECT call_sid FROM calls WHERE reason = %s", Reason.WORKER_LOST)}
            gevent.sleep(0.5)

    def left_open(self) -> list[str]:
        """Return calls without an end, and recordings without a final state."""
        states = ", ".join(f"'{state}'" for state in SETTLED)
        calls = self.ask("SELECT call_sid FROM calls WHERE ended_at IS NULL")
        rows = self.ask(f"SELECT call_sid, state, owner FROM recordings WHERE state NOT IN ({states})")
        found = [f"{sid}: no end" for (sid,) in calls]
        return found + [f"{sid}: its recording is {state}, of {owner}" for sid, state, owner in rows]

    def ask(self, statement: str, *values: Any) -> tuple[tuple[Any, ...], ...]:
        connection = pymysql.connect(
            host="127.0.0.1", port=self._mariadb.port, user=USER, password=PASSWORD, database=self._database, ssl_disabled=True
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, [str(value) for value in values])
            return tuple(cursor.fetchall())

    def recorded_twice(self) -> list[str]:
        rest = self._twilio.rest
        granted = {sid: sum(1 for one in starts if one.recording_sid) for sid, starts in rest.starts.items()}
        return [sid for sid in self._twilio.calls if granted.get(sid, 0) > 1 or len(rest.recordings_of(sid)) > 1]


def run(mariadb: MariaDB, calls: int, seed: str, remove: int) -> dict[str, Any]:
    """Run two gateways under calls, remove one, and wait for the rows it left. Returns the findings."""
    with contextlib.ExitStack() as up:
        folder = Path(up.enter_context(tempfile.TemporaryDirectory(prefix="gw-pair-")))
        same = folder / "same"
        same.mkdir()
        os.environ["FAULTS_FOLDER"], os.environ["FAULTS_DB_PASSWORD"] = str(same), PASSWORD
        store_url = mariadb.fresh()
        ai = Helper("tests.faults.links.ai", folder / "a", seed)
        up.callback(ai.stop)
        gateways = [_Gateway(folder / name, same, store_url) for name in ("0", "1")]
        twilio = up.enter_context(TwilioTwin(gateways[0].url, auth_token=AUTH_TOKEN))
        for gateway in gateways:
            up.callback(gateway.stop)
            gateway.start(
                account_sid=twilio.account_sid, auth_token=AUTH_TOKEN, api_base=twilio.rest.url, ai_url=str(ai.ask("url"))
            )
        pair = _Pair(mariadb, gateways, twilio, store_url.rpartition("/")[2])
        greenlets = [gevent.spawn(pair.disturb), gevent.spawn(pair.watch)]
        pair.place(calls, seed)
        gevent.killall(greenlets)
        pair.calm()
        say(f"{calls} calls placed, control killed {pair.kills} times; gateway {remove} is removed under its calls")
        gateways[remove].kill()
        removed_s = time.monotonic()
        twilio.wait(scaled(MAX_CALL_S + 10.0))
        while (left := pair.left_open()) and time.monotonic() < removed_s + SETTLE_S:
            gevent.sleep(1.0)
        return {
            "seed": seed,
            "calls": calls,
            "control_kills": pair.kills,
            "recordings": len(twilio.rest.recordings),
            "rows": pair.ask("SELECT COUNT(*) FROM calls")[0][0],
            "settled_s": round(time.monotonic() - removed_s, 1),
            "recorded_twice": pair.recorded_twice(),
            "ended_by_the_other": sorted(pair.lost),
            "left_open": left,
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--remove", type=int, choices=(0, 1), default=1, help="the gateway that does not come back")
    parser.add_argument("--seed", default="pair")
    parser.add_argument("--out", type=Path, default=Path("out/faults/pair.json"))
    given = parser.parse_args()
    mariadb = MariaDB()
    try:
        mariadb.start()
        found = run(mariadb, given.calls, given.seed, given.remove)
    finally:
        mariadb.remove()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    for name, value in found.items():
        say(f"{name}: {f'{len(value)} {value[:5]}' if isinstance(value, list) else value}")
    return 1 if found["recorded_twice"] or found["ended_by_the_other"] or found["left_open"] else 0


if __name__ == "__main__":
    sys.exit(main())

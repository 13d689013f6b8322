"""Run the systemd units under a real systemd: start, reload, secrets, hung and killed processes, watchdog, stop.

    make systemd

Needs root. Boots Debian with systemd as process 1 of a container (systemd-nspawn) that shares this machine's network, installs
the binary and the units as an operator would, and places calls from outside, which must continue through every step. Packages
are downloaded once, to `out/debian`. Writes the measurements to `out/systemd/soak.json`. Exit code 1: a step failed. Takes about
two minutes.
"""

from gevent import monkey

monkey.patch_all()

import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gw.bench.gateway_process import free_ports  # noqa: E402
from gw.twin import speech  # noqa: E402
from gw.twin.twilio.account import TwilioTwin  # noqa: E402
from gw.twin.twilio.caller import TwinCall  # noqa: E402
from tests import debian  # noqa: E402

BINARY = ROOT / "dist" / "submilli"
UNITS = ROOT / "deploy" / "systemd"
SYSTEM = ROOT / "out" / "debian" / "systemd-root"
OUT = ROOT / "out" / "systemd"
PACKAGES = "systemd,systemd-sysv,dbus,procps,python3"
SERVICE = "submilli.service"
#: Shorter than the unit's 30 s, because the soak waits for it; longer than the supervisor needs to end a hung child.
WATCHDOG_S = 15
#: Longer than the watchdog's limit: a drain must not be mistaken for a hang.
STOP_TIMEOUT_S = 20
CALL_S = 600.0
#: Group of the files with secrets, and the secret that the soak changes.
GROUP = "submilli-secrets"
OPS_TOKEN = "SUBMILLI_OPS_TOKEN"


class SoakError(Exception):
    """A step did not have the expected result."""


def until(holds: Callable[[], Any], within_s: float, what: str) -> float:
    """Wait until `holds()`. Returns the seconds waited."""
    began_s = time.monotonic()
    while not holds():
        if time.monotonic() - began_s > within_s:
            raise SoakError(f"not within {within_s:g} s: {what}")
        time.sleep(0.05)
    return round(time.monotonic() - began_s, 2)


class Machine:
    """A container with Debian and the installed gateway."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.ops = free_ports(2)
        self.group = 0
        self._leader = 0
        self._nspawn: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Start the container and wait until its systemd reports `running`."""
        debootstrap, nspawn = (
            debian.installed("debootstrap", "debootstrap"),
            debian.installed("systemd-nspawn", "systemd-container"),
        )
        if not (SYSTEM / "usr").is_dir():
            SYSTEM.parent.mkdir(parents=True, exist_ok=True)
            fresh = SYSTEM.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            subprocess.run(
                [debootstrap, "--variant=minbase", f"--include={PACKAGES}", "bookworm", fresh], check=True, timeout=900
            )
            fresh.rename(SYSTEM)
        (self.folder / "opt").mkdir()
        shutil.copy(BINARY, self.folder / "opt" / "submilli")
        units = self.folder / "units"
        units.mkdir()
        shutil.copy(UNITS / SERVICE, units)
        socket = (UNITS / "submilli.socket").read_text()
        (units / "submilli.socket").write_text(socket.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}"))
        (self.folder / "soak.conf").write_text(
            f"[Service]\nWatchdogSec={WATCHDOG_S}\nSupplementaryGroups={GROUP}\n"
            f"LoadCredential={OPS_TOKEN}:/etc/submilli/token-of-systemd\n"
        )
        (self.folder / "etc" / "credentials").mkdir(parents=True)
        self.write_secret("token-of-systemd", "loaded", 0)
        self.configure("")
        binds = [
            f"{self.folder}/opt:/opt/submilli",
            f"{self.folder}/etc:/etc/submilli",
            f"{units}/{SERVICE}:/etc/systemd/system/{SERVICE}",
            f"{units}/submilli.socket:/etc/systemd/system/submilli.socket",
            f"{self.folder}/soak.conf:/etc/systemd/system/{SERVICE}.d/soak.conf",
        ]
        with (self.folder / "console").open("wb") as console:
            self._nspawn = subprocess.Popen(
                [nspawn, "-D", SYSTEM, "-b", "--volatile=overlay", "--register=no", "--keep-unit", "--console=pipe"]
                + [f"--bind-ro={bind}" for bind in binds],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        until(self._find_leader, 20, f"the container starts; see {self.folder}/console")
        self.run("groupadd", "--system", GROUP, check=True)
        self.group = int(self.run("getent", "group", GROUP, check=True).stdout.split(":")[2])
        os.chown(self.folder / "etc" / "credentials", 0, self.group)
        (self.folder / "etc" / "credentials").chmod(0o750)
        until(lambda: self.run("systemctl", "is-system-running").stdout.strip() == "running", 60, "its systemd reports running")

    def write_secret(self, name: str, value: str, group: int) -> None:
        """Write a file below /etc/submilli that root and a group may read."""
        path = self.folder / "etc" / name
        path.write_text(value + "\n")
        path.chmod(0o640 if group else 0o600)
        os.chown(path, 0, group)

    def metrics_code(self, token: str) -> int:
        """Request /metrics with a token; return the status code, 0 without an answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.ops}/metrics", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            return 0

    def configure(self, more: str) -> None:
        """Write the gateway's configuration."""
        text = (UNITS / "submilli.toml").read_text()
        text = text.replace(
            "[server]", f'[server]\nlisten = "127.0.0.1:{self.port}"\nstop_timeout_s = {STOP_TIMEOUT_S}\n{more}'
        ).replace("[ops]", f'[ops]\nlisten = "127.0.0.1:{self.ops}"')
        (self.folder / "etc" / "submilli.toml").write_text(text.replace('workers = "auto"', "workers = 2"))

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command in the container."""
        inside = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-p", "--", *command]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=150, check=False)
        if check and done.returncode != 0:
            raise SoakError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done

    def systemctl(self, *words: str) -> str:
        return self.run("systemctl", *words, check=True).stdout

    def show(self, name: str) -> str:
        return self.systemctl("show", SERVICE, f"--property={name}", "--value").strip()

    def is_active(self) -> bool:
        return self.show("ActiveState") == "active"

    def ready_after_s(self) -> float:
        """Return the seconds from the last start's exec to READY=1."""
        times = [int(self.show(name)) for name in ("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")]
        return round((times[1] - times[0]) / 1e6, 2)

    def status(self) -> dict[str, Any]:
        """Return the gateway's `status`, requested as root."""
        environ = ["env", "HOME=/root", "SUBMILLI_CONFIG=/etc/submilli/submilli.toml"]
        done = self.run(*environ, "/opt/submilli/submilli", "status", "--json")
        return json.loads(done.stdout) if done.returncode in (0, 1) else {}

    def workers(self) -> dict[int, dict[str, Any]]:
        return {one["pid"]: one for one in self.status().get("workers", ()) if one["connected"]}

    def journal(self) -> str:
        return self.run("journalctl", "-u", SERVICE, "--no-pager", "-o", "cat").stdout

    def halt(self) -> None:
        """Power off, or kill the container after a minute."""
        if self._nspawn is None:
            return
        if self._leader:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run("systemctl", "poweroff")
        try:
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()

    def _find_leader(self) -> bool:
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        found = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"]
        self._leader = found[0] if found else 0
        return bool(found)


class Soak:
    """The steps in sequence; `measured` has their results."""

    def __init__(self, machine: Machine, twilio: TwilioTwin) -> None:
        self.machine = machine
        self.twilio = twilio
        self.measured: dict[str, Any] = {}

    def call(self) -> TwinCall:
        """Place a call that lasts until the test ends it."""
        call = self.twilio.place_call(speech.script(200), hang_up=False, max_s=CALL_S)
        until(lambda: len(call.received_audio) > 8000, 15, "a call is answered")
        return call

    def check_continues(self, call: TwinCall, when: str) -> None:
        """Let the caller speak, and check that the agent answers."""
        before = len(call.received_audio)
        call.say(speech.load("thanks"))
        until(lambda: len(call.received_audio) > before + 4000, 15, f"the call continues {when}")
        if call.is_over:
            raise SoakError(f"the call ended {when}: {call.closed_by} {call.close_reason}")

    def start(self) -> None:
        """Start the service by its socket, then measure restarts."""
        self.machine.systemctl("start", "submilli.socket")
        with contextlib.suppress(urllib.error.HTTPError):  # any answer will do
            urllib.request.urlopen(f"http://127.0.0.1:{self.machine.port}/", timeout=60).close()
        until(self.machine.is_active, 30, "the service is up by its socket")
        until(lambda: self.machine.show("StatusText") == "0 of 450 calls, 2 workers", 5, "the status has the workers")
        self.measured["ready_cold_s"] = self.machine.ready_after_s()
        warm = []
        for _ in range(5):
            self.machine.systemctl("restart", SERVICE)
            warm.append(self.machine.ready_after_s())
        self.measured["ready_warm_s"] = sorted(warm)
        said = self.machine.run("systemd-analyze", "security", SERVICE, "--no-pager").stdout
        self.measured["exposure"] = float(re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)[0])

    def hung_worker(self) -> None:
        """Stop a worker: the supervisor replaces it, the other worker's call continues, and systemd does not act."""
        call = self.call()
        until(lambda: "1 of 450 calls" in self.machine.show("StatusText"), 5, "the status has the call")
        hung = next(pid for pid, one in self.machine.workers().items() if not one["calls"])
        self.machine.run("kill", "-STOP", str(hung), check=True)
        until(lambda: "stalled: worker" in self.machine.show("StatusText"), 10, "the status reports the hung worker")
        after_s = until(lambda: len(self.machine.workers().keys() - {hung}) == 2, 30, "a hung worker is replaced")
        self.measured["hung_worker_replaced_s"] = after_s
        self.check_continues(call, "while another worker hung")
        self._restarts(0)
        call.hang_up()

    def reload(self) -> None:
        """Reload: new processes, the call continues. An invalid file is refused and changes nothing."""
        call, before = self.call(), set(self.machine.workers())
        began_s = time.monotonic()
        self.machine.systemctl("reload", SERVICE)
        self.measured["reload_s"] = round(time.monotonic() - began_s, 2)
        after = set(self.machine.workers())
        if not self.machine.is_active() or len(after - before) != 2:
            raise SoakError(f"after the reload: {self.machine.show('ActiveState')}, workers {before} then {after}")
        self.check_continues(call, "after a reload")
        self.machine.configure("no_such_key = 1\n")
        if self.machine.run("systemctl", "reload", SERVICE).returncode == 0:
            raise SoakError("an invalid file was accepted")
        until(self.machine.is_active, 5, "active after a reload that failed")
        if "no_such_key" not in self.machine.show("StatusText") + self.machine.journal():
            raise SoakError("neither status nor journal name the invalid key")
        self.machine.configure("")
        self.check_continues(call, "after a reload that failed")
        self._restarts(0)
        call.hang_up()

    def secrets(self) -> None:
        """Take a secret of systemd, then one of the group by a reload."""
        machine, call = self.machine, self.call()
        self._check_token("loaded", "written", "with systemd's credential")
        machine.write_secret(f"credentials/{OPS_TOKEN}", "written", machine.group)
        machine.systemctl("reload", SERVICE)
        self._check_token("written", "loaded", "with the file of the group")
        self.check_continues(call, "after another secret")
        call.hang_up()

    def _check_token(self, right: str, wrong: str, when: str) -> None:
        codes = (self.machine.metrics_code(right), self.machine.metrics_code(wrong))
        if codes != (200, 401):
            raise SoakError(f"{when}: /metrics answered {codes[0]} to the right token and {codes[1]} to the wrong one")

    def killed_supervisor(self) -> None:
        """Kill the supervisor: its worker keeps the call, and the new gateway takes others."""
        call = self.call()
        self.machine.run("kill", "-KILL", self.machine.show("MainPID"), check=True)
        self.measured["killed_supervisor_back_s"] = self._back(1)
        self.check_continues(call, "after the supervisor was killed")
        second = self.call()
        self.check_continues(second, "with the new gateway")
        call.hang_up()
        second.hang_up()

    def watchdog(self) -> None:
        """Stop the supervisor: systemd's watchdog ends it."""
        call = self.call()
        self.machine.run("kill", "-STOP", self.machine.show("MainPID"), check=True)
        until(lambda: self.machine.show("NRestarts") == "2", WATCHDOG_S + 20, "the watchdog restarts the service")
        self.measured["watchdog_back_s"] = self._back(2)
        if "Watchdog timeout" not in self.machine.journal():
            raise SoakError("the restart was not the watchdog's")
        self.check_continues(call, "after the watchdog")
        call.hang_up()

    def stop(self) -> None:
        """Stop the service: a drain longer than the watchdog's limit, and no process left."""
        call = self.call()
        began_s = time.monotonic()
        stopping = subprocess.Popen(
            [
                "nsenter",
                "-t",
                str(self.machine._leader),
                "-m",
                "-u",
                "-i",
                "-p",
                "--",
                "systemctl",
                "stop",
                "submilli.socket",
                SERVICE,
            ]
        )
        until(lambda: self.machine.show("ActiveState") == "deactivating", 5, "the service stops")
        until(lambda: "live calls end" in self.machine.show("StatusText"), 5, "the status has the stop")
        time.sleep(WATCHDOG_S)
        self.check_continues(call, "while the gateway drains")
        if stopping.wait(STOP_TIMEOUT_S + 60) != 0:
            raise SoakError("the stop failed")
        self.measured["stop_s"] = round(time.monotonic() - began_s, 2)
        call.wait(10)
        self.measured["call_at_stop"] = f"{call.closed_by}: {call.close_reason}"
        if (self.machine.show("Result"), self.machine.show("ActiveState")) != ("success", "inactive"):
            raise SoakError(f"stopped with {self.machine.show('Result')}, {self.machine.show('ActiveState')}")
        until(lambda: "gateway.py" not in self.machine.run("ps", "ax", check=True).stdout, 5, "no process is left")

    def _restarts(self, count: int) -> None:
        if self.machine.show("NRestarts") != str(count) or not self.machine.is_active():
            raise SoakError(f"{self.machine.show('NRestarts')} restarts, {self.machine.show('ActiveState')}")

    def _back(self, restarts: int) -> float:
        ready = lambda: self.machine.show("NRestarts") == str(restarts) and self.machine.is_active()  # noqa: E731
        return until(ready, 60, "the gateway is back")


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """Boot a machine, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="submilli-systemd-", dir="/var/tmp"))
    machine = Machine(folder)
    try:
        machine.boot()
        yield machine
    finally:
        machine.halt()
        shutil.rmtree(folder)


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    with booted() as machine, TwilioTwin(f"http://127.0.0.1:{machine.port}") as twilio:
        soak = Soak(machine, twilio)
        try:
            steps = (soak.start, soak.hung_worker, soak.reload, soak.secrets, soak.killed_supervisor, soak.watchdog, soak.stop)
            for step in steps:
                began_s = time.monotonic()
                step()
                print(f"{step.__name__:20} held, {time.monotonic() - began_s:5.1f} s", flush=True)
        except SoakError as broken:
            print(f"{step.__name__}: {broken}", file=sys.stderr)
            return 1
        finally:
            (OUT / "soak.json").write_text(json.dumps(soak.measured, indent=2) + "\n")
            (OUT / "journal.log").write_text(machine.journal())
    print(json.dumps(soak.measured, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

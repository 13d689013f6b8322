"""Two machines with a gateway each, behind HAProxy with the shipped configuration.

    Twilio twin --TLS--> HAProxy --> vm-1, vm-2: gateway.py serve, several workers
                                     each --> MariaDB, Twilio's REST API, the AI

HAProxy runs deploy/haproxy/haproxy.cfg with other addresses. A gateway accepts plain-text upstreams on loopback only, so each
machine has a relay on loopback, which dies with the machine. Gateways are observed from outside: admin sockets, ops ports, store.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import gevent

import gw.config
from gw.bench.gateway_process import free_ports
from gw.control.admin.client import AdminClient, NotReachable
from gw.control.store import Store
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.account import ACCOUNT_SID, TwilioTwin
from tests.deploy.balancer import MACHINES, configure, program
from tests.mariadb import PASSWORD, MariaDB, make_certificate
from tests.timing import scaled
from tests.vms.net import Machine, Net, die_with_parent

ROOT: Final = Path(__file__).resolve().parents[2]
AUTH_TOKEN: Final = "an auth token of the tests"
PUBLIC_NAME: Final = "voice.test"
_GATEWAY: Final = [sys.executable, str(ROOT / "gateway.py")]
_START_S: Final = 40.0
_STOP_S: Final = 15.0


#: A relay forwards bytes.
RELAYS: Final = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"


class Vm:
    """One machine and the gateway on it."""

    def __init__(
        self, machine: Machine, folder: Path, ports: dict[str, int], outside: str, store_url: str, settings: str
    ) -> None:
        self.machine = machine
        self.name = machine.hostname
        folder.mkdir()
        self.folder = folder
        self._config = folder / "submilli.toml"
        self._log = folder / "gateway.log"
        self._admin = AdminClient(str(folder / "var" / "admin.sock"), timeout_s=scaled(5.0))
        self._gateway: subprocess.Popen[bytes] | None = None
        relays = [f"listen {name}\n  bind 127.0.0.1:{port}\n  server out {outside}:{port}\n" for name, port in ports.items()]
        self._relay = folder / "relay.cfg"
        self._relay.write_text(RELAYS + "".join(relays))
        self._config.write_text(
            f'[server]\nlisten = "{machine.address}:8080"\npublic_url = "https://{PUBLIC_NAME}"\nmachine = "{self.name}"\n'
            f"{settings}"
            "[media]\nstart_timeout_s = 20\n"  # the twin, which also waits for its turn on this machine, sends it
            f'[ops]\nlisten = "{machine.address}:9464"\nadmin_socket = "{folder}/var/admin.sock"\nvar_dir = "{folder}/var"\n'
            f'[twilio]\naccount_sid = "{ACCOUNT_SID}"\napi_base = "http://127.0.0.1:{ports["rest"]}"\n'
            f'[store]\nurl = "{store_url}"\n'
            f'[agents.default]\nprovider = "openai"\nbase_url = "ws://127.0.0.1:{ports["ai"]}/v1/realtime"\n'
        )

    def boot(self) -> None:
        """Switch the machine on and start its relay, but no gateway."""
        self.machine.switch_on()
        self.machine.run([program(), "-db", "-f", str(self._relay)], log=self.folder / "relay.log")

    def serve(self) -> None:
        """Start the gateway, without waiting for `is_ready`."""
        self._gateway = self.machine.run([*self.command("serve")], self._environ(), self._log)

    def command(self, *words: str) -> list[str]:
        return [*_GATEWAY, "--config", str(self._config), *words]

    def operate(self, *words: str, timeout_s: float = 60.0) -> str:
        """Run a gateway command on the machine, as an operator does. Raises RuntimeError when it fails."""
        log = self.folder / "command.log"
        log.unlink(missing_ok=True)
        process = self.machine.run(self.command(*words), self._environ(), log)
        until_s = time.monotonic() + scaled(timeout_s)
        while process.poll() is None and time.monotonic() < until_s:
            gevent.sleep(0.05)
        if process.poll() is None:
            process.kill()
        if process.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)} gave {process.returncode}: {log.read_text()[-500:]}")
        return log.read_text()

    def stop(self) -> None:
        """Stop the gateway with SIGTERM, as systemd does."""
        assert self._gateway is not None
        (supervisor,) = Path(f"/proc/{self._gateway.pid}/task/{self._gateway.pid}/children").read_text().split()
        os.kill(int(supervisor), signal.SIGTERM)
        until_s = time.monotonic() + scaled(_STOP_S)
        while self._gateway.poll() is None and time.monotonic() < until_s:
            gevent.sleep(0.02)
        if self._gateway.poll() is None:
            raise RuntimeError(f"{self.name}: the gateway did not stop")

    def kill(self) -> int:
        """Kill every process of the machine. Returns their number."""
        pids = self.machine.pids()
        self.machine.kill()
        return len(pids)

    def kill_control(self) -> None:
        """Kill the control process only."""
        for pid in self.machine.pids():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"control" in words and b"--scoreboard-fd" in words:
                os.kill(pid, signal.SIGKILL)
                return
        raise RuntimeError(f"{self.name} has no control")

    def status(self) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self._admin.request("status")
        except (NotReachable, OSError):
            return None
        return answer

    def is_ready(self) -> bool:
        """Return the readiness that HAProxy checks."""
        connection = http.client.HTTPConnection(self.machine.address, 9464, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def log_end(self) -> str:
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""

    def refused_calls(self) -> Counter[str]:
        """Return the number of calls that the workers refused, by reason. Workers on a busy machine are late."""
        return Counter(re.findall(r"a call is refused: (\w+)", self._log.read_text(errors="replace")))

    def _environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SUBMILLI_", "LISTEN_", "TWILIO_"))}
        secrets = {"OPENAI_API_KEY": "none", "SUBMILLI_DB_PASSWORD": PASSWORD, "SUBMILLI_OPS_TOKEN": "of the test"}
        return {**kept, "TWILIO_AUTH_TOKEN": AUTH_TOKEN, **secrets}


class World:
    """Context manager that starts everything and stops everything."""

    def __init__(self, mariadb: MariaDB, script: AiScript, *, workers: int = 2, tls: bool = True, settings: str = "") -> None:
        """`script` is the AI's, and may be changed at any time; `settings` are lines for [server]."""
        self.mariadb = mariadb
        self.script = script
        self._tls = tls
        self._settings = f"workers = {workers}\nstop_timeout_s = 2.0\n{settings}"
        self.vms: list[Vm] = []

    def __enter__(self) -> World:
        with contextlib.ExitStack() as up:
            folder = tempfile.TemporaryDirectory(prefix="smv-", dir="/var/tmp", ignore_cleanup_errors=True)
            self.folder = Path(up.enter_context(folder))
            self.net = Net()
            up.callback(self.net.remove)
            outside = self.net.address
            url = self.mariadb.fresh()
            self._store_url = url
            store_port = self.mariadb.port
            certificate, key = self.folder / "crt.pem", self.folder / "key.pem"
            make_certificate(certificate, key, (PUBLIC_NAME,), (outside,))
            (self.folder / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
            before = os.environ.get("SSL_CERT_FILE")
            os.environ["SSL_CERT_FILE"] = str(certificate)
            up.callback(_restore, "SSL_CERT_FILE", before)
            self.ai = up.enter_context(AiTwin(lambda index, path: self.script, host=outside))
            target = f"https://{outside}:443" if self._tls else f"http://{outside}:8080"
            (rest_port,) = free_ports(1)
            self.twilio = up.enter_context(
                TwilioTwin(
                    target, auth_token=AUTH_TOKEN, public_url=f"https://{PUBLIC_NAME}", rest_host=outside, rest_port=rest_port
                )
            )
            ports = {"rest": rest_port, "ai": self.ai.address[1], "store": store_port}
            relay = self.folder / "relay.cfg"
            relay.write_text(f"{RELAYS}listen store\n  bind {outside}:{store_port}\n  server in 127.0.0.1:{store_port}\n")
            up.callback(_end, self._start([program(), "-db", "-f", str(relay)], self.folder / "relay.log"))
            for name, _ in MACHINES:
                self.vms.append(Vm(self.net.machine(name), self.folder / name, ports, outside, url, self._settings))
            binds = [f"{outside}:443", f"{outside}:8080"]
            addresses = [vm.machine.address for vm in self.vms]
            written = configure(self.folder, binds, f"{outside}:8405", self.folder / "both.pem", addresses)
            self.balancer = self._start([program(), "-db", "-f", str(written)], self.folder / "haproxy.log")
            up.callback(_end, self.balancer)
            for vm in self.vms:
                vm.boot()
                vm.serve()
            for vm in self.vms:
                self.wait(vm.is_ready, f"{vm.name} is ready", _START_S)
            self.wait(lambda: self.servers_up() == {"vm-1", "vm-2"}, "HAProxy reports both up", 10.0)
            self._up = up.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._up.close()

    def wait(self, holds: Any, what: str, timeout_s: float) -> None:
        """Wait until `holds()`. Raises RuntimeError with the end of each log after the timeout."""
        until_s = time.monotonic() + scaled(timeout_s)
        while not holds():
            if time.monotonic() > until_s:
                logs = "\n".join(f"{vm.name}: {vm.log_end()}" for vm in self.vms)
                raise RuntimeError(f"not reached within {timeout_s:g} s: {what}\n{logs}\n{self._haproxy_log()}")
            gevent.sleep(0.05)

    # -- HAProxy ------------------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Return the samples of HAProxy's exporter: name with labels, and value."""
        connection = http.client.HTTPConnection(self.net.address, 8405, timeout=5.0)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        samples = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def servers_up(self) -> set[str]:
        """Return the machines to which HAProxy sends new calls."""
        wanted = re.compile(r'haproxy_server_status\{proxy="gateways",server="([\w-]+)",state="UP"\}')
        with contextlib.suppress(OSError):
            return {found[1] for name, value in self.metrics().items() if (found := wanted.fullmatch(name)) and value}
        return set()

    def balancer_usage(self) -> tuple[float, int]:
        """Return HAProxy's CPU seconds so far and its resident bytes."""
        stat = Path(f"/proc/{self.balancer.pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{self.balancer.pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"), int(resident[1]) << 10 if resident else 0

    def _haproxy_log(self) -> str:
        return (self.folder / "haproxy.log").read_text(errors="replace")[-2000:]

    def _start(self, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent, process_group=0
            )

    # -- the store ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def store(self) -> Any:
        """Open the store that both gateways write to."""
        store = Store(gw.config.Store(url=self._store_url, statement_timeout_s=20.0), PASSWORD)
        try:
            yield store
        finally:
            store.close()


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()

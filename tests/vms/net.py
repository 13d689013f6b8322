"""Machines on one Linux: network namespaces on a bridge, each with its own hostname and processes.

A machine is a sleeping process with number 1 in a PID namespace. Killing it kills every process of the machine immediately, as a
power failure does. Needs root and a kernel that permits namespaces; `refusal` returns the reason where it does not. A run removes
what a killed run left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests import debian
from tests.timing import scaled

#: Benchmarking addresses, which no real network has. Source: RFC 2544, RFC 6890.
_PREFIX: Final = "198.18"
_STEP_S: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1
_NAMES: Final = re.compile(r"\bsmv(\d+)[bh]\w*")


class NetError(Exception):
    """The kernel or `ip` refused a command."""


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=scaled(_STEP_S), check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NetError(f"ip {' '.join(words)}: {error}") from error
    if done.returncode:
        raise NetError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def refusal() -> str:
    """Return why this machine cannot host namespaces; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    debian.installed("ip", "iproute2")
    name = f"smv{os.getpid()}h0"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
        _ip("link", "add", f"smv{os.getpid()}b", "type", "bridge")
        _ip("link", "del", f"smv{os.getpid()}b")
    except NetError as error:
        return f"network namespaces are refused here: {error}"
    argv = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=scaled(_STEP_S), check=False)
    return f"PID namespaces are refused here: {done.stderr.strip()}" if done.returncode else ""


def die_with_parent() -> None:
    """Make this process die with its parent; for a child between fork and exec."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Net:
    """A bridge with its own address, and the machines on it. `remove` deletes all of them."""

    def __init__(self) -> None:
        """Raises NetError."""
        _remove_leftovers()
        used = _ip("-o", "-4", "addr")
        free = (n for n in range(os.getpid() % 250, os.getpid() % 250 + 250) if f" {_PREFIX}.{n % 250}." not in used)
        self._subnet = f"{_PREFIX}.{next(free) % 250}"
        self._bridge = f"smv{os.getpid()}b"
        self.address = f"{self._subnet}.1"
        self.machines: list[Machine] = []
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def machine(self, hostname: str) -> Machine:
        """Add a machine, switched off."""
        n = len(self.machines) + 1
        made = Machine(f"smv{os.getpid()}h{n}", hostname, self._bridge, f"{self._subnet}.{10 + n}")
        self.machines.append(made)
        return made

    def remove(self) -> None:
        for machine in self.machines:
            machine.remove()
        _ip("link", "del", self._bridge)


class Machine:
    """A network namespace and, while switched on, its processes. Files stay after it is switched off."""

    def __init__(self, name: str, hostname: str, bridge: str, address: str) -> None:
        self.hostname = hostname
        self.address = address
        self._name = name
        self._unshared: subprocess.Popen[bytes] | None = None
        self._first = 0
        outside, inside = f"{name}o", f"{name}i"
        _ip("netns", "add", name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("link", "set", outside, "master", bridge, "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", inside)
        _ip("-n", name, "link", "set", inside, "up")
        _ip("-n", name, "link", "set", "lo", "up")

    def switch_on(self) -> None:
        """Start the machine's first process. Raises NetError."""
        setup = f"hostname {shlex.quote(self.hostname)} && exec sleep infinity"
        argv = ["ip", "netns", "exec", self._name, "unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._unshared = subprocess.Popen(
            [*argv, "sh", "-c", setup], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        children = Path(f"/proc/{self._unshared.pid}/task/{self._unshared.pid}/children")
        deadline_s = time.monotonic() + scaled(_STEP_S)
        while time.monotonic() < deadline_s:
            found = children.read_text().split() if children.exists() else []
            if found and Path(f"/proc/{found[0]}/comm").read_text() == "sleep\n":
                self._first = int(found[0])
                return
            time.sleep(0.01)
        self._unshared.kill()
        raise NetError(f"{self.hostname} did not come up")

    def run(
        self, argv: Sequence[str], environ: Mapping[str, str] | None = None, log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on the machine; its output is appended to `log`, or dropped."""
        with (log or Path(os.devnull)).open("ab") as output:
            return subprocess.Popen(
                ["nsenter", "--target", str(self._first), "--net", "--pid", "--uts", "--mount", "--", *argv],
                env=dict(os.environ if environ is None else environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,
            )

    def pids(self) -> list[int]:
        """Return every process of the machine except its first."""
        if not self._first:
            return []
        space = Path(f"/proc/{self._first}/ns/pid").readlink()
        found = []
        for one in Path("/proc").iterdir():
            if one.name.isdigit() and int(one.name) != self._first:
                try:
                    if (one / "ns" / "pid").readlink() == space:
                        found.append(int(one.name))
                except OSError:
                    continue  # it has ended
        return found

    def carried_bytes(self) -> int:
        """Return the bytes in and out of the machine since its creation, Ethernet headers included."""
        counted = Path(f"/sys/class/net/{self._name}o/statistics")
        return sum(int((counted / name).read_text()) for name in ("rx_bytes", "tx_bytes"))

    def kill(self) -> None:
        """Kill every process of the machine at the same moment."""
        if self._first and self._unshared is not None:
            os.kill(self._first, signal.SIGKILL)
            self._unshared.wait(scaled(_STEP_S))
        self._first = 0

    def cut(self) -> None:
        """Take the network link down: no packet enters or leaves, and no connection is closed."""
        _ip("link", "set", f"{self._name}o", "down")

    def reconnect(self) -> None:
        """Bring the network link up again after `cut`."""
        _ip("link", "set", f"{self._name}o", "up")

    def remove(self) -> None:
        self.kill()
        _ip("netns", "del", self._name)


def _remove_leftovers() -> None:
    """Remove the namespaces and links of runs whose process is gone."""
    for name in sorted(set(_NAMES.findall(_ip("netns", "list") + _ip("-o", "link")))):
        if Path(f"/proc/{name}").exists():
            continue
        for line in _ip("netns", "list").splitlines():
            if line.startswith(f"smv{name}h"):
                _ip("netns", "del", line.split()[0])
        for link in set(re.findall(rf"\b(smv{name}(?:b|h\d+o))\b", _ip("-o", "link"))):
            with contextlib.suppress(NetError):  # removed with its namespace
                _ip("link", "del", link)

"""Gateway of the fault bench: gateway.py with its bus through the proxy.

Two differences from `gateway.py`: workers connect to the proxy instead of the bus, and at SIGUSR2 control or a worker writes its
greenlets, counted by kind, to `<FAULTS_FOLDER>/greenlets.<pid>`.
"""

import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import gevent

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gateway  # noqa: F401  patches the standard library
from gw.cli import main
from gw.cli.context import Settings
from gw.media.bus_client import BusClient

FOLDER = Path(os.environ["FAULTS_FOLDER"])
os.environ["SUBMILLI_DB_PASSWORD"] = os.environ["FAULTS_DB_PASSWORD"]

_bus_client = BusClient.__init__


def program(self: Settings) -> list[str]:
    """Return this file: children start from it too."""
    return [sys.executable, __file__]


def bus_client(self: BusClient, path: Path, *arguments: object, **named: object) -> None:
    """Connect a worker to the proxy."""
    _bus_client(self, FOLDER / "bus", *arguments, **named)  # type: ignore[arg-type]


def count_greenlets() -> None:
    alive = (one for one in gc.get_objects() if isinstance(one, gevent.Greenlet) and not one.dead)
    kinds = Counter(getattr(getattr(one, "_run", None), "__qualname__", type(one).__name__) for one in alive)
    new = FOLDER / f"greenlets.{os.getpid()}.new"
    new.write_text(json.dumps(kinds))
    new.rename(FOLDER / f"greenlets.{os.getpid()}")


Settings.program = program  # type: ignore[method-assign]
BusClient.__init__ = bus_client  # type: ignore[method-assign]
if {"control", "worker"} & set(sys.argv):
    gevent.signal_handler(signal.SIGUSR2, count_greenlets)
main()

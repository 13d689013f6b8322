"""Gateway of the fault bench: gateway.py with its bus through the proxy.

Two differences from `gateway.py`: workers connect to the proxy instead of the bus, and at SIGUSR2 control or a worker writes its
greenlets, counted by kind, to `<FAULTS_FOLDER>/greenlets.<pid>`.
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gevent  # noqa: E402

from gw.cli import main  # noqa: E402
from gw.cli.context import Settings  # noqa: E402
from gw.media.bus_client import BusClient  # noqa: E402

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

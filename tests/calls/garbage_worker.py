"""Worker process that reports the garbage of its calls; a child of `test_garbage`.

The twins produce garbage too; in a separate process all garbage is the media plane's. `DEBUG_SAVEALL` keeps everything that a
collection finds, automatic collections included. At each SIGUSR1 the process prints one line of JSON.
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402

import gevent  # noqa: E402
import msgspec  # noqa: E402
from gevent import socket  # noqa: E402

from gw.config import Config  # noqa: E402
from gw.media.worker import Worker  # noqa: E402

#: Modules of a call's objects, and its libraries. The bus is not among them: it keeps its last message.
_OURS = ("gw.media.", "gw.call.", "gw.protocol.", "websockets.", "gevent.greenlet", "gevent.timeout", "geventwebsocket.")


#: Kept for the action webhook, within a bound; kept for admission, one of each model.
_KEPT = frozenset({"gw.media.shared.context.Ending", "gw.protocol.ai.TokenLimit"})


def kinds(things: list[object]) -> Counter[str]:
    """Count objects by class."""
    return Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in things)


def look(worker: Worker) -> None:
    """Print the objects that reference counting had not freed, and the live ones."""
    gc.collect()
    living = kinds(gc.get_objects())
    alive = {name: count for name, count in living.items() if name.startswith(_OURS) and name not in _KEPT}
    line = {"sessions": worker.context.streams, "garbage": kinds(gc.garbage), "alive": alive}
    print(json.dumps(line), flush=True)


def main() -> int:
    config = msgspec.json.decode(os.environ["GARBAGE_CONFIG"], type=Config)
    worker = Worker(config, 0, socket.socket(fileno=int(sys.argv[1])))
    gevent.signal_handler(signal.SIGUSR1, look, worker)
    gevent.signal_handler(signal.SIGTERM, worker.stop)

    def on_ready() -> None:
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        print("ready", flush=True)

    return worker.run(on_ready)


if __name__ == "__main__":
    sys.exit(main())

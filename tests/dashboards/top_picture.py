"""Write the README's picture of `top`: `python -m tests.dashboards.top_picture FILE.svg`.

A gateway with two workers carries calls of real speech between the twins. `gateway.py top` runs in a pseudo-terminal; its last
screen becomes the picture. Run it on a quiet machine: the figures are the machine's.
"""

from gevent import monkey

monkey.patch_all()

import fcntl  # noqa: E402
import io  # noqa: E402
import os  # noqa: E402
import pty  # noqa: E402
import secrets  # noqa: E402
import signal  # noqa: E402
import struct  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import termios  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent import os as gevent_os  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.text import Text  # noqa: E402

from gw.bench.gateway_process import GatewayProcess  # noqa: E402
from gw.demo.run import DemoCaller, DemoScript  # noqa: E402
from gw.twin.ai.server import AiTwin  # noqa: E402
from gw.twin.twilio.account import TwilioTwin  # noqa: E402

_GATEWAY = [sys.executable, str(Path(__file__).resolve().parents[2] / "gateway.py")]
_COLUMNS, _LINES = 110, 26
_CALLS = 12
#: The time `top` is watched, and between two calls.
_WATCHED_S = 30.0
_RING_S = 0.4
#: rich moves the cursor home before each screen.
_HOME = b"\x1b[H"


def main(target: Path) -> None:
    """Run the scene and write the picture."""
    with tempfile.TemporaryDirectory(prefix="submilli-top-") as folder:
        gateway = GatewayProcess(_GATEWAY, Path(folder), {"server": "workers = 2\n"})
        script = DemoScript.lasting(_WATCHED_S)
        token = secrets.token_hex(16)
        with (
            AiTwin(lambda index, path: script.agent(index)) as voices,
            TwilioTwin(gateway.url, auth_token=token) as telephones,
        ):
            try:
                gateway.start(
                    account_sid=telephones.account_sid, auth_token=token, api_base=telephones.rest.url, ai_url=voices.url
                )
                watched = gevent.spawn(_screen, gateway.config_path)
                for number in range(1, _CALLS + 1):
                    gevent.spawn(DemoCaller(number, script, telephones, voices).run)
                    gevent.sleep(_RING_S)
                screen = watched.get()
            finally:
                gateway.stop()
    recorder = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    recorder.print(Text.from_ansi(screen, no_wrap=True), soft_wrap=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    recorder.save_svg(str(target), title="gateway.py top", unique_id="top")


def _screen(config: Path) -> str:
    """Run `top` in a pseudo-terminal, and return the last whole screen it drew."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    command = [*_GATEWAY, "--config", str(config), "top"]
    environ = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environ)
    os.close(slave)
    gevent_os.make_nonblocking(master)
    drawn = b""
    deadline_s = time.monotonic() + _WATCHED_S
    try:
        while time.monotonic() < deadline_s:
            with gevent.Timeout(1.0, False):
                drawn += gevent_os.nb_read(master, 65536)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)
        os.close(master)
    return drawn.split(_HOME)[-2].decode().replace("\r\n", "\n").rstrip()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

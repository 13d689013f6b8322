"""Run an example on this machine, without a key and without a telephone: `python deploy/examples/run.py order_line`.

Starts the example's endpoints, a stand-in for the AI and the gateway, places the calls of `rehearsal.toml`, and leaves everything
running until Ctrl-C. Prints each command, so that you can run them yourself. Exit code 1: a call failed.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
GATEWAY = [sys.executable, str(HERE.parents[1] / "gateway.py")]
READY_S = 30.0
STOP_S = 15.0


def main(folder: Path) -> int:
    """Run the example in `folder` until Ctrl-C. Returns the exit code."""
    os.environ.setdefault("SUBMILLI_HOOK_SECRET", secrets.token_hex(16))
    config = folder / "submilli.toml"
    configured, rehearsal = read(config), read(folder / "rehearsal.toml")
    gateway = [*GATEWAY, "--config", str(config)]
    var = folder.resolve() / "var"
    var.mkdir(exist_ok=True)
    log = var / "gateway.log"
    failed = False
    with ExitStack() as running:
        if endpoints := rehearsal.get("endpoints"):
            start(running, [sys.executable, str(folder.resolve() / "endpoints.py"), str(endpoints)], cwd=var)
        start(running, [*GATEWAY, "twin", "ai", *ai_options(configured, rehearsal)])
        serving = start(running, [*gateway, "serve"], log=log)
        wait_until_ready(serving, configured.get("ops", {}).get("listen", "127.0.0.1:9464"), log)
        for call in rehearsal["calls"]:
            to = ["--to", call["to"]] if "to" in call else []
            failed |= subprocess.run(shown([*gateway, "twin", "call", *to, *call["steps"]]), check=False).returncode != 0
        subprocess.run(shown([*gateway, "calls", "list"]), check=False)
        subprocess.run(shown([*gateway, "talk", "--no-browser"]), check=False)
        print(f"Everything runs until Ctrl-C; the gateway's log is {log}.", flush=True)
        try:
            serving.wait()
            failed = True
            print(f"The gateway has ended; {log} has the reason.")
        except KeyboardInterrupt:
            print()
    return int(failed)


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file."""
    with path.open("rb") as file:
        return tomllib.load(file)


def ai_options(configured: dict[str, Any], rehearsal: dict[str, Any]) -> list[str]:
    """Return the options of the AI's stand-in: the port that the agents name, and its script."""
    options = ["--port", str(urlsplit(configured["agents"]["default"]["base_url"]).port)]
    for tool in rehearsal.get("tools", []):
        options += ["--tool", tool]
    if "hang_up_after" in rehearsal:
        options += ["--hang-up-after", str(rehearsal["hang_up_after"])]
    return options


def start(running: ExitStack, command: list[str], *, log: Path | None = None, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a program that ends with this one. `log`: the file for its output. `cwd`: its working directory."""
    output = None if log is None else running.enter_context(log.open("wb"))
    process = subprocess.Popen(shown(command), stdout=output, stderr=output, cwd=cwd, start_new_session=True)
    running.callback(end, process)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_ready(gateway: subprocess.Popen[bytes], ops: str, log: Path) -> None:
    """Wait until the gateway takes calls. Exits with its fault if it does not."""
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and gateway.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{ops}/readyz", timeout=2.0):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"the gateway did not start:\n{log.read_text()}")


def shown(command: list[str]) -> list[str]:
    """Print a command, and return it."""
    print("$", shlex.join("gateway.py" if word == GATEWAY[1] else word for word in command if word != sys.executable), flush=True)
    return command


def folder_of(name: str) -> Path:
    """Return the folder of an example, by its name or its path. Exits if it does not exist."""
    for folder in (Path(name), HERE / name):
        if (folder / "rehearsal.toml").is_file():
            return folder
    known = ", ".join(sorted(path.parent.name for path in HERE.glob("*/rehearsal.toml")))
    sys.exit(f"example {name!r} does not exist; expected one of {known}, or a folder with submilli.toml and rehearsal.toml")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(folder_of(sys.argv[1])))

"""What a reload brings: the configuration file as it is now, checked by the code that is there now.

The file is read once, and what was read is what every process of that generation gets, also the one that replaces a dead worker
an hour later: so an unfinished edit of the file reaches nobody. It is handed down as memory without a name. The check runs in a
process of the new code, which also says what the supervisor must know of the answer: how many workers, and where they run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from gw.errors import GatewayError

#: How long the check may take: it imports little, and opens nothing but the file.
CHECK_S: Final = 20.0
#: A configuration file is some kilobytes.
MAX_FILE_BYTES: Final = 1 << 20


class RolloverError(GatewayError):
    """The reload does not happen, or not whole; the sentence says why. What served before serves on."""

    code = "reload_failed"


class Wanted(msgspec.Struct, frozen=True):
    """Of the `[server]` table and `ops.var_dir`: what concerns the supervisor. Other code may have more keys."""

    listen: str
    workers: int | Literal["auto"]
    pin: bool
    stop_timeout_s: float
    reload_timeout_s: float
    var_dir: str = ""


class Snapshot:
    """The configuration file as it was read. Without a file there is none, and children read no file either."""

    def __init__(self, path: Path | None) -> None:
        """Raises RolloverError when it cannot be read."""
        self.fd = -1
        if path is None:
            return
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise RolloverError(f"{path} cannot be read: {error.strerror}") from None
        if len(content) > MAX_FILE_BYTES:
            raise RolloverError(f"{path} is longer than {MAX_FILE_BYTES} bytes")
        self.fd = os.memfd_create("submilli-config", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(self.fd), "wb") as file:
            file.write(content)

    @property
    def path(self) -> str:
        """How a child that inherited `fd` opens it. Source: proc_pid_fd(5): each opening starts at the beginning."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def options(self) -> list[str]:
        """The command line's, for a child."""
        return [] if self.fd < 0 else ["--config", self.path]

    @property
    def pass_fds(self) -> tuple[int, ...]:
        return () if self.fd < 0 else (self.fd,)

    def close(self) -> None:
        """Let go of it. Harmless when called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def check(command: Sequence[str], snapshot: Snapshot, environ: Mapping[str, str], named: str) -> Wanted:
    """Let the code that is there now judge the file. `named`: what the file is called in a sentence.

    Raises: RolloverError with everything that is wrong.
    """
    argv = [*command, *snapshot.options, "config", "check", "--json"]
    try:
        done = subprocess.run(
            argv, env=environ, pass_fds=snapshot.pass_fds, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_S
        )
    except subprocess.TimeoutExpired:
        raise RolloverError(f"the check of {named} did not end within {CHECK_S:g} s") from None
    except OSError as error:
        raise RolloverError(f"{command[0]} cannot be started: {error.strerror}") from None
    try:
        answer: dict[str, Any] = msgspec.json.decode(done.stdout, type=dict)
        if answer["problems"]:
            raise RolloverError("; ".join(str(problem).replace(snapshot.path, named) for problem in answer["problems"]))
        config = answer["config"]
        return msgspec.convert({**config["server"], "var_dir": config["ops"]["var_dir"]}, Wanted)
    except (msgspec.MsgspecError, KeyError, TypeError):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise RolloverError(f"the new code cannot check {named}: {said[-1] if said else 'it says nothing'}"[:500]) from None

"""Trial of a configuration: constructs control and a worker beside the running ones, and closes them.

Runs in a separate process, with the code on disk. Construction binds every socket and opens every file, and needs no store and
no peer. Addresses of the running control are replaced by free ones. The folder is temporary.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import msgspec

from gw.config import Config, host_and_port
from gw.control.main import Control
from gw.errors import GatewayError, text_of
from gw.media.shared.greetings import greeting_problems
from gw.media.worker import Worker
from metrics.page import PageError


def problem_of(config: Config, ops_listen: str, admin_socket: str) -> str:
    """Return why control or a worker would not start; empty if both would.

    `ops_listen`, `admin_socket`: those of the running control.
    """
    if found := greeting_problems(config.agents, config.outbound.voicemail, config.recording.notice.file):
        return "; ".join(found)
    try:
        with tempfile.TemporaryDirectory(prefix="submilli-") as folder, socket.create_server(("127.0.0.1", 0)) as listener:
            tried = _beside(config, ops_listen, admin_socket, Path(folder))
            control = Control(tried)
            try:
                Worker(tried, 0, listener)
            finally:
                control.close()
    except (OSError, GatewayError, PageError, ValueError) as error:
        return text_of(error)
    return ""


def _beside(config: Config, ops_listen: str, admin_socket: str, folder: Path) -> Config:
    """Return the configuration with a temporary folder, and free addresses for those that the running control has."""
    ops = msgspec.structs.replace(config.ops, var_dir=str(folder))
    host, port = host_and_port(ops.listen)
    if port == host_and_port(ops_listen)[1]:
        ops = msgspec.structs.replace(ops, listen=f"[{host}]:0" if ":" in host else f"{host}:0")
    if ops.admin_socket == admin_socket:
        ops = msgspec.structs.replace(ops, admin_socket=str(folder / "admin.sock"))
    return msgspec.structs.replace(config, ops=ops)

"""HAProxy with the shipped configuration, at the addresses of a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests import debian

SHIPPED: Final = Path(__file__).resolve().parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
#: The gateways of the shipped file: name and address.
MACHINES: Final = (("vm-1", "10.0.0.11"), ("vm-2", "10.0.0.12"))


def program() -> str:
    """Return the path of HAProxy, installed if it is missing."""
    return debian.installed("haproxy", "haproxy")


def configure(
    folder: Path,
    binds: Sequence[str],
    metrics: str,
    certificate: Path,
    machines: Sequence[str],
    changes: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write the shipped file with other addresses and with `changes`.

    Shape: `binds` are host:port, the first for TLS, the others for plain text; `metrics` host:port; `machines` IP addresses.
    Raises: ValueError for a line that the shipped file does not have.
    """
    tls, *plain = binds
    also = "".join(f"\n    bind {one}" for one in plain)
    text = SHIPPED.read_text()
    for old, times, new in (
        (
            "    bind :443 ssl crt /etc/haproxy/voice.pem alpn http/1.1 tcp-ut 20s",
            1,
            f"    bind {tls} ssl crt {certificate}{also}",
        ),
        ("stats socket /run/haproxy/admin.sock", 1, f"stats socket {folder}/haproxy.sock"),
        ("bind 127.0.0.1:8405", 1, f"bind {metrics}"),
        *((f"{was}:8080", 2, f"{now}:8080") for (_, was), now in zip(MACHINES, machines, strict=True)),
        *((old, 1, new) for old, new in changes),
    ):
        if text.count(old) != times:
            raise ValueError(f"{SHIPPED.name} has not {times} line(s) with: {old}")
        text = text.replace(old, new)
    written = folder / "haproxy.cfg"
    written.write_text(text)
    return written

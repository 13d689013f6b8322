"""The id of this gateway: made once, at random, and kept in `var_dir/gateway-id`.

Rows, claims and leases carry the id, so they outlive a change of the hostname, and two gateways of one hostname differ. A copy of
`var_dir` has the same id; its fingerprint differs, because the file is another one, on another disk or of another boot.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Final, NamedTuple

from gw.control.durable import put_in_place
from gw.errors import GatewayError

FILE: Final = "gateway-id"
_FORM: Final = re.compile(r"gw-[0-9a-f]{16}")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class IdentityError(GatewayError):
    """The file of the id cannot be used."""

    code = "identity"


class Identity(NamedTuple):
    """A gateway's id, its file, and the fingerprint that distinguishes a copy."""

    gateway: str
    fingerprint: str
    file: Path


def identity_in(var_dir: Path) -> Identity:
    """Return the id kept in a folder; make one at the first start. Raises IdentityError, OSError."""
    file = var_dir.absolute() / FILE
    if not file.exists():
        _make(file)
    found = file.read_bytes()[:100].decode(errors="replace").strip()
    if _FORM.fullmatch(found) is None:
        raise IdentityError(
            f"{file}: {found[:40]!r} is not a gateway's id; expected gw- and 16 hexadecimal digits. "
            "Restore the file, or delete it: the next start makes a new id"
        )
    about = file.stat()
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""  # a sandbox may hide it (ProcSubset=pid)
    return Identity(found, f"{boot}:{about.st_dev}:{about.st_ino}", file)


def _make(file: Path) -> None:
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)  # of a start that was interrupted
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(f"gw-{secrets.token_hex(8)}\n")
    put_in_place(part, file)

"""gw.control.identity: an id that is made once, and a fingerprint of the folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from gw.control import identity
from gw.control.identity import IdentityError, identity_in


def test_an_id_is_made_once(tmp_path: Path) -> None:
    first = identity_in(tmp_path)
    assert re.fullmatch(r"gw-[0-9a-f]{16}", first.gateway)
    assert identity_in(tmp_path) == first
    assert (first.file, first.file.stat().st_mode & 0o777) == (tmp_path / "gateway-id", 0o600)
    (tmp_path / "b").mkdir()
    assert identity_in(tmp_path / "b").gateway != first.gateway
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "gateway-id"]


def test_a_start_that_was_interrupted_is_repeated(tmp_path: Path) -> None:
    (tmp_path / ".gateway-id.part").write_text("gw-")
    assert identity_in(tmp_path).gateway.startswith("gw-")
    assert not (tmp_path / ".gateway-id.part").exists()


def test_a_copy_of_the_folder_has_the_id_and_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = identity_in(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = identity_in(tmp_path / "b")
    assert copy.gateway == first.gateway
    assert copy.fingerprint != first.fingerprint
    (tmp_path / "a").rename(tmp_path / "c")
    assert identity_in(tmp_path / "c").fingerprint == first.fingerprint, "moved, not copied"


def test_another_boot_has_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied virtual machine has the same file on the same device."""
    first = identity_in(tmp_path)
    boot = tmp_path / "boot_id"
    boot.write_text("of another machine\n")
    monkeypatch.setattr(identity, "_BOOT_ID", boot)
    again = identity_in(tmp_path)
    assert again.gateway == first.gateway
    assert again.fingerprint == f"of another machine:{first.fingerprint.partition(':')[2]}"
    boot.unlink()
    assert identity_in(tmp_path).fingerprint == f":{first.fingerprint.partition(':')[2]}", "a sandbox hides it"


@pytest.mark.parametrize("content", [b"", b"gw-12\n", b"\xff\xfe", b"gw-0123456789abcdef" * 9, b"GW-0123456789ABCDEF"])
def test_a_file_without_an_id_is_an_error_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    """A new id would leave the calls of the old one open without a word."""
    (tmp_path / "gateway-id").write_bytes(content)
    with pytest.raises(IdentityError, match=r"gateway-id: .* is not a gateway's id; expected .*Restore the file, or delete it"):
        identity_in(tmp_path)
    assert (tmp_path / "gateway-id").read_bytes() == content

"""deploy/systemd: systemd accepts the units without a warning, and they are sandboxed and fit the code.

`make systemd` boots a machine with them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gw.config import Server
from gw.config.load import load
from gw.supervise.process_group import HANG_S
from gw.supervise.supervisor import Supervisor
from tests import debian
from tests.gw.supervise.running import config_in
from tests.timing import scaled

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SERVICE = (FOLDER / "submilli.service").read_text()
#: On systemd's scale of 10. The remaining permissions, which the gateway needs, add up to 1.2.
EXPOSURE = 2.0


def _analyze(*arguments: str) -> str:
    """Return the output of `systemd-analyze`, standard error included."""
    program = debian.installed("systemd-analyze", "systemd")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=scaled(60), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _seconds(key: str) -> float:
    found = re.search(rf"^{key}=(\d+)$", SERVICE, re.MULTILINE)
    assert found is not None, key
    return float(found[1])


def test_systemd_accepts_the_units_without_a_warning(tmp_path: Path) -> None:
    binary = tmp_path / "submilli"
    shutil.copy("/bin/true", binary)
    units = []
    for unit in ("submilli.service", "submilli.socket"):
        units.append(tmp_path / unit)
        units[-1].write_text((FOLDER / unit).read_text().replace("/opt/submilli/submilli", str(binary)))
    assert _analyze("verify", "--man=no", *map(str, units)) == ""


def test_the_service_is_sandboxed() -> None:
    said = _analyze("security", "--offline=true", "--no-pager", str(FOLDER / "submilli.service"))
    found = re.search(r"Overall exposure level for submilli.service: ([\d.]+)", said)
    assert found is not None and float(found[1]) <= EXPOSURE, said


def test_the_units_timeouts_fit_the_supervisors(tmp_path: Path) -> None:
    supervisor = Supervisor(config_in(tmp_path, stop_timeout_s=Server().stop_timeout_s), ["x"], environ={})
    assert _seconds("TimeoutStopSec") >= supervisor.stop_bound_s
    assert _seconds("WatchdogSec") > 2 * HANG_S  # the supervisor ends a hung process first


@pytest.mark.parametrize("key", ["var_dir", "admin_socket"])
def test_the_shipped_configuration_writes_only_to_permitted_folders(key: str) -> None:
    config = load(FOLDER / "submilli.toml", {})
    assert str(getattr(config.ops, key)).startswith(("/var/lib/submilli", "/run/submilli"))
    assert "StateDirectory=submilli\n" in SERVICE and "RuntimeDirectory=submilli\n" in SERVICE
    assert config.store.url.startswith("sqlite:////var/lib/submilli/")

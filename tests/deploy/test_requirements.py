"""Requirements: each package has hashes, and a gateway needs none of the instruments."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_hashes = runpy.run_path(str(ROOT / "deploy" / "hashes.py"))
pins, with_hashes = _hashes["pins"], _hashes["with_hashes"]
FILES = ("requirements.txt", "deploy/requirements-instruments.txt", "tests/requirements.txt")
AUDIT = "deploy/requirements-audit.txt"  # installed elsewhere
PACKAGES = {name: pins((ROOT / name).read_text()) for name in (*FILES, AUDIT)}

#: Imports every module with the packages in argv blocked, as in a .venv without them.
IMPORT_ALL = """
import importlib, pkgutil, sys
from gevent import monkey
monkey.patch_all()
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import gw, metrics
names = [found.name for package in (gw, metrics) for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if "migrations" not in name:  # alembic runs these
        importlib.import_module(name)
print(len(names))
"""


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_has_hashes(name: str) -> None:
    lines = (ROOT / name).read_text().replace("\\\n", "").splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert len(wanted) == len(PACKAGES[name])
    for line in wanted:
        assert re.fullmatch(r"[\w.-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", line), line


def test_what_is_installed_is_what_is_pinned() -> None:
    for packages in (PACKAGES[name] for name in FILES):
        assert {name: metadata.version(name) for name in packages} == packages


def test_new_hashes_replace_former_ones_and_keep_the_rest() -> None:
    text = "# why\nA.b==1 \\\n    --hash=sha256:00\n-r other.txt\nc==1!2\n"
    hashes = {"a-b": {"22", "11"}, "c": {"33"}}
    expected = "# why\nA.b==1 \\\n    --hash=sha256:11 \\\n    --hash=sha256:22\n-r other.txt\nc==1!2 \\\n    --hash=sha256:33\n"
    assert with_hashes(text, hashes) == expected
    assert with_hashes(expected, hashes) == expected


def test_no_module_needs_the_instruments_or_the_tests_packages() -> None:
    blocked = set()
    needless = {name for file in FILES[1:] for name in PACKAGES[file]}
    for module, owners in metadata.packages_distributions().items():
        if needless.issuperset(owners):
            blocked.add(module)
    assert {"matplotlib", "numpy", "PIL", "pytest"} <= blocked
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *blocked], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200

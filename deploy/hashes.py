"""Write SHA-256 hashes into the requirements files: of each file that pip may choose.

    .venv/bin/python deploy/hashes.py FILE...          `make hashes`, after a version was changed

For each supported Python and machine, `pip install --dry-run --report` resolves the versions from the package index, without
downloading the files; local folders and configuration of pip are ignored. The lines `name==version` and all comments stay.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PYTHONS: Final = ("3.11", "3.12", "3.13")
MACHINES: Final = ("x86_64", "aarch64")
#: Wheels for the C library of Debian 10 (glibc 2.28) and later, newest first: pip takes the first that exists. Source: PEP 600.
_TAGS: Final = ("manylinux_2_28", *(f"manylinux_2_{minor}" for minor in range(27, 4, -1)), "manylinux2014", "manylinux1")
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
_HASHES: Final = re.compile(r"( \\)?\n +--hash=\S+")


def pins(text: str) -> dict[str, str]:
    """Return name and version of each pinned package."""
    return dict(_PIN.findall(text))


def with_hashes(text: str, hashes: dict[str, set[str]]) -> str:
    """Return a requirements file with the hashes of each package, replacing former ones."""

    def line(pin: re.Match[str]) -> str:
        return " \\\n    ".join([pin[0], *(f"--hash=sha256:{value}" for value in sorted(hashes[_key(pin[1])]))])

    return _PIN.sub(line, _HASHES.sub("", text))


def resolve(pinned: dict[str, str], python: str, machine: str) -> dict[str, str]:
    """Return the hash of the file that pip chooses for each package. Raises CalledProcessError for a package without a wheel."""
    platforms = [f"--platform={tag}_{machine}" for tag in _TAGS]
    options = [
        "--dry-run",
        "--quiet",
        "--disable-pip-version-check",
        "--ignore-installed",
        "--no-deps",
        "--only-binary=:all:",
        f"--python-version={python}",
    ]
    environ = {name: value for name, value in os.environ.items() if name == "PIP_CERT" or not name.startswith("PIP_")}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", *options, *platforms, f"--target={folder}/x", f"--report={report}"]
        wanted = [f"{name}=={version}" for name, version in pinned.items()]
        subprocess.run([*command, *wanted], env={**environ, "PIP_CONFIG_FILE": os.devnull}, check=True)
        items = json.loads(report.read_text())["install"]
    return {_key(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"]["sha256"] for item in items}


def _key(name: str) -> str:
    """Return a package's name as indexes compare it. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def renew(path: Path) -> None:
    """Renew the hashes in a file."""
    pinned = pins(path.read_text())
    hashes: dict[str, set[str]] = {_key(name): set() for name in pinned}
    for python in PYTHONS:
        for machine in MACHINES:
            print(f"{path}: Python {python} on {machine}", file=sys.stderr)
            for name, value in resolve(pinned, python, machine).items():
                hashes[name].add(value)
    path.write_text(with_hashes(path.read_text(), hashes))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        renew(Path(name))

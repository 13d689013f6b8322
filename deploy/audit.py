"""Check the licences of all installed packages, and the pinned versions for known vulnerabilities.

    .venv/bin/python deploy/audit.py          `make audit`

pip-audit asks the package index for vulnerabilities, from a separate environment (out/audit). Exit codes: 0 all checked,
1 something found, 3 nothing found but some package could not be checked.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOUND: Final = 1
NOT_CHECKED: Final = 3
#: Bound on each step: an installation, or one question per package.
_STEP_S: Final = 300.0

#: Licences that ask no more of a distributor than their text, or (MPL-2.0) the source of changed files. Names: SPDX.
ALLOWED: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0"),
        *("PSF-2.0", "Unlicense", "ZPL-2.1", "Zlib"),
    }
)
#: Another licence for one package: programs that only the tests run, and that nothing distributed contains.
TOOLS: Final = {"codespell": "GPL-2.0-only"}
#: The licence of a package whose metadata contains it only in a notice.
KNOWN: Final = {"gevent-websocket": "Apache-2.0"}
#: Texts of classifiers and of the License field, and the licence they mean.
_MEANT: Final = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def licence(package: metadata.PackageMetadata) -> str:
    """Return the licence: an SPDX expression, else the text of the metadata. It may be empty."""
    if package["Name"] in KNOWN:
        return KNOWN[package["Name"]]
    if expression := package.get("License-Expression"):
        return str(expression)
    classifiers = [text.rpartition(" :: ")[2] for text in package.get_all("Classifier") or () if text.startswith("License ::")]
    texts = classifiers or str(package.get("License") or "").strip().splitlines()[:1]
    return " AND ".join(_MEANT.get(text, text) for text in texts)


def is_allowed(expression: str) -> bool:
    """Return whether allowed licences suffice. An expression with both AND and OR needs all of them."""
    names = [name for name in re.split(r"[\s()]+|\bAND\b|\bOR\b", expression) if name]
    either = " OR " in expression and " AND " not in expression
    return bool(names) and (any if either else all)(name in ALLOWED for name in names)


def licences(packages: Iterable[metadata.Distribution]) -> list[str]:
    """Return a sentence for each package with another licence."""
    found = {package.metadata["Name"]: licence(package.metadata) for package in packages}
    return [
        f"{name}: {text or 'no licence is named'}; allow it in deploy/audit.py, or replace the package"
        for name, text in sorted(found.items())
        if not is_allowed(text) and TOOLS.get(name) != text
    ]


def vulnerabilities(answer: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return a sentence for each vulnerability in pip-audit's answer, and the unchecked packages."""
    found, unchecked = [], []
    for package in answer["dependencies"]:
        if "skip_reason" in package:
            unchecked.append(package["name"])
        for flaw in package.get("vulns", ()):
            fixed = " or ".join(flaw["fix_versions"]) or "no version yet"
            found.append(f"{package['name']} {package['version']}: {flaw['id']}; fixed in {fixed}")
    return found, unchecked


def ask(files: list[str]) -> Mapping[str, Any]:
    """Run pip-audit on the requirements files, installed first if missing. Raises OSError, SubprocessError or ValueError."""
    folder = ROOT / "out" / "audit"
    program = folder / "bin" / "pip-audit"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=_STEP_S)
        install = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"]
        pip = [str(folder / "bin" / "python"), "-m", "pip", *install, str(ROOT / "deploy" / "requirements-audit.txt")]
        subprocess.run(pip, check=True, timeout=_STEP_S)
    options = ["--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json"]
    command = [str(program), *options, *(f"--requirement={name}" for name in files)]
    answer: dict[str, Any] = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, timeout=_STEP_S).stdout)
    return answer


def main(files: list[str]) -> int:
    """Print what was found. Returns the exit code."""
    packages = list(metadata.distributions())
    refused = licences(packages)
    print(*refused, f"licences: {len(packages)} packages, {len(refused)} not allowed", sep="\n")
    try:
        found, unchecked = vulnerabilities(ask(files))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        found, unchecked = [], [f"every package ({error})"]
    print(*found, f"known vulnerabilities found: {len(found)}", sep="\n")
    if unchecked:
        names = sorted(set(unchecked))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        print(f"NOT CHECKED for known vulnerabilities, because no data was reachable: {', '.join(names[:3])}{more}")
    return FOUND if refused or found else NOT_CHECKED if unchecked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Draw every panel with Grafana's components, from answers of a real Prometheus and MariaDB.

The tests draw a short scene, `python -m tests.dashboards` a longer one; both write the pictures to `out/dashboards`. The page is
built once for each version of its sources. npm's packages are large, and stay under `out` for each version of the lock file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from tests import debian
from tests.browser.chromium import Chromium
from tests.dashboards.panels import boards
from tests.timing import scaled

_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = Path(__file__).with_name("render")
OUT = _ROOT / "out" / "dashboards"
_BUILD = OUT / ".build"
_WIDTH = 1600
_NPM_S = 300.0
#: The npm that installs the packages. Debian 12's npm (9.2) fails at overrides by another package: "Invalid comparator".
_NPM = "npm@10.9.4"
_QUIETLY = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error")


def built() -> Path:
    """Return the folder of the page's script and style, built if the sources have changed."""
    files = [path for path in sorted(_SOURCES.rglob("*")) if path.is_file()]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    done, stamp = _BUILD / "dist", _BUILD / "stamp"
    if stamp.exists() and stamp.read_text() == digest and done.exists():
        return done
    npm = debian.installed("npm", "nodejs", "npm")
    _BUILD.mkdir(parents=True, exist_ok=True)
    for path in files:
        target = _BUILD / path.relative_to(_SOURCES)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    lock = (_SOURCES / "package-lock.json").read_text()
    installed = _BUILD / "installed"
    if not installed.exists() or installed.read_text() != lock:
        _run([npm, "exec", "--yes", "--prefer-offline", f"--package={_NPM}", "--", "npm", "ci", *_QUIETLY])
        installed.write_text(lock)
    _run([npm, "run", "--silent", "build"])
    stamp.write_text(digest)
    return done


def _run(command: list[str]) -> None:
    environment = {**os.environ, "CI": "1"}
    done = subprocess.run(
        command, cwd=_BUILD, env=environment, capture_output=True, text=True, timeout=scaled(_NPM_S), check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {(done.stderr or done.stdout)[-3000:]}"


def draw(panels: Iterable[dict[str, Any]], since: float, until: float, folder: Path = OUT) -> dict[str, Image.Image]:
    """Draw each panel and each whole dashboard; write them to `folder` as PNG. Returns them by name."""
    page = built()
    shown = {"boards": boards(), "panels": list(panels), "from": since, "to": until, "width": _WIDTH}
    (page / "shown.js").write_text(f"window.SHOWN = {json.dumps(shown, default=str)};")
    (page / "index.html").write_text(
        '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="panels.css">'
        '<style>body{margin:0;overflow:visible}</style><div id="root"></div>'
        '<script src="shown.js"></script><script src="panels.js"></script>'
    )
    pictures: dict[str, Image.Image] = {}
    with Chromium(_WIDTH, 1200) as browser:
        browser.open(page / "index.html")
        browser.until(f"document.querySelectorAll('[id^=panel-]').length === {len(shown['panels'])}")
        browser.value("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 500)))")
        assert not browser.complaints, "\n".join(browser.complaints)
        assert not browser.value("document.body.innerText.includes('No data')"), "a panel has nothing to show"
        for name in shown["boards"]:
            box = browser.box(f"board-{name}")
            pictures[name] = whole = Image.open(io.BytesIO(browser.picture(box)))
            for one in shown["panels"]:
                if one["board"] == name:
                    part = browser.box(f"panel-{one['name']}")
                    pictures[one["name"]] = whole.crop(tuple(round(edge - box[n % 2]) for n, edge in enumerate(part)))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return pictures

"""Builds `dist/submilli`: the gateway and all it runs on in one executable file, for any machine with the same Python.

The file is a few lines of shell (`binary.sh`) with an archive behind them. Its first start on a machine unpacks the archive into
a cache, under the archive's own hash; every start then replaces itself by Python, so it keeps the process a service manager
started. `deploy/README.md` tells what PEX and PyInstaller did instead, in numbers.

Packed are the distributions that requirements.txt names, as they are installed beside this interpreter, without their tests, and
this project's own packages; libraries as bytecode alone, which halves what a first start has to write. Bytecode is checked by
nothing but the archive's hash, so later starts write nothing. The same input gives the same file. Never downloads anything.
"""

from __future__ import annotations

import compileall
import contextlib
import gzip
import hashlib
import io
import py_compile
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
OWN: Final = ("gateway.py", "gw", "metrics")
#: What no start reads: tests, types and sources for compilers, and what pip keeps of an installation.
_LEFT_OUT: Final = re.compile(
    r"(^|/)(tests?|testing/suite|__pycache__|sample_data|f2py|include)/|\.(pyi|pyx|pxd|h|c|cpp|hpp|so\.a|a)$"
)
_NAME: Final = re.compile(r"^([A-Za-z0-9._-]+)==")
#: Level 6 is gzip's own default: higher levels cost minutes and save a hundredth.
_LEVEL: Final = 6


def packed_files() -> Iterator[tuple[str, Path]]:
    """Every file to pack: its name in the archive, and where it is."""
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        found = _NAME.match(line)
        if found is None:
            continue
        for file in metadata.distribution(found[1]).files or ():
            name = str(file)
            if not name.startswith("../") and not _LEFT_OUT.search(name):
                yield name, Path(str(file.locate()))
    for own in OWN:
        for path in [ROOT / own] if own.endswith(".py") else sorted((ROOT / own).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(ROOT)), path


def archive(folder: Path) -> bytes:
    """All of it, compiled and packed. `folder`: an empty one to work in."""
    for name, path in packed_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    own = [folder / name for name in OWN]
    with contextlib.redirect_stdout(io.StringIO()):  # some libraries ship templates that are no Python
        for path in sorted(folder.iterdir()):
            _compile(path, keep_source=path in own)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=_LEVEL, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    tar.add(path, str(path.relative_to(folder)), filter=_anonymous)
    return packed.getvalue()


def _compile(path: Path, *, keep_source: bool) -> None:
    """A module, or a folder of them. Bytecode takes the place of a library's source; our own stays, `verify` reads it."""
    options = {"quiet": 2, "legacy": not keep_source, "invalidation_mode": py_compile.PycInvalidationMode.UNCHECKED_HASH}
    if path.is_dir():
        compileall.compile_dir(path, stripdir=str(path.parent), **options)
    elif path.suffix == ".py":
        compileall.compile_file(path, stripdir=str(path.parent), **options)
    if not keep_source:
        for source in [path] if path.is_file() else path.rglob("*.py"):
            if source.with_suffix(".pyc").exists() and source.suffix == ".py":
                source.unlink()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.name.endswith(".so") or ".so." in member.name else 0o644
    return member


def build(target: Path) -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        packed = archive(Path(folder))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    head = (ROOT / "deploy" / "binary.sh").read_text()
    head = head.replace("@PYTHON@", f"python{version}").replace("@HASH@", hashlib.sha256(packed).hexdigest()[:32])
    start = len(head.replace("@OFFSET@", "00000000").encode()) + 1
    made = target.with_suffix(".new")
    made.write_bytes(head.replace("@OFFSET@", f"{start:08}").encode() + packed)
    made.chmod(0o755)
    made.replace(target)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    build(out)
    print(f"{out}: {out.stat().st_size / 1e6:.0f} MB, for Python {sys.version_info.major}.{sys.version_info.minor}")

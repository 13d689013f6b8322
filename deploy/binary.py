"""Builds `dist/submilli`: the gateway and all it runs on in one executable file, for any machine with the same Python.

The file is a few lines of shell (`binary.sh`) with an archive behind them. Its first start on a machine unpacks the archive into
a cache, under the archive's own hash; every start then replaces itself by Python, so it keeps the process a service manager
started. `deploy/README.md` tells what PEX and PyInstaller did instead, in numbers.

Packed are the distributions that requirements.txt names, as they are installed beside this interpreter, without their tests, and
this project's own packages; libraries as bytecode alone, which halves what a first start has to write. Bytecode is checked by
nothing but the archive's hash, so later starts write nothing. Never downloads anything.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import marshal
import re
import sys
import tarfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
OWN: Final = ("gateway.py", "gw", "metrics")
#: What no start reads: tests, types and sources for compilers, and what pip keeps of an installation.
_LEFT_OUT: Final = re.compile(
    r"(^|/)(tests?|testing/suite|__pycache__|sample_data|f2py|include)/|\.(pyi|pyx|pxd|h|c|cpp|hpp|so\.a|a)$"
)
#: PEP 552: bit 0, by hash; bit 1 not set, never checked.
_UNCHECKED_HASH: Final = 1
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


def archive() -> bytes:
    """All of it, compiled and packed."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=_LEVEL, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, path in sorted(packed_files()):
            content = path.read_bytes()
            code = _bytecode(content, name) if name.endswith(".py") else b""
            if not code or name.split("/")[0] in OWN:  # our own source stays: `verify` reads it
                _add(tar, name, content)
            if code:
                _add(tar, cache_from_source(name) if name.split("/")[0] in OWN else f"{name}c", code)
    return packed.getvalue()


def _bytecode(source: bytes, name: str) -> bytes:
    """A .pyc file that is never checked against its source; nothing for a template that is no Python. Source: PEP 552."""
    try:
        code = compile(source, name, "exec", dont_inherit=True)
    except SyntaxError:
        return b""
    return MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little") + source_hash(source) + marshal.dumps(code)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # nobody's, of no time, mode 0644
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def build(target: Path) -> None:
    """Write the file."""
    packed = archive()
    head = (ROOT / "deploy" / "binary.sh").read_text()
    head = head.replace("@PYTHON@", f"python{sys.version_info.major}.{sys.version_info.minor}")
    head = head.replace("@HASH@", hashlib.sha256(packed).hexdigest()[:32])
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

"""Build `dist/submilli`: the gateway and its libraries in one executable file.

The file is a shell script (`binary.sh`) followed by an archive. Its first start on a machine unpacks the archive into a cache,
under the archive's hash. Every start then replaces itself by Python, so its process is the one a service manager started.
`deploy/README.md` compares this with PEX and PyInstaller. The machine needs the same Python version.

The archive holds the installed distributions of requirements.txt, without their tests, and this project's own packages. Libraries
are packed as bytecode only, which halves the data written by a first start. Bytecode is never checked against a source, so later
starts write nothing. Nothing is downloaded.
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
#: Files that no start reads: tests, type stubs, sources for compilers.
_LEFT_OUT: Final = re.compile(r"(^|/)(tests?|testing/suite|__pycache__|include)/|\.(pyi|pyx|pxd|h|c|cpp|hpp|so\.a|a)$")
#: PEP 552: bit 0, by hash; bit 1 not set, never checked.
_UNCHECKED_HASH: Final = 1
_NAME: Final = re.compile(r"^([A-Za-z0-9._-]+)==")
#: The default level of gzip: higher levels take minutes and save 1 %.
_LEVEL: Final = 6


def packed_files() -> Iterator[tuple[str, Path]]:
    """Yield every file to pack: its name in the archive and its path."""
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
    """Return the compressed archive of all files, with their bytecode."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=_LEVEL, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, path in sorted(packed_files()):
            content = path.read_bytes()
            code = _bytecode(content, name) if name.endswith(".py") else b""
            if not code or name.split("/")[0] in OWN:  # `verify` reads the project's source
                _add(tar, name, content)
            if code:
                _add(tar, cache_from_source(name) if name.split("/")[0] in OWN else f"{name}c", code)
    return packed.getvalue()


def _bytecode(source: bytes, name: str) -> bytes:
    """Return a .pyc file without a source check (PEP 552), or nothing for a template that does not compile."""
    try:
        code = compile(source, name, "exec", dont_inherit=True)
    except SyntaxError:
        return b""
    return MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little") + source_hash(source) + marshal.dumps(code)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # the defaults: no owner, time 0, mode 0644, so builds are reproducible
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def build(target: Path) -> None:
    """Write the executable file to `target`, atomically."""
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

"""Downloads the audio of one recording into a file of mode 0600.

The file has a temporary name until it is complete and synced; its sum is computed from what the disk has. A download that was
interrupted continues where it ended; one whose part was removed meanwhile ends. All work on the disk is in a native thread. A
nearly full disk is refused before it is touched: the spool may be on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from gw.control.durable import put_in_place
from gw.control.rows import RecordingRow
from gw.control.store.one_thread import OneThread
from gw.control.twilio_api.answers import RestError
from gw.control.twilio_api.rest import Media, TwilioRest
from gw.errors import GatewayError

#: Bytes that a download leaves free on the disk.
RESERVE_BYTES: Final = 256 << 20
#: Upper bound on one operation of the disk: hashing an hour's recording takes half a second.
_DISK_S: Final = 30.0
_READ_BYTES: Final = 1 << 20
#: Folders of a day in the folder of recordings.
_DAYS: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


class FileError(GatewayError):
    """The disk of the recordings failed or is full. What was downloaded is kept."""

    code = "recording_file"


class RemovedError(FileError):
    """The part of a download was removed under it, as `calls forget` does."""


class Fetched(NamedTuple):
    """A complete file."""

    file: Path
    sha256: str


class MediaFiles:
    """The files of the recordings in one folder, by day."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._thread = OneThread(_DISK_S, FileError)

    def fetch(self, rest: TwilioRest, row: RecordingRow) -> Fetched:
        """Download a recording, or the rest of it. Raises RestError, FileError, RemovedError."""
        file = self._place(row)
        part = _part_of(file)
        try:
            begun = self._thread.run(lambda: _begin(part))
            with rest.media(row.recording_sid or "", channels=row.channels or 0, start=begun) as media:
                if media.start != begun:
                    self._thread.run(lambda: os.truncate(part, media.start))
                self._thread.run(lambda: self._require_space(media))
                for chunk in media.chunks:
                    self._thread.run(lambda chunk=chunk: _append(part, chunk))  # type: ignore[misc]
            return Fetched(file, self._thread.run(lambda: _finish(part, file, media.total)))
        except FileNotFoundError as error:
            raise RemovedError(f"{part} was removed during its download") from error
        except OSError as error:
            raise FileError(f"the recording cannot be written to {self._folder}: {error.strerror or error}") from error

    def remove(self, file: Path) -> bool:
        """Delete a file. Returns False if it does not exist. Raises FileError."""
        try:
            self._thread.run(file.unlink)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise FileError(f"the recording {file} cannot be deleted: {error.strerror or error}") from error
        return True

    def discard(self, row: RecordingRow) -> list[Path]:
        """Delete a recording's file, and what a broken download left of it. Returns the deleted files. Raises FileError."""
        files = dict.fromkeys([*([Path(row.file)] if row.file else []), self._place(row)])
        return [path for file in files for path in (file, _part_of(file)) if self.remove(path)]

    def discard_parts(self, before: float) -> int:
        """Delete parts of downloads that were not continued since an epoch time. Returns their number. Raises FileError."""
        try:
            days = self._thread.run(lambda: list(self._folder.glob(_DAYS)))
            return sum(self._thread.run(lambda day=day: _discard_parts(day, before)) for day in days)  # type: ignore[misc]
        except OSError as error:
            raise FileError(f"old parts in {self._folder} cannot be deleted: {error.strerror or error}") from error

    def close(self) -> None:
        """End the thread."""
        self._thread.close()

    def _place(self, row: RecordingRow) -> Path:
        day = datetime.fromtimestamp(row.started_at or row.first_audio_at or 0.0, UTC).date()
        return self._folder / str(day) / f"{_safe(row.call_sid)}-{_safe(row.recording_sid or '')}.wav"

    def _require_space(self, media: Media) -> None:
        free = shutil.disk_usage(self._folder).free
        if free < media.total - media.start + RESERVE_BYTES:
            raise FileError(
                f"the disk of {self._folder} is full: {free >> 20} MB are free, the recording needs {media.total >> 20} MB and "
                f"{RESERVE_BYTES >> 20} MB stay free; downloads continue when there is space"
            )


def _safe(sid: str) -> str:
    """Return a SID as a part of a file's name."""
    return "".join(letter for letter in sid if letter.isascii() and letter.isalnum())


def _part_of(file: Path) -> Path:
    """Return the name of a file that is not complete."""
    return file.with_name(f".{file.name}.part")


def _discard_parts(day: Path, before: float) -> int:
    """Delete the parts in a folder that were last used before an epoch time. Returns their number."""
    count = 0
    for part in day.glob(".*-*.wav.part"):
        with contextlib.suppress(FileNotFoundError):  # another gateway may have the same folder
            if part.stat().st_mtime < before:
                part.unlink()
                count += 1
    return count


def _begin(part: Path) -> int:
    """Create the file unless it exists, and mark it as used now. Returns its size."""
    part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(part, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.utime(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _append(part: Path, chunk: bytes) -> None:
    with part.open("r+b", buffering=0) as out:  # creates no file: a removed part stays removed
        out.seek(0, os.SEEK_END)
        view = memoryview(chunk)
        while view:  # a full disk takes a part, then raises
            view = view[out.write(view) :]


def _finish(part: Path, file: Path, total: int) -> str:
    """Sync and rename a complete file. Returns its sum; raises RestError if it has another size than Twilio announced."""
    size = part.stat().st_size
    if size != total:
        if size > total:
            part.unlink()
        raise RestError("timeout", 0, 0, f"{size} of {total} bytes arrived")
    digest = hashlib.sha256()
    with part.open("rb") as done:
        for piece in _pieces(done.fileno()):
            digest.update(piece)
    put_in_place(part, file)
    return digest.hexdigest()


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, _READ_BYTES):
        yield piece

"""gw.control.retention.media: a file is complete or absent, and an interrupted download continues."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import gevent
import pytest

from gw.control.retention import media
from gw.control.retention.media import FileError, MediaFiles, RemovedError
from gw.control.twilio_api.answers import RestError
from tests.gw.control.retention.rig import Rig
from tests.timing import scaled


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_recording_becomes_a_file(rig: Rig, channels: int) -> None:
    made = rig.recorded(channels=channels)
    files = MediaFiles(rig.files)
    done = files.fetch(rig.rest(), rig.row())
    audio = made.audio(channels)
    assert done.file.read_bytes() == audio
    assert done.sha256 == hashlib.sha256(audio).hexdigest()
    assert done.file.name == f"{made.call_sid}-{made.sid}.wav"
    assert stat.S_IMODE(done.file.stat().st_mode) == 0o600
    assert files_in(rig.files) == [done.file]
    assert files.remove(done.file)
    assert not files.remove(done.file)
    files.close()


def test_an_interrupted_download_continues(rig: Rig) -> None:
    made = rig.recorded()
    rig.twin.fail("cut", operation="media")
    files = MediaFiles(rig.files)
    with pytest.raises(RestError) as error:
        files.fetch(rig.rest(), rig.row())
    assert error.value.kind == "timeout"
    [part] = files_in(rig.files)
    assert part.name.endswith(".part")
    assert 0 < (begun := part.stat().st_size) < len(made.audio(2))
    done = files.fetch(rig.rest(), rig.row())
    assert done.file.read_bytes() == made.audio(2)
    assert [status for _, _, path, status in rig.twin.requests if path.endswith(".wav")] == [200, 206], begun
    files.close()


@pytest.mark.parametrize("extra", [0, 10])
def test_a_part_that_is_complete_or_too_long(rig: Rig, extra: int) -> None:
    made = rig.recorded()
    files = MediaFiles(rig.files)
    done = files.fetch(rig.rest(), rig.row())
    part = done.file.with_name(f".{done.file.name}.part")
    part.write_bytes(made.audio(2) + b"x" * extra)
    done.file.unlink()
    if extra:  # begins again
        with pytest.raises(RestError, match="bytes arrived"):
            files.fetch(rig.rest(), rig.row())
    assert files.fetch(rig.rest(), rig.row()).file.read_bytes() == made.audio(2)
    files.close()


def test_a_part_that_is_removed_during_its_download_stays_removed(rig: Rig) -> None:
    """The rest of the audio, in a new file, would be taken for the beginning at the next try."""
    rig.recorded()
    files = MediaFiles(rig.files)
    rig.twin.delay_s = 0.3
    fetching = gevent.spawn(files.fetch, rig.rest(), rig.row())
    with gevent.Timeout(scaled(10)):
        while not rig.twin.requests:
            gevent.sleep(0.01)
    assert len(files.discard(rig.row())) == 1
    with pytest.raises(RemovedError, match="was removed during its download"):
        fetching.get()
    assert files_in(rig.files) == []
    rig.twin.delay_s = 0.0
    assert files.fetch(rig.rest(), rig.row()).file.exists()
    files.close()


def test_a_part_that_is_not_continued_is_deleted(rig: Rig) -> None:
    files, parts, now = MediaFiles(rig.files), [], time.time()
    assert files.discard_parts(now) == 0, "there is no folder yet"
    for k, age_s in enumerate((10, 2000, 3000)):
        rig.recorded(k)
        rig.twin.fail("cut", operation="media")
        with pytest.raises(RestError):
            files.fetch(rig.rest(), rig.row(k))
        [part] = {*files_in(rig.files)} - {*parts}
        parts.append(part)
        os.utime(part, (now - age_s, now - age_s))
    rig.twin.fail("503", operation="media")
    with pytest.raises(RestError):
        files.fetch(rig.rest(), rig.row(2))  # a try counts as a use, without a byte of audio
    (complete := parts[0].with_name("CA1-RE1.wav")).write_bytes(b"")
    os.utime(complete, (0, 0))
    assert files.discard_parts(now - 1000) == 1
    assert {*files_in(rig.files)} == {parts[0], parts[2], complete}
    files.close()


def test_an_unknown_recording_is_gone(rig: Rig) -> None:
    rig.recorded(at_twilio=False)
    files = MediaFiles(rig.files)
    with pytest.raises(RestError) as error:
        files.fetch(rig.rest(), rig.row())
    assert (error.value.kind, error.value.number) == ("gone", 20404)
    files.close()


def test_a_nearly_full_disk_is_left_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.recorded()
    monkeypatch.setattr(media, "RESERVE_BYTES", 1 << 60)
    files = MediaFiles(rig.files)
    with pytest.raises(FileError, match="is full"):
        files.fetch(rig.rest(), rig.row())
    assert [path.stat().st_size for path in files_in(rig.files)] == [0]
    files.close()


def test_a_folder_that_cannot_be_written(rig: Rig) -> None:
    rig.recorded()
    rig.files.write_text("a file")
    files = MediaFiles(rig.files)
    with pytest.raises(FileError, match="cannot be written to"):
        files.fetch(rig.rest(), rig.row())
    with pytest.raises(FileError, match="cannot be deleted"):
        files.remove(Path(os.devnull).parent)
    assert files.discard(rig.row()) == [], "no file can be in a file"
    files.close()

"""metrics.pages_dir: pages are in memory where possible, and unused directories are removed."""

import os
import shutil
from pathlib import Path

import pytest

from metrics import pages_dir as subject
from metrics.declare import TX_FRAMES
from metrics.page import Page
from metrics.pages_dir import in_memory, prepare


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Return a substitute for /dev/shm: a folder of the test that counts as memory."""
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(subject, "in_memory", lambda directory: memory in (directory, *directory.parents))
    return memory


@pytest.fixture
def pages(tmp_path):
    return tmp_path / "var" / "pages"


def test_a_link_into_memory(memory, pages):
    prepare(pages, memory=memory)
    assert pages.is_symlink()
    assert pages.resolve().parent == memory
    assert pages.resolve().stat().st_mode & 0o777 == 0o700
    prepare(pages, memory=memory)
    assert len(list(memory.iterdir())) == 1


def test_a_recreated_directory_counts_from_zero(memory, pages):
    prepare(pages, memory=memory)
    dead = Page.create(pages / "dead.page")
    dead.counter(TX_FRAMES).add(5)
    dead.close()
    alive = Page.create(pages / "alive.page")
    alive.counter(TX_FRAMES).add(7)
    pages.unlink()  # the var directory was removed by hand
    prepare(pages, memory=memory)
    assert not (pages / "dead.page").exists()
    assert Page.open(pages / "alive.page").counter(TX_FRAMES).value == 7, "a page somebody writes stays"
    alive.close()


def test_two_gateways_have_separate_directories(memory, tmp_path):
    prepare(tmp_path / "a" / "pages", memory=memory)
    prepare(tmp_path / "b" / "pages", memory=memory)
    assert (tmp_path / "a" / "pages").resolve() != (tmp_path / "b" / "pages").resolve()


def test_an_existing_directory_is_kept(memory, pages):
    pages.mkdir(parents=True)
    prepare(pages, memory=memory)
    assert not pages.is_symlink()


def test_a_directory_in_memory_needs_no_link(memory):
    prepare(memory / "var" / "pages", memory=memory)
    assert (memory / "var" / "pages").is_dir()
    assert not (memory / "var" / "pages").is_symlink()


def test_a_dangling_link_after_a_reboot_is_replaced(memory, pages):
    prepare(pages, memory=memory)
    shutil.rmtree(pages.resolve())
    prepare(pages, memory=memory)
    assert pages.is_dir()


def test_a_link_to_an_old_target_is_replaced(memory, pages, tmp_path):
    pages.parent.mkdir()
    pages.symlink_to(tmp_path / "gone")
    prepare(pages, memory=memory)
    assert pages.resolve().parent == memory


def test_no_memory_means_a_plain_directory(memory, pages, tmp_path):
    prepare(pages, memory=tmp_path / "no-such-place")
    assert pages.is_dir()
    assert not pages.is_symlink()


def test_shared_memory_that_is_on_a_disk_is_not_used(memory, pages, tmp_path):
    (tmp_path / "disk").mkdir()
    prepare(pages, memory=tmp_path / "disk")
    assert not pages.is_symlink()
    assert not list((tmp_path / "disk").iterdir())


def test_a_name_of_another_user_is_not_used(memory, pages):
    prepare(pages, memory=memory)
    target = pages.resolve()
    pages.unlink()
    target.chmod(0o777)
    prepare(pages, memory=memory)
    assert pages.is_dir()
    assert not pages.is_symlink()


def test_a_file_in_the_way_is_not_used(memory, pages):
    prepare(pages, memory=memory)
    target = pages.resolve()
    pages.unlink()
    shutil.rmtree(target)
    target.write_text("")
    prepare(pages, memory=memory)
    assert pages.is_dir()
    assert not pages.is_symlink()


def _age(directory: Path) -> None:
    os.utime(directory, (0, 0))


def test_unlinked_directories_are_removed(memory, tmp_path):
    gone, linked, written = (tmp_path / name / "pages" for name in ("gone", "linked", "written"))
    targets = {}
    for pages in (gone, linked, written):
        prepare(pages, memory=memory)
        targets[pages] = pages.resolve()
    page = Page.create(written / "a.page")
    page.counter(TX_FRAMES).add()
    Page.create(gone / "a.page").close()
    gone.unlink()
    written.unlink()
    prepare(tmp_path / "young" / "pages", memory=memory)
    assert all(target.is_dir() for target in targets.values())
    for target in targets.values():
        _age(target)
    prepare(tmp_path / "next" / "pages", memory=memory)
    assert {pages.parent.name: target.is_dir() for pages, target in targets.items()} == {
        "gone": False,
        "linked": True,
        "written": True,
    }
    page.close()


def test_a_directory_without_an_origin_is_kept(memory, tmp_path):
    stray = memory / f"submilli-{os.geteuid()}-0000"
    stray.mkdir()
    _age(stray)
    prepare(tmp_path / "var" / "pages", memory=memory)
    assert stray.is_dir()


def test_in_memory_asks_the_kernel(tmp_path):
    assert in_memory(Path("/dev/shm"))
    assert not in_memory(Path("/proc"))


def test_in_memory_is_false_without_mountinfo(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert not in_memory(tmp_path)
    monkeypatch.setattr(Path, "read_text", lambda self: "")
    assert not in_memory(tmp_path)

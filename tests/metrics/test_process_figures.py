"""metrics.process_figures: CPU time grows, memory and descriptors are those of this process."""

import os
from pathlib import Path

from metrics import process_figures
from metrics.declare import PROCESS_CPU, PROCESS_FDS, PROCESS_RSS
from metrics.page import Page
from metrics.process_figures import ProcessFigures


def test_a_process_reports_itself(tmp_path):
    page = Page.create(tmp_path / "worker-0.page")
    figures = ProcessFigures(page, "worker")
    figures.update()
    cpu, resident = page.counter(PROCESS_CPU, process="worker"), page.gauge(PROCESS_RSS, process="worker")
    descriptors = page.gauge(PROCESS_FDS, process="worker")
    first = cpu.value
    assert first > 0.0
    assert 10e6 < resident.value < 10e9
    ends = os.pipe()
    while sum(range(10_000)) and cpu.value == first:
        figures.update()
    assert cpu.value > first
    figures.update()
    assert descriptors.value == sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1, "less the listing's own"
    for end in ends:
        os.close(end)
    figures.update()
    assert descriptors.value == sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1
    assert page.counter(PROCESS_CPU, process="control").value == 0.0
    page.close()


def test_an_older_kernel_gives_the_lowest_free_descriptor(tmp_path, monkeypatch):
    class Folder:
        def stat(self):
            return os.stat_result([0] * 10)

    monkeypatch.setattr(process_figures, "_DESCRIPTORS", Folder())
    page = Page.create(tmp_path / "control.page")
    ProcessFigures(page, "control").update()
    with Path("/dev/null").open() as file:
        assert page.gauge(PROCESS_FDS, process="control").value == file.fileno()
    page.close()


def test_without_proc_the_other_figures_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(process_figures, "_STATM", Path("/nowhere"))
    page = Page.create(tmp_path / "control.page")
    ProcessFigures(page, "control").update()
    assert page.counter(PROCESS_CPU, process="control").value > 0.0
    assert page.gauge(PROCESS_RSS, process="control").value == 0.0
    page.close()

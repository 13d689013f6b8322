"""Shared-memory page of one process's metrics, written with two plain stores per observation.

Each process creates one page and is its only writer; the control process reads all pages. A cell is bound to its place at
creation: a wrong label raises there, and `add`, `set` and `observe` need no lookup, lock or system call. A page on an existing
file continues its counters, so that they never go backwards after a restart; gauges start at 0. The writer holds a lock on its
file while it lives. Readers use that lock to ignore the gauges of an ended process, and a second writer is refused.

Only one thread may write, because `view[i] += n` is two steps. A reader may see a histogram's sum some observations before or
after its buckets; the count is always the sum of the buckets. Rendering is in `metrics.exposition`, the choice of the directory
in `metrics.pages_dir`. Measured by `tests/bench/operations/observations.py`: 0.17 us per observation.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from metrics.declare import Counter, Family, Gauge, Histogram
from metrics.layout import HEADER, LAYOUT, Layout, width_of
from metrics.locks import is_locked, try_lock
from metrics.pages_dir import prepare

#: Pages of one process name with a live writer: a worker and its predecessors that are still draining.
MAX_CLAIMS: Final = 16
#: Attempts to create a page in a race with other creators; each lost race means that another creator made progress.
_CREATE_TRIES: Final = 10


class PageError(Exception):
    """The file is not a page of this version."""


class PageBusyError(PageError):
    """Another live process writes this page."""


class CounterCell:
    """One counter series. `add(n)` is `view[base] += n`."""

    __slots__ = ("add", "base", "view")

    def __init__(self, view: memoryview[float], base: int) -> None:
        def add(n: float = 1.0) -> None:
            view[base] += n

        self.view, self.base = view, base
        self.add = add

    @property
    def value(self) -> float:
        return self.view[self.base]


class GaugeCell:
    """One gauge series."""

    __slots__ = ("add", "base", "set", "view")

    def __init__(self, view: memoryview[float], base: int) -> None:
        def add(n: float) -> None:
            view[base] += n

        def set_to(value: float) -> None:
            view[base] = value

        self.view, self.base = view, base
        self.add, self.set = add, set_to

    @property
    def value(self) -> float:
        return self.view[self.base]


class HistogramCell:
    """One histogram series.

    `observe(seconds)` is `view[base + bisect_left(bounds, seconds)] += 1.0; view[sum_index] += seconds`; a hot loop may inline
    these two lines. Seconds are a difference of monotonic times: finite, not negative.
    """

    __slots__ = ("base", "bounds", "observe", "sum_index", "view")

    def __init__(self, view: memoryview[float], base: int, bounds: tuple[float, ...]) -> None:
        sum_index = base + len(bounds) + 1

        def observe(seconds: float, bisect: Callable[[Sequence[float], float], int] = bisect_left) -> None:
            view[base + bisect(bounds, seconds)] += 1.0
            view[sum_index] += seconds

        self.view, self.base, self.bounds, self.sum_index = view, base, bounds, sum_index
        self.observe: Callable[[float], None] = observe

    @property
    def buckets(self) -> list[float]:
        """Observations by bucket, not cumulative. The last bucket is +Inf."""
        return list(self.view[self.base : self.sum_index])

    @property
    def sum(self) -> float:
        return self.view[self.sum_index]


class Page:
    """One process's metric values. Constructed by `create`, `claim` or `open`."""

    def __init__(self, path: Path, descriptor: int, layout: Layout, *, writes: bool) -> None:
        self.path = path
        self._layout = layout
        self._descriptor = descriptor
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writes else 0)
        # MAP_POPULATE: the first store to a series must not cause a page fault
        self._map = mmap.mmap(descriptor, layout.page_bytes, mmap.MAP_SHARED | mmap.MAP_POPULATE, protection)
        self._bytes = memoryview(self._map)
        self.view: memoryview[float] = self._bytes[HEADER.size :].cast("d")

    @classmethod
    def create(cls, path: Path, *, layout: Layout = LAYOUT) -> Page:
        """Open the page at `path` for writing, or create it.

        Counters of an existing page are kept and its gauges zeroed; a file of another layout is replaced. A missing directory
        is created, in memory if possible.
        Raises: PageBusyError when another live process writes it; OSError.
        """
        prepare(path.parent)
        for _ in range(_CREATE_TRIES):
            descriptor = _open_for_writing(path, layout)
            if descriptor is not None:
                page = cls(path, descriptor, layout, writes=True)
                for place in layout.gauges:
                    page.view[place] = 0.0
                return page
        raise PageBusyError(f"{path} was replaced by other processes {_CREATE_TRIES} times in a row")

    @classmethod
    def claim(cls, pages_dir: Path, name: str, *, layout: Layout = LAYOUT) -> Page:
        """Create `<name>.page`, or the first free of `<name>-2.page`, `<name>-3.page`, ...

        The numbered names are for a worker whose predecessor is still draining.

        Raises: PageBusyError when all MAX_CLAIMS are written by live processes; OSError.
        """
        for n in range(1, MAX_CLAIMS + 1):
            try:
                return cls.create(pages_dir / (f"{name}.page" if n == 1 else f"{name}-{n}.page"), layout=layout)
            except PageBusyError:
                continue
        raise PageBusyError(f"{pages_dir}: all {MAX_CLAIMS} pages of {name} are written by live processes")

    @classmethod
    def open(cls, path: Path, *, layout: Layout = LAYOUT) -> Page:
        """Open the page at `path` for reading. Raises PageError for a file of another layout; OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _is_page(descriptor, layout):
                raise PageError(f"{path} is not a metrics page of this version")
            return cls(path, descriptor, layout, writes=False)
        except BaseException:
            os.close(descriptor)
            raise

    def counter(self, declaration: Counter, /, **labels: str) -> CounterCell:
        """Return the cell of one series. Raises UnknownSeriesError."""
        return CounterCell(self.view, self._place(declaration, Counter, labels))

    def gauge(self, declaration: Gauge, /, **labels: str) -> GaugeCell:
        """Return the cell of one series. Raises UnknownSeriesError."""
        return GaugeCell(self.view, self._place(declaration, Gauge, labels))

    def histogram(self, declaration: Histogram, /, **labels: str) -> HistogramCell:
        """Return the cell of one series. Raises UnknownSeriesError."""
        return HistogramCell(self.view, self._place(declaration, Histogram, labels), declaration.bounds)

    def values(self, family: Family, labels: tuple[str, ...]) -> list[float]:
        """Return the values of one series in the order of `metrics.layout`, copied once."""
        place = self._layout.places[family.name][labels]
        return list(memoryview(self.view[place : place + width_of(family)].tobytes()).cast("d"))

    @property
    def has_writer(self) -> bool:
        """True if another live process writes this page. The writer itself gets False."""
        return is_locked(self._descriptor)

    def close(self) -> None:
        """Release the file and the lock. The page's cells raise ValueError afterwards."""
        self.view.release()
        self._bytes.release()
        self._map.close()
        os.close(self._descriptor)

    def _place(self, declaration: Family, kind: type[Family], labels: dict[str, str]) -> int:
        if not isinstance(declaration, kind):
            raise TypeError(f"{declaration.name} is a {declaration.kind}")
        return self._layout.place_of(declaration, labels)


def _open_for_writing(path: Path, layout: Layout) -> int | None:
    """Return a locked descriptor of a valid page at `path`, or None after a lost race: the caller tries again."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return _place_new(path, layout, replace=False)
    try:
        if not try_lock(descriptor):
            raise PageBusyError(f"{path} is written by another live process")
        if not _still_at(descriptor, path):
            return None
        if _is_page(descriptor, layout):
            kept, descriptor = descriptor, -1
            return kept
        return _place_new(path, layout, replace=True)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _place_new(path: Path, layout: Layout, *, replace: bool) -> int | None:
    """Create an empty page, complete and locked before it appears at `path`. Returns None when `path` exists by then."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        try_lock(descriptor)  # cannot fail: no other process has opened the new file
        os.pwrite(descriptor, layout.header + bytes(layout.page_bytes - len(layout.header)), 0)
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
        kept, descriptor = descriptor, -1
        return kept
    except FileExistsError:
        return None
    finally:
        temporary.unlink(missing_ok=True)
        if descriptor >= 0:
            os.close(descriptor)


def _is_page(descriptor: int, layout: Layout) -> bool:
    return os.fstat(descriptor).st_size == layout.page_bytes and os.pread(descriptor, HEADER.size, 0) == layout.header


def _still_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

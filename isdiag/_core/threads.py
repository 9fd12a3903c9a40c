"""Work shared out to threads: the rows of a batch, or the parts of one long row.

Kernels hold no lock while they run. What a row's numbers are depends on its length alone: rows of at least
`LONG` draws always go through `select_long`, on one thread or many, and its parts are added up in one order.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from math import isnan
from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core.check import whole
from isdiag._core.typing import Floats, Ints, Records

# Below, the calls between the passes over a row would cost more than a tenth of them.
LONG = 2**20

# A thread is worth its start for so many draws: two of them took twice as long as one for 64 x 1024.
THREAD_DRAWS = 2**17


def resolve_workers(workers: int) -> int:
    """The number of threads that `workers` asks for; -1 is one for each CPU this process may use."""
    if isinstance(workers, int) and workers == -1:  # pyright: ignore[reportUnnecessaryIsInstance]
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return whole("workers", workers, "a positive int or -1")


def spread(
    kernel: Callable[..., None], by_row: tuple[Any, ...], shared: tuple[Any, ...], workers: int
) -> None:
    """Call ``kernel(*by_row, *shared)``, the rows of the arrays in `by_row` spread over `workers` threads."""
    rows, draws = by_row[0].shape
    if type(workers) is int and workers == 1:  # half a microsecond less
        kernel(*by_row, *shared)
        return
    threads = min(resolve_workers(workers), rows, rows * draws // THREAD_DRAWS)
    if threads <= 1:
        kernel(*by_row, *shared)
        return
    size = -(-rows // (4 * threads))  # a few slices a thread, so that none waits for a slow one
    parts = [slice(start, start + size) for start in range(0, rows, size)]
    with ThreadPoolExecutor(threads) as pool:

        def work(part: slice) -> None:
            kernel(*(array[part] for array in by_row), *shared)

        list(pool.map(work, parts))


class _LongRow:
    """The passes over one long row that `_kernels.select_rows` makes, each shared out to threads."""

    def __init__(self, row: Floats, length: int, pool: Any, threads: int) -> None:
        self.row = row
        self.ws = _kernels.new_workspace(row.size, np.array([length]))
        self.pool = pool
        self.threads = threads

    def share(self, task: Callable[[int, int], Any], segments: int) -> list[Any]:
        """The results of ``task(first, last)`` on ranges of segments, one a thread if there are enough."""
        parts = max(min(self.threads, segments * _kernels.SEGMENT // THREAD_DRAWS), 1)
        bounds = [segments * part // parts for part in range(parts + 1)]
        others = [self.pool.submit(task, *bounds[part : part + 2]) for part in range(1, parts)]
        own = task(0, bounds[1])  # this thread would wait otherwise
        return [own, *(other.result() for other in others)]

    def segments(self, stride: int) -> int:
        return _kernels.segments_of(self.row.size, stride)

    def survey(self, length: int) -> Any:
        row, ws = self.row, self.ws
        bound = _kernels.tail_bound(row, length, ws.keys)
        draws = _kernels.SEGMENT

        def look(first: int, last: int) -> tuple[int, int, int, int, int]:
            start, stop = first * draws, min(last * draws, row.size)
            return start, *_kernels.survey_part(
                row, start, stop, bound, ws.x[start:stop], ws.index[start:stop]
            )

        starts, high, low, n_finite, counts = zip(*self.share(look, self.segments(1)), strict=True)
        total = 0
        for start, count in zip(starts, counts, strict=True):
            for array in (ws.x, ws.index):
                array[total : total + count] = array[start : start + count]
            total += count
        return _kernels.survey_of(max(high), min(low), sum(n_finite), total)

    def moments(self, search: Any, high: float) -> Floats:
        """The moments that the search asks for."""
        ws = self.ws

        def add(first: int, last: int) -> None:
            _kernels.moments_part(
                self.row, search.stride, first, last, high, search.gamma, search.middle, ws.sums
            )

        segments = self.segments(search.stride)
        self.share(add, segments)
        _kernels.total_of(ws.sums, segments, ws.totals)
        return ws.totals

    def ess(self, gamma: float, high: float) -> float:
        segments = self.segments(1)
        sums, total = np.empty((segments, 2)), np.empty(2)

        def add(first: int, last: int) -> None:
            _kernels.power_sums_part(self.row, first, last, high, gamma, sums)

        self.share(add, segments)
        _kernels.total_of(sums, segments, total)
        return _kernels.kish(total[0], total[1])


def select_long(
    rows: Floats,
    n: Ints,
    lengths: Ints,
    thresholds: Floats,
    found: Records,
    ess_min: float,
    gamma_max: float,
    eps: float,
    workers: int,
) -> None:
    """As `_kernels.select_rows`, for rows that are long enough to share out the passes over each."""
    threads = resolve_workers(workers)
    with ThreadPoolExecutor(threads - 1) if threads > 1 else nullcontext() as pool:
        for r, row in enumerate(rows):
            length, count = int(lengths[r]), int(n[r])
            long_row = _LongRow(row, length, pool, threads)
            survey = long_row.survey(length)
            gamma_ess = ess = np.nan
            if _kernels.searches_ess(survey, count, ess_min, eps):
                target = ess_min * count
                task, search = _kernels.begin_ess_search(row, survey, target, gamma_max)
                while search.stride > 0:
                    search = _kernels.step_ess_search(task, search, long_row.moments(search, survey.high))
                gamma_ess, ess = _kernels.ess_limit(row, survey, search, target, long_row.ws.e)
            pending = _kernels.select_row(
                long_row.ws, row, survey, gamma_ess, ess, length, thresholds[r], found[r], count,
                ess_min, gamma_max, eps,
            )  # fmt: skip
            if not isnan(pending):
                _kernels.store_ess(long_row.ess(pending, survey.high), found[r])

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
from types import ModuleType
from typing import Any

import numpy as np

from isdiag import _arrays

# Below, the calls between the passes over a row would cost more than a tenth of them.
LONG = 2**20

# A thread is worth its start for so many draws: two of them took twice as long as one for 64 x 1024.
THREAD_DRAWS = 2**17


def resolve_workers(workers: int) -> int:
    """The number of threads that `workers` asks for; -1 is one for each CPU this process may use."""
    if workers == -1:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(workers, (int, np.integer)) or workers < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"workers must be a positive int or -1, got {workers!r}"
        raise ValueError(msg)
    return int(workers)


def spread(
    kernel: Callable[..., None], by_row: tuple[Any, ...], shared: tuple[Any, ...], workers: int
) -> None:
    """Call ``kernel(*by_row, *shared)``, the rows of the arrays in `by_row` spread over `workers` threads."""
    rows, draws = by_row[0].shape
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

    def __init__(
        self, kernels: ModuleType, row: _arrays.Floats, length: int, pool: Any, threads: int
    ) -> None:
        self.kernels = kernels
        self.row = row
        self.ws = kernels.workspace(row.size, np.array([length]))
        self.pool = pool
        self.threads = threads

    def share(self, task: Callable[[int, int], Any], segments: int) -> list[Any]:
        """The results of ``task(first, last)`` on ranges of segments, one a thread if there are enough."""
        parts = max(min(self.threads, segments * self.kernels.SEGMENT // THREAD_DRAWS), 1)
        bounds = [segments * part // parts for part in range(parts + 1)]
        others = [self.pool.submit(task, *bounds[part : part + 2]) for part in range(1, parts)]
        own = task(0, bounds[1])  # this thread would wait otherwise
        return [own, *(other.result() for other in others)]

    def segments(self, stride: int) -> int:
        return self.kernels.segments_of(self.row.size, stride)

    def survey(self, length: int) -> Any:
        kernels, row, ws = self.kernels, self.row, self.ws
        bound = kernels.tail_bound(row, length, ws.keys)
        draws = kernels.SEGMENT

        def look(first: int, last: int) -> tuple[int, int, int, int, int]:
            start, stop = first * draws, min(last * draws, row.size)
            return start, *kernels.survey_part(
                row, start, stop, bound, ws.x[start:stop], ws.index[start:stop]
            )

        starts, high, low, n_finite, counts = zip(*self.share(look, self.segments(1)), strict=True)
        total = 0
        for start, count in zip(starts, counts, strict=True):
            for array in (ws.x, ws.index):
                array[total : total + count] = array[start : start + count]
            total += count
        return kernels.survey_of(max(high), min(low), sum(n_finite), total)

    def moments(self, search: Any, high: float) -> _arrays.Floats:
        """The moments that the search asks for."""
        kernels, ws = self.kernels, self.ws

        def add(first: int, last: int) -> None:
            kernels.moments_part(
                self.row, search.stride, first, last, high, search.gamma, search.middle,
                np.empty_like(ws.blocks), ws.sums,
            )  # fmt: skip

        segments = self.segments(search.stride)
        self.share(add, segments)
        kernels.total_of(ws.sums, segments, ws.moments)
        return ws.moments

    def ess(self, gamma: float, high: float) -> float:
        kernels, segments = self.kernels, self.segments(1)
        sums, total = np.empty((segments, 2)), np.empty(2)

        def add(first: int, last: int) -> None:
            kernels.power_sums_part(self.row, first, last, high, gamma, np.empty_like(self.ws.blocks), sums)

        self.share(add, segments)
        kernels.total_of(sums, segments, total)
        return kernels.kish(total[0], total[1])


def select_long(
    rows: _arrays.Floats,
    n: _arrays.Ints,
    lengths: _arrays.Ints,
    thresholds: _arrays.Floats,
    numbers: _arrays.Floats,
    codes: _arrays.Codes,
    ess_min: float,
    gamma_max: float,
    eps: float,
    workers: int,
) -> None:
    """As `_kernels.select_rows`, for rows that are long enough to share out the passes over each."""
    kernels = _arrays.kernels()
    threads = resolve_workers(workers)
    with ThreadPoolExecutor(threads - 1) if threads > 1 else nullcontext() as pool:
        for r, row in enumerate(rows):
            length, count = int(lengths[r]), int(n[r])
            long_row = _LongRow(kernels, row, length, pool, threads)
            survey = long_row.survey(length)
            gamma_ess = ess = np.nan
            if kernels.searches_ess(survey, count, ess_min, eps):
                target = ess_min * count
                task, search = kernels.begin_ess_search(row, survey, target, gamma_max, long_row.ws.blocks)
                while search.stride > 0:
                    search = kernels.step_ess_search(task, search, long_row.moments(search, survey.high))
                gamma_ess, ess = kernels.ess_limit(row, survey, search, target, long_row.ws.blocks)
            pending = kernels.select_row(
                long_row.ws, row, survey, gamma_ess, ess, count, length, thresholds[r], numbers[r], codes[r],
                ess_min, gamma_max, eps,
            )  # fmt: skip
            if not isnan(pending):
                kernels.store_ess(long_row.ess(pending, survey.high), count, numbers[r])

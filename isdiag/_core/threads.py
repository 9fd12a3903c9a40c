"""Work shared out to threads: the rows of a batch, or pieces of a task. Kernels hold no lock as they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

from isdiag._core.check import whole

Share = Callable[[Callable[[int, int], Any], int, int], list[Any]]

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


@contextmanager
def team(workers: int) -> Generator[Share]:
    """Threads that share tasks: ``share(task, pieces, draws)`` is a list of ``task(first, last)``.

    The ranges cover so many pieces of so many draws in order, one range a thread if there are enough draws.
    """
    threads = resolve_workers(workers)
    with ThreadPoolExecutor(threads - 1) if threads > 1 else nullcontext() as pool:

        def share(task: Callable[[int, int], Any], pieces: int, draws: int) -> list[Any]:
            parts = max(min(threads, pieces * draws // THREAD_DRAWS), 1)
            if pool is None or parts == 1:
                return [task(0, pieces)]
            bounds = [pieces * part // parts for part in range(parts + 1)]
            others = [pool.submit(task, *bounds[part : part + 2]) for part in range(1, parts)]
            own = task(0, bounds[1])  # this thread would wait otherwise
            return [own, *(other.result() for other in others)]

        yield share

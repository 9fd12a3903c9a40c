"""Time isdiag, its peers and the floors side by side, and print the table in Markdown.

``python benchmarks/speed/table.py [--quick] [--out FILE]``. Everything runs in one process and in rounds:
each contestant has a turn in each round, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from comparisons import COMPARISONS, SHAPES, Contestant, Shape, draw, label

ROUNDS = 7
ROUND_SECONDS = 0.05  # a turn repeats the call until it lasts as long
QUICK_DRAWS = 4_000_000  # in all, at most
QUICK_ROUNDS = 5
MEMORY_SHAPE = (4000, 10_000)
MEMORY_CONTESTANTS = ("isdiag", "isdiag, out=", "isdiag, 2 workers", "arviz-stats", "arviz")
PACKAGES = ("numpy", "numba", "isdiag", "arviz", "arviz-stats", "particles", "blackjax")

MIB = 2**20
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


@dataclass(frozen=True)
class Timing:
    """Seconds a call took, a number a round; or why there is none."""

    seconds: tuple[float, ...] = ()
    reason: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def seconds_a_call(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def calls_a_round(call: Callable[[], object]) -> int:
    call()  # compiles, imports, fills caches
    calls = 1
    while calls * seconds_a_call(call, calls) < ROUND_SECONDS:
        calls *= 2
    return calls


def race(contestants: dict[str, Contestant], shape: Shape, rounds: int) -> dict[str, Timing]:
    """Time all contestants on one shape, round by round, each round begun by another of them."""
    log_w = draw(shape)
    timings: dict[str, Timing] = {}
    turns = []
    for name, contestant in contestants.items():
        reason = contestant.why_not(shape)
        if reason is None:
            try:
                call = contestant.bind(log_w)
                turns.append((name, call, calls_a_round(call)))
            except Exception as error:  # a peer that breaks must not cost the others their numbers
                reason = f"failed: {type(error).__name__}: {error}"
        timings[name] = Timing(reason=reason)
    for first in range(rounds):
        for turn in range(len(turns)):
            name, call, calls = turns[(first + turn) % len(turns)]
            timings[name] = Timing((*timings[name].seconds, seconds_a_call(call, calls)))
    return timings


def duration(seconds: float) -> str:
    unit, size = next((u, size) for u, size in UNITS if seconds >= size or u == UNITS[-1][0])
    return f"{seconds / size:.3g} {unit}"


def ratio(timing: Timing, base: Timing) -> str:
    return f"{timing.median / base.median:.2f}" if base.seconds else "-"


def remarks(contestant: Contestant, shape: Shape, timing: Timing, ours: Timing) -> Iterator[str]:
    if contestant.role == "floor":
        yield "floor"
    elif contestant.role == "peer" and ours.seconds and timing.median < ours.median:
        wins = sum(theirs < own for theirs, own in zip(timing.seconds, ours.seconds, strict=True))
        yield f"**faster than isdiag** (in {wins} of {len(ours.seconds)} rounds)"
    if not contestant.batches and len(shape) > 1:
        yield "called row by row"
    if contestant.remark:
        yield contestant.remark


def timing_rows(operation: str, shape: Shape, timings: dict[str, Timing]) -> Iterator[str]:
    table = COMPARISONS[operation]
    ours = timings["isdiag"]
    floor = timings[next(name for name, contestant in table.items() if contestant.role == "floor")]
    for name, timing in timings.items():
        cells = [operation, label(shape), name]
        if timing.seconds:
            spread = f"{duration(min(timing.seconds))} - {duration(max(timing.seconds))}"
            cells += [duration(timing.median), spread, ratio(timing, ours), ratio(timing, floor)]
            cells.append(", ".join(remarks(table[name], shape, timing, ours)))
        else:
            cells += ["-", "-", "-", "-", f"not run: {timing.reason}"]
        yield row(cells)


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def peak_memory(name: str) -> tuple[float, float]:
    """Bytes that the process of a PSIS call holds at its peak: (before the call, on top during it)."""
    import resource

    contestant = COMPARISONS["psis"][name]
    contestant(draw((2, 1000)))
    log_w = draw(MEMORY_SHAPE)
    call = contestant.bind(log_w)
    unit = 1 if sys.platform == "darwin" else 1024

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    before = peak()
    call()
    return before, peak() - before


def memory_rows() -> Iterator[str]:
    # Spawned, one call a process. A child inherits its parent's peak: keep this one small until then.
    context = multiprocessing.get_context("spawn")
    for name in MEMORY_CONTESTANTS:
        if reason := COMPARISONS["psis"][name].why_not(MEMORY_SHAPE):
            yield row([name, "-", "-", f"not run: {reason}"])
            continue
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            before, extra = pool.submit(peak_memory, name).result()
        size = MEMORY_SHAPE[0] * MEMORY_SHAPE[1] * 8
        yield row([name, f"{before / MIB:.0f} MiB", f"{extra / MIB:.0f} MiB", f"{extra / size:.2f}"])


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.processor()
    )


def version_of(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} missing"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def report(quick: bool) -> Iterator[str]:
    rounds = QUICK_ROUNDS if quick else ROUNDS
    command = "python benchmarks/speed/table.py" + (" --quick" if quick else "")
    versions = ", ".join([f"Python {platform.python_version()}", *map(version_of, PACKAGES)])
    yield "# All timings"
    yield ""
    yield f"{cpu_model()}, {cores()} cores; {versions}; `{command}`."
    yield ""
    if not quick:
        megabytes = MEMORY_SHAPE[0] * MEMORY_SHAPE[1] * 8 / MIB
        memory = list(memory_rows())  # first: see there
    yield "## Time"
    yield ""
    yield (
        "Log-weights are float64, normal with standard deviation 2; shapes are draws, or rows x draws. "
        f"Median of {rounds} interleaved rounds, and the fastest and slowest of them. Ratios are of medians: "
        "above 1 is slower. The floor is the operation's first one."
    )
    yield ""
    yield row(["operation", "shape", "contestant", "median", "min - max", "/ isdiag", "/ floor", "remarks"])
    yield "|---|---|---|--:|--:|--:|--:|---|"
    for operation, contestants in COMPARISONS.items():
        for shape in SHAPES[operation]:
            if quick and math.prod(shape) > QUICK_DRAWS:
                continue
            print(f"{operation}, {label(shape)}", file=sys.stderr)
            yield from timing_rows(operation, shape, race(dict(contestants), shape, rounds))
    if not quick:
        yield ""
        yield "## Peak memory"
        yield ""
        yield (
            f"One call of psis on {label(MEMORY_SHAPE)}, each in a process of its own. The input takes "
            f"{megabytes:.0f} MiB and so do the log-weights that come back; before the call arviz-stats "
            "holds the input twice, as it takes log-likelihoods, and isdiag holds Numba. With out= the "
            "memory for the output is there before the call."
        )
        yield ""
        yield row(["contestant", "before the call", "on top at the peak", "/ input"])
        yield "|---|--:|--:|--:|"
        yield from memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer shapes and rounds, no memory")
    parser.add_argument("--out", type=Path, help="write the table to this file as well")
    arguments = parser.parse_args()
    lines = []
    for line in report(arguments.quick):
        print(line, flush=True)
        lines.append(line)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

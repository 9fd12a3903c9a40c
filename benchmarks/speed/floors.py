"""Every public function of log-weights beside the passes that it cannot do without.

``python benchmarks/speed/floors.py [--quick] [--out FOLDER]`` prints a table in Markdown and, with ``--out``,
writes performance_floors.md there: the time of a row of 1000 draws and of 1e6, the latter over
``np.exp(x, out=).sum()`` and over the floor, how the time of a draw grows from 1e4 to 1e7 draws, and the
memory that a call takes on top of what it is given and hands out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from functions import CALLS, EXP, FLOORS, Kind, passes, prepared, seconds_a_call
from table import MIB, row

SHORT, LONG = 1000, 1_000_000
GROWTH, QUICK_GROWTH = (10_000, 100_000, 1_000_000, 10_000_000), (10_000, 100_000)
ROUNDS = 7
TURN = 0.02  # seconds
ABOUT = (
    "Made by `python benchmarks/speed/floors.py --out docs/results`: one worker, processor time, the least "
    f"of {ROUNDS} rounds in which the function and `np.exp(x, out=).sum()` take turns. A floor is the time "
    "in NumPy of the passes over a row that a function cannot do without: *exp and sum* is that, *look* "
    "`x.max()`, *write* a copy. Memory is what the process holds at its peak, beyond what a call is given "
    "and hands out: the most of a normal row, a flat one and one of two values."
)
HEAD = ("# Every function and its floor", "", ABOUT, "")


def least_seconds(call: Any, base: Any) -> tuple[float, float]:
    """The least time of a call, and of another that takes turns with it."""
    call()
    repeats = [max(int(TURN / max(seconds_a_call(each, 1), 1e-7)), 1) for each in (call, base)]
    rounds = [
        [seconds_a_call(each, times) for each, times in zip((call, base), repeats, strict=True)]
        for _ in range(ROUNDS)
    ]
    return min(own for own, _ in rounds), min(other for _, other in rounds)


def floor_of(name: str, n: int) -> float:
    """Seconds in NumPy of the passes of a floor."""
    every = passes(n)
    return sum(
        times * least_seconds(every[each], every[EXP])[0] for each, times in Counter(FLOORS[name]).items()
    )


def words_of(name: str) -> str:
    """The passes of a floor in words."""
    counted = Counter(FLOORS[name]).items()
    return ", ".join(f"{times} x {each}" if times > 1 else each for each, times in counted)


def handed_out(result: Any) -> int:
    """Bytes of the arrays that a result holds."""
    if is_dataclass(result):
        return sum(handed_out(getattr(result, field.name)) for field in fields(result))
    return result.nbytes if isinstance(result, np.ndarray) else 0


def peak() -> int:
    """Bytes that this process held at most since `forget_peak`; since its start where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """What was held before, by compiling say, hides no more what is held from now on."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def extra_memory(name: str, n: int, kind: Kind) -> int:
    """Bytes that a call takes at its peak, beyond input and output; in a process of its own."""
    prepared(name, SHORT)()  # imports and kernels
    call = prepared(name, n, kind)
    forget_peak()
    before = peak()
    result = call()
    return peak() - before - handed_out(result)


def line_of(name: str, growth: tuple[int, ...], memory_draws: int) -> str:
    short, _ = least_seconds(prepared(name, SHORT), passes(SHORT)[EXP])
    of_sizes = {n: least_seconds(prepared(name, n), passes(n)[EXP]) for n in growth}
    largest = max(n for n in growth if n <= LONG)
    own, exp = of_sizes[largest]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        extra = max(0, *pool.map(partial(extra_memory, name, memory_draws), get_args(Kind)))
    draws = " ".join(f"{seconds / n * 1e9:.3g}" for n, (seconds, _) in of_sizes.items())
    cells = [f"`{name}`", words_of(name), f"{own / exp:.2f}", f"{own / floor_of(name, largest):.2f}"]
    return row([*cells, f"{short * 1e6:.1f}", draws, f"{extra / MIB:.1f}"])


def lines(names: list[str], growth: tuple[int, ...]) -> Iterator[str]:
    largest = max(n for n in growth if n <= LONG)
    sizes = ", ".join(f"{n:.0e}".replace("e+0", "e") for n in growth)
    yield row(
        [
            "function",
            "floor",
            f"n = {largest:.0e}, over exp and sum".replace("e+0", "e"),
            "over its floor",
            f"n = {SHORT}, us",
            f"ns a draw, n = {sizes}",
            "memory, MiB",
        ]
    )
    yield "|---|---|--:|--:|--:|---|--:|"
    for name in names:
        yield line_of(name, growth, largest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no more than 1e5 draws")
    parser.add_argument("--only", nargs="*", default=list(CALLS), help="names of functions")
    parser.add_argument("--out", type=Path, help="folder for performance_floors.md")
    asked = parser.parse_args()
    written = list(HEAD)
    print("\n".join(HEAD))
    for line in lines(asked.only, QUICK_GROWTH if asked.quick else GROWTH):
        print(line, flush=True)
        written.append(line)
    if asked.out:
        (asked.out / "performance_floors.md").write_text("\n".join([*written, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()

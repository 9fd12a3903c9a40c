"""Where the time of `isdiag.select_gamma` goes, and how it grows with the number of draws.

``python benchmarks/speed/stages.py [--out FOLDER]`` prints two tables in Markdown (stages in ns a draw,
growth) and, with ``--out``, writes them there; ``python tools/make_figures.py`` draws the growth.
Takes two minutes and 4 GiB.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from comparisons import ESS_MIN, draw
from numba import njit
from table import calls_a_round, row, seconds_a_call

import isdiag
from isdiag._kernels.ess_search import search_ess
from isdiag._kernels.power_sums import fill_moments
from isdiag._kernels.psis import fit_tail
from isdiag._kernels.survey import survey_row
from isdiag._kernels.tail import select_tail
from isdiag._kernels.workspace import new_workspace

STAGE_SIZES = (1000, 10_000, 100_000, 1_000_000)
GROWTH_SIZES = tuple(10**power for power in range(4, 9))
ROUNDS = 7
HEAD = ("# Where the time goes", "", "Made by `python benchmarks/speed/stages.py --out docs/results`.", "")


class Prepared(NamedTuple):
    """What the stages read, all made ahead of the clock."""

    ws: Any
    x: Any
    length: int
    survey: Any
    tail: Any


def _repeated(stage: Callable[[Prepared], Any]) -> Callable[[int, Prepared], None]:
    """A compiled loop around one stage, so that calling it from Python is not part of its time."""
    inlined = njit(inline="always", error_model="numpy")(stage)

    @njit(nogil=True, error_model="numpy")
    def loop(times, prepared):
        for _ in range(times):
            inlined(prepared)

    return loop


# Stages whose results the next ones need are made by `_prepare`.
_prepare = njit(
    lambda ws, x, length: (
        survey_row(ws, x, length),
        select_tail(ws, x, survey_row(ws, x, length), length),
    )
)
STAGES: dict[str, Callable[[int, Prepared], None]] = {
    "survey: extent and candidates": _repeated(lambda p: survey_row(p.ws, p.x, p.length)),
    "survey and tail selection": _repeated(
        lambda p: select_tail(p.ws, p.x, survey_row(p.ws, p.x, p.length), p.length)
    ),
    "one fit of the tail": _repeated(lambda p: fit_tail(p.ws, p.tail, p.length, 1.0)),
    "one pass of moments": _repeated(lambda p: fill_moments(p.x, 1, p.survey.high, 0.5, -3.0, p.ws)),
    "search for the ESS": _repeated(lambda p: search_ess(p.ws, p.x, p.survey, ESS_MIN * p.x.size, 1.0)),
}


def median_of_rounds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds a call, the calls taking turns."""
    counts = {name: calls_a_round(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            seconds[name].append(seconds_a_call(call, counts[name]))
    return {name: statistics.median(times) for name, times in seconds.items()}


def stage_rows() -> Iterator[str]:
    columns: dict[int, dict[str, float]] = {}
    for n in STAGE_SIZES:
        x, length = draw((n,)), int(isdiag.tail_length(n))
        ws = new_workspace(n, np.array([length]))
        times = max(1, 100_000 // n)
        given = Prepared(ws, x, length, *_prepare(ws, x, length))
        calls = {name: partial(stage, times, given) for name, stage in STAGES.items()}
        measured = {name: seconds / times for name, seconds in median_of_rounds(calls).items()}
        buffer = np.empty_like(x)
        measured |= median_of_rounds(
            {
                "the whole call": lambda x=x: isdiag.select_gamma(x, ess_min=ESS_MIN),
                "np.exp(out=).sum()": lambda x=x, buffer=buffer: np.exp(x, out=buffer).sum(),
                "x.sum(): the memory": x.sum,
            }
        )
        columns[n] = {name: 1e9 * seconds / n for name, seconds in measured.items()}
    yield row(["ns a draw", *(f"n = {n}" for n in STAGE_SIZES)])
    yield "|---|" + "--:|" * len(STAGE_SIZES)
    for name in columns[STAGE_SIZES[0]]:
        yield row([name, *(f"{columns[n][name]:.3g}" for n in STAGE_SIZES)])


def growth() -> dict[str, list[float]]:
    """ns a draw for each of `GROWTH_SIZES`."""
    lines: dict[str, list[float]] = {}
    for n in GROWTH_SIZES:
        x = draw((n,))
        buffer = np.empty_like(x)
        seconds = median_of_rounds(
            {
                "select_gamma": lambda x=x: isdiag.select_gamma(x, ess_min=ESS_MIN),
                "select_gamma, 2 workers": lambda x=x: isdiag.select_gamma(x, ess_min=ESS_MIN, workers=2),
                "np.exp(out=).sum()": lambda x=x, buffer=buffer: np.exp(x, out=buffer).sum(),
            }
        )
        for name, time in seconds.items():
            lines.setdefault(name, []).append(1e9 * time / n)
    return lines


def growth_rows(lines: dict[str, list[float]]) -> Iterator[str]:
    yield row(["ns a draw", *(f"1e{len(str(n)) - 1}" for n in GROWTH_SIZES)])
    yield "|---|" + "--:|" * len(GROWTH_SIZES)
    for name, values in lines.items():
        yield row([name, *(f"{value:.3g}" for value in values)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for performance_stages.md")
    arguments = parser.parse_args()
    lines = growth()
    text = "\n".join([*HEAD, *stage_rows(), "", *growth_rows(lines), ""])
    print(text)
    if arguments.out:
        (arguments.out / "performance_stages.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

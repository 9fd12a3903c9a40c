"""A long row as a sequence of parts, which hold its draws and give what a pass over them asks for.

A kernel over rows is made of passes. Those below stand for the compiled ones, and share each pass out to
threads, so that the one source of the kernel serves a row of any length. Sums are those of segments, added up
in order: who computed which makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core import threads
from isdiag._core.threads import Share
from isdiag._core.typing import Floats

_LARGEST = float(np.finfo(np.float64).max)
# Below, the calls between the passes over a row would cost more than a tenth of them.
LONG = 2**20


def over_rows(
    kernel: Callable[..., None], by_row: tuple[Any, ...], shared: tuple[Any, ...], workers: int
) -> None:
    """As `threads.spread`; where there are fewer long rows than threads, these share the parts of each row.

    Long rows go in parts on one thread too, so that what a row's numbers are depends on its length alone.
    """
    rows, draws = by_row[0].shape
    if draws >= LONG:
        many = rows >= threads.resolve_workers(workers)
        in_parts = partial(_in_parts, kernel.__name__, 1 if many else workers)
        threads.spread(in_parts, by_row, shared, workers if many else 1)
    elif type(workers) is int and workers == 1:  # half a microsecond less
        kernel(*by_row, *shared)
    else:
        threads.spread(kernel, by_row, shared, workers)


def _in_parts(kernel: str, workers: int, *arguments: Any) -> None:
    with threads.team(workers) as share, np.errstate(all="ignore"):
        getattr(Parts(share), kernel)(*arguments)


class Parts:
    """Passes over a row under the names of the compiled ones, and the kernels that are made of them."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.power_sums = _kernels.summing(self.body_sums)

    def select_rows(self, *arguments: Any) -> None:
        search_ess = _kernels.searching_ess(self.fill_moments)
        _kernels.selecting(self.survey_row, search_ess, self.power_sums)(*arguments)

    def refit_rows(self, *arguments: Any) -> None:
        _kernels.refitting(self.survey_row, self.power_sums)(*arguments)

    def khat_rows(self, *arguments: Any) -> None:
        _kernels.measuring_tails(self.survey_row)(*arguments)

    def likelihood_ratio_rows(self, *arguments: Any) -> None:
        _kernels.comparing_tails(self.survey_row)(*arguments)

    def psis_rows(self, *arguments: Any) -> None:
        smooth_row = _kernels.smoothing_row(self.survey_row, self.body_sums, self.write_tempered)
        _kernels.smoothing(smooth_row)(*arguments)

    def temper_rows(self, *arguments: Any) -> None:
        _kernels.tempering(self.extent_of, self.power_sums, self.write_tempered)(*arguments)

    def ess_rows(self, *arguments: Any) -> None:
        _kernels.counting(self.extent_of, self.power_sums)(*arguments)

    def truncate_rows(self, *arguments: Any) -> None:
        passes = self.extent_of, self.power_sums, self.write_capped, self.write_tempered
        _kernels.truncating(*passes)(*arguments)

    def moment_rows(self, *arguments: Any) -> None:
        _kernels.averaging(self.extent_of, self._average_row())(*arguments)

    def snis_rows(self, *arguments: Any) -> None:
        _kernels.estimating_rows(self.survey_row, self._average_row())(*arguments)

    def weight_rows(self, *arguments: Any) -> None:
        _kernels.weighing(self.extent_of, self.power_sums)(*arguments)

    def divergence_rows(self, *arguments: Any) -> None:
        average = _kernels.averaging_terms(self.fill_term_sums)
        _kernels.diverging(self.survey_row, average)(*arguments)

    def path_rows(self, *arguments: Any) -> None:
        average = _kernels.averaging_terms(self.fill_term_sums)
        _kernels.following(self.survey_row, average, self.write_tempered)(*arguments)

    def _average_row(self) -> Callable[..., tuple[float, float]]:
        scalar = _kernels.estimating(self.fill_scalar_sums)
        vector = _kernels.estimating_vectors(self.fill_vector_sums)
        return _kernels.averaging_row(self.first_at, scalar, vector)

    def extent_of(self, row: Floats) -> Any:
        found = self._of_draws(row, lambda start, stop: _kernels.extent_part(row[start:stop]))
        high, low, n_finite = zip(*found, strict=True)
        return _kernels.extent_between(max(high), min(low), sum(n_finite))

    def survey_row(self, ws: Any, row: Floats, length: Any) -> Any:
        bound = _kernels.tail_bound(row, length, ws.keys)
        m = length + 1

        def look(start: int, stop: int) -> tuple[Any, ...]:
            room = _kernels.new_candidates(stop - start, m)
            high, low, n_finite, count, *left_out = _kernels.survey_part(row, start, stop, bound, m, *room)
            return high, low, n_finite, room.x[:count], room.index[:count], *left_out

        high, low, n_finite, x, index, levels, left = zip(*self._of_draws(row, look), strict=True)
        # Of all candidates as of a row: there is not room for all if many tie.
        every, place = np.concatenate(x), np.concatenate(index)
        left_out = _kernels.survey_part(every, 0, every.size, -_LARGEST, m, ws.x, ws.index, ws.keys)
        _, _, _, count, level, others = left_out
        ws.index[:count] = place[ws.index[:count]]
        level = max(level, *levels)
        others += sum(more for at, more in zip(levels, left, strict=True) if at == level)
        return _kernels.survey_of(max(high), min(low), sum(n_finite), count, level, others)

    def first_at(self, row: Floats, value: float) -> int:
        def look(start: int, stop: int) -> int:
            place = start + _kernels.first_at(row[start:stop], value)
            return place if place < stop else row.size

        return min(self._of_draws(row, look))

    def fill_moments(
        self, row: Floats, stride: int, shift: float, gamma: float, middle: float, ws: Any
    ) -> None:
        def add(first: int, last: int) -> None:
            _kernels.moments_part(row, stride, first, last, shift, gamma, middle, ws.sums)

        self._total(add, _kernels.segments_of(row.size, stride), ws)

    def fill_scalar_sums(
        self, row: Floats, high: float, gamma: float, h: Any, scale: float, centre: float, ws: Any
    ) -> None:
        def add(first: int, last: int) -> None:
            _kernels.scalar_sums_part(row, first, last, high, gamma, h, scale, centre, ws.sums)

        self._total(add, _kernels.segments_of(row.size, 1), ws)

    def fill_vector_sums(self, row: Floats, high: float, gamma: float, h: Any, ws: Any) -> None:
        def add(first: int, last: int) -> None:
            _kernels.vector_sums_part(row, first, last, high, gamma, h, ws.centre, ws.sums)

        self._total(add, _kernels.segments_of(row.size, 1), ws)

    def fill_term_sums(self, row: Floats, terms: Any, ws: Any) -> None:
        def add(first: int, last: int) -> None:
            _kernels.term_sums_part(row, first, last, terms, ws.sums)

        self._total(add, _kernels.segments_of(row.size, 1), ws)

    def body_sums(
        self, row: Floats, shift: float, gamma: float, top: float, below: float, _: Any
    ) -> tuple[float, float]:
        ws = _Sums(np.empty((_kernels.segments_of(row.size, 1), 2)), np.empty(2))

        def add(first: int, last: int) -> None:
            _kernels.body_sums_part(row, first, last, shift, gamma, top, below, ws.sums)

        self._total(add, len(ws.sums), ws)
        return ws.totals[0], ws.totals[1]

    def write_tempered(self, row: Floats, origin: float, gamma: float, log_total: float, out: Floats) -> None:
        def write(start: int, stop: int) -> None:
            _kernels.write_tempered(row[start:stop], origin, gamma, log_total, out[start:stop])

        self._of_draws(row, write)

    def write_capped(self, row: Floats, gamma: float, cap: float, out: Floats) -> None:
        def write(start: int, stop: int) -> None:
            _kernels.write_capped(row[start:stop], gamma, cap, out[start:stop])

        self._of_draws(row, write)

    def _of_draws(self, row: Floats, task: Callable[[int, int], Any]) -> list[Any]:
        """The results of ``task(start, stop)`` on the draws of each part."""
        size = _kernels.SEGMENT

        def of_segments(first: int, last: int) -> Any:
            return task(first * size, min(last * size, row.size))

        return self.share(of_segments, _kernels.segments_of(row.size, 1), size)

    def _total(self, task: Callable[[int, int], None], segments: int, ws: Any) -> None:
        """Fill ws.totals, after ``task(first, last)`` has filled ws.sums for each range of segments."""
        self.share(task, segments, _kernels.SEGMENT)
        _kernels.total_of(ws.sums, segments, ws.totals)


class _Sums(NamedTuple):
    sums: Floats
    totals: Floats

"""Weighted quantiles, with intervals that invert those of the distribution function."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, intervals, moments, statuses, threads, weights
from isdiag._core.boundary import Rows, numbers
from isdiag._core.typing import Floats, Ints, Smoothing, Values
from isdiag._kernels.records import NOT_FINITE_H, OK


def levels_of(q: Any) -> Floats:
    """Numbers between 0 and 1."""
    return numbers("q", q, 0.0, 1.0, "[]")


def quantiles(
    rows: Rows, h: Values, q: Floats, lengths: Ints, *, level: float, smooth: Smoothing, workers: int
) -> dict[str, Any]:
    """The fields of `Quantile`, each (rows, d, q).

    F(x) is the weight at h <= x. What is known of it at each x is the interval of an indicator, its variance
    being that under the hypothesis that F(x) = q; the quantile lies above where F is too small to be q, and
    not above where it is too large [Woodruff1952]_.
    """
    one = rows.same(1.0)
    log_weights, used, _, _, status = moments.weights_to_use(rows, one, lengths, smooth, workers)
    count, draws = rows.values.shape
    shape = (count, h.shape[1] // draws, q.size)
    flat = count, shape[1] * shape[2]
    estimate, carried = np.full(shape, np.nan), np.full(shape, np.nan)
    codes, ends = np.full(shape, np.int8(OK)), np.full((*shape, 2, 2), np.nan)
    by_row = log_weights, used, h
    threads.spread(_kernels.quantile_rows, (*by_row, estimate, carried, codes), (q,), workers)
    worth = np.ones(shape)
    if rows.chain is not None:
        worth, carried = _along_chains(rows, *by_row, estimate, q)
    with np.errstate(all="ignore"):  # rows without weight
        stretch = 1.0 / np.sqrt(worth)
        n = rows.n[:, None] * worth.reshape(flat)
        times = intervals.student_quantile(carried.reshape(flat), n, level)
        reach = np.stack([stretch * times.reshape(shape), stretch], axis=-1)
    threads.spread(_kernels.quantile_end_rows, (*by_row, reach, estimate, ends), (q,), workers)
    low, high = ends[..., 0, 0].copy(), ends[..., 0, 1].copy()
    with np.errstate(invalid="ignore"):  # both infinite
        std_error = 0.5 * (ends[..., 1, 1] - ends[..., 1, 0])
    carried = np.where(np.isfinite(std_error) & (carried > 0.0), carried, 0.0)
    known = codes == OK
    codes[known] = statuses.of_error(carried, constant=False)[known]
    codes[np.isnan(estimate) & (codes != NOT_FINITE_H)] = OK
    statuses.erase(rows.n == 1, low, high, std_error)
    every = np.broadcast_to(status[:, None, None], shape).reshape(flat)
    named = statuses.first_of(every, codes.reshape(flat)).reshape(shape)
    return {"estimate": estimate, "low": low, "high": high, "std_error": std_error, "status": named}


def _along_chains(
    rows: Rows, log_weights: Floats, gamma: Floats, h: Values, estimate: Floats, q: Floats
) -> tuple[Floats, Floats]:
    """Worth, and draws behind the error, of what indicators of h <= the estimate add to shares of q."""
    with np.errstate(all="ignore"):  # rows without weight
        relative, _ = weights.over_largest(log_weights, gamma)
        values = h.reshape(*relative.shape, -1)
        worth, carried = np.empty(estimate.shape), np.empty(estimate.shape)
        for j in range(estimate.shape[1]):
            of_h = np.where(relative > 0.0, values[:, :, j], np.inf)
            for k in range(q.size):
                below = of_h <= estimate[:, j, k, None]
                series = chains.centred(rows, relative * (below - q[k]))
                worth[:, j, k], _, carried[:, j, k] = chains.along_chains(series, rows.chain)
    return worth, carried

"""Weighted quantiles, with intervals that invert those of the distribution function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from isdiag._core import chains, intervals, moments, statuses, weights
from isdiag._core.boundary import Rows, numbers
from isdiag._core.typing import Codes, Floats, Ints, Mask, Smoothing, Values
from isdiag._kernels.records import CONSTANT_H, NOT_FINITE_H, OK

_ROUNDING = 4.0 * np.finfo(np.float64).eps  # of a cumulative weight, next to one


def levels_of(q: Any) -> Floats:
    """Numbers between 0 and 1."""
    return numbers("q", q, 0.0, 1.0, "[]")


def quantiles(
    rows: Rows, h: Values, q: Floats, lengths: Ints, *, level: float, smooth: Smoothing, workers: int
) -> dict[str, Any]:
    """The fields of `Quantile`, each (rows, d, q)."""
    one = np.ones(len(rows))
    log_weights, used, _, _, status = moments.weights_to_use(rows, one, lengths, smooth, workers)
    count, draws = rows.values.shape
    d = h.shape[1] // draws
    shape = (count, d, q.size)
    found = {name: np.full(shape, np.nan) for name in ("estimate", "low", "high", "std_error")}
    codes = np.full(shape, np.int8(OK))
    with np.errstate(all="ignore"):  # rows without weight
        relative, _ = weights.over_largest(log_weights, used)
    for r in range(count):
        positive = relative[r] > 0.0
        if not positive.any():
            continue
        share = relative[r, positive]
        values = h[r].reshape(draws, d)[positive]
        for j in range(d):
            column = values[:, j].astype(np.float64)
            if not np.isfinite(column).all():
                codes[r, j] = NOT_FINITE_H
                continue
            along = _Chains(rows, r, relative[r], h[r].reshape(draws, d)[:, j])
            of_row = _of_draws(column, share, q, int(rows.n[r]), level, along)
            for name, value in zip(found, of_row[:-1], strict=True):
                found[name][r, j] = value
            codes[r, j] = of_row[-1]
    statuses.erase(rows.n == 1, found["low"], found["high"], found["std_error"])
    every = np.broadcast_to(status[:, None, None], shape)
    flat = [part.reshape(count, d * q.size) for part in (every, codes)]
    return found | {"status": statuses.first_of(*flat).reshape(shape)}


class _Chains(NamedTuple):
    """Where draws are of chains: one row of them in their order, those of zero weight among them."""

    rows: Rows
    row: int
    relative: Floats
    h: Values

    def of_indicator(self, at: Floats, q: Floats) -> Floats:
        """`chains.along_chains` of the influence of the indicators of h <= at on shares of q: (3, q)."""
        below = np.where(self.relative > 0.0, self.h, np.inf) <= at[:, None]
        one, kept = slice(self.row, self.row + 1), self.rows.kept
        own = replace(self.rows, n=self.rows.n[one], kept=None if kept is None else kept[one])
        return chains.along_chains(chains.centred(own, self.relative * (below - q[:, None])), own.chain)


def _of_draws(
    h: Floats, share: Floats, q: Floats, n: int, level: float, along: _Chains
) -> tuple[Floats, Floats, Floats, Floats, Codes]:
    """(estimate, low, high, standard error, status) of each q, from draws of positive weight.

    F(x) is the weight at h <= x. What is known of it at each x is the interval of an indicator, its variance
    being that under the hypothesis that F(x) = q; the quantile lies above where F is too small to be q, and
    not above where it is too large [Woodruff1952]_.
    """
    order = np.argsort(h, kind="stable")
    x, w = h[order], share[order]
    ends = np.append(x[1:] != x[:-1], True)
    x = x[ends]
    squares = w * w
    below, of_squares, of_fourths = (np.cumsum(part)[ends] for part in (w, squares, squares * squares))
    total = below[-1]
    below, of_squares, of_fourths = below / total, of_squares / total**2, of_fourths / total**4
    below[-1] = 1.0
    at = np.minimum(np.searchsorted(below, q - _ROUNDING), x.size - 1)
    # Draws that carry the error of the indicator of h <= the estimate.
    far = 1.0 - q
    seconds = far**2 * of_squares[at] + q**2 * (of_squares[-1] - of_squares[at])
    fourths = far**4 * of_fourths[at] + q**4 * (of_fourths[-1] - of_fourths[at])
    with np.errstate(all="ignore"):
        worth, carried = np.ones(q.size), seconds**2 / fourths
        if along.rows.chain is not None:
            worth, _, carried = along.of_indicator(x[at], q)
        stretch = 1.0 / np.sqrt(worth)
        times = stretch * intervals.quantile(intervals.freedom(carried[None], (n * worth)[None]), level)[0]
    low, high, std_error = np.empty(q.size), np.empty(q.size), np.empty(q.size)
    for k in range(q.size):
        low[k], high[k] = _between(x, below, of_squares, q[k], times[k])
        lower, upper = _between(x, below, of_squares, q[k], stretch[k])
        std_error[k] = 0.5 * (upper - lower)
    carried = np.where(np.isfinite(std_error) & (carried > 0.0), carried, 0.0)
    status = statuses.of_error(carried, False) if x.size > 1 else np.full(q.size, np.int8(CONSTANT_H))
    return x[at], low, high, std_error, status


def _between(x: Floats, below: Floats, of_squares: Floats, q: float, times: float) -> tuple[float, float]:
    """The ends of where F is within so many standard errors of q; infinite beyond all draws.

    F is `below[k]` from x[k] on, and 0 before. On each side of a place one draw more than there is counts,
    of the weight of the nearest: beyond the last draw nothing is seen, not that nothing is there.
    """
    seen = np.append(0.0, of_squares)
    each = np.diff(seen)
    left = seen + np.append(each[0], each)
    right = seen[-1] - seen + np.append(each, each[-1])
    reach = times * np.sqrt((1.0 - q) ** 2 * left + q**2 * right)
    near: Mask = np.abs(np.append(0.0, below) - q) <= reach
    if not near.any():  # F jumps over q
        at = int(np.searchsorted(below, q))
        return x[at], x[at]
    first, last = int(near.argmax()), x.size - int(near[::-1].argmax())
    return (x[first - 1] if first > 0 else -np.inf), (x[last] if last < x.size else np.inf)

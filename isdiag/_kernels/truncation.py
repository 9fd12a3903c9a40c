"""Where to cut weights."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.gpd import gpd_fit, with_prior
from isdiag._kernels.power_sums import ess_of, power_sums
from isdiag._kernels.records import NO_WEIGHT, OK
from isdiag._kernels.sums import BLOCK
from isdiag._kernels.survey import extent_of
from isdiag._kernels.tail import MIN_TAIL, quartile_rank, sort_tail
from isdiag._kernels.weights import fill, tempered, write_tempered

# Draws this close in log-weight are one level of a lattice (ratios of counts, sums of few terms).
_SAME_LEVEL = 1e-9


@inner
def _spread_excesses(ws, row, tail, high, tie):
    """Fill ws.excess with those of the tail, ties spread; returns the weight they are measured from.

    Draws that share a level are spread evenly between it and the level below: a tail of a lattice, which
    has hardly any distinct excess to fit, becomes one with a slope. A tail without ties stays as it is.
    """
    m, x = tail.size, ws.x
    outside = 0
    below = tail.cutoff
    if below >= x[0] - tie:  # there are ties outside of the tail
        below = -np.inf
        for i in range(row.size):
            t = row[i] - high
            outside += 1 if abs(t - x[0]) <= tie else 0
            below = max(below, t if t < x[0] - tie else -np.inf)
        for i in range(m):
            outside -= 1 if abs(x[i] - x[0]) <= tie else 0
    lower = math.exp(below)
    cutoff = lower
    start = 0
    while start < m:
        stop = start + 1
        while stop < m and x[stop] - x[start] <= tie:
            stop += 1
        level = math.exp(x[stop - 1])
        first = outside if start == 0 else 0
        count = first + stop - start
        step = (level - lower) / count
        if first > 0:
            cutoff = lower + (first - 0.5) * step
        for i in range(start, stop):
            value = lower + (first + i - start + 0.5) * step if count > 1 else level
            ws.excess[i] = value - cutoff
        lower = level
        start = stop
    return cutoff


# The cap lies between that of Ionides, sqrt(n) times the mean weight, and the level that the fitted tail
# exceeds half a time in n draws, three quarters of the way on the log scale. Where more than two draws
# exceed that level there is something the fit does not know, a far mode say, and the cap is not lowered.
# A tail is taken to have a mean: k is 1 at most. benchmarks/accuracy compares alternatives.
_EXCEEDANCES = 0.5
_TOWARDS_FIT = 0.75
_OUTLIERS = 2


@inner
def _fitted_level(ws, row, tail, high, tie):
    """Log of the weight that the tail fitted to w exceeds `_EXCEEDANCES` times; NaN where there is no fit."""
    m = tail.size
    if m < MIN_TAIL:
        return np.nan
    sort_tail(ws, tail)
    cutoff = _spread_excesses(ws, row, tail, high, tie)
    least, quartile, largest = ws.excess[0], ws.excess[quartile_rank(m)], ws.excess[m - 1]
    for i in range(m):
        ws.excess[i] /= largest
    fitted, k, sigma = gpd_fit(ws, m, least, quartile, largest)
    if not fitted:
        return np.nan
    k = min(with_prior(k, m), 1.0)
    y = math.log(m / _EXCEEDANCES)
    growth = math.expm1(k * y) / k if k != 0.0 else y
    return math.log(cutoff + sigma * growth)


@inner
def _worth(ws, tail, cap):
    """How many draws the excess over the cap is worth, by its squares: 1 if one has nearly all of it."""
    squares = 0.0
    for i in range(tail.size):
        squares += max(math.exp(ws.x[i]) - cap, 0.0) ** 2
    return squares / (1.0 - cap) ** 2


@inner
def cap_of(ws, row, survey, tail, log_sum, n, eps):
    """Log of the weight, next to the largest of the row, at which to truncate it.

    Where several draws share what the cap would take, as those do that tie at the top of bounded weights, it
    is less of an accident: with m of them the cap lies at an m-th of its way down from the largest.
    """
    cap = log_sum - 0.5 * math.log(n)
    if tail.size > 0:
        tie = max(_SAME_LEVEL, 8.0 * eps * max(1.0, abs(survey.high)))
        level = _fitted_level(ws, row, tail, survey.high, tie)
        above = 0
        for i in range(tail.size):
            above += 1 if ws.x[i] > level else 0
        towards = _TOWARDS_FIT * (level - cap)
        if towards > 0.0 or (towards <= 0.0 and above <= _OUTLIERS):
            cap += towards
        if cap < 0.0:
            cap /= _worth(ws, tail, math.exp(cap))
    return cap


@entry
def write_capped(row, gamma, cap, out):
    for i in range(row.size):
        out[i] = min(tempered(row[i], gamma), cap)


def truncating(extent_of, power_sums, write_capped, write_tempered):
    def truncate_rows(rows, n, gamma, out, ess, normalize):
        """Log-weights of w^gamma, none larger than sqrt(n) times their mean [Ionides2008]_, and their ESS."""
        e = np.empty(BLOCK)
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            extent = extent_of(row)
            ess[r] = np.nan
            if extent.presence != OK or g != g:
                fill(out[r], -np.inf if extent.presence == NO_WEIGHT else np.nan)
                continue
            total, _ = power_sums(row, extent, g, e)
            write_capped(row, g, g * extent.high + math.log(total) - 0.5 * math.log(n[r]), out[r])
            extent = extent_of(out[r])
            s1, s2 = power_sums(out[r], extent, 1.0, e)
            ess[r] = ess_of(s1, s2, extent.n_finite)
            if normalize:
                write_tempered(out[r], extent.high, 1.0, math.log(s1), out[r])

    return truncate_rows


truncate_rows = entry(truncating(extent_of, power_sums, write_capped, write_tempered))

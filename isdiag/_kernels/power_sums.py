"""Sums of powers of the weights, and the moments that the search for an ESS asks for."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import LARGEST
from isdiag._kernels.functions import LN_2, LOG2_E, LOWEST, exp2, one_minus_exp, rate_of
from isdiag._kernels.sums import (
    BLOCK,
    MOMENTS,
    ORDER,
    SEGMENT,
    first_draws,
    moment_sums,
    pad,
    pair_sums,
    segments_of,
    total_of,
)


@inner
def _block_power_sums(part, shift, rate, top, below, e):
    for i in range(part.size):
        value = exp2(rate * (part[i] - shift) - top)
        e[i] = value if part[i] < below else 0.0
    s1, _, s2, _ = pair_sums(e, e, pad(e, part.size))
    return s1, s2


@inner
def body_sums(row, shift, gamma, top, below, e):
    """Sums of v and v^2 over the entries < below, with v = exp(gamma (row - shift) - top) <= 1; gamma > 0.

    e is a block to work in, here and below.
    """
    s1 = s2 = 0.0
    for start in range(0, row.size, SEGMENT):
        of_segment = of_squares = 0.0
        for first in range(start, min(start + SEGMENT, row.size), BLOCK):
            part = row[first : first + BLOCK]
            a, b = _block_power_sums(part, shift, rate_of(gamma), top * LOG2_E, below, e)
            of_segment += a
            of_squares += b
        s1 += of_segment
        s2 += of_squares
    return s1, s2


def summing(body_sums):
    def power_sums(row, extent, gamma, e):
        """Sums of v and v^2 over the row, with v = exp(gamma (row - its largest)): ESS = s1^2 / s2.

        gamma = 0 is the limit from above: equal weights on the finite entries. Extent may be a `Survey`.
        """
        if gamma == 0.0:
            return float(extent.n_finite), float(extent.n_finite)
        return body_sums(row, extent.high, gamma, 0.0, np.inf, e)

    return power_sums


power_sums = inner(summing(body_sums))


@entry
def body_sums_part(row, first, last, shift, gamma, top, below, sums):
    """Fill sums[segment] with what a range of segments adds to the `body_sums`."""
    e = np.empty(BLOCK)
    for segment in range(first, last):
        part = row[segment * SEGMENT : (segment + 1) * SEGMENT]
        sums[segment, 0], sums[segment, 1] = body_sums(part, shift, gamma, top, below, e)


@inner
def kish(s1, s2):
    return s1 * s1 / s2


@entry
def ess_of(s1, s2, n_finite):
    """Kish's ESS; rounding does not take it beyond the number of draws, nor below one."""
    return min(max(kish(s1, s2), 1.0), float(n_finite))


@inner
def kish_ess(row, extent, gamma, e):
    s1, s2 = power_sums(row, extent, gamma, e)
    return ess_of(s1, s2, extent.n_finite)


# Above this share of n the ESS is so near to n that 1 / ESS - 1 / n would lose digits.
NEARLY_ALL = 0.99


@inner
def weight_variance(row, extent, gamma, s1, ess, e):
    """1 / ESS - 1 / n_finite: variance of the mean of the positive weights over the square of that mean.

    Where weights are nearly equal from their differences to the largest: sum (e - mean)^2 / s1^2.
    """
    n = extent.n_finite
    if ess < NEARLY_ALL * n or gamma == 0.0:
        return 1.0 / ess - 1.0 / n
    total = squares = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        for i in range(part.size):
            value = one_minus_exp(gamma * max(part[i] - extent.high, -LARGEST))
            e[i] = value if part[i] > -np.inf else 0.0
        a, _, aa, _ = pair_sums(e, e, pad(e, part.size))
        total += a
        squares += aa
    return max(squares - total * total / n, 0.0) / (s1 * s1)


@inner
def _weights_and_logs(part, shift, rate, centre, e, u):
    """Fill e with 2^v and u with v - centre, v = rate (part - shift); returns how many entries they have."""
    for i in range(part.size):
        v = max(rate * (part[i] - shift), LOWEST)
        e[i] = exp2(v)
        u[i] = v - centre
    pad(u, part.size)
    return pad(e, part.size)


@inner
def row_perplexity(row, high, gamma, e, u):
    """exp of the entropy of the normalised weights."""
    s1 = t1 = 0.0
    for first in range(0, row.size, BLOCK):
        end = _weights_and_logs(row[first : first + BLOCK], high, rate_of(gamma), 0.0, e, u)
        a, b, _, _ = pair_sums(e, u, end)
        s1 += a
        t1 += b
    return s1 * math.exp(-LN_2 * t1 / s1)


class Moments(NamedTuple):
    """Sums of v u^k / k! and of v^2 u^k / k!, k from 0 to ORDER, v = w^gamma over its largest."""

    once: np.ndarray
    squared: np.ndarray


@inner(counted=True)
def moments_in(totals):
    return Moments(totals[: ORDER + 1], totals[ORDER + 1 :])


@inner
def _segment_moments(row, stride, segment, shift, gamma, middle, e, u, sums):
    """Fill sums for one segment with its `Moments`: u is log v less the middle."""
    sums[:] = 0.0
    for first in first_draws(row.size, stride, segment):
        part = row[first : first + BLOCK]
        block = moment_sums(e, u, _weights_and_logs(part, shift, rate_of(gamma), middle * LOG2_E, e, u))
        for j in range(MOMENTS):
            sums[j] += block[j]
    factor = 1.0
    for j in range(1, ORDER + 1):
        factor *= LN_2 / j
        sums[j] *= factor
        sums[ORDER + 1 + j] *= factor


@inner
def fill_moments(row, stride, shift, gamma, middle, ws):
    """Fill ws.totals: the `Moments` of every stride-th block."""
    segments = segments_of(row.size, stride)
    for segment in range(segments):
        _segment_moments(row, stride, segment, shift, gamma, middle, ws.e, ws.u, ws.sums[segment])
    total_of(ws.sums, segments, ws.totals)


@entry
def moments_part(row, stride, first, last, shift, gamma, middle, sums):
    """Fill sums[segment] for a range of segments of every stride-th block."""
    e, u = np.empty(BLOCK), np.empty(BLOCK)
    for segment in range(first, last):
        _segment_moments(row, stride, segment, shift, gamma, middle, e, u, sums[segment])

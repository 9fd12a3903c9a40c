"""Draws of Markov chains in halves, and what they have in common with those so many lags later."""

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import bits_of, exponent_of, float_of, power_of_two
from isdiag._kernels.sums import LANES, pad, padded, pair_sums, product_sum
from isdiag._kernels.weights import fill


@inner
def _spread(row):
    """Half the largest distance from the first draw; NaN or inf where a draw is."""
    largest = np.int64(0)
    for i in range(row.size):
        largest = max(largest, bits_of(abs(0.5 * row[i] - 0.5 * row[0])))
    return float_of(largest)


@inner
def _halve(row, length, means, halves):
    """Chains of that length in halves: less their means, which are kept, in about units of the row's spread.

    halves is (halves, entries); what lies beyond half a chain is 0. Returns the spread.
    """
    half = length // 2
    spread = _spread(row)
    scale = power_of_two(-exponent_of(spread))
    for j in range(means.size):
        first = (j // 2) * length + (j % 2) * (length - half)
        x = halves[j]
        for i in range(half):
            x[i] = scale * (0.5 * row[first + i] - 0.5 * row[0])
        total, _, _, _ = pair_sums(x, x, pad(x, half))
        means[j] = total / half
        for i in range(half):
            x[i] -= means[j]
        fill(x[half:], 0.0)
    return spread


@entry
def halve_rows(rows, length, spread, means, halves):
    for r in range(rows.shape[0]):
        spread[r] = _halve(rows[r], length, means[r], halves[r])


@entry
def covariance_rows(rows, length, spread, means, found):
    """The mean over halves of ``sum(x[i] * x[i + lag]) / half``, at as many lags as found has columns."""
    half, lags = length // 2, found.shape[1]
    end = padded(half, LANES)
    halves = np.empty((means.shape[1], end + lags))
    for r in range(rows.shape[0]):
        spread[r] = _halve(rows[r], length, means[r], halves)
        for lag in range(lags):
            total = 0.0
            for j in range(halves.shape[0]):
                total += product_sum(halves[j], halves[j, lag:], end)[0]
            found[r, lag] = total / (half * halves.shape[0])

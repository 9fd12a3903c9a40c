"""Cautious powers of weights: w^gamma, with a larger exponent for what a step would push down too hard.

log f is gamma x for a log-weight x, and gamma (z + caution (x - z)) where the advantage is negative and x is
below z. Without a z it is that of the row: the log of the power mean of exponent gamma of its weights.
"""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import KEY_MAX, KEY_NEG_INF, LARGEST, from_order_key, order_key
from isdiag._kernels.functions import exp2, one_minus_exp, rate_of
from isdiag._kernels.power_sums import body_sums, ess_of
from isdiag._kernels.sums import BLOCK, pad, pair_sums


@inner
def _largest_known(row):
    """(the largest entry that is finite, how many are)."""
    high = KEY_NEG_INF
    count = 0
    for i in range(row.size):
        key = order_key(row[i])
        known = abs(row[i]) <= LARGEST
        high = max(high, key if known and key <= KEY_MAX else KEY_NEG_INF)
        count += 1 if known else 0
    return from_order_key(high), count


@inner
def _block_below(part, high, gamma, e):
    """Fill e with 1 - (weight over the largest)^gamma; 0 for a draw that is not known, or of zero weight."""
    for i in range(part.size):
        value = one_minus_exp(gamma * max(part[i] - high, -LARGEST))
        e[i] = value if abs(part[i]) <= LARGEST else 0.0


@inner
def log_power_mean(row, high, count, gamma, e):
    """Log of mean(w^gamma)^(1 / gamma) over the positive weights; gamma > 0.

    For a small gamma, whose limit is the geometric mean, all powers are nearly 1: by what they lack to it.
    """
    total = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _block_below(part, high, gamma, e)
        below, _, _, _ = pair_sums(e, e, pad(e, part.size))
        total += below
    if total < 0.5 * count:
        return high + math.log1p(-total / count) / gamma
    total, _ = body_sums(row, high, gamma, 0.0, np.inf, e)
    return high + math.log(total / count) / gamma


@inner
def _fill_cautious(row, advantage, gamma, caution, z, out):
    for i in range(row.size):
        less = z + caution * (row[i] - z)
        out[i] = gamma * (less if (advantage[i] < 0.0) & (row[i] < z) else row[i])


@entry
def cautious_rows(rows, advantage, gamma, caution, z, out):
    """Fill out with log f; gamma > 0. A NaN for z stands for that of each row."""
    e = np.empty(BLOCK)
    for r in range(rows.shape[0]):
        row = rows[r]
        of_row = z
        if z != z:
            high, count = _largest_known(row)
            of_row = log_power_mean(row, high, count, gamma, e) if count > 0 else 0.0
        _fill_cautious(row, advantage[r], gamma, caution, of_row, out[r])


@inner
def _block_cautious(part, signs, high, z, gamma, caution, e):
    """Fill e with f over that of the largest draw, which is not below z."""
    rate = rate_of(gamma)
    for i in range(part.size):
        less = z + caution * (part[i] - z)
        x = less if (signs[i] < 0.0) & (part[i] < z) else part[i]
        value = exp2(min(rate * (x - high), 0.0))
        e[i] = value if part[i] > -np.inf else 0.0


@entry
def cautious_ess(row, advantage, gamma, caution):
    """Kish's ESS of f, with z that of the row, which has no NaN and no +inf; NaN without a weight."""
    e = np.empty(BLOCK)
    high, n_finite = _largest_known(row)
    if n_finite == 0:
        return np.nan
    # With an error of an ulp over gamma, which is an ulp of log f.
    total, _ = body_sums(row, high, gamma, 0.0, np.inf, e)
    z = high + math.log(total / n_finite) / gamma
    s1 = s2 = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _block_cautious(part, advantage[first : first + BLOCK], high, z, gamma, caution, e)
        a, _, aa, _ = pair_sums(e, e, pad(e, part.size))
        s1 += a
        s2 += aa
    return ess_of(s1, s2, n_finite)

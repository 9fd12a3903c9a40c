"""Cautious powers of weights: w^gamma, with a larger exponent for what a step would push down too hard.

log f is gamma x for a log-weight x, and gamma (z + caution (x - z)) where the advantage is negative and x is
below z. Without a z it is that of the row: the log of the power mean of exponent gamma of its weights.
"""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import KEY_MAX, KEY_NEG_INF, LARGEST, from_order_key, order_key
from isdiag._kernels.functions import exp2, exp_and_lack, rate_of
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


class PowerMean(NamedTuple):
    """Of the positive weights that are known, to the power of gamma."""

    ess: float
    log_mean: float  # log of mean(w^gamma)^(1 / gamma)


@inner
def _block_powers(part, high, gamma, e, less):
    """Fill in (weight over the largest)^gamma and what it lacks to 1; 0 for what is not known."""
    for i in range(part.size):
        known = abs(part[i]) <= LARGEST
        value, lack = exp_and_lack(gamma * max(part[i] - high, -LARGEST))
        e[i] = value if known else 0.0
        less[i] = lack if known else 0.0


@entry
def power_mean(row, gamma):
    """Where all powers are nearly 1, as a small gamma makes them, by what they lack to it; gamma > 0."""
    high, count = _largest_known(row)
    if count == 0:
        return PowerMean(np.nan, 0.0)
    e, less = np.empty(BLOCK), np.empty(BLOCK)
    s1 = s2 = lack = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _block_powers(part, high, gamma, e, less)
        end = pad(e, part.size)
        pad(less, part.size)
        a, _, aa, _ = pair_sums(e, less, end)
        s1 += a
        s2 += aa
        lack += pair_sums(less, less, end)[0]
    log_share = math.log1p(-lack / count) if lack < 0.5 * count else math.log(s1 / count)
    return PowerMean(ess_of(s1, s2, count), high + log_share / gamma)


@inner
def _fill_cautious(row, advantage, gamma, caution, z, out):
    for i in range(row.size):
        less = z + caution * (row[i] - z)
        out[i] = gamma * (less if (advantage[i] < 0.0) & (row[i] < z) else row[i])


@entry
def cautious_rows(rows, advantage, gamma, caution, z, out):
    """Fill out with log f; gamma > 0. A NaN for z stands for that of each row."""
    for r in range(rows.shape[0]):
        of_row = z if z == z else power_mean(rows[r], gamma).log_mean
        _fill_cautious(rows[r], advantage[r], gamma, caution, of_row, out[r])


@inner
def _block_cautious(part, signs, high, z, gamma, caution, e):
    """Fill e with f over that of the largest draw, which is not below z."""
    rate = rate_of(gamma)
    for i in range(part.size):
        less = z + caution * (part[i] - z)
        x = less if (signs[i] < 0.0) & (part[i] < z) else part[i]
        value = exp2(min(rate * (x - high), 0.0))
        e[i] = value if part[i] > -np.inf else 0.0


@inner
def _ess(row, high, n_finite, advantage, gamma, caution, e):
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


@entry
def cautious_ess(row, advantage, gamma, caution):
    """Kish's ESS of f, with z that of the row, which has no NaN and no +inf; NaN without a weight."""
    high, n_finite = _largest_known(row)
    if n_finite == 0:
        return np.nan
    return _ess(row, high, n_finite, advantage, gamma, caution, np.empty(BLOCK))


# How close gamma comes to where the weights used just keep the least ESS, as a share of that ESS.
_CLOSE = 0.01


def holding(ess_ratio):
    def held_gamma(gamma, least, given):
        """The gamma up to this one at which the weights used keep the least ESS / n, by regula falsi.

        ess_ratio(gamma, given) is that of the weights used; gamma and least are > 0.
        """
        aim = min(math.log(least), 0.0) - 1e-9  # w itself may lie on the limit
        ratio = ess_ratio(gamma, given)
        under = math.log(ratio) - aim if ratio > 0.0 else -np.inf
        if not under < 0.0:
            return gamma
        # In squares of gamma, by which log ESS falls nearly in a line. At 0 most reshapes have equal weights.
        low, high, over = 0.0, gamma * gamma, -aim
        for _ in range(40):
            # Halved where a secant would stick at one end (Illinois).
            middle = low + (high - low) * (over / (over - under) if under > -np.inf else 0.5)
            ratio = ess_ratio(math.sqrt(middle), given)
            value = math.log(ratio) - aim if ratio > 0.0 else -np.inf
            if 0.0 <= value <= _CLOSE:
                return math.sqrt(middle)
            if value > 0.0:
                low, over, under = middle, value, under / 2.0
            else:
                high, under, over = middle, value, over / 2.0
        return math.sqrt(low) if low > 0.0 else gamma

    return held_gamma


class Cautious(NamedTuple):
    row: np.ndarray
    advantage: np.ndarray
    caution: float
    high: float
    n_finite: int
    e: np.ndarray  # a block to work in


@inner
def _ratio(gamma, given):
    ess = _ess(given.row, given.high, given.n_finite, given.advantage, gamma, given.caution, given.e)
    return ess / given.row.size


_held_gamma = inner(holding(_ratio))


@entry
def cautious_gamma(row, advantage, gamma, caution, least):
    """As `holding` has it, of a row as in `cautious_ess`."""
    high, n_finite = _largest_known(row)
    if n_finite == 0:
        return gamma
    return _held_gamma(gamma, least, Cautious(row, advantage, caution, high, n_finite, np.empty(BLOCK)))

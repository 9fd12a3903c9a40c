"""What bins tell: sums of powers of the weights, and the gamma with a wanted ESS."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bins import POWERS, finest_level
from isdiag._kernels.bits import power_of_two
from isdiag._kernels.ess_search import AIM, LARGEST_GAMMA
from isdiag._kernels.power_sums import NEARLY_ALL, ess_of
from isdiag._kernels.records import NO_WEIGHT, OK

_NOTHING = -745.0  # exp of it


@inner
def _is_a_point(level, a, finest):
    """Whether all of a bin are taken to lie at their mean: one float, or weights that are nothing."""
    return level <= finest or a > 0.5


@inner
def _exponential(a, p):
    """Fill p with the coefficients of exp(a z) in z, |z| <= 1, to degree 7.

    Those of Taylor's polynomial of degree 9 less its last two powers, each replaced by the polynomial of
    lower degree that is nearest to it: within a^8 / (128 8!).
    """
    term = 1.0
    for k in range(POWERS):
        p[k] = term
        term *= a / (k + 1)
    p[0] -= term / 128.0
    p[2] += 0.25 * term
    p[4] -= 1.25 * term
    p[6] += 2.0 * term
    term *= a / 9.0
    p[1] -= 9.0 / 256.0 * term
    p[3] += 120.0 / 256.0 * term
    p[5] -= 432.0 / 256.0 * term
    p[7] += 576.0 / 256.0 * term


@inner(counted=True)
def _sum_of_powers(level, key, sums, high, gamma, top):
    """Sum of exp(gamma (x - high) - top), none of which is above 1."""
    p = np.empty(POWERS)
    finest = finest_level(high)
    total = 0.0
    for b in range(level.size):
        half = power_of_two(level[b] - 1)
        centre = (2.0 * half * key[b] - high) + half
        a = gamma * half
        if _is_a_point(level[b], a, finest):
            middle = gamma * (centre + sums[b, 1] / sums[b, 0] * half)
            total += sums[b, 0] * math.exp(min(middle - top, 0.0))
        elif gamma * centre - top > _NOTHING:
            _exponential(a, p)
            term = 0.0
            for k in range(POWERS):
                term += p[k] * sums[b, k]
            total += term * math.exp(gamma * centre - top)
    return total


@entry
def bin_power_sums(level, key, sums, high, gamma):
    """Sums of v and v^2, v = exp(gamma (x - high)), over the draws in bins; gamma > 0."""
    once = _sum_of_powers(level, key, sums, high, gamma, 0.0)
    return once, _sum_of_powers(level, key, sums, high, 2.0 * gamma, 0.0)


@entry
def bin_body_sums(level, key, sums, high, gamma, top, below, tail):
    """As `body_sums`: sums of v and v^2, v = exp(gamma (x - high) - top), over the draws below the tail.

    Those are held as tail. Of the bin that has both what is in the tail is taken off again: weights of one
    bin are much the same, so that this costs no digits.
    """
    once = twice = 0.0
    for b in range(level.size):
        lower, width = 2.0 * power_of_two(level[b] - 1) * key[b], power_of_two(level[b])
        if lower > below:
            break
        a = _sum_of_powers(level[b : b + 1], key[b : b + 1], sums[b : b + 1], high, gamma, top)
        aa = _sum_of_powers(level[b : b + 1], key[b : b + 1], sums[b : b + 1], high, 2.0 * gamma, 2.0 * top)
        if lower + width > below:
            for i in range(tail.size):
                if below <= tail[i] < lower + width:
                    v = math.exp(gamma * (tail[i] - high) - top)
                    a -= v
                    aa -= v * v
        once += max(a, 0.0)
        twice += max(aa, 0.0)
    return once, twice


@inner(counted=True)
def _weight_variance(level, key, sums, high, gamma, n, s1):
    """As `weight_variance` where weights are nearly equal: sum (v - mean)^2 / s1^2 by 1 - v."""
    p = np.empty(POWERS)
    finest = finest_level(high)
    total = squares = 0.0
    for b in range(level.size):
        half = power_of_two(level[b] - 1)
        centre = (2.0 * half * key[b] - high) + half
        a = gamma * half
        if _is_a_point(level[b], a, finest):
            middle = gamma * (centre + sums[b, 1] / sums[b, 0] * half)
            value = -math.expm1(min(middle, 0.0))
            total += sums[b, 0] * value
            squares += sums[b, 0] * value * value
            continue
        _exponential(a, p)
        weight = math.exp(gamma * centre)
        for k in range(POWERS):
            p[k] *= -weight
        p[0] = -math.expm1(gamma * centre)
        for k in range(POWERS):
            total += p[k] * sums[b, k]
            product = 0.0
            for i in range(k + 1):
                product += p[i] * p[k - i]
            squares += product * sums[b, k]
    return max(squares - total * total / n, 0.0) / (s1 * s1)


@entry
def store_bin_sums(level, key, sums, extent, gamma, record):
    """A row of `SUMMED`, as `store_sums`."""
    record.status = extent.presence
    record.n_finite = extent.n_finite
    if extent.presence != OK or gamma != gamma:
        record.ess = record.variance = np.nan
        record.log_total = -np.inf if extent.presence == NO_WEIGHT else np.nan
        return
    s1 = s2 = n = float(extent.n_finite)
    if gamma > 0.0:
        s1, s2 = bin_power_sums(level, key, sums, extent.high, gamma)
    record.ess = ess_of(s1, s2, extent.n_finite)
    record.variance = 1.0 / record.ess - 1.0 / n
    if record.ess >= NEARLY_ALL * n and gamma > 0.0:
        record.variance = _weight_variance(level, key, sums, extent.high, gamma, n, s1)
    record.log_total = gamma * extent.high + math.log(s1)


# A root is one when log ESS is so near; noise is a tenth of it.
_NEAR = 1e-13
_MAX_STEPS = 300


@entry
def bin_ess_search(level, key, sums, high, half_range, n_finite, target, gamma_max):
    """As `search_ess`, by sums that cost nothing: (largest gamma in (0, gamma_max] with ESS >= target, ESS).

    On u = sqrt(log(n_finite / ESS)), which is proportional to gamma for log-normal weights, by the regula
    falsi of Illinois within a bracket; each third step halves the bracket, geometrically.
    """
    aim = math.log(n_finite) - math.log(target) - AIM
    if aim <= 0.0:
        return 0.0, float(n_finite)
    highest = min(gamma_max, LARGEST_GAMMA)
    once, twice = bin_power_sums(level, key, sums, high, highest)
    ess = ess_of(once, twice, n_finite)
    if ess >= target:
        return highest, ess
    wanted = math.sqrt(aim)
    below = min(0.5 * aim / half_range, highest)  # feasible, by Kantorovich's inequality
    below_off, below_ess = -wanted, float(n_finite)
    if below > 0.0:
        once, twice = bin_power_sums(level, key, sums, high, below)
        below_ess = ess_of(once, twice, n_finite)
        below_off = math.sqrt(max(math.log(n_finite / below_ess), 0.0)) - wanted
    above = highest
    above_off = math.sqrt(math.log(n_finite / ess)) - wanted
    side = 0
    for step in range(_MAX_STEPS):
        gamma = above - above_off * (above - below) / (above_off - below_off)
        if step % 3 == 2:
            far = above > 2.0 * below and below > 0.0
            gamma = math.sqrt(below) * math.sqrt(above) if far else below + 0.5 * (above - below)
        if not below < gamma < above:
            break
        once, twice = bin_power_sums(level, key, sums, high, gamma)
        ess = ess_of(once, twice, n_finite)
        loss = math.log(n_finite / ess)
        off = math.sqrt(max(loss, 0.0)) - wanted
        if abs(loss - aim) <= _NEAR:
            return gamma, ess
        if off < 0.0:
            below, below_off, below_ess = gamma, off, ess
            above_off *= 0.5 if side == -1 else 1.0
            side = -1
        else:
            above, above_off = gamma, off
            below_off *= 0.5 if side == 1 else 1.0
            side = 1
    return below, below_ess

"""Self-normalised estimates in one pass over the values."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import LARGEST, exponent_of, power_of_two
from isdiag._kernels.draws import AHEAD, DRAWS, add_draw, add_draws
from isdiag._kernels.functions import LOWEST, exp2, rate_of
from isdiag._kernels.power_sums import ess_of, weight_variance
from isdiag._kernels.records import CONSTANT_H, NO_WEIGHT, NOT_FINITE_H, OK
from isdiag._kernels.sums import BLOCK, fourth_sums, pad, pair_sums
from isdiag._kernels.survey import extent_of


@inner
def first_at(row, value):
    i = 0
    while row[i] != value:
        i += 1
    return i


@inner
def finite_or_zero(value):
    return float(value) if abs(value) < np.inf else 0.0


@inner
def block_weights(part, high, gamma, e):
    """Fill e with exp(gamma (part - high)), 0 where that is next to nothing: h is not looked at there."""
    rate = rate_of(gamma)
    for i in range(part.size):
        t = part[i] - high
        v = max(rate * max(t, -LARGEST), LOWEST)
        weight = exp2(v)
        e[i] = weight if (v > LOWEST) & (t > -np.inf) else 0.0


class _FourthPowers(NamedTuple):
    """Sums of a^i e^j with i + j = 4, a = e (h - centre)."""

    e4: float
    ae3: float
    a2e2: float
    a3e: float
    a4: float


@inner
def effective_draws(squares, fourths):
    """How many draws carry a sum of squares; 0 where there is nothing to carry."""
    return squares * squares / fourths if fourths > 0.0 else 0.0


@inner
def _fourth_power(sums, shift):
    """Sum of (a - shift e)^4."""
    odd = shift * sums.a3e + shift**3 * sums.ae3
    return sums.a4 - 4.0 * odd + 6.0 * shift**2 * sums.a2e2 + shift**4 * sums.e4


@inner
def _scalar_moments(row, high, gamma, h, scale, centre, e, a):
    """Sums of e, e^2, a = e (scale h - centre), a^2, e a and fourth powers, e as in `power_sums`."""
    s1 = s2 = first_power = squares = pull = 0.0
    e4 = ae3 = a2e2 = a3e = a4 = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        values = h[first : first + BLOCK]
        block_weights(part, high, gamma, e)
        for i in range(part.size):
            product = e[i] * (scale * values[i] - centre)
            a[i] = product if e[i] != 0.0 else 0.0
        pad(a, part.size)
        sums = fourth_sums(e, a, pad(e, part.size))
        s1 += sums[0]
        first_power += sums[1]
        s2 += sums[2]
        pull += sums[3]
        squares += sums[4]
        e4 += sums[5]
        ae3 += sums[6]
        a2e2 += sums[7]
        a3e += sums[8]
        a4 += sums[9]
    return s1, s2, first_power, squares, pull, _FourthPowers(e4, ae3, a2e2, a3e, a4)


@inner
def finished(s1, s2, first_power, squares, pull):
    """(shift of the centre to the estimate, sum of squares about it, standard error, bias) of a mean.

    From sums of e, e^2, a = e (h - centre), a^2 and e a.
    """
    shift = first_power / s1
    about = squares - 2.0 * shift * pull + shift * shift * s2
    return shift, about, math.sqrt(max(about, 0.0)) / s1, -(pull - shift * s2) / (s1 * s1)


# Sums about a centre this many standard errors (squared) from the estimate would lose digits to it.
_FAR = 1e4
# A sum of squares in this range leaves room for fourth powers of its terms; outside of it h is scaled.
_LEAST_SQUARES, _MOST_SQUARES = 2.0**-400, 2.0**400


@inner
def _is_in_range(squares):
    return _LEAST_SQUARES <= squares <= _MOST_SQUARES


@inner
def _varies(row, h, first):
    """Whether h differs from its value `first` at a draw of positive weight."""
    count = 0
    for i in range(row.size):
        count += 1 if (row[i] > -np.inf) & (h[i] != first) else 0
    return count > 0


@inner
def _scale_of(row, high, gamma, h, first, e):
    """(2^-k, whether h is finite) where 2^k is the size of the largest e |h - first| with e > 0."""
    largest = np.int64(-3000)
    finite = True
    for start in range(0, row.size, BLOCK):
        part = row[start : start + BLOCK]
        block_weights(part, high, gamma, e)
        for i in range(part.size):
            value = h[start + i]
            if e[i] != 0.0 and value != first:
                finite = finite and abs(value) < np.inf
                distance = 0.25 * value - 0.25 * first
                largest = max(largest, exponent_of(e[i]) + exponent_of(distance) + 2)
    return power_of_two(-min(max(largest, -1000), 1000)) if largest > -3000 else 1.0, finite


class Estimate(NamedTuple):
    estimate: float
    std_error: float
    bias: float
    s1: float  # sums of e and e^2
    s2: float
    error_draws: float
    status: int  # of h: OK, CONSTANT_H or NOT_FINITE_H


@inner
def _estimate(row, high, gamma, h, top, e, a):
    """The mean of h, one number for each draw, under w^gamma.

    One pass over h, about its value at the largest weight, in the units of h. Where squares leave the range
    that has room for fourth powers a second one in units in which they do not; where the estimate turns out
    far from the centre another one about the estimate.
    """
    first = finite_or_zero(h[top])
    scale, centre = 1.0, first
    scaled = False
    for _ in range(3):
        s1, s2, first_power, squares, pull, powers = _scalar_moments(row, high, gamma, h, scale, centre, e, a)
        if not scaled and not _is_in_range(squares):
            scaled = True
            scale, finite = _scale_of(row, high, gamma, h, first, e)
            if not (finite and abs(h[top]) < np.inf):
                return Estimate(np.nan, np.nan, np.nan, s1, s2, np.nan, NOT_FINITE_H)
            if not _varies(row, h, first):
                return Estimate(first, 0.0, 0.0, s1, s2, 0.0, CONSTANT_H)
            centre = scale * first
            continue
        shift, about, std_error, bias = finished(s1, s2, first_power, squares, pull)
        error_draws = effective_draws(about, _fourth_power(powers, shift))
        centre += shift
        if not shift * shift * s2 > _FAR * about:
            break
    unit = 1.0 / scale
    return Estimate(unit * centre, unit * std_error, unit * bias, s1, s2, error_draws, OK)


@inner
def _vector_moments(row, high, gamma, h, centre, first_power, squares, pull):
    """As `_scalar_moments` for each component of h, (n, d) flattened: returns the sums of e, e^2 and e^4."""
    d = centre.size
    s1 = s2 = s4 = 0.0
    first_power[:] = 0.0
    squares[:] = 0.0
    pull[:] = 0.0
    e, ee, positive = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    starts = np.empty(BLOCK, np.int64)
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        block_weights(part, high, gamma, e)
        end = pad(e, part.size)
        for i in range(end):
            ee[i] = e[i] * e[i]
        x, _, _, _ = pair_sums(e, e, end)
        xx, _, xxxx, _ = pair_sums(ee, ee, end)
        s1 += x
        s2 += xx
        s4 += xxxx
        count = 0
        for i in range(part.size):
            if e[i] != 0.0:
                positive[count] = e[i]
                starts[count] = (first + i) * d
                count += 1
        together = count - count % DRAWS
        for i in range(0, together, DRAWS):
            later = min(i + AHEAD, together - DRAWS)
            add_draws(h, starts, positive, centre, first_power, squares, pull, i, later)
        for i in range(together, count):
            add_draw(positive[i], h[starts[i] : starts[i] + d], centre, first_power, squares, pull)
    return s1, s2, s4


@inner
def _mark_constant(row, h, centre, squares, status):
    """Set status to CONSTANT_H where the sum of squares is 0 and h is its centre at each draw of weight."""
    d = centre.size
    differing = np.zeros(d, np.int64)
    for i in range(row.size):
        if row[i] > -np.inf:
            values = h[i * d : (i + 1) * d]
            for j in range(d):
                differing[j] += 1 if values[j] != centre[j] else 0
    for j in range(d):
        if squares[j] == 0.0 and differing[j] == 0:
            status[j] = CONSTANT_H


@inner
def _vector_estimates(row, high, gamma, h, top, centre, estimate, std_error, bias, status, e, a):
    """Fill in the means of the d components of h, (n, d) flattened; returns the sums of e, e^2 and e^4.

    As `_estimate`, in passes over all components; one whose squares leave the range is done by itself.
    """
    d = centre.size
    for j in range(d):
        centre[j] = finite_or_zero(h[top * d + j])
        status[j] = OK
    for attempt in range(2):
        # First powers, squares and pulls are gathered in the place of what is made of them.
        s1, s2, s4 = _vector_moments(row, high, gamma, h, centre, estimate, std_error, bias)
        if attempt == 0:
            zero = 0
            for j in range(d):
                zero += 1 if std_error[j] == 0.0 else 0
            if zero > 0:
                _mark_constant(row, h, centre, std_error, status)
        near = True
        for j in range(d):
            if status[j] == CONSTANT_H:
                estimate[j], std_error[j], bias[j] = centre[j], 0.0, 0.0
            elif not _is_in_range(std_error[j]):
                column = np.empty(row.size)
                for i in range(row.size):
                    column[i] = h[i * d + j]
                alone = _estimate(row, high, gamma, column, top, e, a)
                estimate[j], std_error[j], bias[j] = alone.estimate, alone.std_error, alone.bias
                status[j] = alone.status
            else:
                shift, about, std_error[j], bias[j] = finished(s1, s2, estimate[j], std_error[j], bias[j])
                near = near and not shift * shift * s2 > _FAR * about
                centre[j] += shift
                estimate[j] = centre[j]
        if near:
            break
    return s1, s2, s4


@entry
def moment_rows(rows, gamma, h, estimate, std_error, bias, error_draws, status, summed):
    """Self-normalised estimates of h under w^gamma, h[r] being (n, d) flattened, and a `SUMMED` for each row.

    With wbar the normalised weights: estimate sum wbar h, delta-method variance
    sum wbar^2 (h - estimate)^2, bias -sum wbar^2 (h - estimate). A draw of zero weight is not looked
    at: its h may be anything. log_total is the log of sum w^gamma, variance that of `weight_variance`,
    error_draws how many draws carry the variance of the estimate (the sum wbar^2 alone for h of several
    components), status what became of h.
    """
    d = estimate.shape[1]
    e, a = np.empty(BLOCK), np.empty(BLOCK)
    centre = np.empty(d)
    for r in range(rows.shape[0]):
        row, g, record = rows[r], gamma[r], summed[r]
        extent = extent_of(row)
        record.status = extent.presence
        status[r, :] = OK
        if record.status != OK or g != g:
            estimate[r, :] = np.nan
            std_error[r, :] = np.nan
            bias[r, :] = np.nan
            error_draws[r, :] = np.nan
            record.ess = record.variance = np.nan
            record.n_finite = extent.n_finite
            record.log_total = -np.inf if record.status == NO_WEIGHT else np.nan
            continue
        top = first_at(row, extent.high)
        if d == 1:
            found = _estimate(row, extent.high, g, h[r], top, e, a)
            s1, s2 = found.s1, found.s2
            estimate[r, 0], std_error[r, 0], bias[r, 0] = found.estimate, found.std_error, found.bias
            error_draws[r, 0] = found.error_draws
            status[r, 0] = found.status
        else:
            s1, s2, s4 = _vector_estimates(
                row, extent.high, g, h[r], top, centre, estimate[r], std_error[r], bias[r], status[r], e, a
            )
            error_draws[r, :] = effective_draws(s2, s4)
        record.ess = ess_of(s1, s2, extent.n_finite)
        record.n_finite = extent.n_finite
        record.variance = weight_variance(row, extent, g, s1, record.ess, e)
        record.log_total = g * extent.high + math.log(s1)

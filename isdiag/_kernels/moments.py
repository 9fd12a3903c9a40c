"""Self-normalised estimates in one pass over the values."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import LARGEST
from isdiag._kernels.draws import AHEAD, DRAWS, add_draw, add_draws
from isdiag._kernels.functions import LOG2_E, LOWEST, exp2
from isdiag._kernels.power_sums import kish
from isdiag._kernels.records import NO_WEIGHT, OK
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
    for i in range(part.size):
        t = part[i] - high
        v = max(LOG2_E * gamma * max(t, -LARGEST), LOWEST)
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
def _scalar_moments(row, high, gamma, h, centre, e, a):
    """Sums of e, e^2, a = e (h - centre), a^2, e a and fourth powers, e as in `power_sums`."""
    s1 = s2 = first_power = squares = pull = 0.0
    e4 = ae3 = a2e2 = a3e = a4 = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        values = h[first : first + BLOCK]
        block_weights(part, high, gamma, e)
        for i in range(part.size):
            product = e[i] * (values[i] - centre)
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
def finished(s1, s2, first_power, squares, pull):
    """(shift of the centre to the estimate, sum of squares about it, standard error, bias) of a mean.

    From sums of e, e^2, a = e (h - centre), a^2 and e a.
    """
    shift = first_power / s1
    about = squares - 2.0 * shift * pull + shift * shift * s2
    return shift, about, math.sqrt(max(about, 0.0)) / s1, -(pull - shift * s2) / (s1 * s1)


# Sums about a centre this many standard errors (squared) from the estimate would lose digits to it.
_FAR = 1e4


@entry
def moment_rows(rows, gamma, h, estimate, std_error, bias, summed):
    """Self-normalised estimates of h under w^gamma, h[r] being (n, d) flattened; a row of `SUMMED` each.

    With wbar the normalised weights: estimate sum wbar h, delta-method variance
    sum wbar^2 (h - estimate)^2, bias -sum wbar^2 (h - estimate). A draw of zero weight is not looked
    at: its h may be anything. One pass over h, about its value at the largest weight; where that turns out
    far from the estimate another one, about the estimate. log_total is the log of sum w^gamma,
    error_draws how many draws carry the variance (the sum wbar^2 alone for h of several components).
    """
    d = estimate.shape[1]
    e, a = np.empty(BLOCK), np.empty(BLOCK)
    centre = np.empty(d)
    for r in range(rows.shape[0]):
        row, g, record = rows[r], gamma[r], summed[r]
        extent = extent_of(row)
        record.status = extent.presence
        if record.status != OK or g != g:
            estimate[r, :] = np.nan
            std_error[r, :] = np.nan
            bias[r, :] = np.nan
            record.ess = record.error_draws = np.nan
            record.log_total = -np.inf if record.status == NO_WEIGHT else np.nan
            continue
        high = extent.high
        top = first_at(row, high)
        powers = _FourthPowers(0.0, 0.0, 0.0, 0.0, 0.0)
        for j in range(d):
            centre[j] = finite_or_zero(h[r, top * d + j])
        for _ in range(2):
            if d == 1:
                s1, s2, estimate[r, 0], std_error[r, 0], bias[r, 0], powers = _scalar_moments(
                    row, high, g, h[r], centre[0], e, a
                )
            else:
                s1, s2, s4 = _vector_moments(row, high, g, h[r], centre, estimate[r], std_error[r], bias[r])
                record.error_draws = effective_draws(s2, s4)
            record.ess = kish(s1, s2)
            record.log_total = g * high + math.log(s1)
            near = True
            for j in range(d):
                shift, squares, std_error[r, j], bias[r, j] = finished(
                    s1, s2, estimate[r, j], std_error[r, j], bias[r, j]
                )
                if d == 1:
                    record.error_draws = effective_draws(squares, _fourth_power(powers, shift))
                near = near and not shift * shift * s2 > _FAR * squares
                centre[j] += shift
                estimate[r, j] = centre[j]
            if near:
                break

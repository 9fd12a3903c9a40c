"""Self-normalised estimates in one pass over the values."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import LARGEST, WORD, exponent_of, power_of_two, reach_bound, trailing_zeros
from isdiag._kernels.draws import AHEAD, DRAWS, add_draw, add_draws
from isdiag._kernels.functions import LOWEST, exp2, rate_of
from isdiag._kernels.power_sums import ess_of, weight_variance
from isdiag._kernels.records import CONSTANT_H, NO_WEIGHT, NOT_FINITE_H, OK
from isdiag._kernels.sums import (
    BLOCK,
    EVERY,
    first_draws,
    fourth_sums,
    pad,
    pair_sums,
    segments_of,
    total_of,
)
from isdiag._kernels.survey import extent_of


@entry
def first_at(row, value):
    """Where a draw first reaches the value; the size of the row if nowhere."""
    words_end = row.size - row.size % WORD
    for first in range(0, words_end, WORD):
        word = reach_bound(row, first, value)
        if word != 0:
            return first + trailing_zeros(word)
    for i in range(words_end, row.size):
        if row[i] >= value:
            return i
    return row.size


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


@entry
def effective_draws(squares, fourths):
    """How many draws carry a sum of squares; 0 where there is nothing to carry."""
    return squares * squares / fourths if fourths > 0.0 else 0.0


@inner
def _fourth_power(sums, shift):
    """Sum of (a - shift e)^4."""
    odd = shift * sums.a3e + shift**3 * sums.ae3
    return sums.a4 - 4.0 * odd + 6.0 * shift**2 * sums.a2e2 + shift**4 * sums.e4


class ScalarMoments(NamedTuple):
    """Sums over draws, e as in `power_sums` and a = e (scale h - centre)."""

    s1: float  # of e
    first_power: float  # of a
    s2: float  # of e^2
    pull: float  # of e a
    squares: float  # of a^2
    fourths: _FourthPowers


SUMS = 10  # that they hold


class Scratch(NamedTuple):
    e: np.ndarray  # two blocks
    a: np.ndarray
    sums: np.ndarray  # those of each segment
    totals: np.ndarray


@entry
def new_scratch(size):
    sums = np.empty((segments_of(size, EVERY), SUMS))
    return Scratch(np.empty(BLOCK), np.empty(BLOCK), sums, np.empty(SUMS))


@inner
def _segment_sums(row, segment, high, gamma, h, scale, centre, e, a, sums):
    sums[:] = 0.0
    for first in first_draws(row.size, EVERY, segment):
        part = row[first : first + BLOCK]
        values = h[first : first + BLOCK]
        block_weights(part, high, gamma, e)
        for i in range(part.size):
            product = e[i] * (scale * values[i] - centre)
            a[i] = product if e[i] != 0.0 else 0.0
        pad(a, part.size)
        block = fourth_sums(e, a, pad(e, part.size))
        for j in range(SUMS):
            sums[j] += block[j]


@entry
def scalar_sums_part(row, first, last, high, gamma, h, scale, centre, sums):
    """Fill sums[segment] for a range of segments with what `ScalarMoments` are made of."""
    e, a = np.empty(BLOCK), np.empty(BLOCK)
    for segment in range(first, last):
        _segment_sums(row, segment, high, gamma, h, scale, centre, e, a, sums[segment])


@inner
def fill_scalar_sums(row, high, gamma, h, scale, centre, ws):
    """Fill ws.totals with what `ScalarMoments` are made of."""
    segments = segments_of(row.size, EVERY)
    for segment in range(segments):
        _segment_sums(row, segment, high, gamma, h, scale, centre, ws.e, ws.a, ws.sums[segment])
    total_of(ws.sums, segments, ws.totals)


@inner
def _scalar_moments_in(totals):
    fourths = _FourthPowers(totals[5], totals[6], totals[7], totals[8], totals[9])
    return ScalarMoments(totals[0], totals[1], totals[2], totals[3], totals[4], fourths)


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


class Attempt(NamedTuple):
    """The units and the centre in which sums over h are asked for; once `left` is 0 the answer."""

    left: int  # how many more may be asked for
    scale: float
    centre: float
    scaled: bool
    answer: Estimate


@entry
def begin_estimate(h, top):
    """Ask for sums about h at the largest weight, in the units of h."""
    unknown = Estimate(np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, OK)
    return Attempt(3, 1.0, finite_or_zero(h[top]), False, unknown)


@entry
def step_estimate(row, high, gamma, h, top, attempt, totals, e):
    """Go on with the sums that were asked for.

    Where squares leave the range that has room for fourth powers a second pass is made in units in which
    they do not; where the estimate turns out far from the centre another one about the estimate.
    """
    left, scale, centre = attempt.left - 1, attempt.scale, attempt.centre
    s1, first_power, s2, pull, squares, powers = _scalar_moments_in(totals)
    if not attempt.scaled and not _is_in_range(squares):
        first = centre
        scale, finite = _scale_of(row, high, gamma, h, first, e)
        if not (finite and abs(h[top]) < np.inf):
            answer = Estimate(np.nan, np.nan, np.nan, s1, s2, np.nan, NOT_FINITE_H)
            return Attempt(0, scale, centre, True, answer)
        if not _varies(row, h, first):
            return Attempt(0, scale, centre, True, Estimate(first, 0.0, 0.0, s1, s2, 0.0, CONSTANT_H))
        return Attempt(left, scale, scale * first, True, attempt.answer)
    shift, about, std_error, bias = finished(s1, s2, first_power, squares, pull)
    error_draws = effective_draws(about, _fourth_power(powers, shift))
    centre += shift
    if not shift * shift * s2 > _FAR * about:
        left = 0
    unit = 1.0 / scale
    answer = Estimate(unit * centre, unit * std_error, unit * bias, s1, s2, error_draws, OK)
    return Attempt(left, scale, centre, attempt.scaled, answer)


def estimating(fill_scalar_sums):
    def estimate(row, high, gamma, h, top, ws):
        """The mean of h, one number for each draw, under w^gamma."""
        attempt = begin_estimate(h, top)
        while attempt.left > 0:
            fill_scalar_sums(row, high, gamma, h, attempt.scale, attempt.centre, ws)
            attempt = step_estimate(row, high, gamma, h, top, attempt, ws.totals, ws.e)
        return attempt.answer

    return estimate


estimate = inner(estimating(fill_scalar_sums))


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


@entry
def vector_estimates(row, high, gamma, h, top, centre, mean, std_error, bias, status, ws):
    """Fill in the means of the d components of h, (n, d) flattened; returns the sums of e, e^2 and e^4.

    As `estimate`, in passes over all components; one whose squares leave the range is done by itself.
    """
    d = centre.size
    for j in range(d):
        centre[j] = finite_or_zero(h[top * d + j])
        status[j] = OK
    for attempt in range(2):
        # First powers, squares and pulls are gathered in the place of what is made of them.
        s1, s2, s4 = _vector_moments(row, high, gamma, h, centre, mean, std_error, bias)
        if attempt == 0:
            zero = 0
            for j in range(d):
                zero += 1 if std_error[j] == 0.0 else 0
            if zero > 0:
                _mark_constant(row, h, centre, std_error, status)
        near = True
        for j in range(d):
            if status[j] == CONSTANT_H:
                mean[j], std_error[j], bias[j] = centre[j], 0.0, 0.0
            elif not _is_in_range(std_error[j]):
                column = np.empty(row.size)
                for i in range(row.size):
                    column[i] = h[i * d + j]
                alone = estimate(row, high, gamma, column, top, ws)
                mean[j], std_error[j], bias[j] = alone.estimate, alone.std_error, alone.bias
                status[j] = alone.status
            else:
                shift, about, std_error[j], bias[j] = finished(s1, s2, mean[j], std_error[j], bias[j])
                near = near and not shift * shift * s2 > _FAR * about
                centre[j] += shift
                mean[j] = centre[j]
        if near:
            break
    return s1, s2, s4


@entry
def store_sums(row, extent, gamma, s1, s2, record, e):
    """A row of `SUMMED`, given the sums of the weights and of their squares if there are weights."""
    record.status = extent.presence
    record.n_finite = extent.n_finite
    if extent.presence != OK or gamma != gamma:
        record.ess = record.variance = np.nan
        record.log_total = -np.inf if extent.presence == NO_WEIGHT else np.nan
        return
    record.ess = ess_of(s1, s2, extent.n_finite)
    record.variance = weight_variance(row, extent, gamma, s1, record.ess, e)
    record.log_total = gamma * extent.high + math.log(s1)


def averaging(extent_of, first_at, estimate):
    def moment_rows(rows, gamma, h, mean, std_error, bias, error_draws, status, summed):
        """Self-normalised estimates of h under w^gamma, h[r] being (n, d) flattened; a `SUMMED` for each row.

        With wbar the normalised weights: mean sum wbar h, delta-method variance sum wbar^2 (h - mean)^2, bias
        -sum wbar^2 (h - mean). A draw of zero weight is not looked at: its h may be anything. log_total is
        the log of sum w^gamma, variance that of `weight_variance`, error_draws how many draws carry the
        variance of the mean (the sum wbar^2 alone for h of several components), status what became of h.
        """
        d = mean.shape[1]
        ws = new_scratch(rows.shape[1])
        centre = np.empty(d)
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            extent = extent_of(row)
            status[r, :] = OK
            s1 = s2 = np.nan
            if extent.presence != OK or g != g:
                mean[r, :] = np.nan
                std_error[r, :] = np.nan
                bias[r, :] = np.nan
                error_draws[r, :] = np.nan
            elif d == 1:
                top = first_at(row, extent.high)
                found = estimate(row, extent.high, g, h[r], top, ws)
                s1, s2 = found.s1, found.s2
                mean[r, 0], std_error[r, 0], bias[r, 0] = found.estimate, found.std_error, found.bias
                error_draws[r, 0] = found.error_draws
                status[r, 0] = found.status
            else:
                top = first_at(row, extent.high)
                s1, s2, s4 = vector_estimates(
                    row, extent.high, g, h[r], top, centre, mean[r], std_error[r], bias[r], status[r], ws
                )
                error_draws[r, :] = effective_draws(s2, s4)
            store_sums(row, extent, g, s1, s2, summed[r], ws.e)

    return moment_rows


moment_rows = entry(averaging(extent_of, first_at, estimate))

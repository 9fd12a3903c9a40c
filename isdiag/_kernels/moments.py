"""Self-normalised estimates in one pass over the values."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import (
    LARGEST,
    WORD,
    bits_of,
    exponent_of,
    float_of,
    power_of_two,
    reach_bound,
    trailing_zeros,
)
from isdiag._kernels.functions import LOWEST, exp2, rate_of
from isdiag._kernels.records import CONSTANT_H, NOT_FINITE_H, OK
from isdiag._kernels.sums import (
    BLOCK,
    EVERY,
    first_draws,
    fourth_sums,
    pad,
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


@entry
def origin_rows(rows, h, origin):
    """Fill origin, (rows, d), with h, (n, d) flattened, at the first of the largest weights; 0 if not finite.

    Returns the size of the largest value of all; NaN if one is.
    """
    d = origin.shape[1]
    largest = np.int64(0)
    for r in range(rows.shape[0]):
        row, values = rows[r], h[r]
        # Where NaN is among the weights there is none: at any draw then.
        top = min(first_at(row, extent_of(row).high), row.size - 1)
        for j in range(d):
            origin[r, j] = finite_or_zero(np.float64(values[top * d + j]))
        for i in range(values.size):
            largest = max(largest, bits_of(abs(np.float64(values[i]))))
    return float_of(largest)


@entry
def largest_with_weight(rows, h, d):
    """The size of the largest value, (n, d) flattened, at a draw of positive weight; NaN if one is."""
    largest = np.int64(0)
    for r in range(rows.shape[0]):
        row, values = rows[r], h[r]
        for i in range(row.size):
            if row[i] > -np.inf:
                for j in range(d):
                    largest = max(largest, bits_of(abs(np.float64(values[i * d + j]))))
    return float_of(largest)


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


class _ThirdPowers(NamedTuple):
    """Sums of a^i e^j with i + j = 3, a = e (h - centre)."""

    e3: float
    ae2: float
    a2e: float
    a3: float


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
def skewness_of(squares, cubes):
    """Skewness of a sum of independent terms, from sums of their squares and cubes; 0 where they are 0."""
    return cubes / (squares * math.sqrt(squares)) if squares > 0.0 else 0.0


@inner
def third_power(sums, shift):
    """Sum of (a - shift e)^3."""
    return sums.a3 - 3.0 * shift * (sums.a2e - shift * sums.ae2) - shift**3 * sums.e3


@inner
def fourth_power(sums, shift):
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
    thirds: _ThirdPowers
    fourths: _FourthPowers


SUMS = 14  # that they hold


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
def scalar_moments_in(totals):
    thirds = _ThirdPowers(totals[5], totals[6], totals[7], totals[8])
    fourths = _FourthPowers(totals[9], totals[10], totals[11], totals[12], totals[13])
    return ScalarMoments(totals[0], totals[1], totals[2], totals[3], totals[4], thirds, fourths)


@inner
def finished(s1, s2, first_power, squares, pull):
    """(shift of the centre to the estimate, sum of squares about it, standard error, bias) of a mean.

    From sums of e, e^2, a = e (h - centre), a^2 and e a.
    """
    shift = first_power / s1
    about = squares - 2.0 * shift * pull + shift * shift * s2
    return shift, about, math.sqrt(max(about, 0.0)) / s1, -(pull - shift * s2) / (s1 * s1)


# Sums about a centre this many standard errors (squared) from the estimate would lose digits to it.
FAR = 1e4
# A sum of squares in this range leaves room for fourth powers of its terms; outside of it h is scaled.
_LEAST_SQUARES, _MOST_SQUARES = 2.0**-400, 2.0**400


@inner
def is_in_range(squares):
    return _LEAST_SQUARES <= squares <= _MOST_SQUARES


@inner
def _varies(row, h, first):
    """Whether h differs from its value `first` at a draw of positive weight."""
    count = 0
    for i in range(row.size):
        count += 1 if (row[i] > -np.inf) & (h[i] != first) else 0
    return count > 0


@entry
def code_of_values(row, gamma, h, j, d):
    """CONSTANT_H or NOT_FINITE_H of component j of d of h at the draws of positive weight, else OK."""
    high, e = extent_of(row).high, np.empty(BLOCK)
    first, seen, varies = np.nan, False, False
    for start in range(0, row.size, BLOCK):
        part = row[start : start + BLOCK]
        block_weights(part, high, gamma, e)
        for i in range(part.size):
            value = np.float64(h[(start + i) * d + j])
            if e[i] > 0.0 and not abs(value) < np.inf:
                return NOT_FINITE_H
            if part[i] > -np.inf:
                first = first if seen else value
                seen, varies = True, varies or value != first
    return CONSTANT_H if seen and not varies else OK


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
    skewness: float
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
    unknown = Estimate(np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, OK)
    return Attempt(3, 1.0, finite_or_zero(h[top]), False, unknown)


@entry
def step_estimate(row, high, gamma, h, top, attempt, totals, e):
    """Go on with the sums that were asked for.

    Where squares leave the range that has room for fourth powers a second pass is made in units in which
    they do not; where the estimate turns out far from the centre another one about the estimate.
    """
    left, scale, centre = attempt.left - 1, attempt.scale, attempt.centre
    s1, first_power, s2, pull, squares, thirds, fourths = scalar_moments_in(totals)
    if not attempt.scaled and not is_in_range(squares):
        first = centre
        scale, finite = _scale_of(row, high, gamma, h, first, e)
        if not (finite and abs(h[top]) < np.inf):
            answer = Estimate(np.nan, np.nan, np.nan, s1, s2, np.nan, np.nan, NOT_FINITE_H)
            return Attempt(0, scale, centre, True, answer)
        if not _varies(row, h, first):
            answer = Estimate(first, 0.0, 0.0, s1, s2, 0.0, 0.0, CONSTANT_H)
            return Attempt(0, scale, centre, True, answer)
        return Attempt(left, scale, scale * first, True, attempt.answer)
    shift, about, std_error, bias = finished(s1, s2, first_power, squares, pull)
    skewness = skewness_of(about, third_power(thirds, shift))
    error_draws = effective_draws(about, fourth_power(fourths, shift))
    centre += shift
    if not shift * shift * s2 > FAR * about:
        left = 0
    unit = 1.0 / scale
    errors = unit * std_error, unit * bias, s1, s2, skewness, error_draws
    answer = Estimate(unit * centre, *errors, OK)
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
def estimate_with_sums(row, high, gamma, h, top, ws):
    """(what `estimate` ends with, the units of its last sums, their centre); ws.totals holds the sums."""
    attempt = asked = begin_estimate(h, top)
    while attempt.left > 0:
        asked = attempt
        fill_scalar_sums(row, high, gamma, h, asked.scale, asked.centre, ws)
        attempt = step_estimate(row, high, gamma, h, top, asked, ws.totals, ws.e)
    return attempt.answer, asked.scale, asked.centre


@entry
def scalar_values(row, high, gamma, h):
    """What `estimate` ends with: (units and centre of the sums, the sums)."""
    ws = new_scratch(row.size)
    _, scale, centre = estimate_with_sums(row, high, gamma, h, first_at(row, high), ws)
    return scale, centre, ws.totals

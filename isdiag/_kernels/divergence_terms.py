"""What divergences average over the draws, and the sums that tell such a mean and its error."""

from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import LARGEST, negative_or, power_of_two
from isdiag._kernels.functions import LOG2_E, LOWEST, exp2, exp_beyond_line, rate_of
from isdiag._kernels.records import (
    GENERATOR,
    GENERATOR_APART,
    GENERATOR_NEAR_1,
    LESS_ONE,
    MINUS_LOG,
    RATIO,
    WEIGHTED,
)
from isdiag._kernels.sums import (
    BLOCK,
    EVERY,
    first_draws,
    fourth_sums,
    own_power_sums,
    pad,
    segments_of,
    total_of,
)


class Terms(NamedTuple):
    """What is averaged: g of each draw, in units of 2^unit.

    The weights are w = exp(below + top), below being the log-weights less high. Of `GENERATOR` g is Amari's
    generator of that order, of `RATIO` exp(order below), of `LESS_ONE` that less 1, of `MINUS_LOG` -log w.
    With v = exp(below) it is v log w of `WEIGHTED`, and of `HALF_SQUARE` log(w)^2 / 2, times v if the order
    is 1.
    """

    kind: int
    order: float
    high: float
    top: float
    unit: int
    sums: int  # `OF_PAIRS`, or `OF_INFLUENCE`: of g less the origin and less slope (w - 1)
    origin: float
    slope: float


@inner
def is_generator(kind):
    return kind == GENERATOR or kind == GENERATOR_NEAR_1 or kind == GENERATOR_APART


OF_PAIRS, OF_INFLUENCE = 0, 1
_SUMS = 14  # of powers of w - 1 and g, in the order of `fourth_sums`
_LARGEST_UNIT = 1000

# Up to this abs(log w) max(order, 1) the generator is summed as a series, whose terms beyond the last are
# below an ulp.
NEAR = 0.5
_SERIES = 14
# Up to this exponent exp(t) - 1 is summed as a series; it is a difference if the exponents at `NEAR` are
# always larger.
SMALL = 0.35
_APART = 0.25


@inner
def _series_of(order, c):
    """Fill c: the generator is log(w)^2 times the polynomial c in max(order, 1) log w.

    With log(w)^k goes (1 + order + ... + order^k) / (k + 2)!.
    """
    reach = max(order, 1.0)
    ratio, share = order / reach, 1.0 / reach
    total = power = 1.0
    factorial = 2.0
    for k in range(_SERIES):
        c[k] = total / factorial
        power *= ratio
        total = total * share + power
        factorial *= k + 3.0


@inner
def _growth(t):
    """(exp(t) - 1) / t for abs(t) <= 0.35."""
    return exp_beyond_line(t) * t + 1.0


@inner
def _log_of(value, high, top):
    """The logarithm of a weight, 0 of none; a difference beyond float64 is its largest."""
    return max(value - high, -LARGEST) + top if value > -np.inf else 0.0


@inner
def _power_of(v):
    """2^v, 0 where that is next to nothing; held at 2^1023."""
    return exp2(min(v, 1023.0)) if v > LOWEST else 0.0


@inner
def _share(unit):
    return power_of_two(-min(unit, 1022))


class _Parts(NamedTuple):
    """What the generator of order a is made of, in its units.

    It is (change - (w - 1)) inverse, where the change is (w^a - base) / distance: from a = 1/2 on base is w
    and distance a - 1, below they are 1 and a. So there is a limit at 1 and at 0.
    """

    rate: float
    whole: float  # base = whole + of_w w
    of_w: float
    distance: float
    inverse: float
    share: float


@inner
def _parts_of(order, share):
    if order >= 0.5:
        return _Parts(rate_of(order), 0.0, share, order - 1.0, 1.0 / order, share)
    return _Parts(rate_of(order), share, 0.0, order, 1.0 / (order - 1.0), share)


@inner(fastmath={"contract"})
def _at_limit(part, high, top, by, x, g):
    for i in range(part.size):
        log = _log_of(part[i], high, top)
        w = _power_of(LOG2_E * log)
        x[i] = w - 1.0
        g[i] = ((by.whole + by.of_w * w) * log - x[i] * by.share) * by.inverse


@inner(fastmath={"contract"})
def _far_from_limits(part, high, top, unit, by, x, g):
    over = 1.0 / by.distance
    for i in range(part.size):
        log = _log_of(part[i], high, top)
        w = exp2(min(LOG2_E * log, 1023.0))
        x[i] = w - 1.0
        power = exp2(min(by.rate * log - unit, 1023.0))
        g[i] = ((power - (by.whole + by.of_w * w)) * over - x[i] * by.share) * by.inverse


@inner(fastmath={"contract"})
def _near_a_limit(part, high, top, unit, by, x, g):
    over = 1.0 / by.distance
    for i in range(part.size):
        log = _log_of(part[i], high, top)
        w = exp2(min(LOG2_E * log, 1023.0))
        x[i] = w - 1.0
        power = exp2(min(by.rate * log - unit, 1023.0))
        base = by.whole + by.of_w * w
        t = by.distance * log
        change = negative_or(abs(t) - SMALL, base * log * _growth(t), (power - base) * over)
        g[i] = (change - x[i] * by.share) * by.inverse


@inner(fastmath={"contract"})
def _polynomial(c, q):
    p = c[13]
    p = p * q + c[12]
    p = p * q + c[11]
    p = p * q + c[10]
    p = p * q + c[9]
    p = p * q + c[8]
    p = p * q + c[7]
    p = p * q + c[6]
    p = p * q + c[5]
    p = p * q + c[4]
    p = p * q + c[3]
    p = p * q + c[2]
    p = p * q + c[1]
    return p * q + c[0]


@inner(fastmath={"contract"})
def _all_by_series(part, high, top, reach, share, c, x, g):
    for i in range(part.size):
        log = _log_of(part[i], high, top)
        x[i] = log * _growth(log)
        g[i] = log * log * _polynomial(c, reach * log) * share


@inner(fastmath={"contract"})
def _near_by_series(part, high, top, reach, share, c, g):
    for i in range(part.size):
        log = _log_of(part[i], high, top)
        q = reach * log
        g[i] = negative_or(abs(q) - NEAR, log * log * _polynomial(c, q) * share, g[i])


@inner
def _generators(part, terms, c, x, g):
    """Fill g with (w^a - a w + a - 1) / (a (a - 1)), a being the order, and x with w - 1."""
    a, high, top, unit, share = terms.order, terms.high, terms.top, terms.unit, _share(terms.unit)
    reach = max(a, 1.0)
    # A tuple: of an array the loop would load each number again, which takes a third longer.
    series = (c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12], c[13])
    if terms.kind == GENERATOR_NEAR_1:
        _all_by_series(part, high, top, reach, share, series, x, g)
        return
    by = _parts_of(a, share)
    if by.distance == 0.0:
        _at_limit(part, high, top, by, x, g)
    elif abs(by.distance) >= _APART:
        _far_from_limits(part, high, top, unit, by, x, g)
    else:
        _near_a_limit(part, high, top, unit, by, x, g)
    if terms.kind == GENERATOR:
        _near_by_series(part, high, top, reach, share, series, g)


@inner(fastmath={"contract"})
def _ratios(part, terms, g):
    rate, share, high = rate_of(terms.order), _share(terms.unit), terms.high
    for i in range(part.size):
        v = rate * max(part[i] - high, -LARGEST)
        value = exp2(v) * share
        g[i] = value if (part[i] > -np.inf) & (v > LOWEST) else 0.0


@inner(fastmath={"contract"})
def _ratios_less_one(part, terms, g):
    order, share, high = terms.order, _share(terms.unit), terms.high
    for i in range(part.size):
        t = order * max(part[i] - high, -LARGEST)
        value = t * _growth(t) * share
        g[i] = value if part[i] > -np.inf else 0.0


@inner
def _logarithms(part, terms, g):
    kind, order, high, top, share = terms.kind, terms.order, terms.high, terms.top, _share(terms.unit)
    half = power_of_two(-(terms.unit // 2))
    for i in range(part.size):
        log = _log_of(part[i], high, top)
        v = _power_of(LOG2_E * max(part[i] - high, -LARGEST)) if order == 1.0 else 1.0
        if kind == WEIGHTED:
            value = v * log * share
        elif kind == MINUS_LOG:
            value = -log * share
        else:
            value = 0.5 * (v * log * half) * (log * half)
        g[i] = value if part[i] > -np.inf else 0.0


@inner
def _less_ones(part, terms, x):
    """Fill in w - 1."""
    for i in range(part.size):
        value = _power_of(LOG2_E * _log_of(part[i], terms.high, terms.top)) - 1.0
        x[i] = value if part[i] > -np.inf else 0.0


@inner
def _fill_terms(part, terms, c, x, g):
    """Fill in w - 1 and g, or 0 and what a draw adds; 0 where there is no weight."""
    of_generator = is_generator(terms.kind)
    if of_generator:
        _generators(part, terms, c, x, g)
    elif terms.kind == RATIO:
        _ratios(part, terms, g)
    elif terms.kind == LESS_ONE:
        _ratios_less_one(part, terms, g)
    else:
        _logarithms(part, terms, g)
    if terms.sums == OF_INFLUENCE:
        origin, slope = terms.origin, terms.slope
        if origin == 0.0 and slope == 0.0:
            return
        if slope != 0.0 and not of_generator:
            _less_ones(part, terms, x)
        for i in range(part.size):
            value = g[i] - origin
            if slope != 0.0:
                value -= slope * x[i]
            g[i] = value if part[i] > -np.inf else 0.0
    elif not of_generator:
        _less_ones(part, terms, x)


@entry
def term_without_weight(terms):
    """What a draw without weight adds to the sums of g, see `_fill_terms`; inf where nothing is."""
    share = _share(terms.unit)
    g = 0.0
    if is_generator(terms.kind):
        g = share / terms.order
    elif terms.kind == LESS_ONE:
        g = -share
    elif terms.kind == MINUS_LOG or (terms.kind != RATIO and terms.order == 0.0):
        g = np.inf
    return g - terms.origin + terms.slope


class TermScratch(NamedTuple):
    x: np.ndarray  # two blocks
    g: np.ndarray
    c: np.ndarray  # of the generator's series
    sums: np.ndarray  # those of each segment
    totals: np.ndarray


@entry
def new_term_scratch(size):
    sums = np.empty((segments_of(size, EVERY), _SUMS))
    return TermScratch(np.empty(BLOCK), np.empty(BLOCK), np.empty(_SERIES), sums, np.empty(_SUMS))


@inner
def _segment_sums(row, segment, terms, ws, sums):
    x, g = ws.x, ws.g
    sums[:] = 0.0
    for first in first_draws(row.size, EVERY, segment):
        part = row[first : first + BLOCK]
        _fill_terms(part, terms, ws.c, x, g)
        end = pad(g, part.size)
        if terms.sums == OF_PAIRS:
            pad(x, part.size)
            block = fourth_sums(x, g, end)
            for j in range(_SUMS):
                sums[j] += block[j]
        else:
            once, squares, cubes, fourths = own_power_sums(g, g, end)
            sums[1] += once
            sums[4] += squares
            sums[8] += cubes
            sums[13] += fourths


@entry
def term_sums_part(row, first, last, terms, sums):
    """Fill sums[segment] for a range of segments, in the order of `fourth_sums`."""
    ws = new_term_scratch(BLOCK)
    _series_of(terms.order, ws.c)
    for segment in range(first, last):
        _segment_sums(row, segment, terms, ws, sums[segment])


@inner
def fill_term_sums(row, terms, ws):
    """Fill ws.totals with the sums over the row of powers of g and w - 1, or of what a draw adds."""
    _series_of(terms.order, ws.c)
    segments = segments_of(row.size, EVERY)
    for segment in range(segments):
        _segment_sums(row, segment, terms, ws, ws.sums[segment])
    total_of(ws.sums, segments, ws.totals)


@inner
def largest_term(row, terms, ws):
    """The largest abs(g); inf from 2^1000 on."""
    _series_of(terms.order, ws.c)
    found = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _fill_terms(part, terms, ws.c, ws.x, ws.g)
        for i in range(part.size):
            found = max(found, abs(ws.g[i]))
    return found if found < 2.0**_LARGEST_UNIT else np.inf


@entry
def write_terms(row, terms, out):
    """Write what each draw adds, 0 where there is no weight."""
    ws = new_term_scratch(BLOCK)
    _series_of(terms.order, ws.c)
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _fill_terms(part, terms, ws.c, ws.x, ws.g)
        for i in range(part.size):
            out[first + i] = ws.g[i]

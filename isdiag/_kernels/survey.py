"""One look at a row: its extent, what became of it, and candidates for its tail."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import (
    KEY_MAX,
    KEY_NEG_INF,
    KEY_TOP,
    LARGEST,
    WORD,
    from_order_key,
    order_key,
    reach_bound,
    trailing_zeros,
)
from isdiag._kernels.largest import nth_largest
from isdiag._kernels.records import FLAT, NO_WEIGHT, NOT_FINITE, OK, ONE_DRAW
from isdiag._kernels.sums import BLOCK, LANES, NO_DRAWS, extremes, padded


@inner
def _extent_of_any(part):
    high = KEY_NEG_INF
    low = KEY_TOP
    n_finite = 0
    for i in range(part.size):
        key = order_key(part[i])
        positive = key != KEY_NEG_INF
        high = max(high, key)
        low = min(low, key if positive else KEY_TOP)
        n_finite += 1 if positive else 0
    return high, low, n_finite


@entry
def extent_part(part):
    """(key of the largest, of the smallest finite, number of finite) of some draws.

    Where all are finite, as a finite sum says, extremes of floats are found in a third of the time.
    """
    if part.size >= LANES:
        high, low, total = extremes(part, part.size)
        if abs(total) < np.inf:
            return order_key(high), order_key(low), part.size
    return _extent_of_any(part)


class Extent(NamedTuple):
    high: float
    low: float  # the smallest finite entry
    n_finite: int
    presence: int  # whether there are weights to work on: NOT_FINITE, NO_WEIGHT or OK


@inner
def _presence(high, low, n_finite):
    """Of a row whose extremes have these keys."""
    if high > KEY_MAX or low <= KEY_NEG_INF:  # NaN or +inf
        return NOT_FINITE
    return NO_WEIGHT if n_finite == 0 else OK


@inner
def _value_of(key):
    """The zeros are one, as which of them is the largest would depend on where parts of a row end."""
    return from_order_key(key) + 0.0


@entry
def extent_between(high, low, n_finite):
    """The extent of a row whose extremes have these keys."""
    return Extent(_value_of(high), _value_of(low), n_finite, _presence(high, low, n_finite))


@inner
def extent_of(row):
    high, low, n_finite = extent_part(row)
    return extent_between(high, low, n_finite)


_EVERY_BIT = ~np.uint64(0)


@inner
def _gather_word(row, first, word, x, index, count):
    # No sign, no wrapping around of negative indices: a quarter less.
    first, count = np.uint64(first), np.uint64(count)
    while word != 0:
        i = first + np.uint64(trailing_zeros(word))
        word &= word - np.uint64(1)
        x[count] = row[i]
        index[count] = i
        count += np.uint64(1)
    return np.int64(count)


@inner
def gather(row, start, stop, bound, x, index):
    """Write the entries >= bound of row[start:stop] and their indices to x and index; return how many."""
    count = NO_DRAWS
    if stop - start < WORD:
        for i in range(start, stop):
            if row[i] >= bound:
                x[count] = row[i]
                index[count] = i
                count += 1
        return count
    words_end = stop - (stop - start) % WORD
    for first in range(start, words_end, WORD):
        count = _gather_word(row, first, reach_bound(row, first, bound), x, index, count)
    if words_end < stop:  # a word that ends with the row begins with draws that were looked at
        first = stop - WORD
        word = reach_bound(row, first, bound) & (_EVERY_BIT << np.uint64(words_end - first))
        count = _gather_word(row, first, word, x, index, count)
    return count


@inner
def sample_step(size):
    """Every so-manieth draw of a row makes a sample of 4 sqrt(size); 1 where the row is too short for one."""
    return max(int(0.25 * math.sqrt(size)), 1)


@inner
def bound_in_sample(keys, count, length, step):
    """A number that length + 1 draws reach unless the sample of the first count keys misleads.

    Any of a few ranks will do: found in 2 counts where a given one takes 6.
    """
    expected = (length + 1) / step
    rank = int(expected + 3.0 * math.sqrt(expected) + 1.0)
    return max(from_order_key(nth_largest(keys, count, rank, rank // 8)), -LARGEST)


@entry
def tail_bound(row, length, keys):
    """A number that length + 1 draws reach unless a sample misleads, from an order statistic of it."""
    step = sample_step(row.size)
    if step == 1:
        return -LARGEST
    count = NO_DRAWS
    for i in range(0, row.size, step):
        keys[count] = order_key(row[i])
        count += 1
    return bound_in_sample(keys, count, length, step)


class Candidates(NamedTuple):
    """Room for draws that reach a bound: they, where in the row they stand, and integers to work in."""

    x: np.ndarray
    index: np.ndarray
    keys: np.ndarray


@inner
def room_for(size, m):
    """For how many candidates there is room, of a row of so many draws and at least m of them.

    A bound of a sample leaves twice the m, four times where m is small. More of them tie with each other, or
    the sample misled: `thin_out` has to find room for a block.
    """
    sample = size // sample_step(size) + 1
    return min(size, max(4 * m, sample) + 2 * BLOCK)


@entry
def new_candidates(size, m):
    room = room_for(size, m)
    return Candidates(np.empty(room), np.empty(room, np.int64), np.empty(padded(room, LANES), np.int64))


@inner
def thin_out(x, index, keys, count, m):
    """Keep the candidates above the m-th largest, in order; returns (how many, that one, the next float)."""
    for i in range(count):
        keys[i] = order_key(x[i])
    level = from_order_key(nth_largest(keys, count, m - 1, NO_DRAWS)) + 0.0  # -0.0 is not below 0.0
    k = 0
    for i in range(count):
        value = x[i]
        x[k], index[k] = value, index[i]
        k += 1 if value > level else 0
    return k, level, from_order_key(order_key(level) + 1)


@inner
def _put_back(row, start, stop, level, count, m, x, index):
    """Make the candidates above a level m by the last draws at it; returns how many others it has."""
    ties = 0
    for i in range(start, stop):
        ties += 1 if row[i] == level else 0
    k, at = m - 1, stop
    while k >= count:
        at -= 1
        if count > 0 and index[count - 1] == at:
            count -= 1
            x[k], index[k] = x[count], at
            k -= 1
        elif row[at] == level:
            x[k], index[k] = level, at
            k -= 1
            ties -= 1
    return ties


@entry
def survey_part(row, start, stop, bound, m, x, index, keys):
    """(key of the largest, of the smallest finite, number of finite, of candidates, a level, left at it).

    Candidates, the entries >= bound of row[start:stop], go to x with their indices. If there is not room for
    all they are those above a level, and the last draws at it if those are fewer than m; so many others at
    the level are left out. A flat row of 1e6 takes a twentieth of the time that gathering all of it would.
    Extent and candidates of a block are taken while it is in the first cache.
    """
    high = KEY_NEG_INF
    low = KEY_TOP
    n_finite = 0
    count = left = NO_DRAWS
    level = -np.inf
    for first in range(start, stop, BLOCK):
        end = min(first + BLOCK, stop)
        top, bottom, finite = extent_part(row[first:end])
        high = max(high, top)
        low = min(low, bottom)
        n_finite += finite
        if count + end - first > index.size:
            count, level, bound = thin_out(x, index, keys, count, m)
        count += gather(row, first, end, bound, x[count:], index[count:])
    if level > -np.inf and count < m:
        left = _put_back(row, start, stop, level, count, m, x, index)
        count = m
    return high, low, n_finite, count, level, left


class Survey(NamedTuple):
    high: float  # the first four as in `Extent`
    low: float
    n_finite: int
    presence: int
    count: int  # candidates for the tail in ws.x, ws.index
    level: float  # at which so many draws are not among them
    left: int


@entry
def survey_of(high, low, n_finite, count, level, left):
    presence = _presence(high, low, n_finite)
    return Survey(_value_of(high), _value_of(low), n_finite, presence, count, level, left)


@inner
def survey_row(ws, row, length):
    bound = tail_bound(row, length, ws.keys)
    high, low, n_finite, count, level, left = survey_part(
        row, 0, row.size, bound, length + 1, ws.x, ws.index, ws.keys
    )
    return survey_of(high, low, n_finite, count, level, left)


# Where weights lie within this of their middle the ESS is within 1e-4 of its largest; half an ulp of a coarse
# dtype may be more.
_FLAT_RANGE = 0.01


@inner
def _is_flat(high, low, gamma, eps):
    """Whether gamma * log-weights differ by no more than rounding of the input can explain.

    Either of two roundings can: that of the log-weights (an ulp of their size) and that of weights near
    each other (a few ulps of 1).
    """
    if high == low:
        return True
    half_range = gamma * (0.5 * high - 0.5 * low)
    ulp = eps * max(abs(high), abs(low))  # first, as gamma times the largest log-weight may overflow
    return half_range <= min(0.5 * max(4.0 * eps, gamma * ulp), _FLAT_RANGE)


@inner
def state_of(survey, n, gamma, eps):
    """The status that the weights w^gamma alone decide, or OK where the tail has to be looked at."""
    if survey.presence != OK:
        return survey.presence
    if n == 1:
        return ONE_DRAW
    # One draw with all the mass among others with none is not the flat, best case.
    if survey.n_finite > 1 and _is_flat(survey.high, survey.low, gamma, eps):
        return FLAT
    return OK


@inner
def khat_without_fit(state):
    if state == FLAT:
        return -np.inf
    return np.inf if state == ONE_DRAW else np.nan

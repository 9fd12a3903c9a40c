"""The longest step from weights to weights times a power of others that keeps an ESS."""

import math
from typing import Any, NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.functions import LOG2_E, exp2
from isdiag._kernels.power_sums import ess_of, kish_ess
from isdiag._kernels.records import NO_WEIGHT, NOT_FINITE, OK
from isdiag._kernels.sums import BLOCK, SEGMENT, copy, pad, pair_sums
from isdiag._kernels.survey import extent_of
from isdiag._kernels.weights import less

# The ESS aimed at is above its limit by so much on the log scale, and the search ends that near to it: what
# it returns keeps the limit, and is within 1e-10 of it.
_ABOVE, _NEAR = 4e-11, 3e-11
_MAX_STEPS = 200
# Below, squares of other weights may be nothing: weights are then taken over the largest.
_LITTLE = 1e-130
# Of a row of so many draws each of so many blocks tells where to search.
_LONG, _STRIDE = 2**16, 16
_WIDE, _NARROW = 4.0, 1.02  # apart are the ends of the first bracket, of a rough and of a good guess


class _Pair(NamedTuple):
    """Log-weights of a row and those before the step, the largest of each, and how many draws have both."""

    row: Any
    start: Any
    high: float
    start_high: float
    together: int


@inner
def _both(start, value):
    return (start > -np.inf) & (value > -np.inf)


@inner
def _after(pair, start, value, step):
    """Log-weight of a draw after the step, at most 0; of draws that have both weights."""
    return less(start, pair.start_high) + step * less(value, pair.high)


@inner(counted=True)
def _log_excess(pair, step, log_target, e):
    """Log of the ESS after a step over its target."""
    row, start = pair.row, pair.start
    s1 = s2 = 0.0
    for first in range(0, row.size, SEGMENT):
        of_segment = of_squares = 0.0
        for at in range(first, min(first + SEGMENT, row.size), BLOCK):
            part, before = row[at : at + BLOCK], start[at : at + BLOCK]
            for i in range(part.size):
                value = exp2(LOG2_E * _after(pair, before[i], part[i], step))
                e[i] = value if _both(before[i], part[i]) else 0.0
            a, _, b, _ = pair_sums(e, e, pad(e, part.size))
            of_segment += a
            of_squares += b
        s1 += of_segment
        s2 += of_squares
    if s1 > _LITTLE:
        return math.log(ess_of(s1, s2, pair.together)) - log_target
    after = np.empty(row.size)
    for i in range(row.size):
        after[i] = _after(pair, start[i], row[i], step) if _both(start[i], row[i]) else -np.inf
    extent = extent_of(after)
    if extent.presence != OK:  # a range beyond float64
        return -np.inf
    return math.log(kish_ess(after, extent, 1.0, e)) - log_target


@inner
def _spread(pair, e, u):
    """Standard deviation of the row under the weights before the step."""
    row, start = pair.row, pair.start
    origin = pair.high
    for i in range(row.size):
        if (start[i] == pair.start_high) & (row[i] > -np.inf):
            origin = row[i]
            break
    s0 = s1 = s2 = 0.0
    for at in range(0, row.size, BLOCK):
        part, before = row[at : at + BLOCK], start[at : at + BLOCK]
        for i in range(part.size):
            some = _both(before[i], part[i])
            e[i] = exp2(LOG2_E * less(before[i], pair.start_high)) if some else 0.0
            u[i] = part[i] - origin if some else 0.0
        pad(u, part.size)
        end = pad(e, part.size)
        a, b, _, _ = pair_sums(e, u, end)
        s0 += a
        s1 += b
        for i in range(end):
            e[i] *= u[i]
        s2 += pair_sums(e, u, end)[1]
    mean = s1 / s0
    return math.sqrt(max(s2 / s0 - mean * mean, 0.0))


@inner
def _bracket(pair, guess, wide, most, log_target, at_0, e):
    """(low, its excess, high, its excess): two steps at most four times apart, the ESS being met between."""
    step = min(guess, most) if guess > 0.0 else most  # NaN is neither
    low, at_low, high, at_high = 0.0, at_0, np.inf, -np.inf
    for _ in range(1100):  # halvings of a float64
        found = _log_excess(pair, step, log_target, e)
        if found >= 0.0:
            low, at_low = step, found
        else:
            high, at_high = step, found
        if high <= _WIDE * low or step == 0.0 or low == most:
            break
        step = high / wide if high < np.inf else min(wide * low, most)
        wide = min(wide * wide, _WIDE)
    return low, at_low, high, at_high


@inner
def _root(pair, guess, wide, most, aim, at_0, e):
    """The step at which the ESS comes down to its aim, which it is above at 0; `most` if it is there too."""
    low, at_low, high, at_high = _bracket(pair, guess, wide, most, aim, at_0, e)
    side = 0
    for step in range(_MAX_STEPS):
        if at_low <= _NEAR or high == np.inf:
            break
        # The chord, whose end that stays counts for less each time (Anderson and Bjorck); then halves.
        middle = low + (high - low) * at_low / (at_low - at_high)
        if not low < middle < high or step > 30:
            middle = low + 0.5 * (high - low)
        if not low < middle < high:
            break
        found = _log_excess(pair, middle, aim, e)
        if found >= 0.0:
            if side > 0:
                shrink = 1.0 - found / at_low
                at_high *= shrink if shrink > 0.0 else 0.5
            low, at_low, side = middle, found, 1
        elif found >= -_NEAR:
            return middle
        else:
            if side < 0:
                shrink = 1.0 - found / at_high
                at_low *= shrink if shrink > 0.0 else 0.5
            high, at_high, side = middle, found, -1
    return low


@inner(counted=True)
def _some_blocks(source):
    """A copy of each of so many blocks."""
    out = np.empty(source.size // _STRIDE + BLOCK)
    count = 0
    for at in range(0, source.size, _STRIDE * BLOCK):
        part = source[at : at + BLOCK]
        copy(part, out[count : count + part.size])
        count += part.size
    return out[:count]


@inner(counted=True)
def _root_of_some(pair, guess, most, log_target, e):
    """The root for some blocks, whose ESS is to be the same share of them; 0 if there is none."""
    row, start = _some_blocks(pair.row), _some_blocks(pair.start)
    some = _Pair(row, start, pair.high, pair.start_high, row.size)
    aim = log_target + math.log(row.size / pair.row.size)
    at_0 = _log_excess(some, 0.0, aim, e)
    return _root(some, guess, _WIDE, most, aim, at_0, e) if at_0 > _ABOVE else 0.0


@inner
def _longest_step(pair, most, log_target, e, u):
    """The step at which the ESS comes down to its target, at most `most`; 0 where it starts below."""
    if _log_excess(pair, most, log_target, e) >= 0.0:
        return most
    at_0 = _log_excess(pair, 0.0, log_target, e)
    if not at_0 > _ABOVE:
        return 0.0
    spread = _spread(pair, e, u)
    guess, wide = (math.sqrt(at_0) / spread if spread > 0.0 else most), _WIDE
    if pair.row.size >= _LONG:
        found = _root_of_some(pair, guess, most, log_target, e)
        guess, wide = (found, _NARROW) if found > 0.0 else (guess, _WIDE)
    return _root(pair, guess, wide, most, log_target + _ABOVE, at_0 - _ABOVE, e)


@entry
def longest_step_rows(rows, starts, most, least_ess, step, status):
    """For each row the longest step t <= most[r] with ESS of exp(start + t row) >= least_ess[r].

    ESS need not fall along the way where weights start unequal; then a t at which it holds and just beyond
    which it does not.
    """
    e, u = np.empty(BLOCK), np.empty(BLOCK)
    for r in range(rows.shape[0]):
        row, start = rows[r], starts[r]
        of_row, of_start = extent_of(row), extent_of(start)
        status[r] = OK
        step[r] = np.nan
        if of_row.presence == NOT_FINITE or of_start.presence == NOT_FINITE:
            status[r] = NOT_FINITE
            continue
        together = 0
        for i in range(row.size):
            together += 1 if _both(start[i], row[i]) else 0
        if together == 0:
            status[r] = NO_WEIGHT
        elif most[r] == most[r]:
            log_target = math.log(least_ess[r]) if least_ess[r] > 0.0 else -np.inf
            pair = _Pair(row, start, of_row.high, of_start.high, together)
            step[r] = _longest_step(pair, most[r], log_target, e, u)

"""The longest step from weights to weights times a power of others that keeps an ESS."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.power_sums import kish_ess
from isdiag._kernels.records import NO_WEIGHT, NOT_FINITE, OK
from isdiag._kernels.sums import BLOCK
from isdiag._kernels.survey import extent_of
from isdiag._kernels.weights import less

# The ESS aimed at is above its limit by so much on the log scale, and the search ends that near to it: what
# it returns keeps the limit, and is within 1e-10 of it.
_ABOVE, _NEAR = 4e-11, 3e-11
_MAX_STEPS = 200


@inner
def _log_excess(row, start, step, log_target, x, e):
    """Log of the ESS of exp(start + step row) over its target; x is a row to work in."""
    for i in range(row.size):
        x[i] = start[i] + step * row[i] if (start[i] > -np.inf) & (row[i] > -np.inf) else -np.inf
    extent = extent_of(x)
    if extent.presence != OK:  # a range beyond float64
        return -np.inf
    return math.log(kish_ess(x, extent, 1.0, e)) - log_target


@inner
def _spread(row, start):
    """Standard deviation of the row under the weights exp(start)."""
    s0 = s1 = s2 = 0.0
    for i in range(row.size):
        if (start[i] > -np.inf) & (row[i] > -np.inf):
            w = math.exp(start[i])
            s0 += w
            s1 += w * row[i]
    mean = s1 / s0
    for i in range(row.size):
        if (start[i] > -np.inf) & (row[i] > -np.inf):
            s2 += math.exp(start[i]) * (row[i] - mean) ** 2
    return math.sqrt(s2 / s0)


@inner
def _bracket(row, start, most, log_target, at_0, x, e):
    """(low, its excess, high, its excess): two steps at most four times apart, the ESS being met between."""
    spread = _spread(row, start)
    step = math.sqrt(at_0) / spread if spread > 0.0 else most
    step = min(step, most) if step > 0.0 else most  # NaN is neither
    low, at_low, high, at_high = 0.0, at_0, np.inf, -np.inf
    for _ in range(1100):  # halvings of a float64
        found = _log_excess(row, start, step, log_target, x, e)
        if found >= 0.0:
            low, at_low = step, found
        else:
            high, at_high = step, found
        if high <= 4.0 * low or step == 0.0:
            break
        step = 0.25 * high if high < np.inf else min(4.0 * low, most)
    return low, at_low, high, at_high


@inner
def _longest_step(row, start, most, log_target, x, e):
    """The step at which the ESS comes down to its target, at most `most`; 0 where it starts below."""
    if _log_excess(row, start, most, log_target, x, e) >= 0.0:
        return most
    at_0 = _log_excess(row, start, 0.0, log_target, x, e)
    if not at_0 > _ABOVE:
        return 0.0
    aim = log_target + _ABOVE
    low, at_low, high, at_high = _bracket(row, start, most, aim, at_0 - _ABOVE, x, e)
    side = 0
    for step in range(_MAX_STEPS):
        if at_low <= _NEAR:
            break
        # The chord, whose end that stays counts for less each time (Anderson and Bjorck); then halves.
        middle = low + (high - low) * at_low / (at_low - at_high)
        if not low < middle < high or step > 30:
            middle = low + 0.5 * (high - low)
        if not low < middle < high:
            break
        found = _log_excess(row, start, middle, aim, x, e)
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


@entry
def longest_step_rows(rows, starts, most, least_ess, step, status):
    """For each row the longest step t <= most[r] with ESS of exp(start + t row) >= least_ess[r].

    ESS need not fall along the way where weights start unequal; then a t at which it holds and just beyond
    which it does not.
    """
    e, x = np.empty(BLOCK), np.empty(rows.shape[1])
    row, start = np.empty(rows.shape[1]), np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        of_row, of_start = extent_of(rows[r]), extent_of(starts[r])
        status[r] = OK
        step[r] = np.nan
        if of_row.presence == NOT_FINITE or of_start.presence == NOT_FINITE:
            status[r] = NOT_FINITE
            continue
        together = 0
        for i in range(x.size):
            row[i], start[i] = less(rows[r, i], of_row.high), less(starts[r, i], of_start.high)
            together += 1 if (row[i] > -np.inf) & (start[i] > -np.inf) else 0
        if together == 0:
            status[r] = NO_WEIGHT
        elif most[r] == most[r]:
            log_target = math.log(least_ess[r]) if least_ess[r] > 0.0 else -np.inf
            step[r] = _longest_step(row, start, most[r], log_target, x, e)

"""What the error of an expectation is made of: tails and effective draws of w |h - estimate|."""

from typing import Any, NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import KEY_TOP, LARGEST, bits_of, float_of, order_key
from isdiag._kernels.functions import LOWEST, fast_log, rate_of
from isdiag._kernels.moments import (
    block_weights,
    estimate_with_sums,
    first_at,
    new_scratch,
)
from isdiag._kernels.psis import khat_of
from isdiag._kernels.records import OK, TWO_VALUED_H
from isdiag._kernels.sums import BLOCK, NO_DRAWS, pad, pair_sums
from isdiag._kernels.survey import Survey, bound_in_sample, extent_of, gather, sample_step, thin_out
from isdiag._kernels.workspace import new_workspace

_SAME_LEVEL = 1e-9  # of log |w (h - estimate)|
_LEAST_NORMAL = 2.0**-1022
# Weights from 2^-1021 on, times distances in units in which sums of their squares are of the order of 1, are
# numbers in these units.
_UNIT = 2.0**600
_ANY = 5e-324  # bound of whatever is not 0
_MOST = 1e-9  # by so much of sum(f^2) one side has to have more of it than the other


class _Given(NamedTuple):
    """A row, and values of which (scale h - centre) - shift is the distance to their mean under w^gamma."""

    row: Any
    h: Any
    high: float
    gamma: float
    scale: float
    centre: float
    shift: float


class _Side(NamedTuple):
    """Of the draws above or below the estimate."""

    high: int  # bits of the largest |f| _UNIT
    low: int  # and of the smallest that is not 0
    drawn: int  # how many there are
    count: int  # candidates for the tail, in ws.x
    level: float  # of which there may be more than are among them
    bound: float  # which others reach


class _Looked(NamedTuple):
    right: _Side
    left: _Side
    total: float  # sum of |f|, f being a weight times its distance
    leaning: float  # sum of f |f|
    squares: float


@inner
def _fill_products(values, scale, centre, shift, weight, f):
    """Fill f with weight times distance, and replace the weights by that in units of 1 / _UNIT."""
    for i in range(values.size):
        off = (scale * values[i] - centre) - shift
        distance = off if weight[i] != 0.0 else 0.0
        f[i] = weight[i] * distance
        weight[i] = (_UNIT * weight[i]) * distance


@inner
def _extents(above, count):
    """(bits of the largest, of the smallest, number) of the positive entries, then of the others but 0."""
    high = high_below = np.int64(0)
    low = low_below = KEY_TOP
    drawn = drawn_below = 0
    for i in range(count):
        bits = bits_of(above[i])
        size = bits & KEY_TOP
        positive, negative = bits > 0, (bits < 0) & (size > 0)
        high = max(high, size if positive else np.int64(0))
        low = min(low, size if positive else KEY_TOP)
        drawn += 1 if positive else 0
        high_below = max(high_below, size if negative else np.int64(0))
        low_below = min(low_below, size if negative else KEY_TOP)
        drawn_below += 1 if negative else 0
    return high, low, drawn, high_below, low_below, drawn_below


@inner
def _joined(side, high, low, drawn, values, size, ws, m):
    """With a block: the extent of its draws on that side, and its candidates; m of all are kept at least."""
    count, level, bound = side.count, side.level, side.bound
    if count + size > ws.index.size:
        count, level, bound = thin_out(ws.x, ws.index, ws.keys, count, m)
    count += gather(values, 0, size, bound, ws.x[count:], ws.index[count:])
    return _Side(max(side.high, high), min(side.low, low), side.drawn + drawn, count, level, bound)


@inner
def _filled_up(side, ws, m):
    """With as many draws at the level as m candidates lack; where they stand is not asked."""
    count = side.count
    while side.level > 0.0 and count < m:
        ws.x[count] = side.level
        count += 1
    return _Side(side.high, side.low, side.drawn, count, side.level, side.bound)


@inner
def _look(given, bound_right, bound_left, m, right, left, f, g):
    """One pass over the draws; candidates for the tails are those whose |f| _UNIT reaches a bound > 0.

    They are the m largest at least, if so many do. What a block needs is kept in two arrays, f and g, which
    stay in the first cache: 1.9 ns a draw, where one for each of six took 2.7.
    """
    over = _Side(np.int64(0), KEY_TOP, NO_DRAWS, NO_DRAWS, 0.0, bound_right)
    under = _Side(np.int64(0), KEY_TOP, NO_DRAWS, NO_DRAWS, 0.0, bound_left)
    total = leaning = squares = 0.0
    for first in range(0, given.row.size, BLOCK):
        part = given.row[first : first + BLOCK]
        size = part.size
        block_weights(part, given.high, given.gamma, g)
        _fill_products(given.h[first : first + BLOCK], given.scale, given.centre, given.shift, g, f)
        high, low, drawn, high_below, low_below, drawn_below = _extents(g, size)
        over = _joined(over, high, low, drawn, g, size, right, m)
        for i in range(size):
            g[i] = -g[i]
        under = _joined(under, high_below, low_below, drawn_below, g, size, left, m)
        for i in range(size):
            g[i] = abs(f[i])
        pad(f, size)
        a, b, aa, _ = pair_sums(g, f, pad(g, size))
        total += a
        leaning += b
        squares += aa
    return _Looked(_filled_up(over, right, m), _filled_up(under, left, m), total, leaning, squares)


@inner(counted=True)
def _every(source, step):
    out = np.empty((source.size - 1) // step + 1)
    for i in range(out.size):
        out[i] = source[i * step]
    return out


@inner
def _bound(side, ws, length, step):
    for i in range(side.count):
        ws.keys[i] = order_key(ws.x[i])
    return max(bound_in_sample(ws.keys, side.count, length, step), _ANY)


@inner(counted=True)
def _bounds(given, length, right, left, f, g):
    """As `tail_bound`, of the draws above and of those below the estimate."""
    step = sample_step(given.row.size)
    if step == 1:
        return _ANY, _ANY
    row, h = _every(given.row, step), _every(given.h, step)
    sample = _Given(row, h, given.high, given.gamma, given.scale, given.centre, given.shift)
    looked = _look(sample, _ANY, _ANY, length + 1, right, left, f, g)
    return _bound(looked.right, right, length, step), _bound(looked.left, left, length, step)


@inner
def _misled(side, length):
    """Whether the sample gave too high a bound."""
    return side.count <= length and side.count < side.drawn


@inner
def _khat_of_side(ws, side, n, length, eps):
    """(khat of the draws on one side, whether several share the largest size)."""
    if side.drawn == 0:
        return np.nan, True
    x, largest = ws.x[: side.count], float_of(side.high)
    ties = 0
    for i in range(x.size):
        x[i] = fast_log(max(x[i] / largest, _LEAST_NORMAL))
        ties += 1 if x[i] >= -_SAME_LEVEL else 0
    low = fast_log(max(float_of(side.low) / largest, _LEAST_NORMAL))
    survey = Survey(0.0, low, side.drawn, OK, side.count, -np.inf, NO_DRAWS)
    khat, _ = khat_of(ws, x, survey, n, length, 1.0, eps)
    return khat, ties > 1


@inner
def _takes_three_values(row, high, gamma, h, one):
    """Whether h takes two values other than that one at draws whose weight is something."""
    rate = rate_of(gamma)
    other = one
    for i in range(row.size):
        # Negated, so that a NaN is another value.
        another = not (h[i] == one or h[i] == other)
        if another and row[i] > -np.inf and rate * max(row[i] - high, -LARGEST) > LOWEST:
            if other != one:
                return True
            other = h[i]
    return False


@inner
def _fill_unknown(found, status):
    found.std_error = found.skewness = found.ess = found.error_draws = np.nan
    found.khat_right = found.khat_left = np.nan
    found.unknown = True
    found.status = status


@entry
def component_rows(rows, n, length, gamma, h, found, eps):
    """A row of `COMPONENT` for each row, h[r] holding a number for each of its draws.

    khat of a side is NaN where h takes fewer than three values, and where several draws share its largest
    size and its tail cannot be fitted: levels of a bounded h are no tail, and not a bad one. All is unknown
    where that of a side is which has most of sum(f^2).
    """
    right, left = new_workspace(rows.shape[1], length), new_workspace(rows.shape[1], length)
    scratch = new_scratch(rows.shape[1])
    for r in range(rows.shape[0]):
        row, g, record = rows[r], gamma[r], found[r]
        extent = extent_of(row)
        _fill_unknown(record, OK)
        if extent.presence != OK or g != g:
            continue
        top = first_at(row, extent.high)
        answer, scale, centre = estimate_with_sums(row, extent.high, g, h[r], top, scratch)
        record.std_error, record.skewness, record.status = answer.std_error, answer.skewness, answer.status
        if not abs(answer.estimate) < np.inf:
            continue
        shift = scratch.totals[1] / scratch.totals[0] if answer.status == OK else 0.0
        given = _Given(row, h[r], extent.high, g, scale, centre, shift)
        bounds, m = _bounds(given, length[r], right, left, scratch.a, scratch.e), length[r] + 1
        looked = _look(given, bounds[0], bounds[1], m, right, left, scratch.a, scratch.e)
        if _misled(looked.right, length[r]) or _misled(looked.left, length[r]):
            looked = _look(given, _ANY, _ANY, m, right, left, scratch.a, scratch.e)
        if looked.squares > 0.0:
            record.ess = looked.total * looked.total / looked.squares
            record.error_draws = answer.error_draws
        record.unknown = False
        if not _takes_three_values(row, extent.high, g, h[r], h[r, top]):
            record.status = TWO_VALUED_H if answer.status == OK else answer.status
            continue
        record.khat_right, tied_right = _khat_of_side(right, looked.right, n[r], length[r], eps)
        record.khat_left, tied_left = _khat_of_side(left, looked.left, n[r], length[r], eps)
        most = _MOST * looked.squares
        unknown_right = record.khat_right != record.khat_right and not tied_right and looked.leaning > most
        unknown_left = record.khat_left != record.khat_left and not tied_left and looked.leaning < -most
        record.unknown = unknown_right or unknown_left
        if tied_right and abs(record.khat_right) == np.inf:
            record.khat_right = np.nan
        if tied_left and abs(record.khat_left) == np.inf:
            record.khat_left = np.nan

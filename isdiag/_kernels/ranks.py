"""Draws of positive weight by their values: in bins, and sorted a few at a time.

Those of equal value make a group, and groups are in ascending order.
"""

from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import inner
from isdiag._kernels.bits import (
    KEY_MAX,
    KEY_NEG_INF,
    KEY_TOP,
    exponent_of,
    from_order_key,
    order_key,
    power_of_two,
)
from isdiag._kernels.moments import block_weights
from isdiag._kernels.sums import BLOCK, NO_DRAWS, copy

BINS = 2048  # 64 to the octave
_SAMPLE = 64
_HELD = 4096  # draws that are sorted at once
LOWEST_KEY = np.int64(-KEY_TOP)


class Values(NamedTuple):
    """Component j of d of the values at a row's draws, times a sign, and what makes its weights."""

    row: np.ndarray
    high: float
    gamma: float
    h: np.ndarray
    j: int
    d: int
    sign: float


class Bins(NamedTuple):
    """Counts, the extreme `order_key`s and sums of w, w^2 and w^4 of the draws in each bin of h."""

    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sums: np.ndarray  # (bins, 3)


class Held(NamedTuple):
    """Groups of draws in ascending order: their h, and sums of w, w^2 and w^4."""

    h: np.ndarray
    w: np.ndarray
    squares: np.ndarray
    fourths: np.ndarray


class Between(NamedTuple):
    """The groups from one key to another, both included, and what lies beside them."""

    low: int
    high: int
    size: int
    before: float  # h of the last group below, -inf where there is none
    squares_before: float
    after: float  # and of the first above, or inf
    squares_after: float


class Sums(NamedTuple):
    w: float
    squares: float
    fourths: float


class Scratch(NamedTuple):
    every: Bins  # of all draws of the component at hand
    some: Bins
    held: Held
    sample: np.ndarray
    e: np.ndarray  # the weights of a block
    u: np.ndarray  # and its values


class Ranks(NamedTuple):
    """The draws of positive weight by their values."""

    values: Values
    low: int  # the lowest `order_key`
    high: int
    count: int
    total: Sums


@inner(counted=True)
def _new_bins():
    keys = np.empty((3, BINS), np.int64)
    return Bins(keys[0], keys[1], keys[2], np.empty((BINS, 3)))


@inner(counted=True)
def new_scratch(n):
    held = np.empty((4, min(n, _HELD)))
    bins = _new_bins(), _new_bins()
    groups = Held(held[0], held[1], held[2], held[3])
    return Scratch(bins[0], bins[1], groups, np.empty(_SAMPLE), np.empty(BLOCK), np.empty(BLOCK))


@inner
def look(values, ws):
    """(lowest key, highest, and number) of the draws of positive weight."""
    low, high, count = KEY_TOP, LOWEST_KEY, NO_DRAWS
    for at in range(0, values.row.size, BLOCK):
        size = _fill(values, at, ws)
        for i in range(size):
            key, seen = order_key(ws.u[i]), ws.e[i] > 0.0
            low = min(low, key if seen else KEY_TOP)
            high = max(high, key if seen else LOWEST_KEY)
            count += 1 if seen else 0
    return low, high, count


@inner
def _fill(values, at, ws):
    """Weights and values of a block, -0.0 as 0.0; returns how many they are."""
    part = values.row[at : at + BLOCK]
    block_weights(part, values.high, values.gamma, ws.e)
    for i in range(part.size):
        ws.u[i] = values.sign * np.float64(values.h[(at + i) * values.d + values.j]) + 0.0
    return part.size


@inner
def is_finite(low, high):
    """Whether keys from one to another are those of numbers."""
    return low > KEY_NEG_INF and high <= KEY_MAX


@inner
def _clear(bins):
    bins.count[:] = 0
    bins.low[:] = KEY_TOP
    bins.high[:] = LOWEST_KEY
    bins.sums[:] = 0.0


@inner
def _add(bins, b, key, weight):
    square = weight * weight
    bins.count[b] += 1
    bins.low[b], bins.high[b] = min(bins.low[b], key), max(bins.high[b], key)
    bins.sums[b, 0] += weight
    bins.sums[b, 1] += square
    bins.sums[b, 2] += square * square


@inner
def _middle(values, sample):
    """The median of some draws, and their interquartile range."""
    step = max(values.row.size // sample.size, 1)
    size = min(values.row.size, sample.size)
    for i in range(size):
        x = values.sign * np.float64(values.h[i * step * values.d + values.j])
        k = i
        while k > 0 and not sample[k - 1] <= x:
            sample[k] = sample[k - 1]
            k -= 1
        sample[k] = x
    return sample[size // 2], sample[3 * size // 4] - sample[size // 4]


@inner
def _bin_all(values, bins, ws):
    """Put every draw into bins by its distance from the middle, as many to the octave on each side.

    So few draws share one, whatever the law of h: within 2^-8 and beyond 2^8 of its width there is one each.
    """
    _clear(bins)
    centre, width = _middle(values, ws.sample)
    centre = centre if abs(centre) < np.inf else 0.0
    unit = exponent_of(width if 0.0 < width < np.inf else 1.0)
    nearest = order_key(power_of_two(max(unit - 8, -1022)))
    for at in range(0, values.row.size, BLOCK):
        size = _fill(values, at, ws)
        for i in range(size):
            if ws.e[i] > 0.0:
                distance = ws.u[i] - centre
                step = max((order_key(abs(distance)) - nearest) >> 46, -1) + 1
                step = min(step, BINS // 2 - 1)
                b = BINS // 2 + step if distance >= 0.0 else BINS // 2 - 1 - step
                _add(bins, b, order_key(ws.u[i]), ws.e[i])


@inner
def _bin_between(values, low, high, bins, ws):
    """Put the draws from key to key into bins of as many keys; low and high are apart then."""
    _clear(bins)
    first, width, shift = low >> 1, (high >> 1) - (low >> 1), 0
    narrow = width < BINS // 2  # else halves of keys, whose difference is an integer of 64 bits
    while (width >> shift) >= BINS:
        shift += 1
    for at in range(0, values.row.size, BLOCK):
        size = _fill(values, at, ws)
        for i in range(size):
            key = order_key(ws.u[i])
            if low <= key <= high and ws.e[i] > 0.0:
                b = key - low if narrow else ((key >> 1) - first) >> shift
                _add(bins, b, key, ws.e[i])


@inner
def _hold(values, low, high, before, after, ws):
    """Gather the draws from key to key, as many as are held or all of one h, in groups: `Between`.

    before and after are the keys next to them, `LOWEST_KEY` and `KEY_TOP` where there are none.
    """
    held, e, u = ws.held, ws.e, ws.u
    count = 0
    squares_before = squares_after = w = squares = fourths = 0.0
    for at in range(0, values.row.size, BLOCK):
        size = _fill(values, at, ws)
        if low == high:  # values that tie come in any order: no branches
            for i in range(size):
                key, square = order_key(u[i]), e[i] * e[i]
                of_group = e[i] if key == low else 0.0
                w += of_group
                squares += of_group * of_group
                fourths += (of_group * of_group) * (of_group * of_group)
                squares_before += square if key == before else 0.0
                squares_after += square if key == after else 0.0
            continue
        for i in range(size):
            key = order_key(u[i])
            if not before <= key <= after or e[i] == 0.0:
                continue
            if key == before:
                squares_before += e[i] * e[i]
            elif key == after:
                squares_after += e[i] * e[i]
            else:
                held.h[count], held.w[count] = u[i], e[i]
                count += 1
    if low == high:
        held.h[0], held.w[0], held.squares[0], held.fourths[0] = from_order_key(low), w, squares, fourths
        count = 1
    else:
        count = _group(held, count)
    below = from_order_key(before) if before > LOWEST_KEY else -np.inf
    above = from_order_key(after) if after < KEY_TOP else np.inf
    return Between(low, high, count, below, squares_before, above, squares_after)


@inner
def _group(held, size):
    """Sort by h, keeping the order of draws that tie, and join these; returns how many groups there are."""
    h, w, h_spare, w_spare = held
    run = 1
    while run < size:
        for start in range(0, size, 2 * run):
            i, middle, stop = start, min(start + run, size), min(start + 2 * run, size)
            j = middle
            for k in range(start, stop):
                if j >= stop or (i < middle and h[i] <= h[j]):
                    h_spare[k], w_spare[k] = h[i], w[i]
                    i += 1
                else:
                    h_spare[k], w_spare[k] = h[j], w[j]
                    j += 1
        copy(h_spare[:size], h)
        copy(w_spare[:size], w)
        run *= 2
    squares, fourths = held.squares, held.fourths
    groups = -1
    for i in range(size):
        weight, square = w[i], w[i] * w[i]
        if groups < 0 or h[i] != h[groups]:
            groups += 1
            h[groups] = h[i]
            w[groups] = squares[groups] = fourths[groups] = 0.0
        w[groups] += weight
        squares[groups] += square
        fourths[groups] += square * square
    return groups + 1


# No groups, of no key.
NOTHING = Between(KEY_TOP, KEY_TOP, 0, 0.0, 0.0, 0.0, 0.0)


@inner(counted=True)
def ranked(values, low, high, count, ws):
    """The ranks of so many draws from key to key, and what is held: all of them, else bins in `ws.every`."""
    w = squares = fourths = 0.0
    if count <= ws.held.h.size or low == high:
        between = _hold(values, low, high, LOWEST_KEY, KEY_TOP, ws)
        for i in range(between.size):
            w += ws.held.w[i]
            squares += ws.held.squares[i]
            fourths += ws.held.fourths[i]
    else:
        between = NOTHING
        _bin_all(values, ws.every, ws)
        for b in range(BINS):
            w += ws.every.sums[b, 0]
            squares += ws.every.sums[b, 1]
            fourths += ws.every.sums[b, 2]
    return Ranks(values, low, high, count, Sums(w, squares, fourths)), between


class Part(NamedTuple):
    """Some of the draws, from key to key, what lies next to them and the sums of all below."""

    low: int
    high: int
    count: int
    before: int
    after: int
    below: Sums
    beside: float  # the squares of a bin before, at least those of the last group below


@inner
def all_of(ranks):
    return Part(ranks.low, ranks.high, ranks.count, LOWEST_KEY, KEY_TOP, Sums(0.0, 0.0, 0.0), 0.0)


@inner
def part_of(part, bins, b, below, beside):
    """The draws of a bin of a part."""
    before, after = part.before, part.after
    for i in range(b):
        before = max(before, bins.high[i])
    for i in range(b + 1, BINS):
        after = min(after, bins.low[i])
    return Part(bins.low[b], bins.high[b], bins.count[b], before, after, below, beside)


@inner
def is_many(part, ws):
    return part.count > ws.held.h.size and part.low < part.high


@inner(counted=True)
def bins_of(part, ranks, ws):
    """The bins that the draws of a part lie in."""
    if part.count == ranks.count:
        return ws.every
    _bin_between(ranks.values, part.low, part.high, ws.some, ws)
    return ws.some


@inner
def held_of(part, ranks, between, ws):
    """The groups of a part; they are held already where `between` says so."""
    if between.low == part.low and between.high == part.high:
        return between
    return _hold(ranks.values, part.low, part.high, part.before, part.after, ws)

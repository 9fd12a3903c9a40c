"""Order statistics, by counts."""

import math
from typing import NamedTuple

from isdiag._kernels._jit import inner
from isdiag._kernels.bits import KEY_NEG_INF, KEY_TOP, MANTISSA, bits_of, from_order_key, order_key
from isdiag._kernels.sums import LANES, NO_DRAWS, padded


@inner
def census(keys, bound):
    """(number of keys above the bound, the largest of the others, the smallest above)."""
    count = 0
    below = KEY_NEG_INF
    above = KEY_TOP
    for i in range(keys.size):
        key = keys[i]
        higher = key > bound
        count += 1 if higher else 0
        below = max(below, KEY_NEG_INF if higher else key)
        above = min(above, key if higher else KEY_TOP)
    return count, below, above


@inner
def _two_censuses(keys, bound, other):
    """As `census` of either bound, at once: 1.3 times the time of one."""
    count = count_of_other = 0
    below = below_other = KEY_NEG_INF
    above = above_other = KEY_TOP
    for i in range(keys.size):
        key = keys[i]
        higher = key > bound
        count += 1 if higher else 0
        below = max(below, KEY_NEG_INF if higher else key)
        above = min(above, key if higher else KEY_TOP)
        higher = key > other
        count_of_other += 1 if higher else 0
        below_other = max(below_other, KEY_NEG_INF if higher else key)
        above_other = min(above_other, key if higher else KEY_TOP)
    return (count, below, above), (count_of_other, below_other, above_other)


class _Bracket(NamedTuple):
    """Where an order statistic lies. It is found where both ends are the same."""

    low: int  # keys
    high: int
    from_low: float  # how many keys there are >= low
    above_high: float  # and > high


class _Law(NamedTuple):
    """An exponential law by its mean and deviation: roughly count exp(-(b - least) / spread) lie above b."""

    least: float
    spread: float
    count: float


@inner
def _all_finite(keys):
    """The bracket of all finite ones."""
    low = KEY_TOP
    high = KEY_NEG_INF
    n_finite = 0
    for i in range(keys.size):
        finite = keys[i] > KEY_NEG_INF
        low = min(low, keys[i] if finite else KEY_TOP)
        high = max(high, keys[i])
        n_finite += 1 if finite else 0
    return _Bracket(low, high, float(n_finite), 0.0)


_UNIT = 2.0**52  # what is added to it stands as an integer in its mantissa
_STEPS = 2.0**20


@inner
def _law_of(keys, bracket):
    """In fixed point, as sums of integers vectorise whatever their order."""
    low = from_order_key(bracket.low)
    step = (from_order_key(bracket.high) - low) / _STEPS
    scale = 1.0 / step
    total = squares = 0
    for i in range(keys.size):
        y = (from_order_key(keys[i]) - low) * scale if keys[i] > KEY_NEG_INF else 0.0
        total += bits_of(_UNIT + y) & MANTISSA
        squares += bits_of(_UNIT + y * y) & MANTISSA
    count = max(bracket.from_low, 1.0)
    mean, square = total / count, squares / count
    spread = math.sqrt(max(square - mean * mean, 0.0))
    return _Law(low + (mean - spread) * step, spread * step, bracket.from_low)


@inner
def _bracket_of(n, bracket):
    """Of the n-th largest."""
    return bracket if n < bracket.from_low else _Bracket(KEY_NEG_INF, KEY_NEG_INF, 0.0, 0.0)


@inner
def _bound_within(bracket, law, n, step):
    """Where to count next.

    First where the law has n + 1/2 above it. Then the logarithm of the count above a bound is interpolated in
    the bound, each fourth time the bracket is halved. The bits of a float64 are its logarithm, linear between
    powers of two: so near that a logarithm would save no step, and half as long.
    """
    low, high = bracket.low, bracket.high
    if step == 1:
        bound = order_key(law.least + law.spread * math.log(law.count / (n + 0.5)))
    elif step % 4 != 0:
        bottom, top = from_order_key(low), from_order_key(high)
        log_all = bits_of(bracket.from_low)
        part = (log_all - bits_of(n + 0.5)) / (log_all - bits_of(bracket.above_high + 0.5))
        bound = order_key(bottom + part * (top - bottom))
    else:
        bound = (low >> 1) + (high >> 1)
    return min(max(bound, low), high - 1)


@inner
def _narrowed(bracket, n, spare, counted):
    """The bracket of what n to n + spare keys exceed, after a census within it."""
    count, below, above = counted
    if bracket.low >= bracket.high:
        return bracket
    if n <= count <= n + spare + 1:
        found = below if count <= n + spare else above
        return _Bracket(found, found, 0.0, 0.0)
    if count > n:
        return _Bracket(above, bracket.high, float(count), bracket.above_high)
    return _Bracket(bracket.low, below, bracket.from_low, float(count))


@inner
def _fill_up(keys, size):
    """Up to a multiple of LANES with those of -inf, so that no loop has a remainder."""
    end = padded(size, LANES)
    for i in range(size, end):
        keys[i] = KEY_NEG_INF
    return end


@inner
def nth_largest(keys, size, n, spare):
    """A key of keys[:size] that n to n + spare of them exceed, more if it ties with others.

    There has to be room up to a multiple of LANES. Counts, which vectorise, instead of a quickselect, whose
    moves do not.
    """
    keys = keys[: _fill_up(keys, size)]
    bracket = _all_finite(keys)
    law = _law_of(keys, bracket)
    bracket = _bracket_of(n, bracket)
    step = 0
    while bracket.low < bracket.high:
        step += 1
        bound = _bound_within(bracket, law, n + 0.5 * spare, step)
        bracket = _narrowed(bracket, n, spare, census(keys, bound))
    return bracket.low


@inner
def two_largest(keys, size, n, other):
    """The n-th and another largest (0-based), as `nth_largest`, in the time of 1.3."""
    keys = keys[: _fill_up(keys, size)]
    bracket = _all_finite(keys)
    law = _law_of(keys, bracket)
    bracket, second = _bracket_of(n, bracket), _bracket_of(other, bracket)
    step = 0
    while bracket.low < bracket.high or second.low < second.high:
        step += 1
        bound = _bound_within(bracket, law, float(n), step)
        second_bound = _bound_within(second, law, float(other), step)
        counted, second_counted = _two_censuses(keys, bound, second_bound)
        bracket = _narrowed(bracket, n, NO_DRAWS, counted)
        second = _narrowed(second, other, NO_DRAWS, second_counted)
    return bracket.low, second.low

"""What a step of off-policy learning tells of its log-ratios and of the weights that it uses."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import (
    KEY_NEG_INF,
    LARGEST,
    WORD,
    exponent_of,
    from_order_key,
    negative_or,
    ones_of,
    order_key,
    power_of_two,
    reach_bound,
    trailing_zeros,
)
from isdiag._kernels.functions import LOWEST, exp2, exp_beyond_line, rate_of
from isdiag._kernels.largest import nth_largest
from isdiag._kernels.power_sums import ess_of
from isdiag._kernels.records import OK
from isdiag._kernels.sums import BLOCK, LANES, NO_DRAWS, copy, pad, padded, pair_sums
from isdiag._kernels.survey import extent_of, sample_step

_LOG_LARGEST = 709.78


class OfRatios(NamedTuple):
    """Of log-ratios x = log w, n of them."""

    largest: float  # x
    ess: float
    log_total: float  # of the sum of w
    log_total_squared: float  # of that of w^2
    kl: float  # mean of -x
    kl_k3: float  # mean of w - 1 - x
    negative: float  # share of abs(w * signal) where the signal is negative


class OfWeights(NamedTuple):
    """Of the weights used."""

    ess: float
    log_total: float
    bias: float  # of the weighted mean of the signal, from dividing by the sum
    largest: float  # share
    zero: int
    modified: int
    saturated: int
    negative: float  # as in `OfRatios`


@entry
def all_known(row, advantage):
    """Whether no log-ratio is NaN or +inf, and every advantage finite."""
    known = 0
    for i in range(row.size):
        known += 1 if (row[i] < np.inf) & (abs(advantage[i]) <= LARGEST) else 0
    return known == row.size


@inner
def _block_weights(part, high, e):
    """Fill e with the weights over the largest; 0 where there is next to nothing."""
    rate = rate_of(1.0)
    for i in range(part.size):
        v = rate * (part[i] - high)
        value = exp2(min(v, 0.0))
        e[i] = value if v > LOWEST else 0.0


@inner
def _block_gaps(part, e, largest, less, u):
    """Fill less with -x and u with w - 1 - x, where w is e times the largest weight."""
    for i in range(part.size):
        x = part[i]
        less[i] = -x
        u[i] = negative_or(abs(x) - 0.35, x * x * exp_beyond_line(x), max(e[i] * largest - 1.0 - x, 0.0))


@inner
def _block_signals(signal, scale, signed, size):
    """Fill in the signal and its size, both scaled."""
    for i in range(signal.size):
        signed[i] = signal[i] * scale
        size[i] = abs(signed[i])
    pad(signed, signal.size)
    pad(size, signal.size)


@inner
def _negative(total, size):
    """Where x adds up to the total and abs(x) to the size, the share in the latter of what is below 0."""
    share = 0.5 - 0.5 * total / size
    return min(max(share, 0.0), 1.0) if share == share else share  # signals may be denormal next to another


@inner
def _exponent_for(signal):
    """That of a power of two by which signals can be divided and multiplied, about the largest."""
    largest = KEY_NEG_INF
    for i in range(signal.size):
        largest = max(largest, order_key(abs(signal[i])))
    return max(min(exponent_of(from_order_key(largest)), 1022), -1022)


@entry
def ratio_sums(row, signal):
    extent = extent_of(row)
    if extent.presence != OK:
        return OfRatios(extent.high, np.nan, -np.inf, -np.inf, np.inf, np.inf, np.nan)
    e, less, u, signed = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    high = extent.high
    largest = math.exp(high) if high < _LOG_LARGEST else np.inf
    scale = power_of_two(-_exponent_for(signal))
    s1 = s2 = total = size = kl = k3 = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _block_weights(part, high, e)
        end = pad(e, part.size)
        _block_gaps(part, e, largest, less, u)
        pad(less, part.size)
        pad(u, part.size)
        kl += pair_sums(less, less, end)[0]
        k3 += pair_sums(u, u, end)[0]
        _block_signals(signal[first : first + BLOCK], scale, signed, u)
        a, a_signed, aa, _ = pair_sums(e, signed, end)
        s1 += a
        s2 += aa
        total += a_signed
        size += pair_sums(e, u, end)[1]
    ess = ess_of(s1, s2, extent.n_finite)
    log_total, log_total_squared = high + math.log(s1), 2.0 * high + math.log(s2)
    k3 = k3 / row.size if largest < np.inf else np.inf
    return OfRatios(high, ess, log_total, log_total_squared, kl / row.size, k3, _negative(total, size))


@inner
def _block_counts(part, row, log_bound):
    zero = modified = saturated = 0
    for i in range(part.size):
        zero += 1 if part[i] == -np.inf else 0
        modified += 1 if part[i] != row[i] else 0
        saturated += 1 if part[i] >= log_bound else 0
    return zero, modified, saturated


@entry
def weight_sums(log_f, row, signal, log_bound, shares):
    """Of weights f made of a row of log-ratios.

    Shares, if not empty, are filled with f over its sum, 0 if that is; they may be log_f itself.
    """
    e, centred, signed, u = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    extent = extent_of(log_f)
    some = extent.presence == OK
    exponent = _exponent_for(signal)
    scale = power_of_two(-exponent)
    origin = signal[0] * scale  # a signal that is the same for all has no bias
    s1 = s2 = once = twice = total = size = 0.0
    zero = modified = saturated = 0
    for first in range(0, log_f.size, BLOCK):
        part, out = log_f[first : first + BLOCK], shares[first : first + BLOCK]
        a, b, c = _block_counts(part, row[first : first + BLOCK], log_bound)
        zero += a
        modified += b
        saturated += c
        if not some:
            out[:] = 0.0
            continue
        _block_weights(part, extent.high, e)
        copy(e[: out.size], out)
        end = pad(e, part.size)
        _block_signals(signal[first : first + BLOCK], scale, signed, u)
        for i in range(end):
            centred[i] = signed[i] - origin
        a1, b1, a2, b2 = pair_sums(e, centred, end)
        s1 += a1
        s2 += a2
        once += b1
        twice += b2
        total += pair_sums(e, signed, end)[1]
        size += pair_sums(e, u, end)[1]
    if not some:
        return OfWeights(np.nan, -np.inf, np.nan, np.nan, zero, modified, saturated, np.nan)
    share = 1.0 / s1
    for i in range(shares.size):
        shares[i] *= share
    ess = ess_of(s1, s2, extent.n_finite)
    log_total = extent.high + math.log(s1)
    bias = -(twice - once * share * s2) * share * share * power_of_two(exponent)
    return OfWeights(ess, log_total, bias, share, zero, modified, saturated, _negative(total, size))


@inner
def _gather_between(row, low, high, keys):
    """Write the keys of the entries from low to high to keys; how many, and how many are above.

    None is written where low is high: what they are is known then.
    """
    beyond = from_order_key(order_key(high) + 1)
    count = above = 0
    words_end = row.size - row.size % WORD
    for first in range(0, words_end, WORD):
        higher = reach_bound(row, first, beyond)
        above += ones_of(higher)
        word = reach_bound(row, first, low) & ~higher
        if low == high:
            count += ones_of(word)
            continue
        while word != 0:
            keys[count] = order_key(row[first + trailing_zeros(word)])
            word &= word - np.uint64(1)
            count += 1
    for i in range(words_end, row.size):
        above += 1 if row[i] > high else 0
        keys[count] = order_key(row[i])
        count += 1 if (row[i] >= low) & (row[i] <= high) else 0
    return count, above


@entry
def order_statistics(row, ranks, out):
    """Fill out with the entries of a row that have these ranks, from 0 for the largest; none is NaN or +inf.

    A sample brackets each, but for one in some hundred times, and then every entry is a candidate.
    """
    step = sample_step(row.size)
    sampled = row[::step]
    sample = np.empty(padded(sampled.size, LANES), np.int64)
    for i in range(sampled.size):
        sample[i] = order_key(sampled[i])
    keys = np.empty(padded(row.size, LANES), np.int64)
    for j in range(ranks.size):
        rank = ranks[j]
        expected = rank / step
        margin = 3.0 * math.sqrt(expected * (1.0 - rank / row.size)) + 1.0
        first, last = int(expected - margin), int(expected + margin) + 1
        low, high = -LARGEST, LARGEST
        if first >= 0:
            high = from_order_key(nth_largest(sample, sampled.size, first, NO_DRAWS))
        if last < sampled.size:
            low = max(from_order_key(nth_largest(sample, sampled.size, last, NO_DRAWS)), -LARGEST)
        count, above = _gather_between(row, low, high, keys)
        bracketed = above <= rank < above + count
        if bracketed and low == high:
            out[j] = low
            continue
        if not bracketed:
            count, above = _gather_between(row, -LARGEST, LARGEST, keys)
        of_finite = rank < count + above
        out[j] = from_order_key(nth_largest(keys, count, rank - above, NO_DRAWS)) if of_finite else -np.inf

"""What a step of off-policy learning tells of its log-ratios and of the weights that it uses."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import exponent_of, negative_or, power_of_two
from isdiag._kernels.functions import LOWEST, exp2, exp_of, one_minus_exp, rate_of
from isdiag._kernels.power_sums import ess_of
from isdiag._kernels.records import OK
from isdiag._kernels.sums import BLOCK, copy, pad, pair_sums
from isdiag._kernels.survey import extent_of


class OfRatios(NamedTuple):
    """Of log-ratios x = log w, n of them."""

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


@inner
def _block_gaps(part, e, u):
    """Fill e with -x, and u with w - 1 - x."""
    for i in range(part.size):
        x = part[i]
        d = -abs(x)
        lack = one_minus_exp(d)
        # From exp(-x) where x > 0; beyond float64 that is inf.
        grown = lack / exp_of(d) if d > -707.0 else np.inf
        u[i] = max(negative_or(x, -lack, grown) - x, 0.0)
        e[i] = -x


@inner
def _block_weights(part, high, e):
    rate = rate_of(1.0)
    for i in range(part.size):
        v = rate * (part[i] - high)
        value = exp2(min(v, 0.0))
        e[i] = value if v > LOWEST else 0.0


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
    largest = 0.0
    for i in range(signal.size):
        largest = max(largest, abs(signal[i]))
    return max(min(exponent_of(largest), 1022), -1022)


@entry
def ratio_sums(row, signal):
    e, u = np.empty(BLOCK), np.empty(BLOCK)
    kl = k3 = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _block_gaps(part, e, u)
        end = pad(e, part.size)
        a, _, _, _ = pair_sums(e, e, end)
        pad(u, part.size)
        b, _, _, _ = pair_sums(u, u, end)
        kl += a
        k3 += b
    kl, k3 = kl / row.size, k3 / row.size
    extent = extent_of(row)
    if extent.presence != OK:
        return OfRatios(np.nan, -np.inf, -np.inf, kl, k3, np.nan)
    scale = power_of_two(-_exponent_for(signal))
    signed = np.empty(BLOCK)
    s1 = s2 = total = size = 0.0
    for first in range(0, row.size, BLOCK):
        part = row[first : first + BLOCK]
        _block_weights(part, extent.high, e)
        end = pad(e, part.size)
        _block_signals(signal[first : first + BLOCK], scale, signed, u)
        a, a_signed, aa, _ = pair_sums(e, signed, end)
        s1 += a
        s2 += aa
        total += a_signed
        size += pair_sums(e, u, end)[1]
    ess = ess_of(s1, s2, extent.n_finite)
    high = extent.high
    return OfRatios(ess, high + math.log(s1), 2.0 * high + math.log(s2), kl, k3, _negative(total, size))


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
    """Of weights f made of a row of log-ratios; shares is filled with f over its sum, 0 if that is."""
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
        copy(e[: part.size], out)
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
    for i in range(log_f.size):
        shares[i] *= share
    ess = ess_of(s1, s2, extent.n_finite)
    log_total = extent.high + math.log(s1)
    bias = -(twice - once * share * s2) * share * share * power_of_two(exponent)
    return OfWeights(ess, log_total, bias, share, zero, modified, saturated, _negative(total, size))


@entry
def entries_between(row, low, high, out):
    """Write the entries between two to out, which has a place to spare; how many, and how many are below."""
    count = below = 0
    for i in range(row.size):
        x = row[i]
        below += 1 if x < low else 0
        out[count] = x
        count += 1 if (x >= low) & (x <= high) else 0
    return count, below

"""Numbers in units that are a power of two, of e, or both, and that float64 may not hold."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import power_of_two
from isdiag._kernels.functions import LN2_HIGH, LN2_LOW, LOG2_E


@inner
def times_power_of_two(x, exponent):
    """x 2^exponent, which may be a float64 where the power is none."""
    third = min(max(exponent, -2400), 2400) // 3
    rest = min(max(exponent, -2400), 2400) - 2 * third
    return x * power_of_two(third) * power_of_two(third) * power_of_two(rest)


@inner
def scaled(x, top, exponent):
    """x exp(top) 2^exponent, which may be finite where a part of it is not; 0 where x is."""
    if x == 0.0:
        return 0.0
    if abs(top) < 700.0 and exponent == 0:
        return x * math.exp(top)
    if top != top:
        return np.nan
    near = min(max(top, -4000.0), 4000.0)  # beyond, no power of h's units brings a float64 back
    power = np.floor(near * LOG2_E)
    rest = near - power * LN2_HIGH - power * LN2_LOW
    return times_power_of_two(x * math.exp(rest), np.int64(power) + exponent)


@entry
def scale_rows(x, top, exponent, out):
    """Fill out with `scaled` rows of x, (rows, numbers), with a top and an exponent for each row."""
    for r in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[r, i] = scaled(x[r, i], top[r], exponent[r])

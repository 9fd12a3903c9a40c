"""exp and log to within an ulp or few, without a branch, so that the loops around them vectorise."""

import numpy as np

from isdiag._kernels._jit import inner
from isdiag._kernels.bits import LARGEST, ONE, bits_of, float_of, negative_or

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453
LN2_HIGH = 0.693147180369123816490  # ln 2 in two parts, the first short enough for exact multiples
LN2_LOW = 1.90821492927058770002e-10
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer held in the low bits
LOWEST = -1021.0  # 2**v is held at 2**-1021 = 4.5e-308 from here on: next to a weight of 1 it is nothing


@inner(fastmath={"contract"})
def exp2(v):
    """2**max(v, -1021) for v <= 0, within an ulp and branch-free, so that a loop around it vectorises.

    A polynomial on the fraction in [-1/2, 1/2] (Remez, relative error 3.1e-18), to whose bits the integer
    part is added.
    """
    v = max(v, LOWEST)
    shifted = v + _ROUND
    f = v - (shifted - _ROUND)
    p = 4.4352827069572771511e-10
    p = p * f + 7.0741056135081427963e-9
    p = p * f + 1.0178198021671930844e-7
    p = p * f + 1.321543308967639918e-6
    p = p * f + 0.000015252733489988525649
    p = p * f + 0.00015403530462514432062
    p = p * f + 0.0013333558146789921722
    p = p * f + 0.0096181291075883352443
    p = p * f + 0.055504108664819921605
    p = p * f + 0.24022650695910156204
    p = p * f + 0.69314718055994533046
    p = p * f + 1.0
    return float_of(bits_of(p) + (bits_of(shifted) << 52))


@inner(fastmath={"contract"})
def exp2_roughly(v):
    """2**v for -1021 <= v <= 0 to 1e-4 of it, by a polynomial of degree 3 where `exp2` has one of 11."""
    shifted = v + _ROUND
    f = v - (shifted - _ROUND)
    p = 0.055838282946219855
    p = p * f + 0.24263947854625853
    p = p * f + 0.6931367338836215
    p = p * f + 0.9999245569508708
    return float_of(bits_of(p) + (bits_of(shifted) << 52))


@inner
def rate_of(gamma):
    """What a log-weight is multiplied by for the base 2, finite for every gamma: 0 times it is 0."""
    return min(gamma * LOG2_E, LARGEST)


@inner
def exp_of(x):
    """exp(max(x, -707)) for x <= 0."""
    return exp2(LOG2_E * x)


@inner(fastmath={"contract"})
def exp_beyond_line(d):
    """(exp(d) - 1 - d) / d^2 for -0.35 <= d <= 0.35: Taylor's polynomial."""
    p = 1.0 / 6227020800.0
    p = p * d + 1.0 / 479001600.0
    p = p * d + 1.0 / 39916800.0
    p = p * d + 1.0 / 3628800.0
    p = p * d + 1.0 / 362880.0
    p = p * d + 1.0 / 40320.0
    p = p * d + 1.0 / 5040.0
    p = p * d + 1.0 / 720.0
    p = p * d + 1.0 / 120.0
    p = p * d + 1.0 / 24.0
    p = p * d + 1.0 / 6.0
    return p * d + 0.5


@inner(fastmath={"contract"})
def exp_and_lack(d):
    """exp(d) and 1 - exp(d) for d <= 0, both to full relative accuracy; d is held at -707.

    With d = r + j ln 2 the latter is 1 - 2^j - 2^j (exp(r) - 1): nothing cancels, as j is 0 down to -0.35.
    One polynomial, where one for small d beside an exponential took half as long again.
    """
    d = max(d, -707.0)
    shifted = d * LOG2_E + _ROUND
    j = shifted - _ROUND
    r = (d - j * LN2_HIGH) - j * LN2_LOW
    growth = exp_beyond_line(r) * (r * r) + r
    power = float_of((bits_of(shifted) << 52) + ONE)
    return power * growth + power, (1.0 - power) - power * growth


@inner
def one_minus_exp(d):
    """1 - exp(d) for d <= 0, to full relative accuracy."""
    _, lack = exp_and_lack(d)
    return lack


_SQRT_HALF = np.int64(0x3FE6A09E667F3BCD)  # bits of sqrt(1/2)


@inner(fastmath={"contract"})
def _log_near_one(z):
    """log(1 + z) for -0.3 <= z <= 0.42, as 2 atanh(z / (2 + z))."""
    s = z / (2.0 + z)
    w = s * s
    p = 1.0 / 21.0
    p = p * w + 1.0 / 19.0
    p = p * w + 1.0 / 17.0
    p = p * w + 1.0 / 15.0
    p = p * w + 1.0 / 13.0
    p = p * w + 1.0 / 11.0
    p = p * w + 1.0 / 9.0
    p = p * w + 1.0 / 7.0
    p = p * w + 1.0 / 5.0
    p = p * w + 1.0 / 3.0
    return 2.0 * s + 2.0 * s * (w * p)


@inner(fastmath={"contract"})
def fast_log(y):
    """log(y) for normal y > 0, branch-free."""
    bits = bits_of(y)
    exponent = (bits - _SQRT_HALF) >> 52
    near_one = _log_near_one(float_of(bits - (exponent << 52)) - 1.0)
    return exponent * LN2_HIGH + (near_one + exponent * LN2_LOW)


@inner(fastmath={"contract"})
def fast_log1p(z):
    """log(1 + z) for z > -1, branch-free, to full relative accuracy near 0."""
    return negative_or(abs(z - 0.06) - 0.35, _log_near_one(z), fast_log(1.0 + z))

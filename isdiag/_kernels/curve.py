"""Tempered estimates at many gammas in one pass, beside an estimate that is taken for the truth."""

import math

import numpy as np

from isdiag._kernels._jit import inner
from isdiag._kernels.functions import LOWEST
from isdiag._kernels.moments import block_weights, finished
from isdiag._kernels.power_sums import ess_of
from isdiag._kernels.sums import pad, pair_sums, product_sum

SUMS_AT_GAMMA = 7
_NOTHING = 2.0**LOWEST
# Evenly spaced gammas differ by this much of the largest from multiples of a step.
_ROUNDING = 1e-15


@inner
def begin_curve(part, high, step, e, ratio):
    """Fill e with the weights at gamma = 0, and ratio with those at the step."""
    block_weights(part, high, step, ratio)
    for i in range(part.size):
        e[i] = 1.0 if part[i] > -np.inf else 0.0


@inner
def next_weights(part, high, gammas, g, step, ratio, e):
    """Fill e, which has the weights at the gamma before, with those at gammas[g].

    By a product where gammas are evenly spaced.
    """
    before = gammas[g - 1] if g > 0 else 0.0
    if step > 0.0 and abs(gammas[g] - before - step) <= _ROUNDING * gammas[g]:
        for i in range(part.size):
            product = e[i] * ratio[i]
            e[i] = product if product > _NOTHING else 0.0
    else:
        block_weights(part, high, gammas[g], e)


@inner
def add_to_curve(total, e, value, influence, a, size):
    """Add sums of e, e^2, a, a^2, e a, e f and a f, with a = e (h - centre) and f the influence."""
    for i in range(size):
        product = e[i] * value[i]
        a[i] = product if e[i] != 0.0 else 0.0
    pad(e, size)
    end = pad(a, size)
    s, sf, ss, _ = pair_sums(e, influence, end)
    total[0] += s
    total[1] += ss
    total[5] += sf
    s, se, ss, _ = pair_sums(a, e, end)
    total[2] += s
    total[3] += ss
    total[4] += se
    total[6] += product_sum(a, influence, end)[0]


@inner
def place_on_curve(total, centre, n_finite, truth, variance, point):
    """Fill a record of `ON_CURVE`, the centre being that of the sums, the truth an estimate of that variance.

    Tempering moves an estimate off the truth by what the two differ in, of whose square the variance of the
    difference is no part.
    """
    s1, s2, first_power, squares, pull = total[0], total[1], total[2], total[3], total[4]
    shift, _, std_error, bias = finished(s1, s2, first_power, squares, pull)
    off = centre + shift - truth
    covariance = (total[6] - shift * total[5]) / s1
    noise = max(std_error * std_error + variance - 2.0 * covariance, 0.0)
    point.estimate = centre + shift
    point.std_error = std_error
    point.bias = bias
    point.ess = ess_of(s1, s2, n_finite)
    point.tempering_bias = off
    point.tempering_bias_std_error = math.sqrt(noise)
    point.mse = max(off * off - noise, 0.0) + bias * bias + std_error * std_error

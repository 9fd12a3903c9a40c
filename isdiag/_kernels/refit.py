"""The largest gamma whose re-fitted khat is within its limit."""

import math

import numpy as np

from isdiag._kernels._jit import inner
from isdiag._kernels.ess_search import LARGEST_GAMMA
from isdiag._kernels.psis import fit_tail
from isdiag._kernels.records import OK

_SCAN = 16
_DEEPEST = 2.0**-40
_TOLERANCE = 1e-12


@inner
def _refit_limit(ws, tail, length, k_max, gamma_max):
    """The largest gamma < gamma_max whose re-fitted khat is <= k_max, khat at gamma_max being above it.

    Returns (gamma, whether any gamma could be fitted). Nothing proves khat monotone in gamma, so the
    range is scanned from above, evenly and then by halves, before the crossing is refined.
    """
    above = gamma_max
    k_above = np.inf
    below = 0.0
    k_below = -np.inf
    fitted = False
    step = 1
    # In the units in which the tail has width one: gamma_max may be far beyond.
    width = -ws.marks[0]
    deepest = _DEEPEST * (min(gamma_max, 1.0 / width) if width > 0.0 else gamma_max)
    while above > deepest:
        gamma = gamma_max * (1.0 - step / _SCAN) if step < _SCAN else 0.5 * above
        step += 1
        status, k, _ = fit_tail(ws, tail, length, gamma)
        fitted = fitted or status == OK
        if k <= k_max:
            below, k_below = gamma, k
            break
        above, k_above = gamma, k
    if below == 0.0:
        return 0.0, fitted
    # ITP (Oliveira & Takahashi 2020): the secant's speed within one step more than bisection needs.
    tolerance = _TOLERANCE * above
    reserve = above - below
    while above - below > tolerance:
        middle = 0.5 * (above + below)
        gamma = middle
        if k_above < np.inf:
            secant = below + (above - below) * ((k_max - k_below) / (k_above - k_below))
            offset = middle - secant
            nudge = 0.2 * (above - below) ** 2 / gamma_max + 0.25 * tolerance
            if nudge < abs(offset):
                secant += math.copysign(nudge, offset)
                room = max(reserve - 0.5 * (above - below), 0.0)
                gamma = min(max(secant, middle - room), middle + room)
        reserve *= 0.5
        _, k, _ = fit_tail(ws, tail, length, gamma)
        if k <= k_max:
            below, k_below = gamma, k
        else:
            above, k_above = gamma, k
    return below, True


@inner
def refit_psis(ws, tail, length, k_max, gamma_ess, gamma_max):
    """The limit that the re-fitted tail sets on gamma below gamma_max; inf where it sets none."""
    found = np.inf
    for upper in (min(gamma_max, LARGEST_GAMMA), gamma_ess):
        if upper < found:
            _, k, _ = fit_tail(ws, tail, length, upper)
            if k > k_max:
                limit, fitted = _refit_limit(ws, tail, length, k_max, upper)
                found = limit if fitted else np.inf
    return found

"""The regression of w h on w, from sums over the draws about centres near their means."""

from typing import Any, NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import LARGEST, exponent_of, power_of_two
from isdiag._kernels.functions import one_minus_exp
from isdiag._kernels.moments import (
    block_weights,
    effective_draws,
    estimate_with_sums,
    first_at,
    new_scratch,
    skewness_of,
)
from isdiag._kernels.records import CONSTANT_H, NOT_FINITE_H, OK
from isdiag._kernels.sums import BLOCK, fourth_sums, pad, pair_sums
from isdiag._kernels.survey import extent_of

# Sums of squares about a centre are at most so many times those about the mean: fourth powers keep 12 digits.
_FAR = 1e2


class _Fit(NamedTuple):
    """Of v on u over n draws, about their means."""

    mean_u: float
    mean_v: float
    slope: float
    spread: float  # sum of squares of u
    size: float  # of v
    squares: float  # sums of powers of what the slope leaves
    cubes: float
    fourths: float


@inner
def _fit_of(totals, n, flat):
    """From the sums of `fourth_sums`, zeros being among the draws; flat u have no slope."""
    u, v, uu, uv, vv = totals[0], totals[1], totals[2], totals[3], totals[4]
    mean_u, mean_v = u / n, v / n
    spread = uu - n * mean_u * mean_u
    size = vv - n * mean_v * mean_v
    together = uv - n * mean_u * mean_v
    slope = 0.0 if flat else together / spread
    # r = v - s u - k
    s, k = slope, mean_v - slope * mean_u
    r3 = totals[8] - 3.0 * s * (totals[7] - s * totals[6]) - s**3 * totals[5]
    odd = s * totals[12] + s**3 * totals[10]
    r4 = totals[13] - 4.0 * odd + 6.0 * s * s * totals[11] + s**4 * totals[9]
    r2 = vv - 2.0 * s * uv + s * s * uu
    squares = r2 - n * k * k
    cubes = r3 - 3.0 * k * r2 + 2.0 * n * k**3
    fourths = r4 - 4.0 * k * r3 + 6.0 * k * k * r2 - 3.0 * n * k**4
    return _Fit(mean_u, mean_v, slope, spread, size, max(squares, 0.0), cubes, max(fourths, 0.0))


class _Given(NamedTuple):
    """A row, and values of which scale h - centre is in units of their own."""

    row: Any
    h: Any
    high: float
    gamma: float
    scale: float
    centre: float


@inner
def _fill_deviations(part, values, given, less_one, mean, slope, weight, u, v):
    """Fill u with e - 1 - less_one and v with e (scale h - centre) - mean - slope u, 0 where e is."""
    block_weights(part, given.high, given.gamma, weight)
    for i in range(part.size):
        off = -one_minus_exp(given.gamma * max(part[i] - given.high, -LARGEST)) - less_one
        u[i] = off if weight[i] != 0.0 else 0.0
    for i in range(part.size):
        off = weight[i] * (given.scale * values[i] - given.centre) - mean - slope * u[i]
        v[i] = off if weight[i] != 0.0 else 0.0


@inner
def _fill_totals(given, n, less_one, mean, slope, whole_slope, ws, u):
    """Fill ws.totals with the sums about these means, of n draws of which some have no weight.

    Returns the sum of squares of v + whole_slope u about their mean.
    """
    ws.totals[:] = 0.0
    total = squares = 0.0
    zeros = n
    for first in range(0, given.row.size, BLOCK):
        part, values = given.row[first : first + BLOCK], given.h[first : first + BLOCK]
        _fill_deviations(part, values, given, less_one, mean, slope, ws.e, u, ws.a)
        for i in range(part.size):
            zeros -= 1.0 if ws.e[i] != 0.0 else 0.0
        pad(u, part.size)
        end = pad(ws.a, part.size)
        block = fourth_sums(u, ws.a, end)
        for j in range(ws.totals.size):
            ws.totals[j] += block[j]
        for i in range(end):
            u[i] = ws.a[i] + whole_slope * u[i]
        once, _, twice, _ = pair_sums(u, u, end)
        total += once
        squares += twice
    at_u = -1.0 - less_one
    at_v = -mean - slope * at_u
    at_whole = at_v + whole_slope * at_u
    k = 0
    for power in range(1, 5):
        for j in range(power + 1):
            ws.totals[k] += zeros * at_u ** (power - j) * at_v**j
            k += 1
    total += zeros * at_whole
    return squares + zeros * at_whole * at_whole - total * total / n


@inner
def _knows_spread(fit, n):
    return n * fit.mean_u * fit.mean_u <= _FAR * fit.spread


@inner
def _is_near(fit, totals, n, varying, whole):
    """Whether no sum lost digits to its centre; varying is the size of what whole is the rest of."""
    near = totals[4] + fit.slope * fit.slope * totals[2] <= _FAR * fit.squares
    return near and _knows_spread(fit, n) and varying <= _FAR * whole


@inner
def _clear(record):
    record.scale = 1.0
    record.centre = record.mean_weight = record.less_one = record.average = record.slope = record.spread = (
        np.nan
    )
    record.variance = record.squares = record.skewness = record.error_draws = np.nan
    record.is_flat, record.status = False, OK


@inner
def _regress(given, n, flat, ws, u, record):
    """Fill in the record from the sums about 0 in ws.totals, or about means where those lose digits."""
    own = given.centre
    less_one, mean, slope = -1.0, 0.0, 0.0
    fit = _fit_of(ws.totals, n, False)
    varying = fit.size + own * own * fit.spread
    whole = fit.size + own * (2.0 * fit.slope + own) * fit.spread
    for attempt in range(3):
        looked = attempt > 0 or not flat
        if looked and (attempt == 2 or _is_near(fit, ws.totals, n, varying, whole)):
            break
        less_one += fit.mean_u
        mean += fit.mean_v + slope * fit.mean_u
        # A slope of weights whose spread is lost may be anything.
        slope += fit.slope if _knows_spread(fit, n) else 0.0
        slope = -own if flat else slope
        whole = _fill_totals(given, n, less_one, mean, slope, slope + own, ws, u)
        fit = _fit_of(ws.totals, n, flat)
        varying = whole
    record.is_flat = flat
    record.less_one = less_one + fit.mean_u
    record.mean_weight = 1.0 + record.less_one
    record.average = mean + fit.mean_v + slope * fit.mean_u
    record.slope = slope + fit.slope
    record.spread = fit.spread
    record.variance = max(whole, 0.0) / (n - 1.0)
    record.squares = fit.squares
    record.skewness = skewness_of(fit.squares, fit.cubes)
    record.error_draws = effective_draws(fit.squares, fit.fourths)


@entry
def regression_rows(rows, n, gamma, equal, h, found):
    """A row of `REGRESSION` for each row, of n[r] draws, h[r] holding a number for each entry of the row.

    Of weights that are equal up to rounding the slope is the one that leaves w h itself: on rounding errors
    one may be anything.
    """
    ws, u = new_scratch(rows.shape[1]), np.empty(BLOCK)
    for r in range(rows.shape[0]):
        row, g, record = rows[r], gamma[r], found[r]
        extent = extent_of(row)
        _clear(record)
        if extent.presence != OK or g != g:
            continue
        top = first_at(row, extent.high)
        answer, scale, centre = estimate_with_sums(row, extent.high, g, h[r], top, ws)
        record.status = answer.status
        if record.status == CONSTANT_H and centre != 0.0:
            unit = power_of_two(-min(max(exponent_of(centre), -1000), 1000))
            scale, centre = scale * unit, centre * unit
        record.scale, record.centre = scale, centre
        given = _Given(row, h[r], extent.high, g, scale, centre)
        flat = equal[r] and extent.n_finite == n[r]
        if record.status != NOT_FINITE_H:
            _regress(given, float(n[r]), flat, ws, u, record)

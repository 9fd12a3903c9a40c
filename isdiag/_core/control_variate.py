"""The regression of w^gamma h on w^gamma."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag._core import chains, statuses, tails, units, weights
from isdiag._core.boundary import Rows, filled
from isdiag._core.intervals import interval
from isdiag._core.moments import log_mean_weight, power_sums
from isdiag._core.typing import Codes, Floats, Ints, Mask, Values
from isdiag.status import Status

# Draws times components worked on at a time: 4096 draws of 1000 components took two thirds of the time and a
# thirtieth of the memory that they take in one piece.
_PIECE = 2**17


class Expectation(NamedTuple):
    """E_mu[w^gamma] as ``mean * exp(top)``, and the share of the slope that is the best coefficient."""

    mean: Floats
    mean_less_one: Floats
    top: Floats
    share: Floats


class _Weights(NamedTuple):
    """Rows of w^gamma over the largest of the row, ``exp(top)``; deviations are 0 where the weight is."""

    values: Floats
    deviations: Floats
    positive: Mask
    flat: Mask
    n: Floats
    zeros: Floats
    mean: Floats
    mean_less_one: Floats
    squares: Floats
    top: Floats


def known(rows: Rows, gamma: Floats, expected_weight: Any) -> tuple[Expectation, Codes]:
    """E_mu[w^gamma] as the caller knows it; for gamma = 1 it is 1."""
    if expected_weight is None:
        other = gamma[gamma != 1]
        if other.size:
            msg = (
                "E_mu[w**gamma] is 1 only for gamma = 1: give expected_weight or second_log_w for "
                f"gamma = {other[0]:g}"
            )
            raise ValueError(msg)
        expected_weight = 1.0
    mean = rows.per_row("expected_weight", expected_weight, 0.0, "()", unknown=True)[:, None]
    presence = filled(len(rows), Status.OK, np.int8)
    return Expectation(mean, mean - 1.0, np.zeros_like(mean), np.ones_like(mean)), presence


def estimated(rows: Rows, gamma: Floats, second: Rows) -> tuple[Expectation, Codes]:
    """E_mu[w^gamma] from a second sample."""
    m = second.values.shape[1]
    with np.errstate(all="ignore"):
        largest = second.values.max(axis=1)
        relative_weights, top = weights.over_largest(second.values, gamma)
        relative = gamma[:, None] * (second.values - largest[:, None])
        less_one = np.where(relative_weights > 0.0, np.expm1(relative), -1.0)
    mean, mean_less_one = relative_weights.mean(axis=1, keepdims=True), less_one.mean(axis=1, keepdims=True)
    return Expectation(mean, mean_less_one, top, m / (rows.n[:, None] + m)), weights.presence(second)


def control_variate(
    rows: Rows,
    values: Values,
    gamma: Floats,
    lengths: Ints,
    expectation: Expectation,
    presence: Codes,
    workers: int,
) -> dict[str, Any]:
    """The fields of `ControlVariate`."""
    khat, status = tails.khat(rows, lengths, gamma, workers)
    given = units.standard(rows, values, gamma)
    equal = (status == Status.FLAT) | (rows.n == 1)
    with np.errstate(all="ignore"):  # weights and h may hold anything
        table = _estimates(rows, gamma, equal, given, expectation)
    # Of the codes that are about weights NO_WEIGHT and NOT_FINITE are the highest.
    presence = np.maximum(np.where(status <= Status.NOT_FINITE, status, Status.OK), presence)
    unknown = (presence >= Status.NO_WEIGHT) | np.isnan(gamma) | np.isnan(expectation.mean[:, 0])
    table[:, unknown] = np.nan
    estimate, plain, coefficient, std_error_plain = table[:4]
    error = chains.Error(table[4], table[5], table[6], rows.n)
    if rows.chain is not None:
        error, std_error_plain = error.along(table[8:]), std_error_plain / np.sqrt(table[7])
    khat[unknown] = np.nan
    log_mean, log_error, ess = log_mean_weight(rows, gamma, workers)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.log(expectation.mean[:, 0]) + expectation.top[:, 0]
    off = statuses.of_mean_weight(
        np.where(expectation.share[:, 0] == 1.0, log_mean - known, 0.0), log_error, ess
    )
    of_h = statuses.of_h(rows, values, gamma, plain, error.std_error)
    of_means = estimate, plain, coefficient, std_error_plain, *error[:3]
    statuses.erase(of_h == Status.NOT_FINITE_H, *of_means)
    uncertain = statuses.of_error(error.error_draws, of_h == Status.CONSTANT_H)
    low, high = interval(estimate, error, khat)
    return {
        "estimate": estimate,
        "std_error": error.std_error,
        "std_error_plain": std_error_plain,
        "plain": plain,
        "coefficient": coefficient,
        "khat": khat,
        "status": statuses.first_of(status, presence, off, of_h, uncertain),
        "low": low,
        "high": high,
        "error_draws": error.error_draws,
    }


def _weights(log_w: Floats, gamma: Floats, n: Ints, equal: Mask) -> _Weights:
    values, top = weights.over_largest(log_w, gamma)
    positive = values > 0
    # Draws without weight and entries left out look the same here: only n knows how many are draws.
    draws = np.maximum(n, 1.0)[:, None]
    zeros = draws - positive.sum(axis=1, keepdims=True)
    mean = values.sum(axis=1, keepdims=True) / draws
    # Less the largest weight first: no digit is lost where weights are nearly equal.
    less_one = np.where(positive, np.expm1(gamma[:, None] * (log_w - log_w.max(axis=1, keepdims=True))), -1.0)
    mean_less_one = (np.where(positive, less_one, 0.0).sum(axis=1, keepdims=True) - zeros) / draws
    deviations = np.where(positive, less_one - mean_less_one, 0.0)
    return _Weights(
        values=values,
        deviations=deviations,
        positive=positive,
        # Flat weights are equal up to rounding only, and a slope on rounding errors may be anything.
        flat=equal[:, None] & (zeros == 0),
        n=draws,
        zeros=zeros,
        mean=mean,
        mean_less_one=mean_less_one,
        squares=(deviations**2).sum(axis=1, keepdims=True) + zeros * mean**2,
        top=top,
    )


def _estimates(
    rows: Rows, gamma: Floats, equal: Mask, given: units.Standard, expectation: Expectation
) -> Floats:
    """Eleven numbers, each (rows, d).

    Estimate, plain estimate, coefficient, error of the plain one; error of the estimate, its skewness and the
    draws behind it. Then what chains make of these: relative efficiency of the plain estimate, and
    `chains.along_chains` of the other.
    """
    count, draws = rows.values.shape
    d = given.origin.shape[1]
    cube = given.values.reshape(count, draws, d)
    table = np.empty((11, count, d))
    height = max(1, _PIECE // draws)
    for start in range(0, count, height):
        some = slice(start, start + height)
        weights = _weights(rows.values[some], gamma[some], rows.n[some], equal[some])
        kept = None if rows.kept is None else rows.kept[some]
        width = max(1, _PIECE // weights.values.size)
        of_these = Expectation(*(a[some] for a in expectation))
        for first in range(0, d, width):
            columns = slice(first, first + width)
            h = cube[some, :, columns].transpose(0, 2, 1)
            of_h = given.origin[some, columns], given.exponent[some, columns]
            table[:, some, columns] = _regression(weights, h, *of_h, of_these, rows.chain, kept)
    return table


def _regression(
    w: _Weights,
    h: Floats,
    origin: Floats,
    exponent: Ints,
    expectation: Expectation,
    chain: int | None,
    kept: Mask | None,
) -> Floats:
    """What `_estimates` gives for h less its origin and over 2**exponent, (rows, columns, draws).

    The origin adds its multiple of w: to the estimate that of E_mu[w^gamma], to the slope itself.
    """
    positive, deviations = w.positive[:, None], w.deviations[:, None]
    own = units.times_power_of_two(origin, -exponent)
    y = np.multiply(w.values[:, None], h, out=np.zeros(h.shape), where=positive)
    average = y.sum(axis=2) / w.n
    np.subtract(y, average[:, :, None], out=y, where=positive)
    plain = average + own * w.mean
    whole = y + own[:, :, None] * deviations
    variance = ((whole * whole).sum(axis=2) + w.zeros * plain**2) / (w.n - 1)
    cross = (y * deviations).sum(axis=2) + w.zeros * average * w.mean
    slope = np.where(w.flat, 0.0, cross / w.squares)
    y -= slope[:, :, None] * deviations
    at_no_weight = average - slope * w.mean
    residuals = (y * y).sum(axis=2) + w.zeros * at_no_weight**2
    residual_variance: Floats = np.where(w.n > 2, residuals / (w.n - 2), np.nan)
    residual_variance = np.where(w.flat, variance, residual_variance)
    y = np.where(w.flat[:, :, None], whole, y)
    size = np.maximum(np.abs(y).max(axis=2), np.where(w.zeros > 0, np.abs(at_no_weight), 0.0))
    y /= np.where(size > 0.0, size, 1.0)[:, :, None]
    rest = np.where(size > 0.0, at_no_weight / size, 0.0)
    squares, cubes, fourths = power_sums(y)
    squares, cubes = squares + w.zeros * rest**2, cubes + w.zeros * rest**3
    fourths += w.zeros * rest**4
    whole_slope = np.where(w.flat, 0.0, slope + own)
    coefficient = expectation.share * whole_slope
    by_second = (1 - expectation.share) * whole_slope**2 * w.squares / np.maximum(w.n - 1, 1)
    near = units.times_power_of_two(coefficient, exponent)
    return np.stack(
        [
            _at_expectation(w, plain, coefficient, near, exponent, expectation),
            units.scaled(plain, w.top, exponent),
            near,
            units.scaled(np.sqrt(variance / w.n), w.top, exponent),
            units.scaled(np.sqrt((residual_variance + by_second) / w.n), w.top, exponent),
            np.where(fourths > 0.0, cubes / squares**1.5, 0.0),
            np.where(fourths > 0.0, squares**2 / fourths, 0.0),
            _along_chains(w, whole, -plain, chain, kept)[0],
            *_along_chains(w, y, rest, chain, kept),
        ]
    )


def _along_chains(
    w: _Weights, deviations: Floats, at_no_weight: Floats, chain: int | None, kept: Mask | None
) -> Floats:
    """`chains.along_chains` of deviations that are `at_no_weight` where there is no weight."""
    shape = at_no_weight.shape
    if chain is None:
        return np.ones((3, *shape))
    series = np.where(w.positive[:, None], deviations, at_no_weight[:, :, None])
    if kept is not None:
        series = np.where(kept[:, None], series, 0.0)
    return chains.along_chains(series.reshape(-1, series.shape[2]), chain).reshape(3, *shape)


def _at_expectation(
    w: _Weights, plain: Floats, coefficient: Floats, near: Floats, exponent: Ints, expectation: Expectation
) -> Floats:
    """The regression where w^gamma has its expectation.

    Where both means are of one size their difference is taken of what each is more than the largest weight:
    of nearly equal weights no digit of it is lost. Elsewhere either may be beyond float64.
    """
    rise = expectation.top - w.top
    difference = w.mean_less_one - expectation.mean_less_one * np.exp(rise) - np.expm1(rise)
    together = units.scaled(plain - coefficient * difference, w.top, exponent)
    at_zero = units.scaled(plain - coefficient * w.mean, w.top, exponent)
    apart = at_zero + units.scaled(near * expectation.mean, expectation.top)
    return np.where(np.abs(rise) < 1.0, together, apart)

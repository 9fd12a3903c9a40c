"""The regression of w^gamma h on w^gamma."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, statuses, tails, threads, units, weights
from isdiag._core.boundary import Rows, filled
from isdiag._core.intervals import interval
from isdiag._core.moments import log_mean_weight
from isdiag._core.typing import Codes, Floats, Ints, Mask, Records, Values
from isdiag._kernels.records import REGRESSION
from isdiag.status import Status


class Expectation(NamedTuple):
    """E_mu[w^gamma] as ``mean * exp(top)``, and the share of the slope that is the best coefficient."""

    mean: Floats
    mean_less_one: Floats
    top: Floats
    share: Floats


class _Fit(NamedTuple):
    """What `regression_rows` found, (rows, d) each, and the log of the largest weight of a row, (rows, 1)."""

    found: Records
    exponent: Ints  # of the units of h
    n: Floats
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
    equal = (status == Status.FLAT) | (rows.n == 1)
    with np.errstate(all="ignore"):  # weights and h may hold anything
        fit = _fit(rows, values, gamma, equal, workers)
        table = _estimates(fit, expectation)
    # Of the codes that are about weights NO_WEIGHT and NOT_FINITE are the highest.
    presence = np.maximum(np.where(status <= Status.NOT_FINITE, status, Status.OK), presence)
    unknown = (presence >= Status.NO_WEIGHT) | np.isnan(gamma) | np.isnan(expectation.mean[:, 0])
    table[:, unknown] = np.nan
    estimate, plain, coefficient, std_error_plain = table[:4]
    error = chains.Error(table[4], table[5], table[6], rows.n)
    if rows.chain is not None:
        with np.errstate(all="ignore"):
            worth, error_of = _along_chains(rows, values, gamma, fit)
            error, std_error_plain = error.along(error_of), std_error_plain / np.sqrt(worth)
    khat[unknown] = np.nan
    log_mean, log_error, ess = log_mean_weight(rows, gamma, workers)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.log(expectation.mean[:, 0]) + expectation.top[:, 0]
    off = statuses.of_mean_weight(
        np.where(expectation.share[:, 0] == 1.0, log_mean - known, 0.0), log_error, ess
    )
    of_h = fit.found["status"]
    # A mean of w h with a second sample varies where h does not.
    of_h = np.where((of_h == Status.CONSTANT_H) & (error.std_error > 0.0), Status.OK, of_h).astype(np.int8)
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


def _fit(rows: Rows, values: Values, gamma: Floats, equal: Mask, workers: int) -> _Fit:
    d = values.shape[1] // rows.values.shape[1]
    found = cast("Records", np.empty((d, len(rows)), REGRESSION))
    for column, of_column in zip(rows.components(values), found, strict=True):
        by_row = (rows.values, rows.n, gamma, equal, column, of_column)
        threads.spread(_kernels.regression_rows, by_row, (), workers)
    found = np.ascontiguousarray(found.T)
    exponent = 1 - np.frexp(found["scale"])[1].astype(np.int64)
    top = np.where(gamma == 0.0, 0.0, gamma * rows.values.max(axis=1))
    return _Fit(found, exponent, np.maximum(rows.n, 1.0)[:, None], top[:, None])


def _estimates(fit: _Fit, expectation: Expectation) -> Floats:
    """Seven numbers, each (rows, d).

    Estimate, plain estimate, coefficient, error of the plain one; error of the estimate, its skewness and the
    draws behind it. The centre of h adds its multiple of w: to the estimate that of E_mu[w^gamma], to the
    slope itself.
    """
    f, n, exponent, top = fit.found, fit.n, fit.exponent, fit.top
    plain = f["average"] + f["centre"] * f["mean"]
    slope = f["slope"] + f["centre"]
    coefficient = expectation.share * slope
    residual_variance = np.where(f["flat"], f["variance"], f["squares"] / np.where(n > 2, n - 2, np.nan))
    by_second = (1 - expectation.share) * slope**2 * f["spread"] / np.maximum(n - 1, 1)
    near = units.times_power_of_two(coefficient, exponent)
    return np.stack(
        [
            _at_expectation(fit, plain, coefficient, near, expectation),
            units.scaled(plain, top, exponent),
            near,
            units.scaled(np.sqrt(f["variance"] / n), top, exponent),
            units.scaled(np.sqrt((residual_variance + by_second) / n), top, exponent),
            f["skewness"],
            f["error_draws"],
        ]
    )


def _along_chains(rows: Rows, values: Values, gamma: Floats, fit: _Fit) -> tuple[Floats, Floats]:
    """Relative efficiency of the plain estimate, and `chains.along_chains` of the other."""
    relative, _ = weights.over_largest(rows.values, gamma)
    # Less the largest weight first: no digit is lost where weights are nearly equal.
    less_one = np.expm1(gamma[:, None] * (rows.values - rows.values.max(axis=1, keepdims=True)))
    less_one = np.where(relative > 0.0, less_one, -1.0)
    shape = fit.found.shape
    worth, error_of = np.empty(shape), np.empty((3, *shape))
    for j, column in enumerate(rows.components(values)):
        f = fit.found[:, j, None]
        deviations = less_one - f["less_one"]
        y = np.where(relative > 0.0, relative * (f["scale"] * column - f["centre"]), 0.0) - f["average"]
        of_plain, of_rest = y + f["centre"] * deviations, y - f["slope"] * deviations
        kept = True if rows.kept is None else rows.kept
        worth[:, j] = chains.along_chains(np.where(kept, of_plain, 0.0), rows.chain)[0]
        error_of[:, :, j] = chains.along_chains(np.where(kept, of_rest, 0.0), rows.chain)
    return worth, error_of


def _at_expectation(
    fit: _Fit, plain: Floats, coefficient: Floats, near: Floats, expectation: Expectation
) -> Floats:
    """The regression where w^gamma has its expectation.

    Where both means are of one size their difference is taken of what each is more than the largest weight:
    of nearly equal weights no digit of it is lost. Elsewhere either may be beyond float64.
    """
    f, share = fit.found, expectation.share
    mean, less_one = f["mean"], f["less_one"]
    rise = expectation.top - fit.top
    difference = less_one - expectation.mean_less_one * np.exp(rise) - np.expm1(rise)
    together = units.scaled(plain - coefficient * difference, fit.top, fit.exponent)
    # Without what the centre of h would add and take away.
    at_zero = f["average"] - share * f["slope"] * mean + (1.0 - share) * f["centre"] * mean
    at_zero = units.scaled(at_zero, fit.top, fit.exponent)
    apart = at_zero + units.scaled(near * expectation.mean, expectation.top)
    return np.where(np.abs(rise) < 1.0, together, apart)

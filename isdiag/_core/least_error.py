"""The estimate of least error, what error each gamma would have, and the gamma of least error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, statuses, tails, threads, units, weights
from isdiag._core.boundary import Rows
from isdiag._core.intervals import interval
from isdiag._core.moments import power_sums
from isdiag._core.typing import Codes, Floats, Ints, Values
from isdiag._kernels.records import BY_MAX, BY_MSE, BY_NONE, CONSTANT_H, NOT_FINITE_H

# The rule "mse" looks at gamma_max times these, all in one of its 13 passes over a row.
_EIGHTHS = np.arange(1, 9) / 8.0


class LeastError(NamedTuple):
    """Estimates of least error, (rows, d), and the influence of each draw on them, (rows, d, n)."""

    estimate: Floats
    bias: Floats
    error: chains.Error
    influence: Floats
    presence: Codes  # a status code for each row: OK, NO_WEIGHT or NOT_FINITE


def least_error(rows: Rows, values: Values, lengths: Ints, workers: int) -> LeastError:
    """Truncate, and shrink along the path of tempering (see `isdiag.select_gamma`, rule "mse")."""
    cap, presence = rows.floats(), rows.codes()
    by_row = (rows.values, rows.n, lengths, cap, presence)
    threads.spread(_kernels.cap_rows, by_row, (rows.eps,), workers)
    draws = rows.values.shape[1]
    shape = (len(rows), values.shape[1] // draws)
    found = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape), np.empty((*shape, draws))
    threads.spread(_kernels.least_error_rows, (rows.values, cap, values, *found), (), workers)
    estimate, std_error, bias, error_draws, influence = found
    squares, cubes, _ = power_sums(influence)
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = np.where(squares > 0.0, cubes / squares**1.5, 0.0)
        error = chains.Error(std_error, skewness, error_draws, rows.n)
        if rows.chain is not None:
            found = chains.along_chains(influence.reshape(-1, draws), rows.chain)
            error = error.along(found.reshape(3, *shape))
    statuses.erase(rows.n == 1, error.std_error, bias, error.error_draws)
    return LeastError(estimate, bias, error, influence, presence)


def _least_error_of(
    rows: Rows, values: Values, lengths: Ints, workers: int
) -> tuple[units.Standard, LeastError, Codes]:
    """h in units of its own, its estimates of least error in them, and the codes of `statuses.of_h`."""
    one = np.ones(len(rows))
    given = units.standard(rows, values, one)
    least = least_error(rows, given.values, lengths, workers)
    of_h = statuses.of_h(rows, values, one, least.estimate, least.error.std_error)
    statuses.erase(of_h == NOT_FINITE_H, least.estimate, least.bias, *least.error[:3])
    return given, least, of_h


def curve(rows: Rows, values: Values, least: LeastError, gammas: Floats, workers: int) -> dict[str, Floats]:
    """The error of the plain tempered estimate at each gamma, `least` for the truth: (rows, d, gammas)."""
    shape = (*least.estimate.shape, gammas.size)
    estimate, std_error, bias, covariance = (np.empty(shape) for _ in range(4))
    centre = np.where(np.isfinite(least.estimate), least.estimate, 0.0)
    by_row = (rows.values, values, centre, least.influence, estimate, std_error, bias, covariance)
    threads.spread(_kernels.curve_rows, by_row, (gammas,), workers)
    with np.errstate(invalid="ignore", over="ignore"):
        own_variance = (least.influence**2).sum(axis=-1)[..., None]
        difference = estimate - least.estimate[..., None]
        variance = np.maximum(std_error**2 + own_variance - 2.0 * covariance, 0.0)
        mse = np.maximum(difference**2 - variance, 0.0) + bias**2 + std_error**2
    return {
        "estimate": estimate,
        "std_error": std_error,
        "bias": bias,
        "tempering_bias": difference,
        "tempering_bias_std_error": np.sqrt(variance),
        "mse": mse,
    }


def mse_curve(rows: Rows, values: Values, lengths: Ints, gammas: Floats, workers: int) -> dict[str, Any]:
    """The fields of `MSECurve`, and the status of the weights."""
    given, least, of_h = _least_error_of(rows, values, lengths, workers)
    found = curve(rows, given.values, least, gammas, workers)
    statuses.erase(of_h == NOT_FINITE_H, *found.values())
    errors = ("std_error", "bias", "tempering_bias_std_error", "mse")
    statuses.erase(rows.n == 1, *(found[name] for name in errors))
    with np.errstate(over="ignore"):
        return {name: given.spread(part) for name, part in found.items()} | {
            "gamma": gammas,
            "estimate": given.place(found["estimate"]),
            "mse": given.spread(given.spread(found["mse"])),
            "reference": given.place(least.estimate),
            "reference_std_error": given.spread(least.error.std_error),
            "status": statuses.first_of(least.presence, of_h),
        }


def select_accurate(
    rows: Rows, values: Values, lengths: Ints, gamma_max: float, workers: int
) -> dict[str, Any]:
    """The fields of `AccurateSelection`."""
    gammas = gamma_max * _EIGHTHS
    given, least, of_h = _least_error_of(rows, values, lengths, workers)
    mse = curve(rows, given.values, least, gammas, workers)["mse"]
    # In the units of the row's largest component, which the others are added to.
    behind = given.exponent - given.exponent.max(axis=1, keepdims=True, initial=-2000)
    finite_h = of_h != NOT_FINITE_H
    with np.errstate(over="ignore"):
        if behind.any():
            mse = units.times_power_of_two(mse, 2 * behind[:, :, None])
        total = mse.sum(axis=1, where=finite_h[:, :, None])
    total[~np.isfinite(total)] = np.inf
    known = np.isfinite(total).any(axis=1) & finite_h.any(axis=1)
    # Of equals the largest: equal weights need no tempering.
    last = gammas.size - 1 - np.argmin(total[:, ::-1], axis=1)
    gamma = np.where(known, gammas[last], np.nan)
    limit = np.where(known, np.where(last == gammas.size - 1, BY_MAX, BY_MSE), BY_NONE)
    khat, status = tails.khat(rows, lengths, np.ones(len(rows)), workers)
    khat_tempered, _ = tails.khat(rows, lengths, gamma, workers)
    ess, _, _ = weights.ess_and_share(rows, gamma, workers)
    with np.errstate(over="ignore"):
        std_error, bias = given.spread(least.error.std_error), given.spread(least.bias)
        squared = std_error**2 + bias**2
    low, high = interval(least.estimate, least.error, khat)
    return {
        "gamma": gamma,
        "estimate": given.place(least.estimate),
        "std_error": std_error,
        "bias": bias,
        "mse": squared,
        "error_draws": least.error.error_draws,
        "khat": khat,
        "khat_tempered": khat_tempered,
        "ess": ess,
        "ess_ratio": ess / np.maximum(rows.n, 1),
        "n": rows.n,
        "limited_by": limit,
        "status": statuses.first_of(
            status,
            of_h,
            statuses.of_error(least.error.error_draws, of_h == CONSTANT_H),
        ),
        "low": given.place(low),
        "high": given.place(high),
    }

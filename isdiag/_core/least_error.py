"""The estimate of least error, what error each gamma would have, and the gamma of least error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, statuses, tails, threads, units
from isdiag._core.boundary import Rows, filled
from isdiag._core.intervals import interval
from isdiag._core.typing import Codes, Floats, Ints, Records, Values
from isdiag._kernels.records import (
    BY_MAX,
    BY_MSE,
    BY_NONE,
    CONSTANT_H,
    LEAST_ERROR,
    NOT_FINITE_H,
    ON_CURVE,
    TRUNCATED,
)

# The rule "mse" looks at gamma_max times these.
_EIGHTHS = np.arange(1, 9) / 8.0


class _LeastError(NamedTuple):
    """Estimates of least error, (rows, d), in units of h that are its own, and what is beside them."""

    given: units.Standard
    estimate: Floats
    bias: Floats
    error: chains.Error
    points: Records  # of `ON_CURVE`, (rows, d, gammas)
    truncated: Records  # of `TRUNCATED`, (rows,)
    of_h: Codes


def _least_error(rows: Rows, values: Values, lengths: Ints, gammas: Floats, workers: int) -> _LeastError:
    """Truncate, and shrink along the path of tempering (see `isdiag.select_gamma`, rule "mse")."""
    one = filled(len(rows), 1.0)
    given = units.in_units(rows, values, one)
    draws = rows.values.shape[1]
    shape = (len(rows), values.shape[1] // draws)
    truncated = np.empty(len(rows), TRUNCATED)
    found, points = np.empty(shape, LEAST_ERROR), np.empty((*shape, gammas.size), ON_CURVE)
    influence = np.empty((*shape, draws if rows.chain is not None else 0))
    h, origin = given.values, units.own_origin(given)
    by_row = (rows.values, rows.n, lengths, h, origin, truncated, found, points, influence)
    threads.spread(_kernels.least_error_rows, by_row, (gammas, rows.eps), workers)
    estimate, std_error, bias, skewness, error_draws = (
        found[name].copy() for name in LEAST_ERROR.names or ()
    )
    error = chains.Error(std_error, skewness, error_draws, rows.n)
    if rows.chain is not None:
        worth = chains.along_chains(influence.reshape(-1, draws), rows.chain)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = error.along(worth.reshape(3, *shape))
    of_h = statuses.of_h(rows, values, one, estimate, error.std_error)
    statuses.erase(of_h == NOT_FINITE_H, estimate, bias, *error[:3])
    statuses.erase(rows.n == 1, error.std_error, bias, error.error_draws)
    return _LeastError(given, estimate, bias, error, points, truncated, of_h)


def mse_curve(rows: Rows, values: Values, lengths: Ints, gammas: Floats, workers: int) -> dict[str, Any]:
    """The fields of `MSECurve`, and the status of the weights."""
    least = _least_error(rows, values, lengths, gammas, workers)
    found = {name: least.points[name].copy() for name in ON_CURVE.names or () if name != "ess"}
    statuses.erase(least.of_h == NOT_FINITE_H, *found.values())
    errors = ("std_error", "bias", "tempering_bias_std_error", "mse")
    statuses.erase(rows.n == 1, *(found[name] for name in errors))
    given = least.given
    with np.errstate(over="ignore"):
        return {name: given.spread(part) for name, part in found.items()} | {
            "gamma": gammas,
            "estimate": given.place(found["estimate"]),
            "mse": given.spread(given.spread(found["mse"])),
            "reference": given.place(least.estimate),
            "reference_std_error": given.spread(least.error.std_error),
            "status": statuses.first_of(least.truncated["presence"], least.of_h),
        }


def select_accurate(
    rows: Rows, values: Values, lengths: Ints, gamma_max: float, workers: int
) -> dict[str, Any]:
    """The fields of `AccurateSelection`."""
    gammas = gamma_max * _EIGHTHS
    least = _least_error(rows, values, lengths, gammas, workers)
    given, of_h, mse = least.given, least.of_h, least.points["mse"]
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
    khat_tempered, _ = tails.khat(rows, lengths, gamma, workers)
    ess = filled(len(rows), np.nan)
    ess[known] = least.points["ess"][known, 0, last[known]]
    khat, status = (np.ascontiguousarray(least.truncated[name]) for name in ("khat", "status"))
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

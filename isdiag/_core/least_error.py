"""The estimate of least error, what error each gamma would have, and the gamma of least error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core import tails, threads, weights
from isdiag._core.boundary import Rows
from isdiag._core.moments import error_status
from isdiag._core.typing import Codes, Floats, Ints, Values
from isdiag._kernels.records import BY_MAX, BY_MSE, BY_NONE

# The rule "mse" looks at gamma_max times these, all in one of its 13 passes over a row.
_EIGHTHS = np.arange(1, 9) / 8.0


class LeastError(NamedTuple):
    """Estimates of least error, (rows, d), and the influence of each draw on them, (rows, d, n)."""

    estimate: Floats
    std_error: Floats
    bias: Floats
    error_draws: Floats
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
    return LeastError(*found, presence)


def curve(rows: Rows, values: Values, least: LeastError, gammas: Floats) -> dict[str, Floats]:
    """The error of the plain tempered estimate at each gamma, `least` for the truth: (rows, d, gammas)."""
    shape = (*least.estimate.shape, gammas.size)
    estimate, std_error, bias, covariance = (np.empty(shape) for _ in range(4))
    centre = np.nan_to_num(least.estimate, posinf=0.0, neginf=0.0)
    by_row = (estimate, std_error, bias, covariance)
    _kernels.curve_rows(rows.values, gammas, values, centre, least.influence, *by_row)
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


def mse_curve(rows: Rows, values: Values, lengths: Ints, gammas: Floats) -> dict[str, Any]:
    """The fields of `MSECurve`, and the status of the weights."""
    least = least_error(rows, values, lengths, 1)
    return curve(rows, values, least, gammas) | {
        "gamma": gammas,
        "reference": least.estimate,
        "reference_std_error": least.std_error,
        "status": least.presence,
    }


def select_accurate(
    rows: Rows, values: Values, lengths: Ints, gamma_max: float, workers: int
) -> dict[str, Any]:
    """The fields of `AccurateSelection`."""
    gammas = gamma_max * _EIGHTHS
    least = least_error(rows, values, lengths, workers)
    total = curve(rows, values, least, gammas)["mse"].sum(axis=1)
    known = np.isfinite(total).all(axis=1)
    # Of equals the largest: equal weights need no tempering.
    last = gammas.size - 1 - np.argmin(total[:, ::-1], axis=1)
    gamma = np.where(known, gammas[last], np.nan)
    limit = np.where(known, np.where(last == gammas.size - 1, BY_MAX, BY_MSE), BY_NONE)
    khat, status = tails.khat(rows, lengths, np.ones(len(rows)))
    khat_tempered, _ = tails.khat(rows, lengths, gamma)
    ess, _ = weights.ess(rows, gamma)
    return {
        "gamma": gamma,
        "estimate": least.estimate,
        "std_error": least.std_error,
        "bias": least.bias,
        "mse": least.std_error**2 + least.bias**2,
        "error_draws": least.error_draws,
        "khat": khat,
        "khat_tempered": khat_tempered,
        "ess": ess,
        "ess_ratio": ess / np.maximum(rows.n, 1),
        "n": rows.n,
        "limited_by": limit,
        "status": error_status(status, least.estimate, least.std_error, least.error_draws),
    }

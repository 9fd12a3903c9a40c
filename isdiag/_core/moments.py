"""Weighted means with their errors, and what is known of those errors."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import parts, statuses, tails, units, weights
from isdiag._core.boundary import Rows, read_only
from isdiag._core.typing import Codes, Floats, Ints, Records, Smoothing, Values
from isdiag._kernels.records import CONSTANT_H, NOT_FINITE_H, OK, SUMMED

LEVEL = 0.95

_LARGE, _LARGEST = 1e300, float(np.finfo(np.float64).max)


class Moments(NamedTuple):
    """What a pass over weights and h gives: (rows, d), then a number for each row."""

    estimate: Floats
    std_error: Floats
    bias: Floats
    error_draws: Floats
    status_h: Codes  # OK, CONSTANT_H or NOT_FINITE_H where there are weights
    ess: Floats
    log_total: Floats
    variance: Floats  # of the mean of the positive weights, over the square of that mean
    n_finite: Ints
    presence: Codes


def moments_of(log_weights: Floats, gamma: Floats, h: Values, workers: int = 1) -> Moments:
    """Moments of `Rows.trailing` values under w^gamma."""
    rows, draws = log_weights.shape
    shape = (rows, h.shape[1] // draws)
    numbers = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape, np.int8)
    summed = cast("Records", np.empty(rows, SUMMED))
    parts.over_rows(_kernels.moment_rows, (log_weights, gamma, h, *numbers, summed), (), workers)
    of_row = ("ess", "log_total", "variance", "n_finite", "status")
    return Moments(*numbers, *(summed[name] for name in of_row))


def mean(rows: Rows, values: Values) -> Floats:
    """Mean of `Rows.trailing` values over the draws that count: (rows, d)."""
    count, draws = rows.values.shape
    cube = values.reshape(count, draws, values.shape[1] // draws)
    kept = True if rows.kept is None else rows.kept[:, :, None]
    with np.errstate(all="ignore"):  # h may hold anything
        total = np.add.reduce(cube, axis=1, where=kept, dtype=np.float64)
    return total / np.maximum(rows.n, 1)[:, None]


def square_sums(f: Floats) -> tuple[Floats, Floats]:
    """Sums of f^2 and of f^4 over the last axis: (sum f^2)^2 / sum f^4 draws carry a variance of f."""
    squares = f * f
    return squares.sum(axis=-1), (squares * squares).sum(axis=-1)  # f**4 takes many times as long


def mean_variance(ess: Any, n: Any) -> Any:
    """Variance of the mean of n weights of that ESS, over the square of the mean."""
    return 1.0 / ess - 1.0 / n


def log_mean(moments: Moments, n: Ints) -> tuple[Floats, Floats]:
    """Log of the mean of n weights, and its delta-method standard error."""
    variance = moments.variance + (n - moments.n_finite) / (moments.n_finite * n.astype(np.float64))
    return moments.log_total - np.log(n), np.sqrt(variance)


def log_mean_weight(rows: Rows, gamma: Floats, workers: int = 1) -> tuple[Floats, Floats, Floats]:
    """Log of the mean of w^gamma, its standard error (of one draw unknown but at gamma = 0), and the ESS."""
    moments = moments_of(rows.values, gamma, rows.values, workers)  # h is not looked at here
    with np.errstate(invalid="ignore", divide="ignore"):
        value, std_error = log_mean(moments, rows.n)
    statuses.erase((rows.n == 1) & (gamma > 0.0), std_error)
    return value, std_error, moments.ess


def half_width(std_error: Floats, error_draws: Floats, n: Ints, level: float) -> Floats:
    """Half the width of a t interval.

    Of n draws n_e = (sum f^2)^2 / sum f^4 carry a variance; it varies as one of 2 / (1 / n_e - 1 / n) degrees
    of freedom (Satterthwaite 1946), of n - 1 for a normal f, and no more are claimed: n_e is itself seen.
    Divides by 0 where no draw carries an error, or there is one.
    """
    from scipy.special import stdtrit  # noqa: PLC0415 -- scipy is not imported before it is used

    draws = n[:, None]
    variance = np.maximum(1.0 / error_draws - 1.0 / draws, 2.0 / (draws - 1))
    return std_error * stdtrit(np.maximum(2.0 / variance, 1.0), 0.5 + 0.5 * level)


def estimates(
    rows: Rows,
    h: Values,
    gamma: Floats,
    lengths: Ints,
    *,
    smooth: Smoothing = False,
    normalize: bool = True,
    workers: int = 1,
) -> dict[str, Any]:
    """The fields of `SNIS`."""
    log_weights, used, origin, khat, status = _weights_to_use(rows, gamma, lengths, smooth, workers)
    moments = moments_of(log_weights, used, h, workers)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        log_z, log_z_std_error = log_mean(moments, rows.n)
        log_z = log_z + origin
        if not normalize:
            moments = _not_normalized(rows, log_weights, used, origin, h, moments)
            mean_weight = statuses.of_mean_weight(log_z, log_z_std_error, moments.ess)
            status = statuses.first_of(status, np.where(gamma == 1.0, mean_weight, OK))
        statuses.erase(rows.n == 1, moments.std_error, moments.bias, moments.error_draws, log_z_std_error)
        estimate, std_error, error_draws = moments.estimate, moments.std_error, moments.error_draws
        half = half_width(std_error, error_draws, rows.n, LEVEL)
        low, high = estimate - half, estimate + half
    uncertain = statuses.of_error(error_draws, moments.status_h == CONSTANT_H)
    return {
        "estimate": estimate,
        "std_error": std_error,
        "bias": moments.bias,
        "ess": moments.ess,
        "khat": khat,
        "status": statuses.first_of(status, moments.status_h, uncertain),
        "low": low,
        "high": high,
        "log_z": log_z,
        "log_z_std_error": log_z_std_error,
        "error_draws": error_draws[:, 0] if error_draws.shape[1] else np.full(len(rows), np.nan),
    }


def _weights_to_use(
    rows: Rows, gamma: Floats, lengths: Ints, smooth: Smoothing, workers: int
) -> tuple[Floats, Floats, Floats, Floats, Codes]:
    """(log-weights less an origin, exponent still to be applied, the origin, raw khat, status code)."""
    origin = np.zeros(len(rows))
    if not smooth:
        return rows.values, gamma, origin, *tails.khat(rows, lengths, gamma, workers)
    with np.errstate(invalid="ignore", over="ignore"):
        high = rows.values.max(axis=1)
        beyond = np.isfinite(high) & (np.abs(gamma * high) > _LARGE)
        if beyond.any():
            # log w^gamma is beyond float64; its differences need not be.
            origin = np.where(beyond, gamma * high, 0.0)
            relative = np.maximum(rows.values - high[:, None], -_LARGEST)
            rows = rows.holding(np.where(beyond[:, None] & (rows.values > -np.inf), relative, rows.values))
    applied = np.ones(len(rows))
    if smooth != "truncate":
        log_weights = rows.target()
        found = tails.smooth(rows, lengths, gamma, False, workers, log_weights)
        return read_only(log_weights), applied, origin, found["khat"], found["status"]
    khat, status = tails.khat(rows, lengths, gamma, workers)
    return read_only(weights.truncated(rows, gamma, workers)), applied, origin, khat, status


def _not_normalized(
    rows: Rows, log_weights: Floats, gamma: Floats, log_origin: Floats, h: Values, moments: Moments
) -> Moments:
    """The moments with mean(w h) and its error in place of the self-normalised ones."""
    count, draws = log_weights.shape
    given = units.standard(rows, h, gamma)
    cube = given.values.reshape(count, draws, -1) if h.size else given.values.reshape(count, draws, 0)
    estimate, std_error, error_draws = (np.empty_like(moments.estimate) for _ in range(3))
    n = rows.n.astype(np.float64)
    with np.errstate(all="ignore"):  # rows without weight, h of any kind
        relative, own_top = weights.over_largest(log_weights, gamma)
        top = own_top[:, 0] + log_origin
        relative[np.isnan(moments.ess)] = np.nan
        positive = log_weights > -np.inf
        zeros = n - positive.sum(axis=1)
        mean_weight = relative.sum(axis=1) / n
        for j in range(cube.shape[2]):
            exponent = given.exponent[:, j]
            origin = units.times_power_of_two(given.origin[:, j], -exponent)
            product = np.where(relative == 0.0, 0.0, relative * cube[:, :, j])
            average = product.sum(axis=1) / n + origin * mean_weight
            # w h less its mean, without the digits that a far origin would cost.
            off = (
                product
                - (product.sum(axis=1) / n)[:, None]
                + origin[:, None] * (relative - mean_weight[:, None])
            )
            off = np.where(positive, off, 0.0)
            squares, fourths = square_sums(off)
            squares, fourths = squares + zeros * average**2, fourths + zeros * average**4
            estimate[:, j] = units.scaled(average, top, exponent)
            std_error[:, j] = units.scaled(np.sqrt(squares / (n - 1.0) / n), top, exponent)
            error_draws[:, j] = np.where(fourths == 0.0, 0.0, squares**2 / fourths)
    if cube.shape[2] > 1:
        error_draws = moments.error_draws
    statuses.erase(moments.status_h == NOT_FINITE_H, estimate, std_error)
    # What a mean is of is w h, which varies with the weights.
    of_h = np.where((moments.status_h == CONSTANT_H) & (std_error > 0.0), OK, moments.status_h)
    return moments._replace(
        estimate=estimate,
        std_error=std_error,
        bias=0.0 * moments.bias,
        error_draws=error_draws,
        status_h=of_h,
    )


def kong_owen_bias(rows: Rows, h: Values, gamma: Floats, *, of_proposal: bool) -> tuple[Floats, Codes]:
    """Bias of self-normalising, by the covariance of w and h under the target or the proposal."""
    if of_proposal:
        given = units.standard(rows, h, gamma)
        moments = moments_of(rows.values, gamma, given.values)
        with np.errstate(all="ignore"):  # h may hold anything
            shift = mean(rows, given.values) - moments.estimate
            bias = given.spread(shift / np.maximum(rows.n, 1)[:, None])
    else:
        moments = moments_of(rows.values, gamma, h)
        bias = moments.bias
    statuses.erase(rows.n == 1, bias)
    return bias, statuses.first_of(moments.presence, moments.status_h)

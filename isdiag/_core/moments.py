"""Weighted means with their errors, and what is known of those errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, intervals, parts, statuses, tails, units, weights
from isdiag._core.boundary import INT8, Rows, read_only, records
from isdiag._core.typing import Codes, Floats, Ints, Records, Smoothing, Values
from isdiag._kernels.records import (
    CONSTANT_H,
    DEGENERATE_TAIL,
    ESTIMATED,
    NOT_FINITE_H,
    OK,
    POOR_TAIL_FIT,
    SUMMED,
    TAIL_TOO_SHORT,
    WEIGHED,
)

# Of tails that no law was fitted to, or one that they do not look like.
_UNFIT = TAIL_TOO_SHORT, DEGENERATE_TAIL, POOR_TAIL_FIT
_LARGE, _LARGEST = 1e300, float(np.finfo(np.float64).max)


class Moments(NamedTuple):
    """What a pass over weights and h gives, (rows, d), and what it gives of the weights."""

    estimate: Floats
    std_error: Floats
    bias: Floats
    skewness: Floats  # of the estimate; 0, for nothing known, of a component of several
    error_draws: Floats
    status_h: Codes  # OK, CONSTANT_H or NOT_FINITE_H where there are weights
    summed: Records  # a `SUMMED` for each row

    @property
    def ess(self) -> Floats:
        """Of each row."""
        return self.summed["ess"]


def no_moments(count: int, d: int) -> Moments:
    """Uninitialised ones, of d components for each row."""
    estimate, std_error, bias, skewness, error_draws = np.empty((5, count, d))
    of_h, summed = np.empty((count, d), INT8), records(count, SUMMED)
    return Moments(estimate, std_error, bias, skewness, error_draws, of_h, summed)


def moments_of(log_weights: Floats, gamma: Floats, h: Values, workers: int = 1) -> Moments:
    """Moments of `Rows.trailing` values under w^gamma."""
    rows, draws = log_weights.shape
    found = no_moments(rows, h.shape[1] // draws)
    parts.over_rows(_kernels.moment_rows, (log_weights, gamma, h, *found), (), workers)
    return found


def mean(rows: Rows, values: Values) -> Floats:
    """Mean of `Rows.trailing` values over the draws that count: (rows, d)."""
    count, draws = rows.values.shape
    cube = units.cube_of(values, count, draws)
    kept = True if rows.kept is None else rows.kept[:, :, None]
    with np.errstate(all="ignore"):  # h may hold anything
        total = np.add.reduce(cube, axis=1, where=kept, dtype=np.float64)
    return total / np.maximum(rows.n, 1)[:, None]


def power_sums(f: Floats, unit: Floats | None = None) -> tuple[Floats, Floats, Floats]:
    """Sums of f^2, f^3 and f^4 over the last axis: (sum f^2)^2 / sum f^4 draws carry a variance of f."""
    of_rows = np.ones(f.shape[:-1]) if unit is None else unit
    sums = np.empty((*f.shape[:-1], 3))
    _kernels.power_sum_rows(f.reshape(-1, f.shape[-1]), of_rows.reshape(-1), sums.reshape(-1, 3))
    return sums[..., 0], sums[..., 1], sums[..., 2]


def mean_variance(ess: Any, n: Any) -> Any:
    """Variance of the mean of n weights of that ESS, over the square of the mean."""
    return 1.0 / ess - 1.0 / n


def log_mean(moments: Moments, n: Ints) -> tuple[Floats, Floats]:
    """Log of the mean of n weights, and its delta-method standard error."""
    return _log_mean(moments.summed, n)


def _log_mean(summed: Records, n: Ints) -> tuple[Floats, Floats]:
    value, std_error = np.empty(n.size), np.empty(n.size)
    # One compilation: the fields of one record are contiguous, those of several are not.
    of_rows = (summed["log_total"], summed["variance"], summed["n_finite"], n)
    _kernels.log_mean_rows(*map(np.ascontiguousarray, of_rows), value, std_error)
    return value, std_error


def log_mean_weight(rows: Rows, gamma: Floats, workers: int = 1) -> tuple[Floats, Floats, Floats]:
    """Log of the mean of w^gamma, its standard error (of one draw unknown but at gamma = 0), and the ESS."""
    summed = records(len(rows), SUMMED)
    parts.over_rows(_kernels.weight_rows, (rows.values, gamma, summed), (), workers)
    value, std_error = _log_mean(summed, rows.n)
    if rows.chain is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            std_error = std_error / np.sqrt(weights.relative_efficiency(rows, rows.values, gamma))
    statuses.erase((rows.n == 1) & (gamma > 0.0), std_error)
    return value, std_error, summed["ess"].copy()


def estimates(
    rows: Rows,
    h: Values,
    gamma: Floats,
    lengths: Ints,
    *,
    smooth: Smoothing = False,
    normalize: bool = True,
    workers: int = 1,
) -> tuple[Records, Records]:
    """What `SNIS` is made of: records of `ESTIMATED`, (rows, d), and of `WEIGHED`, (rows,)."""
    if not smooth and normalize and rows.chain is None:
        of_h, of_weights = _no_records(len(rows), h.shape[1] // rows.values.shape[1])
        by_row = (rows.values, rows.n, lengths, gamma, h, of_h, of_weights)
        shared = (intervals.series_of_student(intervals.LEVEL), statuses.RANKS, rows.eps)
        parts.over_rows(_kernels.snis_rows, by_row, shared, workers)
        return of_h, of_weights
    log_weights, used, origin, khat, status = weights_to_use(rows, gamma, lengths, smooth, workers)
    moments = moments_of(log_weights, used, h, workers)
    worth = rows.same(1.0)
    if rows.chain is not None:
        worth = weights.relative_efficiency(rows, log_weights, used)
    if not normalize:
        log_z, log_z_std_error = log_mean(moments, rows.n)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_weight = statuses.of_mean_weight(
                log_z + origin, log_z_std_error / np.sqrt(worth), moments.ess
            )
        status = statuses.first_of(status, np.where(gamma == 1.0, mean_weight, OK))
        moments = _not_normalized(rows, log_weights, used, origin, h, moments)
    error = chains.Error(moments.std_error, moments.skewness, moments.error_draws, rows.n)
    if rows.chain is not None:
        with np.errstate(all="ignore"):  # rows without weight
            error = error.along(influence_along(rows, log_weights, used, h, normalize=normalize))
    return records_of(moments, error, rows.n, (origin, worth, khat, status), normalized=normalize)


def _no_records(count: int, d: int) -> tuple[Records, Records]:
    """Those that a kernel is to fill in, as of `estimates`."""
    return records((count, d), ESTIMATED), records(count, WEIGHED)


def records_of(
    moments: Moments,
    error: chains.Error,
    n: Ints,
    of_rows: tuple[Floats, Floats, Floats, Codes],
    *,
    normalized: bool = True,
) -> tuple[Records, Records]:
    """As `estimates`; of rows an origin, the efficiency of the weights, khat and the tail's status."""
    of_h, of_weights = _no_records(*moments.estimate.shape)
    _kernels.estimate_rows(
        moments.estimate,
        error.std_error,
        moments.bias,
        error.skewness,
        error.error_draws,
        moments.status_h,
        moments.summed,
        n,
        intervals.in_columns(error.n),
        *of_rows,
        intervals.series_of_student(intervals.LEVEL),
        statuses.RANKS,
        normalized,
        of_h,
        of_weights,
    )
    return of_h, of_weights


def influence_along(
    rows: Rows, log_weights: Floats, gamma: Floats, h: Values, *, normalize: bool = True
) -> Floats:
    """`chains.along_chains` of the influence of each draw on each estimate: (3, rows, d)."""
    count, draws = log_weights.shape
    given = units.standard(rows, h, gamma)
    cube = units.cube_of(given.values, count, draws)
    found = np.empty((3, count, cube.shape[2]))
    with np.errstate(all="ignore"):  # rows without weight, h of any kind
        relative, _ = weights.over_largest(log_weights, gamma)
        for j in range(cube.shape[2]):
            product = np.where(relative == 0.0, 0.0, relative * cube[:, :, j])
            # About the mean of h under the weights, or about that at the origin of h, which adds w.
            shift = -product.sum(axis=1) / relative.sum(axis=1)
            if not normalize:
                shift = units.times_power_of_two(given.origin[:, j], -given.exponent[:, j])
            series = chains.centred(rows, product + shift[:, None] * relative)
            found[:, :, j] = chains.along_chains(series, rows.chain)
    return found


def weights_to_use(
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
    applied = rows.same(1.0)
    if smooth == "truncate":
        khat, status = tails.khat(rows, lengths, gamma, workers)
        return read_only(weights.truncate(rows, gamma, False, workers)[0]), applied, origin, khat, status
    log_weights = rows.target()
    found = tails.smooth(rows, lengths, gamma, False, workers, log_weights)
    if smooth == "auto":
        unfit = np.isin(found["status"], _UNFIT)
        if unfit.any():
            log_weights[unfit] = weights.truncate(rows, gamma, False, workers)[0][unfit]
    khat, status = np.ascontiguousarray(found["khat"]), np.ascontiguousarray(found["status"])
    return read_only(log_weights), applied, origin, khat, status


def _not_normalized(
    rows: Rows, log_weights: Floats, gamma: Floats, log_origin: Floats, h: Values, moments: Moments
) -> Moments:
    """The moments with mean(w h) and its error in place of the self-normalised ones."""
    count, draws = log_weights.shape
    given = units.standard(rows, h, gamma)
    cube = units.cube_of(given.values, count, draws)
    estimate, std_error, skewness, error_draws = (np.empty_like(moments.estimate) for _ in range(4))
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
            squares, cubes, fourths = power_sums(off)
            squares, cubes = squares + zeros * average**2, cubes - zeros * average**3
            fourths += zeros * average**4
            estimate[:, j] = units.scaled(average, top, exponent)
            std_error[:, j] = units.scaled(np.sqrt(squares / (n - 1.0) / n), top, exponent)
            skewness[:, j] = np.where(fourths == 0.0, 0.0, cubes / squares**1.5)
            error_draws[:, j] = np.where(fourths == 0.0, 0.0, squares**2 / fourths)
    if cube.shape[2] > 1:
        skewness, error_draws = moments.skewness, moments.error_draws
    statuses.erase(moments.status_h == NOT_FINITE_H, estimate, std_error)
    # What a mean is of is w h, which varies with the weights.
    of_h = np.where((moments.status_h == CONSTANT_H) & (std_error > 0.0), OK, moments.status_h)
    return moments._replace(
        estimate=estimate,
        std_error=std_error,
        bias=0.0 * moments.bias,
        skewness=skewness,
        error_draws=error_draws,
        status_h=of_h,
    )


def kong_owen_bias(rows: Rows, h: Values, gamma: Floats, *, of_proposal: bool) -> tuple[Floats, Codes]:
    """Bias of self-normalising, by the covariance of w and h under the target or the proposal."""
    if of_proposal:
        given = units.standard(rows, h, gamma)
        values = given.values
        moments = moments_of(rows.values, gamma, values)
        with np.errstate(all="ignore"):  # h may hold anything
            shift = mean(rows, values) - moments.estimate
            bias = given.spread(shift / np.maximum(rows.n, 1)[:, None])
    else:
        moments = moments_of(rows.values, gamma, h)
        bias = moments.bias
    statuses.erase(rows.n == 1, bias)
    return bias, statuses.first_of(moments.summed["status"], moments.status_h)

"""The tails and the effective draws of w |h - estimate|, which is what an error is made of; intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from isdiag._core import chains, intervals, statuses, tails, units, weights
from isdiag._core.bands import FINITE_VARIANCE
from isdiag._core.boundary import EPS_FLOAT64, Rows, read_only, real_array
from isdiag._core.moments import Moments, influence_along, log_mean, moments_of, power_sums
from isdiag._core.typing import Codes, Floats, IntervalMethod, Ints, Values
from isdiag._kernels.records import OK
from isdiag.status import Status

_SAME_LEVEL = 1e-9  # of log |w (h - estimate)|


class Components(NamedTuple):
    """What is known of each component of h."""

    fields: dict[str, Floats]  # each (rows, d)
    khat_weights: Floats
    status: Codes  # (rows, d)
    moments: Moments


def components(rows: Rows, values: Values, gamma: Floats, lengths: Ints, workers: int) -> Components:
    """Khat of both tails of w^gamma (h - estimate), and how many draws it and its square rest on."""
    count, draws = rows.values.shape
    khat_weights, of_weights = tails.khat(rows, lengths, gamma, workers)
    given = units.standard(rows, values, gamma)
    moments = moments_of(rows.values, gamma, given.values, workers)
    d = moments.estimate.shape[1]
    cube = given.values.reshape(count, draws, d)
    positive = weights.looked_at(rows.values, gamma)
    fields = {key: np.empty((count, d)) for key in ("khat", "khat_right", "khat_left", "ess", "error_draws")}
    of_h = moments.status_h.copy()
    one = np.ones(count)
    tempered, _ = weights.temper(rows, gamma, False, workers)
    with np.errstate(all="ignore"):  # rows without weight, h of any kind
        for j in range(d):
            h = np.where(positive, cube[:, :, j], np.nan)
            off = h - moments.estimate[:, j, None]
            log_f = np.where(positive & (off != 0.0), tempered + np.log(np.abs(off)), -np.inf)
            sizes = np.exp(log_f - log_f.max(axis=1, keepdims=True))
            squares, _, fourths = power_sums(sizes)
            fields["ess"][:, j] = sizes.sum(axis=1) ** 2 / squares
            fields["error_draws"][:, j] = squares**2 / fourths
            low, high = np.fmin.reduce(h, axis=1), np.fmax.reduce(h, axis=1)
            two_valued = ((h == low[:, None]) | (h == high[:, None]) | ~positive).all(axis=1)
            unknown = ~np.isfinite(moments.estimate[:, j])
            for key, on_side in (("khat_right", off > 0.0), ("khat_left", off < 0.0)):
                side = np.where(on_side, log_f, -np.inf)
                of_side = replace(rows, values=read_only(side), eps=EPS_FLOAT64)
                khat, _ = tails.khat(of_side, lengths, one, workers)
                # Ties at the top are levels of a bounded h: that is no tail, and not a bad one.
                tied = (side >= side.max(axis=1, keepdims=True) - _SAME_LEVEL).sum(axis=1) > 1
                khat = np.where(two_valued | (tied & np.isinf(khat)), np.nan, khat)
                fields[key][:, j] = khat
                matters = (np.where(on_side, sizes, 0.0) ** 2).sum(axis=1) > 0.5 * squares
                unknown |= np.isnan(khat) & ~tied & ~two_valued & matters
            known = np.fmax(khat_weights, np.fmax(fields["khat_right"][:, j], fields["khat_left"][:, j]))
            fields["khat"][:, j] = np.where(unknown, np.nan, known)
            of_h[:, j] = np.where((of_h[:, j] == OK) & two_valued, Status.TWO_VALUED_H, of_h[:, j])
    statuses.erase(rows.n == 1, fields["ess"], fields["error_draws"], moments.std_error, moments.bias)
    uncertain = statuses.of_error(fields["error_draws"], of_h == Status.CONSTANT_H)
    status = statuses.first_of(of_weights, of_h, uncertain)
    moments = moments._replace(
        estimate=given.place(moments.estimate),
        std_error=given.spread(moments.std_error),
        bias=given.spread(moments.bias),
    )
    return Components(fields, khat_weights, status, moments)


def draws_needed(
    rows: Rows, values: Values, gamma: Floats, lengths: Ints, half_width_wanted: float, workers: int
) -> tuple[Floats, Codes]:
    """How many draws a t interval of that half width needs, (rows, d).

    The error falls as n^-(1 - k), k being khat of w (h - estimate) but 1/2 at least, as that of means of a
    law with that tail. Student's quantile stays that of the draws at hand, as their error is known no better.
    """
    found = components(rows, values, gamma, lengths, workers)
    khat, moments = np.maximum(found.fields["khat"], FINITE_VARIANCE), found.moments
    n = rows.n[:, None].astype(np.float64)
    error = chains.Error(moments.std_error, moments.skewness, found.fields["error_draws"], rows.n)
    if rows.chain is not None:
        error = error.along(influence_along(rows, rows.values, gamma, values))
    with np.errstate(all="ignore"):
        freedom = intervals.freedom(error.error_draws, error.n)
        now = error.std_error * intervals.quantile(freedom, intervals.LEVEL)
        needed = n * (now / half_width_wanted) ** (1.0 / (1.0 - khat))
    nothing_known = np.isnan(khat) | np.isnan(now) | (found.status == Status.CONSTANT_H)
    nothing_known |= (rows.n == 1)[:, None]
    needed = np.where(nothing_known, np.nan, needed)
    hopeless = np.fmax(khat, found.khat_weights[:, None]) >= 1.0  # whatever is unknown of h
    return np.where(hopeless & (rows.n > 1)[:, None], np.inf, needed), found.status


def bounds_of(bounds: Any) -> tuple[float, float]:
    """Two numbers between which h lies, the smaller first."""
    array = real_array(bounds, "bounds")[0].astype(np.float64)
    if array.shape != (2,) or not (np.isfinite(array).all() and array[0] < array[1]):
        msg = f"bounds must be two finite numbers, the smaller first, got {bounds!r}"
        raise ValueError(msg)
    return float(array[0]), float(array[1])


def interval(
    rows: Rows,
    values: Values,
    gamma: Floats,
    lengths: Ints,
    *,
    level: float,
    method: IntervalMethod,
    bounds: tuple[float, float] | None,
    workers: int,
) -> dict[str, Any]:
    """The fields of `ConfidenceInterval`."""
    khat, of_weights = tails.khat(rows, lengths, gamma, workers)
    moments = _moments_of_each(rows, values, gamma, workers)
    estimate = moments.estimate
    error = chains.Error(moments.std_error, moments.skewness, moments.error_draws, rows.n)
    with np.errstate(invalid="ignore", divide="ignore"):  # rows without weight
        _, mean_error = log_mean(moments, rows.n)
    if rows.chain is not None:
        mean_error = mean_error / np.sqrt(weights.relative_efficiency(rows, rows.values, gamma))
        error = error.along(influence_along(rows, rows.values, gamma, values))
    statuses.erase(rows.n == 1, error.std_error, error.error_draws)
    if method == "bounded" and bounds is not None:
        half = (bounds[1] - bounds[0]) / np.sqrt(moments.ess[:, None] * (1.0 - level))
        half = np.where(np.isnan(error.std_error), np.nan, half)
        low, high = estimate - half, estimate + half
    elif method == "delta":
        low, high = intervals.student(estimate, error, level)
    else:
        low, high = intervals.interval(estimate, error, khat, mean_error, level)
    if bounds is not None:
        _check_within(rows, values, gamma, bounds)
        low, high = np.maximum(low, bounds[0]), np.minimum(high, bounds[1])
    uncertain = statuses.of_error(error.error_draws, moments.status_h == Status.CONSTANT_H)
    return {
        "low": low,
        "high": high,
        "estimate": estimate,
        "level": level,
        "method": method,
        "khat": khat,
        "error_draws": error.error_draws,
        "status": statuses.first_of(of_weights, moments.status_h, uncertain),
    }


def _moments_of_each(rows: Rows, values: Values, gamma: Floats, workers: int) -> Moments:
    """Moments of each component of h by itself, with the skewness and the draws of its own error."""
    count, draws = rows.values.shape
    d = values.shape[1] // draws
    if d == 1:
        return moments_of(rows.values, gamma, values, workers)
    cube = values.reshape(count, draws, d)
    columns = [np.ascontiguousarray(cube[:, :, j]) for j in range(d)]
    alone = [moments_of(rows.values, gamma, read_only(column), workers) for column in columns]
    if not alone:
        return moments_of(rows.values, gamma, values, workers)
    wide = {
        name: np.concatenate([getattr(each, name) for each in alone], axis=1)
        for name in ("estimate", "std_error", "bias", "skewness", "error_draws", "status_h")
    }
    return alone[0]._replace(**wide)


def _check_within(rows: Rows, values: Values, gamma: Floats, limits: tuple[float, float]) -> None:
    count, draws = rows.values.shape
    cube = values.reshape(count, draws, -1)
    out = ((cube < limits[0]) | (cube > limits[1])) & weights.looked_at(rows.values, gamma)[:, :, None]
    out &= np.isfinite(cube)  # what is not has a status
    if out.any():
        msg = f"h must lie within bounds {limits}, got {cube[out].flat[0]:g}"
        raise ValueError(msg)

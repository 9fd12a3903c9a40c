"""The tails and the effective draws of w |h - estimate|, which is what an error is made of; intervals."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, intervals, statuses, tails, threads, weights
from isdiag._core.bands import FINITE_VARIANCE
from isdiag._core.boundary import EPS_FLOAT64, Rows, real_array
from isdiag._core.moments import Moments, influence_along, log_mean, moments_of
from isdiag._core.typing import Codes, Floats, IntervalMethod, Ints, Records, Values
from isdiag._kernels.records import COMPONENT
from isdiag.status import Status


class Components(NamedTuple):
    """What is known of each component of h."""

    fields: dict[str, Floats]  # each (rows, d)
    khat_weights: Floats
    status: Codes  # (rows, d)
    std_error: Floats  # (rows, d), of the estimate, in the units of h
    skewness: Floats


def components(rows: Rows, values: Values, gamma: Floats, lengths: Ints, workers: int) -> Components:
    """Khat of both tails of w^gamma (h - estimate), and how many draws it and its square rest on."""
    khat_weights, of_weights = tails.khat(rows, lengths, gamma, workers)
    d = values.shape[1] // rows.values.shape[1]
    found = cast("Records", np.empty((d, len(rows)), COMPONENT))
    for column, of_column in zip(rows.components(values), found, strict=True):
        by_row = (rows.values, rows.n, lengths, gamma, column, of_column)
        threads.spread(_kernels.component_rows, by_row, (EPS_FLOAT64,), workers)
    by_name = {name: np.ascontiguousarray(found[name].T) for name in COMPONENT.names or ()}
    fields = {name: by_name[name] for name in ("khat_right", "khat_left", "ess", "error_draws")}
    statuses.erase(rows.n == 1, fields["ess"], fields["error_draws"], by_name["std_error"])
    known = np.fmax(khat_weights[:, None], np.fmax(fields["khat_right"], fields["khat_left"]))
    fields["khat"] = np.where(by_name["unknown"], np.nan, known)
    of_h = by_name["status"]
    uncertain = statuses.of_error(fields["error_draws"], of_h == Status.CONSTANT_H)
    status = statuses.first_of(of_weights, of_h, uncertain)
    return Components(fields, khat_weights, status, by_name["std_error"], by_name["skewness"])


def draws_needed(
    rows: Rows, values: Values, gamma: Floats, lengths: Ints, half_width_wanted: float, workers: int
) -> tuple[Floats, Codes]:
    """How many draws a t interval of that half width needs, (rows, d).

    The error falls as n^-(1 - k), k being khat of w (h - estimate) but 1/2 at least, as that of means of a
    law with that tail. Student's quantile stays that of the draws at hand, as their error is known no better.
    """
    found = components(rows, values, gamma, lengths, workers)
    khat = np.maximum(found.fields["khat"], FINITE_VARIANCE)
    n = rows.n[:, None].astype(np.float64)
    error = chains.Error(found.std_error, found.skewness, found.fields["error_draws"], rows.n)
    if rows.chain is not None:
        error = error.along(influence_along(rows, rows.values, gamma, values))
    with np.errstate(all="ignore"):
        times = intervals.student_quantile(error.error_draws, error.n, intervals.LEVEL)
        now = error.std_error * times
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
    _, mean_error = log_mean(moments, rows.n)
    if rows.chain is not None:
        with np.errstate(invalid="ignore", divide="ignore"):  # rows without weight
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
    alone = [moments_of(rows.values, gamma, column, workers) for column in rows.components(values)]
    if len(alone) < 2:
        return alone[0] if alone else moments_of(rows.values, gamma, values, workers)
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

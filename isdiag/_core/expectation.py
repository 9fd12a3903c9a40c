"""The tails and the effective draws of w |h - estimate|, which is what an error is made of; intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from isdiag._core import statuses, tails, units, weights
from isdiag._core.bands import FINITE_VARIANCE
from isdiag._core.boundary import EPS_FLOAT64, Rows, read_only, real_array
from isdiag._core.moments import Moments, half_width, moments_of, square_sums
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
            squares, fourths = square_sums(sizes)
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
    found = components(rows, values, gamma, lengths, workers)
    khat, moments = found.fields["khat"], found.moments
    if bounds is not None:  # h has no tail of its own
        khat = np.where(np.isfinite(moments.estimate), found.khat_weights[:, None], np.nan)
    if method == "auto":
        other = "chebyshev" if bounds is None else "bounded"
        chosen = np.where(khat < FINITE_VARIANCE, "delta", other)
    else:
        chosen = np.full(found.status.shape, method)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        estimate = moments.estimate.copy()
        half = half_width(moments.std_error, found.fields["error_draws"], rows.n, level)
        half = np.where(moments.std_error == 0.0, 0.0, half)
        if (chosen == "chebyshev").any():
            log_weights = read_only(weights.truncated(rows, gamma, workers))
            cut = moments_of(log_weights, np.ones(len(rows)), values, workers)
            estimate = np.where(chosen == "chebyshev", cut.estimate, estimate)
            half = np.where(chosen == "chebyshev", cut.std_error / np.sqrt(1.0 - level), half)
        statuses.erase(rows.n == 1, half)
        if bounds is not None:
            _check_within(rows, values, gamma, bounds)
            spread = (bounds[1] - bounds[0]) / np.sqrt(moments.ess[:, None] * (1.0 - level))
            half = np.where(chosen == "bounded", spread, half)
        low, high = estimate - half, estimate + half
        if bounds is not None:
            low, high = np.maximum(low, bounds[0]), np.minimum(high, bounds[1])
    return {
        "low": low,
        "high": high,
        "estimate": estimate,
        "level": level,
        "method": chosen,
        "khat": khat,
        "status": found.status,
    }


def _check_within(rows: Rows, values: Values, gamma: Floats, limits: tuple[float, float]) -> None:
    count, draws = rows.values.shape
    cube = values.reshape(count, draws, -1)
    out = ((cube < limits[0]) | (cube > limits[1])) & weights.looked_at(rows.values, gamma)[:, :, None]
    out &= np.isfinite(cube)  # what is not has a status
    if out.any():
        msg = f"h must lie within bounds {limits}, got {cube[out].flat[0]:g}"
        raise ValueError(msg)

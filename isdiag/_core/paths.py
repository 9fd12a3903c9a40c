"""Weights, steps and normalising constants along the geometric path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, divergences, parts, selection, statuses, tails
from isdiag._core.bands import Constraints
from isdiag._core.boundary import Rows, exponents, filled, read_only, rows_of
from isdiag._core.intervals import interval
from isdiag._core.moments import log_mean_weight, moments_of
from isdiag._core.typing import Axis, Codes, Floats, Ints, Records
from isdiag._kernels.records import MOMENT, ON_PATH
from isdiag.status import Status

# Two rules of integration that differ by more standard errors than this differ by more than chance.
_APART = 2.0


def difference(log_mu: Any, log_target: Any, axis: Axis, where: Any, places: int) -> tuple[Rows, Floats]:
    """Rows of log target - log mu, laid out as the latter is, and room for weights, (places, rows, n).

    The rows lie in the last of these: `geometric_path` writes it when it has read them for the last time.
    """
    rows = rows_of(log_mu, axis, where, "log_mu")
    above, eps = rows.beside(log_target, "log_target", "log_mu")
    log_weights = np.empty((places, *rows.values.shape))
    log_w = log_weights[-1]
    with np.errstate(invalid="ignore", over="ignore"):  # infinities: the row's status tells
        np.subtract(above, rows.values, out=log_w)
    if rows.kept is not None:
        log_w[~rows.kept] = -np.inf
    return replace(rows, values=read_only(log_w), eps=max(eps, rows.eps)), log_weights


def sets_of(log_w: Any, gammas: Any, where: Any) -> tuple[Rows, Floats]:
    """A row for each set of draws, the sets of a path in succession, and the gammas of a path."""
    path = exponents(gammas)
    if path[0] != 0.0 or path[-1] > 1.0 or not (np.diff(path) > 0.0).all():
        msg = f"gammas must increase from 0 to at most 1, got {gammas!r}"
        raise ValueError(msg)
    rows = rows_of(log_w, -1, where)
    if rows.batch_shape[-1:] != (path.size,):
        shape = (*rows.batch_shape, rows.values.shape[1])
        msg = f"log_w must have shape (..., {path.size}, n) for {path.size} gammas, got {shape}"
        raise ValueError(msg)
    return rows, path


def by_path(rows: Rows) -> Rows:
    """The layout of results that hold a number for each path of sets."""
    return replace(rows, layout=rows.layout._replace(batch_shape=rows.batch_shape[:-1]))


def geometric_path(
    rows: Rows, log_weights: Floats, gammas: Floats, lengths: Ints, workers: int
) -> dict[str, Any]:
    """The fields of `GeometricPath`, gamma by gamma, of what `difference` gives."""
    count, draws = rows.values.shape
    found = cast("Records", np.empty((count, gammas.size), ON_PATH))
    place: Ints = np.arange(count, dtype=np.int64)
    by_row = rows.values, rows.n, lengths, place, found
    parts.over_rows(_kernels.path_rows, by_row, (log_weights, gammas, rows.eps), workers)
    of_draws = {"gammas": gammas, "log_weights": log_weights.reshape(-1, draws)}
    names = ("ess", "khat", "log_z", "log_z_std_error", "status")
    return of_draws | {name: found[name].T.ravel() for name in names}


def next_gamma(rows: Rows, before: Floats, ess_min: float, log_weights: Any = None) -> tuple[Floats, Codes]:
    """As far from `before` as the ESS of the particles' weights after the step allows, at most to 1."""
    if (before > 1.0).any():
        msg = f"gamma must be at most 1, got {before.max():g}"
        raise ValueError(msg)
    if log_weights is None:
        no_tail = filled(len(rows), 0, np.int64)
        found = selection.select(rows, no_tail, Constraints(np.inf, ess_min, 1.0), "joint", 1)
        step, status = found["gamma"], found["status"]
    else:
        starts, _ = rows.beside(log_weights, "log_weights", "log_w")
        starts = starts if rows.kept is None else np.where(rows.kept, starts, -np.inf)
        step, status = rows.floats(), rows.codes()
        _kernels.longest_step_rows(
            rows.values, read_only(starts), 1.0 - before, ess_min * rows.n, step, status
        )
    after = before + step
    after = np.where(after - before > step, np.nextafter(after, 0.0), after)
    return np.where(step >= 1.0 - before, 1.0, after), status


def _worst(codes: Codes) -> Codes:
    """The worst status code along the last axis; FLAT only where all are."""
    flat = codes == Status.FLAT
    worst = statuses.first_of(*np.where(flat, np.int8(Status.OK), codes).T)
    worst[flat.all(axis=-1)] = Status.FLAT
    return worst


def stepping_stone(rows: Rows, path: Floats, lengths: Ints, workers: int) -> dict[str, Any]:
    """The fields of `LogZ`, by importance sampling from gamma to gamma."""
    steps = np.diff(path, append=1.0)
    used = np.count_nonzero(steps)
    step = np.tile(steps, len(rows) // path.size)
    found = divergences.averages(rows, MOMENT, step, lengths, normalize=False, workers=workers)
    sets = found.reshape(-1, path.size)[:, :used]
    khat, n = sets["khat"], rows.n.reshape(-1, path.size)[:, :used]
    estimate = np.where(sets["state"] == Status.NO_WEIGHT, -np.inf, sets["estimate"]).sum(axis=1)
    error = _of_sum(chains.Error(sets["std_error"], sets["skewness"], sets["error_draws"], n))
    # The log of a mean is as good as the mean can be told from 0.
    apart = sets["std_error"].max(axis=1)
    return {
        "estimate": estimate,
        "khat": khat.max(axis=1),
        "disagreement": None,
        "status": _graded(_worst(sets["state"]), error),
        **_with_interval(estimate, error, khat.max(axis=1), apart),
    }


def _of_sum(error: chains.Error) -> chains.Error:
    """The error of the sum of independent estimates, (rows, d), as (rows, 1)."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        variance = (error.std_error**2).sum(axis=1, keepdims=True)
        share: Floats = error.std_error**2 / variance
        skewness = (share**1.5 * error.skewness).sum(axis=1, keepdims=True)
        fourths: Floats = np.where(share > 0.0, share**2 / error.error_draws, share)
        error_draws = 1.0 / fourths.sum(axis=1, keepdims=True)
    return chains.Error(np.sqrt(variance), skewness, error_draws, error.n.sum(axis=1))


def _graded(status: Codes, error: chains.Error) -> Codes:
    """The status with what is known of the error."""
    constant = (error.std_error == 0.0) | np.isnan(error.std_error)
    return statuses.first_of(status, statuses.of_error(error.error_draws, constant)[:, 0])


def _with_interval(
    estimate: Floats, error: chains.Error, khat: Floats, apart: Floats | None
) -> dict[str, Floats]:
    low, high = interval(estimate[:, None], error, khat, apart)
    return {
        "std_error": error.std_error[:, 0],
        "low": low[:, 0],
        "high": high[:, 0],
        "error_draws": error.error_draws[:, 0],
    }


def thermodynamic(rows: Rows, path: Floats, *, corrected: bool) -> dict[str, Any]:
    """The fields of `LogZ`, by integrating the mean of log w."""
    shape = len(rows) // path.size, path.size
    log_share, variance_of_share, status = _share_inside(rows, path.size)

    # The estimate is a sum of means, of h at the draws of each set.
    equal = np.zeros(len(rows))
    inside = (rows.values > -np.inf).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unbiased = inside / (inside - 1.0)  # for variances, whose plain form is too small
        plain = moments_of(rows.values, equal, rows.values)
        mean, variance = plain.estimate, unbiased * inside * plain.std_error[:, 0] ** 2
        trapezoid = (np.diff(path, prepend=0.0) + np.diff(path, append=1.0)) / 2
        bend, of_variance = _correction(mean.reshape(shape), variance.reshape(shape), path)
        disagreement = (bend * mean.reshape(shape) + of_variance * variance.reshape(shape)).sum(axis=1)
        h = (trapezoid + bend * corrected).reshape(-1, 1) * rows.values
        if corrected:
            h += (of_variance.ravel() * unbiased)[:, None] * (rows.values - mean) ** 2
        moments = moments_of(rows.values, equal, read_only(h))
        estimate = log_share + moments.estimate.reshape(shape).sum(axis=1)
        std_errors = moments.std_error[:, 0] * np.sqrt(unbiased)
        of_sets = chains.Error(
            std_errors.reshape(shape),
            moments.skewness.reshape(shape),
            moments.error_draws.reshape(shape),
            rows.n.reshape(shape),
        )
        error = _of_sum(of_sets)
        error = error._replace(std_error=np.hypot(error.std_error, np.sqrt(variance_of_share)[:, None]))
        apart = np.abs(disagreement) > _APART * error.std_error[:, 0]
    estimate[status == Status.NOT_FINITE] = np.nan
    error.std_error[np.isnan(estimate)] = np.nan
    disagreement[np.isnan(estimate)] = np.nan
    grade = statuses.of_error(error.error_draws, constant=False)[:, 0]
    grade = np.where(apart, np.int8(Status.ERROR_UNCERTAIN), grade)
    status = np.where(status == Status.OK, grade, status).astype(np.int8)
    return {
        "estimate": estimate,
        "khat": None,
        "disagreement": disagreement,
        "status": status,
        **_with_interval(estimate, error, np.full(len(estimate), -np.inf), None),
    }


def _correction(mean: Floats, variance: Floats, path: Floats) -> tuple[Floats, Floats]:
    """What means and variances of log w, (paths, sets), count for in the correction of the trapezoids.

    The variances are the slopes of the mean. Through a slope of more than three times the chord a cubic may
    leave the range of its ends, which a mean that rises never does (Fritsch & Carlson 1980): it counts as
    three times the chord.
    """
    distance = np.diff(path)
    chord = np.diff(mean, axis=1) / distance
    of_mean, of_variance = np.zeros_like(mean), np.zeros_like(mean)
    for end, sign in ((slice(None, -1), 1.0), (slice(1, None), -1.0)):
        steep = variance[:, end] > 3.0 * chord
        of_variance[:, end] += np.where(steep, 0.0, sign * distance**2 / 12.0)
        bend = np.where(steep & (chord > 0.0), sign * distance / 4.0, 0.0)
        of_mean[:, 1:] += bend
        of_mean[:, :-1] -= bend
    return of_mean, of_variance


def _share_inside(rows: Rows, sets: int) -> tuple[Floats, Floats, Codes]:
    """Log of the share of mu's draws that have weight, its variance, and a path's status: a number each."""
    log_share, std_error, _ = (a.reshape(-1, sets) for a in log_mean_weight(rows, np.zeros(len(rows))))
    _, codes = tails.khat(rows, np.zeros(len(rows), np.int64), np.ones(len(rows)))
    codes = codes.reshape(-1, sets)
    codes[(codes != Status.FLAT) & (codes < Status.NO_WEIGHT)] = Status.OK  # a tail is not needed
    codes[:, 1:][log_share[:, 1:] < 0.0] = Status.NOT_FINITE
    return log_share[:, 0], std_error[:, 0] ** 2, _worst(codes)

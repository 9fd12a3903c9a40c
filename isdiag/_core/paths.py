"""Weights, steps and normalising constants along the geometric path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import divergences, parts, selection, statuses
from isdiag._core.bands import Constraints
from isdiag._core.boundary import INT64, Rows, exponents, read_only, records, rows_of
from isdiag._core.intervals import LEVEL, series_of_student
from isdiag._core.typing import Axis, Codes, Floats, Ints, Records
from isdiag._kernels.records import LOG_Z, MOMENT, ON_PATH


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
        no_tail = rows.same(0, INT64)
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


def stepping_stone(rows: Rows, path: Floats, lengths: Ints, workers: int) -> dict[str, Any]:
    """The fields of `LogZ`, by importance sampling from gamma to gamma."""
    steps = np.diff(path, append=1.0)
    used = np.count_nonzero(steps)
    step = np.tile(steps, len(rows) // path.size)
    found = divergences.averages(rows, MOMENT, step, lengths, normalize=False, workers=workers)
    sets = found.reshape(-1, path.size)[:, :used]
    given = records(len(sets), LOG_Z)
    n = rows.n.reshape(-1, path.size)[:, :used]
    _kernels.sum_steps(sets, n, statuses.RANKS, series_of_student(LEVEL), given)
    return _fields(given) | {"disagreement": None}


def _fields(given: Records) -> dict[str, Any]:
    return {name: given[name] for name in LOG_Z.names or ()}


def thermodynamic(rows: Rows, path: Floats, *, corrected: bool) -> dict[str, Any]:
    """The fields of `LogZ`, by integrating the mean of log w."""
    log_w, n = rows.values.reshape(-1, path.size, rows.values.shape[1]), rows.n.reshape(-1, path.size)
    given = records(len(log_w), LOG_Z)
    student = series_of_student(LEVEL)
    _kernels.integral_rows(log_w, n, path, rows.eps, corrected, statuses.RANKS, student, given)
    return _fields(given) | {"khat": None}

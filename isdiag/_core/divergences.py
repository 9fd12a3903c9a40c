"""Divergences and moments of the weights."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, parts, statuses, weights
from isdiag._core.bands import settled_khat
from isdiag._core.boundary import Rows, filled
from isdiag._core.intervals import LEVEL, interval
from isdiag._core.typing import Codes, Direction, Estimator, Floats, Ints, Records
from isdiag._kernels.records import (
    AMARI,
    CHI2,
    DIVERGENCE,
    ERROR_ROUGH,
    FLAT,
    GENERATED,
    HALF_SQUARED,
    MOMENT,
    NO_WEIGHT,
    OK,
    RENYI,
)

_OF_ESTIMATOR: dict[Estimator, int] = {"k1": AMARI, "k2": HALF_SQUARED, "k3": GENERATED}


def log_moment(rows: Rows, gamma: Floats, lengths: Ints, *, normalize: bool, workers: int) -> dict[str, Any]:
    """Log of the mean of w^gamma."""
    found = _found(rows, MOMENT, gamma, lengths, normalize, workers)
    if not normalize:
        found["estimate"][found["status"] == NO_WEIGHT] = -np.inf
    return found


def renyi(rows: Rows, alpha: Any, lengths: Ints, *, normalize: bool, workers: int) -> dict[str, Any]:
    """Renyi's divergence, the order inf included."""
    order = rows.per_row("alpha", alpha, 0.0, "[]", unknown=True)
    return _found(rows, RENYI, order, lengths, normalize, workers)


def amari(rows: Rows, alpha: Floats, lengths: Ints, *, normalize: bool, workers: int) -> dict[str, Any]:
    """Amari's divergence."""
    return _found(rows, AMARI, alpha, lengths, normalize, workers)


def kullback_leibler(
    rows: Rows, direction: Direction, estimator: Estimator, lengths: Ints, *, normalize: bool, workers: int
) -> dict[str, Any]:
    """Kullback and Leibler's divergence in either direction."""
    order = filled(len(rows), 1.0 if direction == "target" else 0.0)
    return _found(rows, _OF_ESTIMATOR[estimator], order, lengths, normalize, workers)


def chi2(rows: Rows, lengths: Ints, *, normalize: bool, workers: int) -> dict[str, Any]:
    """The chi-squared divergence, twice Amari's of order 2."""
    return _found(rows, CHI2, filled(len(rows), 2.0), lengths, normalize, workers)


def _found(
    rows: Rows, of: int, order: Floats, lengths: Ints, normalize: bool, workers: int
) -> dict[str, Any]:
    """The fields of `Divergence` for what is called `of`."""
    found = averages(rows, of, order, lengths, normalize, workers)
    error, status, mean_error = error_of(rows, found)
    low, high = interval(
        column(found, "estimate"), error, column(found, "khat")[:, 0], mean_error if normalize else None
    )
    if of != MOMENT:
        low = np.maximum(low, 0.0)  # as no divergence is less
    if not normalize and of != MOMENT:
        status = statuses.first_of(status, _off_one(rows, found, mean_error))
    return {
        "estimate": found["estimate"],
        "std_error": error.std_error[:, 0],
        "khat": found["khat"],
        "low": low[:, 0],
        "high": high[:, 0],
        "error_draws": error.error_draws[:, 0],
        "status": status,
    }


def averages(rows: Rows, of: int, order: Floats, lengths: Ints, normalize: bool, workers: int = 1) -> Records:
    """A record of `DIVERGENCE` for each row."""
    found = cast("Records", np.empty(len(rows), DIVERGENCE))
    settled = _settled(lengths)
    if not normalize and of in {AMARI, HALF_SQUARED}:
        settled[order == 0.0] = np.inf  # of the logarithm of w the tail of w tells nothing
    by_row = rows.values, rows.n, lengths, order, settled, found
    parts.over_rows(_kernels.divergence_rows, by_row, (of, normalize, rows.eps), workers)
    return found


def _settled(lengths: Ints) -> Floats:
    """The khat of each row above which its tail index may be 1/2."""
    return np.array([settled_khat(length, LEVEL) for length in lengths.tolist()], np.float64)


def column(found: Records, name: str) -> Floats:
    """A number of each record, (rows, 1)."""
    return found[name].copy()[:, None]


def error_of(rows: Rows, found: Records) -> tuple[chains.Error, Codes, Floats]:
    """What is known of the errors, the statuses, and the relative errors of the mean weights."""
    of_error = column(found, "std_error"), column(found, "skewness"), column(found, "error_draws")
    error = chains.Error(*of_error, rows.n)
    if rows.chain is None:
        return error, found["status"], found["mean_error"].copy()
    influence = np.empty(rows.values.shape)
    _kernels.divergence_influence_rows(rows.values, found, influence)
    with np.errstate(all="ignore"):  # a draw may add more than float64 holds
        along = chains.along_chains(chains.centred(rows, influence), rows.chain)
    along[1] *= found["sign"]
    error = error.along(along[:, :, None])
    of_weights = weights.relative_efficiency(rows, rows.values, filled(len(rows), 1.0))
    state, rough = found["state"], found["status"] == ERROR_ROUGH
    std_error, error_draws = error.std_error[:, 0], error.error_draws[:, 0]
    constant = (state == FLAT) | (~(std_error > 0.0) & ~(error_draws > 0.0))
    grade = statuses.of_error(error_draws, constant)
    grade = np.where(rough & (grade == OK), np.int8(ERROR_ROUGH), grade)
    return error, statuses.first_of(state, grade), found["mean_error"] / np.sqrt(of_weights)


def _off_one(rows: Rows, found: Records, mean_error: Floats) -> Codes:
    """NOT_NORMALIZED where weights that are used as they are have not the mean 1."""
    ess = 1.0 / (found["mean_error"] ** 2 + 1.0 / np.maximum(rows.n, 1))
    return statuses.of_mean_weight(found["log_mean"], mean_error, ess)

"""Divergences and moments of the weights."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, intervals, parts, statuses, weights
from isdiag._core.bands import settled_khat
from isdiag._core.boundary import Rows, records
from isdiag._core.typing import Codes, Direction, Estimator, Floats, Ints, Records
from isdiag._kernels.records import (
    AMARI,
    CHI2,
    DIVERGED,
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


def log_moment(rows: Rows, gamma: Floats, lengths: Ints, *, normalize: bool, workers: int) -> Records:
    """Log of the mean of w^gamma: a record of `DIVERGED` for each row, as of what follows."""
    found = _found(rows, MOMENT, gamma, lengths, normalize, workers)
    if not normalize:
        found["estimate"][found["status"] == NO_WEIGHT] = -np.inf
    return found


def renyi(rows: Rows, alpha: Any, lengths: Ints, *, normalize: bool, workers: int) -> Records:
    """Renyi's divergence, the order inf included."""
    order = rows.per_row("alpha", alpha, 0.0, "[]", unknown=True)
    return _found(rows, RENYI, order, lengths, normalize, workers)


def amari(rows: Rows, alpha: Floats, lengths: Ints, *, normalize: bool, workers: int) -> Records:
    """Amari's divergence."""
    return _found(rows, AMARI, alpha, lengths, normalize, workers)


def kullback_leibler(
    rows: Rows, direction: Direction, estimator: Estimator, lengths: Ints, *, normalize: bool, workers: int
) -> Records:
    """Kullback and Leibler's divergence in either direction."""
    order = rows.same(1.0 if direction == "target" else 0.0)
    return _found(rows, _OF_ESTIMATOR[estimator], order, lengths, normalize, workers)


def chi2(rows: Rows, lengths: Ints, *, normalize: bool, workers: int) -> Records:
    """The chi-squared divergence, twice Amari's of order 2."""
    return _found(rows, CHI2, rows.same(2.0), lengths, normalize, workers)


def _found(rows: Rows, of: int, order: Floats, lengths: Ints, normalize: bool, workers: int) -> Records:
    """A record of `DIVERGED` for each row, for what is called `of`."""
    found = averages(rows, of, order, lengths, normalize, workers)
    n = rows.n.astype(np.float64) if rows.chain is None else _along_chains(rows, found)
    given = records(len(rows), DIVERGED)
    _kernels.bounded_rows(
        found, n, intervals.series_of_student(intervals.LEVEL), normalize, of != MOMENT, given
    )
    if not normalize and of != MOMENT:
        given["status"] = statuses.first_of(given["status"], _off_one(rows, found))
    return given


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
    return np.array([settled_khat(length, intervals.LEVEL) for length in lengths.tolist()], np.float64)


def _along_chains(rows: Rows, found: Records) -> Floats:
    """Put the errors along chains into the records; returns how many draws the rows are worth."""
    influence = np.empty(rows.values.shape)
    _kernels.divergence_influence_rows(rows.values, found, influence)
    with np.errstate(all="ignore"):  # a draw may add more than float64 holds
        along = chains.along_chains(chains.centred(rows, influence), rows.chain)
        std_error, skewness, draws = (
            found[name][:, None] for name in ("std_error", "skewness", "error_draws")
        )
        error = chains.Error(std_error, skewness, draws, rows.n).along(along[:, :, None])
    error_draws = error.error_draws[:, 0]
    found["std_error"], found["error_draws"] = error.std_error[:, 0], error_draws
    found["skewness"] = found["sign"] * error.skewness[:, 0]
    of_weights = weights.relative_efficiency(rows, rows.values, rows.same(1.0))
    found["mean_error"] /= np.sqrt(of_weights)
    state, rough = found["state"], found["status"] == ERROR_ROUGH
    constant = (state == FLAT) | (~(found["std_error"] > 0.0) & ~(error_draws > 0.0))
    grade = statuses.of_error(error_draws, constant)
    grade = np.where(rough & (grade == OK), np.int8(ERROR_ROUGH), grade)
    found["status"] = statuses.first_of(state, grade)
    return error.n[:, 0].astype(np.float64)


def _off_one(rows: Rows, found: Records) -> Codes:
    """NOT_NORMALIZED where weights that are used as they are have not the mean 1."""
    mean_error = found["mean_error"]
    ess = 1.0 / (mean_error**2 + 1.0 / np.maximum(rows.n, 1))
    return statuses.of_mean_weight(found["log_mean"], mean_error, ess)

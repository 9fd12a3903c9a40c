"""Divergences and moments of the weights."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, parts, statuses
from isdiag._core.boundary import Rows, filled
from isdiag._core.typing import Codes, Direction, Estimator, Floats, Ints, Records
from isdiag._kernels.records import (
    AMARI,
    CHI2,
    DIVERGENCE,
    FLAT,
    GENERATED,
    HALF_SQUARED,
    MOMENT,
    NO_WEIGHT,
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
    found = cast("Records", np.empty(len(rows), DIVERGENCE))
    by_row = rows.values, rows.n, lengths, order, found
    parts.over_rows(_kernels.divergence_rows, by_row, (of, normalize, rows.eps), workers)
    std_error, status = found["std_error"], found["status"]
    if rows.chain is not None:
        std_error, status = _along_chains(rows, found)
    if not normalize and of != MOMENT:
        status = statuses.first_of(status, _off_one(rows, found))
    return {"estimate": found["estimate"], "std_error": std_error, "khat": found["khat"], "status": status}


def _along_chains(rows: Rows, found: Records) -> tuple[Floats, Codes]:
    """Standard errors and statuses of draws of Markov chains."""
    influence = np.empty(rows.values.shape)
    _kernels.divergence_influence_rows(rows.values, found, influence)
    efficiency, _, error_draws = chains.along_chains(chains.centred(rows, influence), rows.chain)
    std_error, state = found["std_error"] / np.sqrt(efficiency), found["state"]
    constant = (state == FLAT) | (~(std_error > 0.0) & ~(error_draws > 0.0))
    return std_error, statuses.first_of(state, statuses.of_error(error_draws, constant))


def _off_one(rows: Rows, found: Records) -> Codes:
    """NOT_NORMALIZED where weights that are used as they are have not the mean 1."""
    error = found["mean_error"]
    ess = 1.0 / (error**2 + 1.0 / rows.n)
    return statuses.of_mean_weight(found["log_mean"], error, ess)

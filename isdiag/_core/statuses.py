"""Which status is named where several hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag._core.bands import FEW_ERROR_DRAWS, ROUGH_ERROR_DRAWS
from isdiag._core.boundary import Rows
from isdiag._core.typing import Codes, Floats, Ints, Mask, Values
from isdiag._core.weights import looked_at
from isdiag.status import Status

# From the one that says most against a result to the one that says nothing.
ORDER = (
    Status.NOT_FINITE,
    Status.NO_WEIGHT,
    Status.ONE_DRAW,
    Status.NOT_FINITE_H,
    Status.INFEASIBLE,
    Status.NOT_NORMALIZED,
    Status.ERROR_UNCERTAIN,
    Status.ERROR_ROUGH,
    Status.TAIL_TOO_SHORT,
    Status.DEGENERATE_TAIL,
    Status.POOR_TAIL_FIT,
    Status.CONSTANT_H,
    Status.TWO_VALUED_H,
    Status.FLAT,
    Status.OK,
)
_ALL_OK = bytes([Status.OK])
_CODES = np.array(ORDER, np.int8)
_RANKS = np.argsort(_CODES)
_OK, _ROUGH, _UNCERTAIN, _NOT_NORMALIZED = (
    np.int8(status)
    for status in (Status.OK, Status.ERROR_ROUGH, Status.ERROR_UNCERTAIN, Status.NOT_NORMALIZED)
)

# A log of a mean weight beyond so many of its standard errors is not 0; below, rounding could explain it.
# With so many draws behind it that error is itself known within a tenth: 1 / (2 sqrt(25)).
_MANY = 5.0
MANY_DRAWS = 25.0
_ROUNDING = 1e-9


def first_of(*codes: Codes) -> Codes:
    """Of codes that hold together the one to name; (rows,) goes with (rows, d)."""
    if not any(code.tobytes().strip(_ALL_OK) for code in codes):  # most calls; three times as fast
        return max(codes, key=np.ndim).copy()
    wide = max(code.ndim for code in codes)
    rank = np.int64(len(ORDER))
    for code in codes:
        ranks = _RANKS[code]
        rank = np.minimum(rank, ranks if code.ndim == wide else ranks[:, None])
    return _CODES[rank]


def rank(codes: Codes) -> Ints:
    """Positions of codes in `ORDER`."""
    return _RANKS[codes]


def of_h(rows: Rows, values: Values, gamma: Floats, estimate: Floats, std_error: Floats) -> Codes:
    """CONSTANT_H or NOT_FINITE_H of each component whose error is 0 or unknown, else OK; (rows, d)."""
    draws = rows.values.shape[1]
    found = np.zeros(estimate.shape, np.int8)
    odd = ~((std_error > 0.0) & np.isfinite(estimate))
    if not odd.any():
        return found
    for r, j in np.argwhere(odd):
        h = values[r].reshape(draws, -1)[:, j]
        positive = h[rows.values[r] > -np.inf]
        if not np.isfinite(h[looked_at(rows.values[r : r + 1], gamma[r : r + 1])[0]]).all():
            found[r, j] = Status.NOT_FINITE_H
        elif positive.size and (positive == positive[0]).all():
            found[r, j] = Status.CONSTANT_H
    return found


def erase(where: Mask, *numbers: Floats) -> None:
    """NaN where nothing can be said: of the errors of one draw, of a component of h that is not finite."""
    if where.any():
        for of_these in numbers:
            of_these[where] = np.nan


def of_error(error_draws: Floats, constant: Any) -> Codes:
    """ERROR_UNCERTAIN or ERROR_ROUGH where an error rests on few draws and what it is of is not constant."""
    grade = np.where(error_draws >= FEW_ERROR_DRAWS, _ROUGH, _UNCERTAIN)
    return np.where((error_draws >= ROUGH_ERROR_DRAWS) | constant, _OK, grade)


def of_mean_weight(log_mean: Floats, std_error: Floats, ess: Floats) -> Codes:
    """NOT_NORMALIZED where weights whose mean is to be 1 have another, by many standard errors."""
    with np.errstate(invalid="ignore"):
        off = np.abs(log_mean) > np.maximum(_MANY * std_error, _ROUNDING)
        return np.where(off & (ess >= MANY_DRAWS), _NOT_NORMALIZED, _OK)

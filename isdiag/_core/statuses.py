"""Which status is named where several hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core.boundary import Rows
from isdiag._core.typing import Codes, Floats, Ints, Mask, Values
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
RANKS = np.argsort(np.array(ORDER, np.int8))  # positions in it, by code
_OK, _NOT_NORMALIZED = np.int8(Status.OK), np.int8(Status.NOT_NORMALIZED)

# A log of a mean weight beyond so many of its standard errors is not 0; below, rounding could explain it.
# With so many draws behind it that error is itself known within a tenth: 1 / (2 sqrt(25)).
_MANY = 5.0
MANY_DRAWS = 25.0
_ROUNDING = 1e-9


def first_of(*codes: Codes) -> Codes:
    """Of codes that hold together the one to name; (rows,) goes with (rows, d)."""
    if not any(code.tobytes().strip(_ALL_OK) for code in codes):  # most calls; three times as fast
        return max(codes, key=np.ndim).copy()
    wide = max(codes, key=np.ndim)
    named = np.empty(wide.shape, np.int8)
    named.fill(Status.OK)
    of_rows = named.reshape(len(named), -1)
    for code in codes:
        _kernels.name_first(np.ascontiguousarray(code).reshape(len(code), -1), RANKS, of_rows)
    return named


def rank(codes: Codes) -> Ints:
    """Positions of codes in `ORDER`."""
    return RANKS[codes]


def of_h(rows: Rows, values: Values, gamma: Floats, estimate: Floats, std_error: Floats) -> Codes:
    """CONSTANT_H or NOT_FINITE_H of each component whose error is 0 or unknown, else OK; (rows, d)."""
    found = np.zeros(estimate.shape, np.int8)
    odd = ~((std_error > 0.0) & np.isfinite(estimate))
    if odd.any():
        for r, j in np.argwhere(odd):
            found[r, j] = _kernels.code_of_values(rows.values[r], gamma[r], values[r], j, estimate.shape[1])
    return found


def erase(where: Mask, *numbers: Floats) -> None:
    """NaN where nothing can be said: of the errors of one draw, of a component of h that is not finite."""
    if np.count_nonzero(where):  # a microsecond less than `any`
        for of_these in numbers:
            of_these[where] = np.nan


def of_error(error_draws: Floats, constant: Any) -> Codes:
    """ERROR_UNCERTAIN or ERROR_ROUGH where an error rests on few draws and what it is of is not constant."""
    grade = np.empty(error_draws.shape, np.int8)
    of_what = constant if np.shape(constant) == grade.shape else np.full(grade.shape, constant)
    _kernels.grade_errors(error_draws.reshape(-1), of_what.reshape(-1), grade.reshape(-1))
    return grade


def of_mean_weight(log_mean: Floats, std_error: Floats, ess: Floats) -> Codes:
    """NOT_NORMALIZED where weights whose mean is to be 1 have another, by many standard errors."""
    with np.errstate(invalid="ignore"):
        off = np.abs(log_mean) > np.maximum(_MANY * std_error, _ROUNDING)
        return np.where(off & (ess >= MANY_DRAWS), _NOT_NORMALIZED, _OK)

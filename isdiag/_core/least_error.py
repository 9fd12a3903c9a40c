"""The estimate of least error, what error each gamma would have, and the gamma of least error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, statuses, threads, units
from isdiag._core.boundary import Rows, records
from isdiag._core.intervals import LEVEL, in_columns, series_of_student
from isdiag._core.typing import Codes, Floats, Ints, Records, Values
from isdiag._kernels.records import ACCURATE, CHOSEN, LEAST_ERROR, NOT_FINITE_H, ON_CURVE, TRUNCATED

# The rule "mse" looks at gamma_max times these.
_EIGHTHS = np.arange(1, 9) / 8.0


class _LeastError(NamedTuple):
    """Estimates of least error in units of h that are its own, and what is beside them."""

    given: units.Standard
    found: Records  # of `LEAST_ERROR`, (rows, d)
    points: Records  # of `ON_CURVE`, (rows, d, gammas)
    truncated: Records  # of `TRUNCATED`, (rows,)
    of_h: Codes  # (rows, d)
    n: Floats | Ints  # how many draws the errors are of, (rows,) or (rows, d)


def _least_error(rows: Rows, values: Values, lengths: Ints, gammas: Floats, workers: int) -> _LeastError:
    """Truncate, and shrink along the path of tempering (see `isdiag.select_gamma`, rule "mse")."""
    one = rows.same(1.0)
    given = units.in_units(rows, values, one)
    draws = rows.values.shape[1]
    shape = given.origin.shape
    truncated, found = records(shape[0], TRUNCATED), records(shape, LEAST_ERROR)
    points = records((*shape, gammas.size), ON_CURVE)
    influence = np.empty((*shape, draws if rows.chain is not None else 0))
    h, origin = given.values, units.own_origin(given)
    by_row = (rows.values, rows.n, lengths, h, origin, truncated, found, points, influence)
    threads.spread(_kernels.least_error_rows, by_row, (gammas, rows.eps), workers)
    n = rows.n
    if rows.chain is not None:
        error = chains.Error(found["std_error"], found["skewness"], found["error_draws"], n)
        worth = chains.along_chains(influence.reshape(-1, draws), rows.chain)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = error.along(worth.reshape(3, *shape))
        found["std_error"], found["skewness"], found["error_draws"], n = error
    of_h = statuses.of_h(rows, values, one, found["estimate"], found["std_error"])
    statuses.erase(of_h == NOT_FINITE_H, *(found[name] for name in LEAST_ERROR.names or ()))
    errors = ("std_error", "bias", "error_draws")
    statuses.erase(rows.n == 1, *(found[name] for name in errors))
    return _LeastError(given, found, points, truncated, of_h, n)


def mse_curve(rows: Rows, values: Values, lengths: Ints, gammas: Floats, workers: int) -> dict[str, Any]:
    """The fields of `MSECurve`, and the status of the weights."""
    least = _least_error(rows, values, lengths, gammas, workers)
    found = {name: least.points[name].copy() for name in ON_CURVE.names or () if name != "ess"}
    statuses.erase(least.of_h == NOT_FINITE_H, *found.values())
    errors = ("std_error", "bias", "tempering_bias_std_error", "mse")
    statuses.erase(rows.n == 1, *(found[name] for name in errors))
    given = least.given
    with np.errstate(over="ignore"):
        return {name: given.spread(part) for name, part in found.items()} | {
            "gamma": gammas,
            "estimate": given.place(found["estimate"]),
            "mse": given.spread(given.spread(found["mse"])),
            "reference": given.place(least.found["estimate"]),
            "reference_std_error": given.spread(least.found["std_error"]),
            "status": statuses.first_of(least.truncated["presence"], least.of_h),
        }


def select_accurate(
    rows: Rows, values: Values, lengths: Ints, gamma_max: float, workers: int
) -> tuple[Records, Records]:
    """What `AccurateSelection` is made of: records of `ACCURATE`, (rows, d), and of `CHOSEN`, (rows,)."""
    gammas = gamma_max * _EIGHTHS
    least = _least_error(rows, values, lengths, gammas, workers)
    given = least.given
    components, chosen = records(least.found.shape, ACCURATE), records(rows.n.size, CHOSEN)
    made = (rows.n, lengths, least.truncated, least.found, least.points, least.of_h, in_columns(least.n))
    by_row = (rows.values, *made, given.origin, given.exponent)
    student = series_of_student(LEVEL)
    shared = (gammas, student, statuses.RANKS, rows.eps)
    threads.spread(_kernels.accurate_rows, (*by_row, components, chosen), shared, workers)
    return components, chosen

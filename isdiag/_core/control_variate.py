"""The regression of w^gamma h on w^gamma."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, statuses, tails, threads, weights
from isdiag._core.boundary import INT8, Rows, records
from isdiag._core.intervals import LEVEL, series_of_student
from isdiag._core.moments import log_mean_weight
from isdiag._core.typing import Codes, Floats, Ints, Mask, Records, Values
from isdiag._kernels.records import CONTROLLED, EXPECTED, FLAT, OF_TAIL, OK, REGRESSION


class _Fit(NamedTuple):
    """What `regression_rows` found, (rows, d), and the log of the largest weight of each row."""

    found: Records
    top: Floats


def known(rows: Rows, gamma: Floats, expected_weight: Any) -> tuple[Records, Codes]:
    """E_mu[w^gamma] as the caller knows it, an `EXPECTED` for each row; for gamma = 1 it is 1."""
    if expected_weight is None:
        other = gamma[gamma != 1]
        if other.size:
            msg = (
                "E_mu[w**gamma] is 1 only for gamma = 1: give expected_weight or second_log_w for "
                f"gamma = {other[0]:g}"
            )
            raise ValueError(msg)
        expected_weight = 1.0
    mean = rows.per_row("expected_weight", expected_weight, 0.0, "()", unknown=True)
    return _expected(mean, mean - 1.0, 0.0, 1.0), rows.same(OK, INT8)


def estimated(rows: Rows, gamma: Floats, second: Rows) -> tuple[Records, Codes]:
    """E_mu[w^gamma] from a second sample."""
    m = second.values.shape[1]
    with np.errstate(all="ignore"):
        largest = second.values.max(axis=1)
        relative_weights, top = weights.over_largest(second.values, gamma)
        relative = gamma[:, None] * (second.values - largest[:, None])
        less_one = np.where(relative_weights > 0.0, np.expm1(relative), -1.0)
    mean, mean_less_one = relative_weights.mean(axis=1), less_one.mean(axis=1)
    return _expected(mean, mean_less_one, top[:, 0], m / (rows.n + m)), weights.presence(second)


def _expected(*of_rows: Any) -> Records:
    found = records(of_rows[0].size, EXPECTED)
    for name, value in zip(EXPECTED.names or (), of_rows, strict=True):
        found[name] = value
    return found


def control_variate(
    rows: Rows,
    values: Values,
    gamma: Floats,
    lengths: Ints,
    expected: Records,
    presence: Codes,
    workers: int,
) -> tuple[Records, Records]:
    """What `ControlVariate` is made of: records of `CONTROLLED`, (rows, d), and of `OF_TAIL`, (rows,)."""
    khat, status = tails.khat(rows, lengths, gamma, workers)
    fit = _fit(rows, values, gamma, (status == FLAT) | (rows.n == 1), workers)
    along = np.empty((0, *fit.found.shape))
    if rows.chain is not None:
        with np.errstate(all="ignore"):  # weights and h may hold anything
            along = _along_chains(rows, values, gamma, fit)
    log_mean, log_error, ess = log_mean_weight(rows, gamma, workers)
    with np.errstate(invalid="ignore", divide="ignore"):
        rise = log_mean - (np.log(expected["mean_weight"]) + expected["top"])
    off = statuses.of_mean_weight(np.where(expected["share"] == 1.0, rise, 0.0), log_error, ess)
    found, of_rows = records(fit.found.shape, CONTROLLED), records(rows.n.size, OF_TAIL)
    by_row = (fit.found, expected, rows.n, fit.top, gamma, khat, status, presence, off)
    student = series_of_student(LEVEL)
    _kernels.control_rows(*by_row, along, found, of_rows, student, statuses.RANKS)
    return found, of_rows


def _fit(rows: Rows, values: Values, gamma: Floats, equal: Mask, workers: int) -> _Fit:
    d = values.shape[1] // rows.values.shape[1]
    found = records((d, len(rows)), REGRESSION)
    for column, of_column in zip(rows.components(values), found, strict=True):
        by_row = (rows.values, rows.n, gamma, equal, column, of_column)
        threads.spread(_kernels.regression_rows, by_row, (), workers)
    with np.errstate(all="ignore"):  # rows may hold anything
        top = np.where(gamma == 0.0, 0.0, gamma * rows.values.max(axis=1))
    return _Fit(np.ascontiguousarray(found.T), top)


def _along_chains(rows: Rows, values: Values, gamma: Floats, fit: _Fit) -> Floats:
    """Relative efficiency of the plain estimate, and `chains.along_chains` of the other: (4, rows, d)."""
    relative, _ = weights.over_largest(rows.values, gamma)
    # Less the largest weight first: no digit is lost where weights are nearly equal.
    less_one = np.expm1(gamma[:, None] * (rows.values - rows.values.max(axis=1, keepdims=True)))
    less_one = np.where(relative > 0.0, less_one, -1.0)
    along = np.empty((4, *fit.found.shape))
    for j, column in enumerate(rows.components(values)):
        f = fit.found[:, j, None]
        deviations = less_one - f["less_one"]
        y = np.where(relative > 0.0, relative * (f["scale"] * column - f["centre"]), 0.0) - f["average"]
        of_plain, of_rest = y + f["centre"] * deviations, y - f["slope"] * deviations
        kept = True if rows.kept is None else rows.kept
        along[0, :, j] = chains.along_chains(np.where(kept, of_plain, 0.0), rows.chain)[0]
        along[1:, :, j] = chains.along_chains(np.where(kept, of_rest, 0.0), rows.chain)
    return along

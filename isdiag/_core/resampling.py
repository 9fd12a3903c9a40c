"""Draws drawn again in proportion to their weights."""

from __future__ import annotations

import numpy as np

from isdiag import _kernels
from isdiag._core import weights
from isdiag._core.boundary import Rows
from isdiag._core.typing import Codes, Ints, Resampling
from isdiag._kernels.records import OK

_Random = np.random.Generator


def resample(rows: Rows, size: int, method: Resampling, rng: _Random) -> tuple[Ints, Codes]:
    """Ascending positions with replacement, (rows, size)."""
    positions, status = np.empty((len(rows), size), np.int64), rows.codes()
    if method in ("systematic", "stratified"):
        parts = np.empty((len(rows), size))
        parts[:] = rng.random((len(rows), 1 if method == "systematic" else size))
        _kernels.strata_rows(rows.values, parts, positions, status)
    else:
        # As many whatever the weights, so that no row changes what the others get.
        spacings = rng.standard_exponential((len(rows), size + 1))
        kernel = _kernels.residual_rows if method == "residual" else _kernels.multinomial_rows
        kernel(rows.values, spacings, positions, status)
    return positions, status


def without_replacement(rows: Rows, size: int, rng: _Random) -> tuple[Ints, Codes]:
    """Positions in the order of drawing, each in proportion to the weights of those that are left.

    They are those of the largest log w - log E with E exponential [Efraimidis2006]_.
    """
    draws, status = rows.values.shape[1], weights.presence(rows)
    spacings = rng.standard_exponential((len(rows), draws))  # also for rows that have no use for them
    positions = np.full((len(rows), size), -1)
    gives = (status == OK) & ((rows.values > -np.inf).sum(axis=1) >= size)
    if gives.any():
        log_w = rows.values[gives]
        with np.errstate(divide="ignore", over="ignore"):
            keys = np.log(spacings[gives]) - (log_w - log_w.max(axis=1, keepdims=True))
        first = np.argpartition(keys, min(size, draws - 1), axis=1)[:, :size]
        order = np.take_along_axis(keys, first, axis=1).argsort(axis=1, kind="stable")
        positions[gives] = np.take_along_axis(first, order, axis=1)
    return positions, status

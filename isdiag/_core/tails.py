"""Tail lengths, khat, smoothing, and fits of excesses."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core import bands, parts, weights
from isdiag._core.boundary import INT64, Rows, records
from isdiag._core.check import whole
from isdiag._core.typing import Codes, Floats, Ints, Records
from isdiag._kernels.records import SMOOTHED


@lru_cache
def _uniform_length(n: int, r_eff: float) -> int:
    # A training loop asks for the same length at every step.
    return int(bands.tail_length(n, r_eff))


def lengths_of(rows: Rows, r_eff: Any = 1.0, tail_length: Any = None) -> Ints:
    """The tail length of each row; a pinned one is cut to leave a draw below the tail.

    r_eff may be None: of independent draws it is 1, of chains that of their weights.
    """
    if tail_length is None:
        if r_eff is None:
            r_eff = 1.0 if rows.chain is None else _efficiency_of_weights(rows)
        if rows.kept is None and type(r_eff) is float and 0.0 < r_eff < np.inf:
            return rows.same(_uniform_length(rows.values.shape[1], r_eff), INT64)
        efficiency = rows.per_row("r_eff", r_eff, 0.0, "()")
        lengths = bands.tail_length(np.maximum(rows.n, 1), efficiency).astype(np.int64)
        return np.where(rows.n > 0, lengths, 0)
    draws, length = rows.values.shape[1], whole("tail_length", tail_length)
    if length >= draws > 1:
        msg = f"tail_length={length} must be smaller than the number of draws, {draws}"
        raise ValueError(msg)
    return np.maximum(np.minimum(rows.n - 1, min(length, draws)), 0)


def _efficiency_of_weights(rows: Rows) -> Floats:
    """In the batch shape, 1 where it is unknown."""
    found = weights.relative_efficiency(rows, rows.values, rows.same(1.0))
    return np.where(np.isnan(found), 1.0, found).reshape(rows.batch_shape)


def khat(rows: Rows, lengths: Ints, gamma: Floats, workers: int = 1) -> tuple[Floats, Codes]:
    """khat of w^gamma."""
    found, status = rows.floats(), rows.codes()
    by_row = (rows.values, rows.n, lengths, gamma, found, status)
    parts.over_rows(_kernels.khat_rows, by_row, (rows.eps,), workers)
    return found, status


def smooth(rows: Rows, lengths: Ints, gamma: Floats, normalize: bool, workers: int, out: Floats) -> Records:
    """Write smoothed rows of w^gamma to `out`; what came of each is a record of `SMOOTHED`."""
    found = records(rows.n.size, SMOOTHED)
    by_row = (rows.values, rows.n, lengths, gamma, out, found)
    parts.over_rows(_kernels.psis_rows, by_row, (rows.eps, normalize), workers)
    return found


def fit_excesses(rows: Rows, prior: bool, given: Any = None) -> dict[str, Any]:
    """Generalised Pareto fits to rows of excesses in any order, weighted if weights are given."""
    k, sigma, k_std_error = rows.floats(), rows.floats(), rows.floats()
    if given is None:
        ascending = np.sort(rows.values, axis=1)
        _kernels.gpd_fit_rows(ascending, rows.n, prior, k, sigma, k_std_error)
    else:
        weights, _ = rows.beside(given, "weights", "excesses")
        bad = ~(np.isfinite(weights) & (weights >= 0.0))
        if bad.any():
            msg = f"weights must be finite and not negative, got {weights[bad].flat[0]}"
            raise ValueError(msg)
        for r in range(len(rows)):
            order = np.argsort(rows.values[r], kind="stable")
            order = order[weights[r, order] > 0.0]
            share = weights[r, order] / weights[r].max(initial=0.0)
            share /= share.sum()
            k[r], sigma[r], k_std_error[r] = _kernels.weighted_gpd_row(rows.values[r, order], share, prior)
    return {"k": k, "sigma": sigma, "k_std_error": k_std_error}

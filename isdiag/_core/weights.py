"""Tempered weights, their effective sample size, and where they are cut."""

from __future__ import annotations

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, parts
from isdiag._core.boundary import Rows
from isdiag._core.typing import Codes, Floats, Kind, Mask
from isdiag._kernels.records import NO_WEIGHT, NOT_FINITE, OK


def over_largest(log_w: Floats, gamma: Floats, out: Floats | None = None) -> tuple[Floats, Floats]:
    """Rows of w^gamma over the largest of the row, in `out` if given, and that one's log, (rows, 1)."""
    relative, top = np.empty(log_w.shape) if out is None else out, np.empty(len(log_w))
    _kernels.relative_rows(log_w, gamma, relative, top)
    return relative, top[:, None]


def relative_efficiency(rows: Rows, log_w: Floats, gamma: Floats) -> Floats:
    """Of w^gamma along the chains that the draws of rows make, see `isdiag._core.chains`."""
    relative, _ = over_largest(log_w, gamma)
    with np.errstate(all="ignore"):  # rows without weight
        return chains.efficiency(chains.centred(rows, relative), rows.chain)


def looked_at(log_w: Floats, gamma: Floats) -> Mask:
    """Where w^gamma is something next to the largest of the row: elsewhere h may be anything."""
    return over_largest(log_w, gamma)[0] > 0.0


def temper(rows: Rows, gamma: Floats, normalize: bool, workers: int = 1) -> tuple[Floats, Codes]:
    """Log-weights of w^gamma."""
    out, status = rows.target(), rows.codes()
    parts.over_rows(_kernels.temper_rows, (rows.values, gamma, out, status), (normalize,), workers)
    return out, status


def ess_and_share(rows: Rows, gamma: Floats, workers: int = 1) -> tuple[Floats, Floats, Codes]:
    """ESS of w^gamma of the kinds kish and max; the latter is one over the largest share."""
    by_kish, by_max, status = rows.floats(), rows.floats(), rows.codes()
    parts.over_rows(_kernels.ess_rows, (rows.values, gamma, by_kish, by_max, status), (), workers)
    return by_kish, by_max, status


def ess(rows: Rows, gamma: Floats, kind: Kind = "kish") -> tuple[Floats, Codes]:
    """ESS of w^gamma."""
    if kind == "perplexity":
        perplexity, status = rows.floats(), rows.codes()
        _kernels.perplexity_rows(rows.values, gamma, perplexity, status)
        return perplexity, status
    by_kish, by_max, status = ess_and_share(rows, gamma)
    return (by_kish if kind == "kish" else by_max), status


def truncate(rows: Rows, gamma: Floats, normalize: bool, workers: int = 1) -> tuple[Floats, Floats]:
    """Log-weights of w^gamma cut at sqrt(n) times their mean [Ionides2008]_, and their ESS."""
    cut, ess = rows.target(), rows.floats()
    parts.over_rows(_kernels.truncate_rows, (rows.values, rows.n, gamma, cut, ess), (normalize,), workers)
    return cut, ess


def presence(rows: Rows) -> Codes:
    """NOT_FINITE, NO_WEIGHT or OK: whether a row has weights to work on."""
    largest = rows.values.max(axis=1)
    finite = np.where(largest == -np.inf, np.int8(NO_WEIGHT), np.int8(OK))
    return np.where(largest < np.inf, finite, np.int8(NOT_FINITE))  # NaN is not

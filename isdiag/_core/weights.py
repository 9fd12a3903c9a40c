"""Tempered weights, their effective sample size, and where they are cut."""

from __future__ import annotations

import numpy as np

from isdiag import _kernels
from isdiag._core import chains, parts
from isdiag._core.boundary import Rows
from isdiag._core.typing import Codes, Floats, Kind, Mask
from isdiag._kernels.records import NEXT_TO_NOTHING, NO_WEIGHT, NOT_FINITE, OK


def over_largest(log_w: Floats, gamma: Floats) -> tuple[Floats, Floats]:
    """Rows of w^gamma over the largest of the row, and that one's logarithm, (rows, 1)."""
    relative, top = _relative(log_w, gamma)
    return np.where(_is_something(log_w, relative), np.exp(relative), 0.0), top


def relative_efficiency(rows: Rows, log_w: Floats, gamma: Floats) -> Floats:
    """Of w^gamma along the chains that the draws of rows make, see `isdiag._core.chains`."""
    with np.errstate(all="ignore"):  # rows without weight, log-weights of any size
        relative, _ = over_largest(log_w, gamma)
        return chains.efficiency(chains.centred(rows, relative), rows.chain)


def looked_at(log_w: Floats, gamma: Floats) -> Mask:
    """Where w^gamma is something next to the largest of the row: elsewhere h may be anything."""
    with np.errstate(all="ignore"):  # rows without weight, log-weights of any size
        return _is_something(log_w, _relative(log_w, gamma)[0])


def _relative(log_w: Floats, gamma: Floats) -> tuple[Floats, Floats]:
    largest, exponent = log_w.max(axis=1, keepdims=True), gamma[:, None]
    return exponent * (log_w - largest), exponent * largest


def _is_something(log_w: Floats, relative: Floats) -> Mask:
    # 0 * -inf: a draw of zero weight keeps it at gamma = 0.
    return (log_w > -np.inf) & (relative > NEXT_TO_NOTHING)


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


def truncated(rows: Rows, gamma: Floats, workers: int = 1) -> Floats:
    """Log-weights of w^gamma cut at sqrt(n) times their mean (Ionides 2008)."""
    _, total, _ = ess_and_share(rows, gamma, workers)  # the sum of the weights over the largest
    with np.errstate(invalid="ignore", divide="ignore"):
        high = gamma * rows.values.max(axis=1)
        cap = high + np.log(total) - 0.5 * np.log(rows.n)
    tempered, _ = temper(rows, gamma, False, workers)
    return np.fmin(tempered, cap[:, None], out=tempered)  # no cap without weight


def truncate(rows: Rows, normalize: bool, workers: int = 1) -> tuple[Floats, Floats]:
    """Truncated log-weights, and their ESS."""
    one = np.ones(len(rows))
    cut = truncated(rows, one, workers)
    own = rows.holding(cut)
    ess, _, _ = ess_and_share(own, one, workers)
    return (temper(own, one, True, workers)[0] if normalize else cut), ess


def presence(rows: Rows) -> Codes:
    """NOT_FINITE, NO_WEIGHT or OK: whether a row has weights to work on."""
    largest = rows.values.max(axis=1)
    finite = np.where(largest == -np.inf, np.int8(NO_WEIGHT), np.int8(OK))
    return np.where(largest < np.inf, finite, np.int8(NOT_FINITE))  # NaN is not

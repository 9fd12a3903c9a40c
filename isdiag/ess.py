"""Effective sample size of weights."""

from __future__ import annotations

from typing import Any, Literal, get_args

from isdiag import _arrays

Kind = Literal["kish", "perplexity", "max"]
KINDS = get_args(Kind)


def ess(
    log_w: Any,
    *,
    gamma: Any = 1.0,
    kind: Kind = "kish",
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> Any:
    """Effective sample size of the weights ``w**gamma``, in draws.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0.
    kind : {"kish", "perplexity", "max"}, default "kish"
        With wbar the normalised weights: ``1 / sum(wbar**2)``, ``exp(-sum(wbar * log(wbar)))`` or
        ``1 / max(wbar)``.
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    float or array of the batch shape
        Between 1 and the number of draws of positive weight; float64. NaN for a row without weight or
        with NaN or +inf.

    Raises
    ------
    ValueError
        If `gamma` is negative, NaN or infinite, `kind` is unknown, the sample axis is empty, or shapes
        do not fit.
    TypeError
        If `log_w` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf.

    Notes
    -----
    * ESS falls as gamma grows; as gamma -> 0 it tends to the number of draws of positive weight.
    * ESS describes the weights, not an estimate: a missed mode or a heavy tail that has not yet shown
      itself leaves it high. Read it beside khat.

    References
    ----------
    Kong, A. (1992). A note on importance sampling using standardized weights. Tech. rep. 348, Chicago.
    Martino, L., Elvira, V. & Louzada, F. (2017). Effective sample size for importance sampling based on
    discrepancy measures. Signal Processing 131, 386-401.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> isdiag.ess(np.log([1.0, 1.0, 2.0]))
    2.6666666666666665
    >>> isdiag.ess(np.log([1.0, 1.0, 2.0]), kind="max")
    2.0
    """
    if kind not in KINDS:
        msg = f"kind must be one of {KINDS}, got {kind!r}"
        raise ValueError(msg)
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    if kind == "perplexity":
        out, status = perplexity_rows(rows, exponent)
    else:
        by_kish, by_max, status = ess_rows(rows, exponent)
        out = by_kish if kind == "kish" else by_max
    _arrays.warn_not_finite(status)
    return rows.diagnostic(out)


def ess_rows(
    rows: _arrays.Rows, gamma: _arrays.Floats
) -> tuple[_arrays.Floats, _arrays.Floats, _arrays.Codes]:
    """ESS of w^gamma, kinds kish and max, and the status code, a row each."""
    by_kish, by_max, status = rows.floats(), rows.floats(), rows.codes()
    _arrays.kernels().ess_rows(rows.values, gamma, by_kish, by_max, status)
    return by_kish, by_max, status


def perplexity_rows(rows: _arrays.Rows, gamma: _arrays.Floats) -> tuple[_arrays.Floats, _arrays.Codes]:
    """ESS of w^gamma, kind perplexity, and the status code, a row each."""
    perplexity, status = rows.floats(), rows.codes()
    _arrays.kernels().perplexity_rows(rows.values, gamma, perplexity, status)
    return perplexity, status

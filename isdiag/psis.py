"""Pareto smoothed importance sampling: the tail index khat, and weights smoothed by it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from isdiag import _arrays, _threads
from isdiag._result import Result
from isdiag.gpd import tail_length as default_tail_length

# A training loop asks for the same length at every step.
_uniform_length = lru_cache(default_tail_length)


def tail_lengths(rows: _arrays.Rows, r_eff: Any, tail_length: int | None) -> _arrays.Ints:
    """The tail length of each row; a pinned one is cut to leave a draw below the tail."""
    if tail_length is None:
        if rows.uniform and type(r_eff) is float:
            length = _uniform_length(rows.values.shape[1], r_eff)
            return _arrays.filled(len(rows), length, np.int64)
        efficiency = rows.per_row(r_eff, "r_eff", 0.0, exclusive=True)
        return np.where(rows.n > 0, default_tail_length(np.maximum(rows.n, 1), efficiency), 0)
    if not isinstance(tail_length, (int, np.integer)) or tail_length < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"tail_length must be a positive int, got {tail_length!r}"
        raise ValueError(msg)
    draws = rows.values.shape[1]
    if tail_length >= draws > 1:
        msg = f"tail_length={tail_length} must be smaller than the number of draws, {draws}"
        raise ValueError(msg)
    return np.maximum(np.minimum(rows.n - 1, tail_length), 0)


@dataclass(frozen=True, eq=False, repr=False)
class PSIS(Result):
    """Pareto smoothed weights.

    Attributes
    ----------
    log_weights : array of log_w's shape, kind and float dtype
        Smoothed log-weights.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights; -inf where there is none, NaN where unknown, inf where bad
        beyond a fit.
    ess : float or array of the batch shape
        Kish's effective sample size of the smoothed weights, in draws. Where khat is above
        `khat_threshold(n)` it is no evidence: smoothing raised it.
    tail_length : int or array of the batch shape
        How many draws the tail holds (at most those of positive weight).
    n : int or array of the batch shape
        How many draws count.
    status : Status or array of the batch shape
        What became of the row.
    """

    log_weights: Any
    khat: Any
    ess: Any
    tail_length: Any
    n: Any
    status: Any


def psis(
    log_w: Any,
    *,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    normalize: bool = True,
    axis: _arrays.Axis = -1,
    where: Any = None,
    workers: int = 1,
    out: Any = None,
) -> PSIS:
    """Pareto smoothed importance sampling.

    The largest weights are replaced by the quantiles of a generalised Pareto distribution fitted to
    them, cut at the largest raw weight.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant: ``log target - log proposal``, for leave-one-out minus
        the pointwise log-likelihood. -inf is a draw of zero weight.
    r_eff : float or array_like of the batch shape, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    normalize : bool, default True
        Make the weights sum to one. Otherwise the body of the weights comes back bit for bit.
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`; the others come back as -inf.
    workers : int, default 1
        Threads to spread the rows over; -1 for one a CPU. Results do not depend on it.
    out : ndarray, optional
        NumPy array of `log_w`'s shape and float dtype that takes the smoothed log-weights; may be `log_w`
        itself, which is then overwritten. Where it is float64, C-contiguous and the sample axis is the
        last, no other memory of that size is used.

    Returns
    -------
    PSIS
        Smoothed log-weights, khat, ESS and what became of each row.

    Raises
    ------
    ValueError
        If `r_eff` or `tail_length` is out of range, the sample axis is empty, or shapes do not fit; if
        `out` is read-only or differs from `log_w` in shape or from the result in dtype.
    TypeError
        If `log_w` is not real or not in CPU memory, `where` is not boolean, or `out` is not a NumPy array.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN, all other rows are untouched.

    Notes
    -----
    * Fewer than 6 draws in the tail (n < 30): khat NaN, weights unsmoothed, `Status.TAIL_TOO_SHORT`.
    * Equal weights: khat -inf, weights unchanged, `Status.FLAT`.
    * Ties that make a fit impossible: khat inf, weights unsmoothed, `Status.DEGENERATE_TAIL`.
    * -inf counts in n but is never fitted. If fewer draws than the tail length have positive weight,
      the tail is all of them, over a threshold of zero weight.
    * Draws that tie keep their order of appearance.

    References
    ----------
    Vehtari, A., Simpson, D., Gelman, A., Yao, Y. & Gabry, J. (2024). Pareto smoothed importance
    sampling. JMLR 25(72), 1-58.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = np.random.default_rng(1).normal(scale=2.0, size=1000)
    >>> isdiag.psis(log_w)
    PSIS(log_weights=<1000 ndarray>, khat=0.688952, ess=36.1046, tail_length=94, n=1000, status=OK)
    """
    rows = _arrays.rows_of(log_w, axis, where)
    lengths = tail_lengths(rows, r_eff, tail_length)
    target = rows.target(out)
    gamma = np.ones(len(rows))
    khat, ess, used, status = smooth_rows(rows, lengths, gamma, normalize, workers, target)
    _arrays.warn_not_finite(status)
    return PSIS(
        log_weights=rows.weights(target, out),
        khat=rows.diagnostic(khat),
        ess=rows.diagnostic(ess),
        tail_length=rows.diagnostic(used),
        n=rows.diagnostic(rows.n),
        status=rows.status(status),
    )


def smooth_rows(
    rows: _arrays.Rows,
    lengths: _arrays.Ints,
    gamma: _arrays.Floats,
    normalize: bool,
    workers: int,
    out: _arrays.Floats,
) -> tuple[_arrays.Floats, _arrays.Floats, _arrays.Ints, _arrays.Codes]:
    """Write smoothed rows of w^gamma to `out`: (khat, ESS, tail length, status codes), a row each."""
    khat, ess = rows.floats(), rows.floats()
    used, status = rows.counts(), rows.codes()
    by_row = (rows.values, rows.n, lengths, gamma, out, khat, ess, used, status)
    _threads.spread(_arrays.kernels().psis_rows, by_row, (rows.eps, normalize), workers)
    return khat, ess, used, status


def pareto_khat(
    log_w: Any,
    *,
    gamma: Any = 1.0,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> Any:
    """The shape khat of the tail of the weights ``w**gamma``, without smoothing.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0; khat is re-fitted to the tempered weights.
    r_eff : float or array_like of the batch shape, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    float or array of the batch shape
        Shape khat, float64: -inf for equal weights, NaN where unknown (fewer than 6 draws in the tail, no
        weight, NaN or +inf in the row), inf where the tail cannot be fitted. Compare as
        ``khat <= threshold``, which an unknown khat fails.

    Raises
    ------
    ValueError
        If `gamma`, `r_eff` or `tail_length` is out of range, the sample axis is empty, or shapes do not
        fit.
    TypeError
        If `log_w` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = np.random.default_rng(1).normal(scale=2.0, size=1000)
    >>> round(isdiag.pareto_khat(log_w), 6), round(isdiag.pareto_khat(log_w, gamma=0.5), 6)
    (0.688952, 0.321681)
    """
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    khat, status = khat_rows(rows, tail_lengths(rows, r_eff, tail_length), exponent)
    _arrays.warn_not_finite(status)
    return rows.diagnostic(khat)


def khat_rows(
    rows: _arrays.Rows, lengths: _arrays.Ints, gamma: _arrays.Floats
) -> tuple[_arrays.Floats, _arrays.Codes]:
    """khat of w^gamma and the status code, a row each."""
    khat, status = rows.floats(), rows.codes()
    _arrays.kernels().khat_rows(rows.values, rows.n, lengths, gamma, rows.eps, khat, status)
    return khat, status

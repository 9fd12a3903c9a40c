"""Generalised Pareto fits and what a shape parameter means for importance sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isdiag import _arrays
from isdiag._result import Result

GOOD_KHAT = 0.7


@dataclass(frozen=True, eq=False, repr=False)
class GPDFit(Result):
    """A fitted generalised Pareto distribution with survival function ``(1 + k x / sigma)**(-1/k)``.

    Attributes
    ----------
    k : float or array of the batch shape
        Shape; positive is a heavy tail with ``1/k`` finite moments, negative a bounded one.
    sigma : float or array of the batch shape
        Scale, in the units of the excesses.
    k_std_error : float or array of the batch shape
        Standard error of k.
    """

    k: Any
    sigma: Any
    k_std_error: Any


def gpd_fit(excesses: Any, *, prior: bool = True) -> GPDFit:
    """Fit a generalised Pareto distribution to excesses over a threshold, by Zhang and Stephens (2009).

    Parameters
    ----------
    excesses : array_like, shape (..., m)
        Amounts >= 0 by which draws exceed the threshold, in any order.
    prior : bool, default True
        Shrink k as ten draws at k = 1/2 would (Vehtari et al. 2024). It steadies k in short tails;
        sigma keeps the unshrunk k.

    Returns
    -------
    GPDFit
        NaN throughout where there are fewer than 6 excesses; k infinite, the rest NaN, where ties make a
        fit impossible.

    Raises
    ------
    ValueError
        If an excess is negative or NaN or infinite, or the last axis is empty.
    TypeError
        If `excesses` is not real or not in CPU memory.

    Notes
    -----
    * The estimate is the posterior mean over a grid of ``30 + floor(sqrt(m))`` points for
      ``theta = -k/sigma``. The standard error comes from the same quadrature: the variance of k along
      the grid plus ``k**2 / m``, what k still varies at given theta. For large m it tends to the
      maximum likelihood one, ``(1 + k) / sqrt(m)``.
    * k does not depend on the units of the excesses.

    References
    ----------
    Zhang, J. & Stephens, M. A. (2009). A new and efficient estimation method for the generalized Pareto
    distribution. Technometrics 51(3), 316-325.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> p = (np.arange(500) + 0.5) / 500
    >>> isdiag.gpd_fit(((1 - p) ** -0.5 - 1) / 0.5)  # quantiles of k = 0.5, sigma = 1
    GPDFit(k=0.500831, sigma=0.998116, k_std_error=0.06537)
    """
    array, _ = _arrays.real_array(excesses, "excesses")
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        msg = f"excesses must be finite and not negative, got {array[bad].flat[0]}"
        raise ValueError(msg)
    rows = _arrays.rows_of(excesses, -1, None, "excesses")
    k, sigma, k_std_error = rows.floats(), rows.floats(), rows.floats()
    ascending = np.sort(rows.values, axis=1)
    _arrays.kernels().gpd_fit_rows(ascending, rows.n, prior, k, sigma, k_std_error)
    return GPDFit(rows.diagnostic(k), rows.diagnostic(sigma), rows.diagnostic(k_std_error))


def _count(n: Any) -> Any:
    array = _arrays.real_array(n, "n")[0]
    if not ((array >= 1) & np.isfinite(array)).all():
        msg = f"n must be finite and at least 1, got {n}"
        raise ValueError(msg)
    return array


def tail_length(n: Any, r_eff: Any = 1.0) -> Any:
    """How many of n draws make up the tail: ``floor(min(n / 5, 3 sqrt(n / r_eff)))``.

    Parameters
    ----------
    n : int or array_like of int
        Number of draws, >= 1.
    r_eff : float or array_like, default 1
        Relative efficiency: effective over actual number of draws, for draws from MCMC. > 0.

    Returns
    -------
    int or array of int
        Tail length; below 6 no fit is made.

    Raises
    ------
    ValueError
        If n < 1 or r_eff is not positive and finite.

    Notes
    -----
    The paper, posterior and arviz-stats round down; loo and arviz 0.x round up.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), appendix H.

    Examples
    --------
    >>> import isdiag
    >>> isdiag.tail_length(1000)
    94
    """
    draws = _count(n)
    efficiency = _arrays.real_array(r_eff, "r_eff")[0]
    if not ((efficiency > 0) & np.isfinite(efficiency)).all():
        msg = f"r_eff must be positive and finite, got {r_eff}"
        raise ValueError(msg)
    with np.errstate(over="ignore"):
        by_root = 3 * np.sqrt(draws / efficiency)
    return _arrays.like_scalar(np.minimum(draws / 5, by_root).astype(np.int64))


def khat_threshold(n: Any) -> Any:
    """The largest khat that n draws can cope with: ``min(1 - 1 / log10(n), 0.7)``.

    Parameters
    ----------
    n : int or array_like of int
        Number of draws, >= 1.

    Returns
    -------
    float or array
        Threshold; -inf for n = 1, 0 for n = 10, 0.7 from n = 2155 on.

    Raises
    ------
    ValueError
        If n < 1.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), section 3.2.3.

    Examples
    --------
    >>> import isdiag
    >>> isdiag.khat_threshold(100)
    0.5
    """
    with np.errstate(divide="ignore"):
        return _arrays.like_scalar(np.minimum(1 - 1 / np.log10(_count(n)), GOOD_KHAT))


def min_sample_size(khat: Any) -> Any:
    """How many draws a khat needs for a reliable estimate: ``10**(1 / (1 - max(0, khat)))``.

    Parameters
    ----------
    khat : float or array_like
        Shape of the tail of the weights.

    Returns
    -------
    float or array
        10 for khat <= 0, inf for khat >= 1, NaN for NaN.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), section 3.2.3.

    Examples
    --------
    >>> import isdiag
    >>> isdiag.min_sample_size(0.5)
    100.0
    """
    k = np.maximum(_arrays.real_array(khat, "khat")[0], 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        return _arrays.like_scalar(np.where(k >= 1, np.inf, 10 ** (1 / np.where(k >= 1, 1.0, 1 - k))))


def convergence_rate(khat: Any, n: Any) -> Any:
    """Relative convergence rate of PSIS: at 1 the error falls as ``1 / sqrt(n)``, at 0 not at all.

    Parameters
    ----------
    khat : float or array_like
        Shape of the tail of the weights.
    n : int or array_like of int
        Number of draws, >= 2.

    Returns
    -------
    float or array
        Between 0 and 1; 1 for khat <= 0, 0 for khat >= 1, NaN for NaN.

    Raises
    ------
    ValueError
        If n < 2.

    Notes
    -----
    * With e = 2 khat - 1 the paper's expression equals ``n/(n-1) + e / expm1(-e log n)``, which loses no
      digits near khat = 1/2 or 0.
    * At khat = 1/2 exactly the value is the published ``1 - 1/log(n)``, which is 1/(n-1) below the
      expression's own limit.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), appendix B.

    Examples
    --------
    >>> import isdiag
    >>> round(isdiag.convergence_rate(0.7, 1000), 3)
    0.574
    """
    draws = _count(n)
    if (draws < 2).any():
        msg = f"n must be at least 2, got {n}"
        raise ValueError(msg)
    k, draws = np.broadcast_arrays(_arrays.real_array(khat, "khat")[0].astype(np.float64), draws)
    inside = (k > 0) & (k < 1) & (k != 0.5)
    e = np.where(inside, 2 * k - 1, 1.0)
    rate = draws / (draws - 1) + e / np.expm1(-e * np.log(draws))
    rate = np.maximum(np.where(k == 0.5, 1 - 1 / np.log(draws), rate), 0.0)
    rate = np.where(k <= 0, 1.0, np.where(k >= 1, 0.0, rate))
    return _arrays.like_scalar(np.where(np.isnan(k), np.nan, rate))

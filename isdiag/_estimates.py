"""Importance sampling estimates: value, standard error, bias, interval."""

from __future__ import annotations

from typing import Any

from isdiag._core import moments, tails
from isdiag._core.boundary import rows_of
from isdiag._core.check import flag, one_of
from isdiag._core.result import SNIS, bare
from isdiag._core.typing import Axis, Covariance, Dependence, Smoothing

SMOOTHINGS = (False, True, "psis", "truncate")


def snis(
    log_w: Any,
    h: Any,
    *,
    gamma: Any = 1.0,
    smooth: Smoothing = False,
    normalize: bool = True,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> SNIS:
    """Importance sampling estimate of ``E[h]`` with its error and bias, self-normalised unless told not to.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws: numbers, vectors or gradients. Where the weight is zero h is not looked at.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0. Below 1 the estimate is of the mean under the tempered target, which is another
        one; `bias` does not include that difference.
    smooth : bool, "psis" or "truncate", default False
        Use the Pareto smoothed weights of ``w**gamma`` (True or "psis"), or cut them at
        ``sqrt(n) * mean(w**gamma)`` (Ionides).
    normalize : bool, default True
        Divide by the sum of the weights. If False the estimate is ``mean(w**gamma * h)``, for which the
        log-weights must be those of normalised densities.
    draws : {"independent", "mcmc"}, default "independent"
        "mcmc" for draws of Markov chains: the last of `axis` is the order within a chain, the others are
        chains, and errors take the autocorrelation of what they are made of into account.
    r_eff : float or array_like of the batch shape, optional
        Relative efficiency of draws from MCMC; sets the tail length only. Default 1, and that of the weights
        for ``draws="mcmc"``, see `relative_efficiency`.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes of `log_w`; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    SNIS
        Estimate, standard error, bias, interval, and the diagnostics of the weights.

    Notes
    -----
    * With wbar the normalised weights the standard error is ``sqrt(sum(wbar**2 (h - est)**2))`` and the
      bias ``-sum(wbar**2 (h - est))``; without normalising they are ``std(w h) / sqrt(n)`` and 0.
    * `Status.ERROR_ROUGH` says that fewer than 15 draws carry the standard error, and
      `Status.ERROR_UNCERTAIN` that fewer than 6 do: heavy tails, few draws or a rare value of h.
    * The interval is that of `confidence_interval`; for h with axes of its own it does not look at the
      skewness of each component, and goes by the draws behind the sum of squared weights.
    * Standard error and bias are those of the weights used: what smoothing or cutting took away is not in
      them.
    * NaN in h at a draw of positive weight makes that estimate NaN.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Owen2013]_, section 9.2; [Kong1992]_; [Ionides2008]_; [Vehtari2024]_; [Satterthwaite1946]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)  # proposal N(0, 1)
    >>> result = isdiag.snis(x - 0.5, x)  # target N(1, 1), whose mean is 1
    >>> print(f"{result.estimate:.4f} +- {result.std_error:.4f}, {result.low:.4f} to {result.high:.4f}")
    1.0257 +- 0.0556, 0.9129 to 1.2863
    >>> print(f"{result.khat:.4f} {result.ess:.1f} {result.error_draws:.1f} {result.status}")
    0.2460 693.8 5.6 ERROR_UNCERTAIN
    """
    one_of("smooth", smooth, SMOOTHINGS)
    rows = rows_of(log_w, axis, where, dependence=draws)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    found = moments.estimates(
        rows,
        values,
        exponent,
        lengths,
        smooth=smooth,
        normalize=flag("normalize", normalize),
        workers=workers,
    )
    return SNIS.of(rows, own, **found)


def kong_owen_bias(
    log_w: Any,
    h: Any,
    *,
    gamma: Any = 1.0,
    covariance: Covariance = "target",
    axis: Axis = -1,
    where: Any = None,
) -> Any:
    """First-order bias of the self-normalised estimate of ``E[h]`` under ``w**gamma``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at, except with
        ``covariance="proposal"``, where every draw counts.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0.
    covariance : {"target", "proposal"}, default "target"
        The law under which w and h covary. "target" is the delta method's,
        ``-sum(wbar**2 (h - est)) = (est_gamma - est_2gamma) / ESS_gamma``. "proposal" is
        ``-cov_mu(w**gamma, h) / (n mean(w**gamma)) = -(est_gamma - mean(h)) / n``, the form that is often
        printed; it understates the bias by a factor that grows as ``exp(gamma**2 var(log w))``.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    float or array
        Estimated bias in the units of h, in the batch shape followed by h's own axes; NaN for a row
        without weight or with NaN or +inf.

    Notes
    -----
    * Both are of order 1/n and vanish where h does not covary with the weights.
    * The bias of tempering, the distance between the tempered target's mean and the target's, is
      another matter and not part of it.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Owen2013]_, section 9.2; [Kong1992]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)
    >>> round(isdiag.kong_owen_bias(x - 0.5, x), 8)
    -0.00153041
    >>> round(isdiag.kong_owen_bias(x - 0.5, x, covariance="proposal"), 8)
    -0.00051955
    """
    one_of("covariance", covariance, Covariance)
    rows = rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    bias, status = moments.kong_owen_bias(rows, values, exponent, of_proposal=covariance == "proposal")
    return bare(rows, bias, status, own)

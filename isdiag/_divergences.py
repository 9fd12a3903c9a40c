"""Divergences of the target from the proposal, and the moments of the weights that they are made of."""

from __future__ import annotations

from typing import Any

from isdiag._core import divergences, tails
from isdiag._core.boundary import rows_of
from isdiag._core.check import flag, one_of
from isdiag._core.result import Divergence
from isdiag._core.typing import Axis, Dependence, Direction, Estimator


def log_moment(
    log_w: Any,
    gamma: Any,
    *,
    normalize: bool = False,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Divergence:
    """Logarithm of a moment of the weights, ``log mean(w**gamma)``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights; -inf is a draw of zero weight.
    gamma : float or array_like of the batch shape
        Exponent, >= 0. NaN in an array gives a NaN row.
    normalize : bool, default False
        Take the weights over their mean: the moment is then ``mean(w**gamma) / mean(w)**gamma``.
    draws : {"independent", "mcmc"}, default "independent"
        "mcmc" for draws of Markov chains: the last of `axis` is the order within a chain, the others are
        chains, and errors take the autocorrelation of what they are made of into account.
    r_eff : float or array_like of the batch shape, optional
        Relative efficiency of draws from MCMC; sets the tail length only. Default 1, and that of the weights
        for ``draws="mcmc"``, see `relative_efficiency`.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    Divergence
        The logarithm, its standard error and interval, and the diagnostics of the weights.

    Notes
    -----
    * gamma = 0 is the limit from above: the log of the share of draws of positive weight.
    * The moment is unbiased for log-weights of normalised densities; its logarithm is too small by about half
      the squared standard error.
    * khat is that of ``w**gamma``, of ``w**max(gamma, 1)`` if normalised: the mean of w is then averaged too.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Owen2013]_, chapter 9.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> moment = isdiag.log_moment(np.log([1.0, 2.0, 3.0]), 2.0)
    >>> round(float(np.exp(moment.estimate)), 6)  # (1 + 4 + 9) / 3
    4.666667
    """
    rows = rows_of(log_w, axis, where, dependence=draws)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    found = divergences.log_moment(
        rows, rows.gamma(gamma), lengths, normalize=flag("normalize", normalize), workers=workers
    )
    return Divergence.of_records(rows, found)


def renyi_divergence(
    log_w: Any,
    alpha: Any,
    *,
    normalize: bool = True,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Divergence:
    """Renyi divergence of the target from the proposal, ``log E_mu[w**alpha] / (alpha - 1)``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights of draws from the proposal mu; -inf is a draw of zero weight.
    alpha : float or array_like of the batch shape
        Order, >= 0, inf included. 1 is the Kullback-Leibler divergence KL(pi || mu), 0 is
        ``-log mu(pi > 0)``, inf the log of the largest weight. NaN in an array gives a NaN row.
    normalize : bool, default True
        Take the weights over their mean, the log-weights being known up to a constant. If False they must be
        those of normalised densities.
    draws : {"independent", "mcmc"}, default "independent"
        "mcmc" for draws of Markov chains: the last of `axis` is the order within a chain, the others are
        chains, and errors take the autocorrelation of what they are made of into account.
    r_eff : float or array_like of the batch shape, optional
        Relative efficiency of draws from MCMC; sets the tail length only. Default 1, and that of the weights
        for ``draws="mcmc"``, see `relative_efficiency`.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    Divergence
        The divergence in nats, its standard error and interval, and the diagnostics of the weights.

    Notes
    -----
    * Normalised, it is the divergence between two laws on the draws: >= 0, at most ``log(n)``, and
      non-decreasing and continuous in alpha, whatever the weights.
    * ``normalize=False`` estimates by ``log_moment(log_w, alpha).estimate / (alpha - 1)``, and by
      ``mean(w log w)`` at alpha = 1. That the mean of the weights is not quite 1 is magnified by
      ``1 / (alpha - 1)``, so near 1 the estimate is useless, as its standard error says.
    * khat is that of ``w**alpha``, of ``w**max(alpha, 1)`` if normalised, and of w for alpha = inf. At
      alpha = 1 the terms are ``w log w``, whose tail is heavier than that of w, but for the same shape in
      the limit: take khat as a lower bound.
    * alpha = inf has no standard error: the largest weight seen is a lower bound of the largest. khat > 0
      says that there is none.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [vanErven2014]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)  # proposal N(0, 1), target N(0.5, 1)
    >>> half = isdiag.renyi_divergence(0.5 * x, 0.5)  # the truth is alpha * 0.5**2 / 2
    >>> print(f"{half.estimate:.4f} +- {half.std_error:.4f}")
    0.0641 +- 0.0023
    """
    rows = rows_of(log_w, axis, where, dependence=draws)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    return Divergence.of_records(
        rows,
        divergences.renyi(rows, alpha, lengths, normalize=flag("normalize", normalize), workers=workers),
    )


def alpha_divergence(
    log_w: Any,
    alpha: Any,
    *,
    normalize: bool = True,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Divergence:
    """Amari divergence of the target from the proposal, ``(1 - E_mu[w**alpha]) / (alpha (1 - alpha))``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights of draws from the proposal mu; -inf is a draw of zero weight.
    alpha : float or array_like of the batch shape
        Order, >= 0. 1 is KL(pi || mu), 0 is KL(mu || pi), 2 half the chi-squared divergence, 1/2 four times
        the squared Hellinger distance ``1 - E_mu[sqrt(w)]``. NaN in an array gives a NaN row.
    normalize : bool, default True
        Take the weights over their mean, the log-weights being known up to a constant. If False they must be
        those of normalised densities.
    draws : {"independent", "mcmc"}, default "independent"
        "mcmc" for draws of Markov chains: the last of `axis` is the order within a chain, the others are
        chains, and errors take the autocorrelation of what they are made of into account.
    r_eff : float or array_like of the batch shape, optional
        Relative efficiency of draws from MCMC; sets the tail length only. Default 1, and that of the weights
        for ``draws="mcmc"``, see `relative_efficiency`.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    Divergence
        The divergence, its standard error and interval, and the diagnostics of the weights. At alpha = 0 it
        is inf if a draw has zero weight.

    Notes
    -----
    * Normalised, it is >= 0 and continuous in alpha, whatever the weights.
    * ``normalize=False`` estimates by the mean of ``(1 - w**alpha) / (alpha (1 - alpha))``, unbiased, and by
      that of ``w log w`` at alpha = 1. Near 1, but not at 1, it is useless, as its standard error says.
    * A negative order is another's with the roles swapped: ``1 - alpha`` with the weights ``1 / w`` of draws
      from the target.
    * khat is that of ``w**alpha``, of ``w**max(alpha, 1)`` if normalised. At alpha = 1 it is a lower
      bound, as for `renyi_divergence`; at alpha = 0 it is that of w, which says nothing of ``-log w``.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Amari2016]_, chapter 4; [Cichocki2010]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = np.log([1.0, 2.0, 3.0])
    >>> round(float(isdiag.alpha_divergence(log_w, 2.0)), 6)  # (14 / 12 - 1) / 2
    0.083333
    >>> float(isdiag.alpha_divergence([0.0, -np.inf], 0.0))
    inf
    """
    rows = rows_of(log_w, axis, where, dependence=draws)
    order = rows.per_row("alpha", alpha, 0.0, unknown=True)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    return Divergence.of_records(
        rows,
        divergences.amari(rows, order, lengths, normalize=flag("normalize", normalize), workers=workers),
    )


def kl_divergence(
    log_w: Any,
    *,
    direction: Direction = "target",
    estimator: Estimator = "k1",
    normalize: bool = True,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Divergence:
    """Kullback-Leibler divergence between target and proposal, from draws of the proposal.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights of draws from the proposal mu; -inf is a draw of zero weight.
    direction : {"target", "proposal"}, default "target"
        The law under which the log-ratio is averaged: ``KL(pi || mu) = E_pi[log w]`` or
        ``KL(mu || pi) = -E_mu[log w]``. The latter is what a training run logs of the policy that sampled.
    estimator : {"k1", "k2", "k3"}, default "k1"
        What is averaged over the draws: for the direction "proposal" ``-log w``, ``log(w)**2 / 2`` or
        ``w - 1 - log w``; for "target" ``w log w``, ``w log(w)**2 / 2`` or ``w log w - w + 1``.
    normalize : bool, default True
        Take the weights over their mean, the log-weights being known up to a constant. If False they must be
        those of normalised densities, as log-ratios of policies are.
    draws : {"independent", "mcmc"}, default "independent"
        "mcmc" for draws of Markov chains: the last of `axis` is the order within a chain, the others are
        chains, and errors take the autocorrelation of what they are made of into account.
    r_eff : float or array_like of the batch shape, optional
        Relative efficiency of draws from MCMC; sets the tail length only. Default 1, and that of the weights
        for ``draws="mcmc"``, see `relative_efficiency`.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    Divergence
        The divergence in nats, its standard error and interval, and the diagnostics of the weights.
        KL(mu || pi) is inf if a draw has zero weight.

    Notes
    -----
    * With ``normalize=False`` k1 and k3 are unbiased. k3 is never negative, term by term, and varies less
      where target and proposal are near; k1 may come out negative.
    * k2 is never negative and varies little, but estimates another divergence, which agrees with KL to second
      order: for normal laws of equal variance it is ``KL + KL**2 / 2``. More draws do not help.
    * Normalised, the weights have mean 1, so that k1 and k3 are the same number, >= 0:
      ``sum(wbar log w) - log mean(w)`` for "target" and ``log mean(w) - mean(log w)`` for "proposal". Their
      bias is of order 1/n.
    * khat is that of w. The terms ``w log w`` have a heavier tail, but for the same shape in the limit: take
      khat as a lower bound. The direction "proposal" averages ``-log w`` as well, whose tail, where weights
      vanish, khat does not see; w is averaged only if normalised and by k3.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Schulman2020]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)  # proposal N(0, 1), target N(0.5, 1): KL 0.125
    >>> for estimator in ("k1", "k2", "k3"):
    ...     kl = isdiag.kl_divergence(
    ...         0.5 * x - 0.125, direction="proposal", estimator=estimator, normalize=False
    ...     )
    ...     print(f"{kl.estimate:.4f} +- {kl.std_error:.4f}")
    0.1317 +- 0.0113
    0.1353 +- 0.0043
    0.1276 +- 0.0043
    """
    one_of("direction", direction, Direction)
    one_of("estimator", estimator, Estimator)
    rows = rows_of(log_w, axis, where, dependence=draws)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    found = divergences.kullback_leibler(
        rows, direction, estimator, lengths, normalize=flag("normalize", normalize), workers=workers
    )
    return Divergence.of_records(rows, found)


def chi2_divergence(
    log_w: Any,
    *,
    normalize: bool = True,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Divergence:
    """Chi-squared divergence of the target from the proposal, ``E_mu[w**2] - 1``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights of draws from the proposal mu; -inf is a draw of zero weight.
    normalize : bool, default True
        Take the weights over their mean, the log-weights being known up to a constant. If False they must be
        those of normalised densities.
    draws : {"independent", "mcmc"}, default "independent"
        "mcmc" for draws of Markov chains: the last of `axis` is the order within a chain, the others are
        chains, and errors take the autocorrelation of what they are made of into account.
    r_eff : float or array_like of the batch shape, optional
        Relative efficiency of draws from MCMC; sets the tail length only. Default 1, and that of the weights
        for ``draws="mcmc"``, see `relative_efficiency`.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    Divergence
        The divergence, its standard error and interval, and the diagnostics of the weights.

    Notes
    -----
    * Normalised it is the squared coefficient of variation of the weights, ``n / ess(log_w) - 1``.
    * It is ``2 * alpha_divergence(log_w, 2)``.
    * khat is that of ``w**2``, about twice that of w: the standard error needs four moments of the weights.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Kong1992]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = np.log([1.0, 2.0, 3.0])
    >>> round(float(isdiag.chi2_divergence(log_w)), 6), round(3 / isdiag.ess(log_w) - 1, 6)
    (0.166667, 0.166667)
    """
    rows = rows_of(log_w, axis, where, dependence=draws)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    return Divergence.of_records(
        rows, divergences.chi2(rows, lengths, normalize=flag("normalize", normalize), workers=workers)
    )

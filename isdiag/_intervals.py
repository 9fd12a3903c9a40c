"""What is known of one expectation: the tail of w |h - estimate|, and intervals."""

from __future__ import annotations

from typing import Any

from isdiag._core import expectation, tails
from isdiag._core.boundary import rows_of
from isdiag._core.check import number, one_of
from isdiag._core.result import ConfidenceInterval, ExpectationDiagnostics
from isdiag._core.typing import Axis, Dependence, IntervalMethod


def expectation_diagnostics(
    log_w: Any,
    h: Any,
    *,
    gamma: Any = 1.0,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> ExpectationDiagnostics:
    """Tail shape and effective sample size of ``w * (h - estimate)``, which is what the error is made of.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0.
    r_eff : float or array_like of the batch shape, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
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
    ExpectationDiagnostics
        One set of numbers a component of h.

    Notes
    -----
    * The estimate has finite variance where the tail index of ``w |h - E[h]|`` is below 1/2. Weights may
      be harmless and h not: ``h = exp(x)`` under light-tailed weights.
    * A constant or two-valued h has no tail: `khat` is that of the weights and `status` says why.
    * Costs two tail fits and a few temporary arrays of log_w's size a component: for gradients look at
      `SNIS.khat` instead.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Vehtari2024]_, section 3; [Owen2013]_, section 9.3.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=4000)
    >>> found = isdiag.expectation_diagnostics(0.5 * x, np.exp(2 * x))
    >>> print(f"{found.khat_weights:.2f} {found.khat:.2f} {found.ess:.0f} {found.status}")
    0.17 1.04 67 ERROR_UNCERTAIN
    """
    rows = rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    found = expectation.components(rows, values, exponent, lengths, workers)
    return ExpectationDiagnostics.of(
        rows, own, **found.fields, khat_weights=found.khat_weights, status=found.status
    )


def confidence_interval(
    log_w: Any,
    h: Any,
    *,
    level: float = 0.95,
    method: IntervalMethod = "hall",
    bounds: tuple[float, float] | None = None,
    gamma: Any = 1.0,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> ConfidenceInterval:
    """Confidence interval for ``E[h]``, asymmetric where its error is skewed, wide where few draws carry it.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    level : float, default 0.95
        Coverage, between 0 and 1.
    method : {"hall", "delta", "bounded"}, default "hall"
        "hall": quantiles of Student's t through Hall's transformation, which takes out the skewness.
        "delta": Student's t around the estimate, symmetric. "bounded": for h within `bounds`, from the bound
        of Agapiou et al. on the mean squared error.
    bounds : (low, high), optional
        Numbers between which h always lies: no end is beyond them.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0. Below 1 the interval is for the mean under the tempered target.
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
    ConfidenceInterval
        The ends, the draws that carry the error, and in `claim` what can be claimed.

    Raises
    ------
    ValueError
        If "bounded" has no `bounds`, or h lies outside of its bounds.

    Notes
    -----
    * With ``f = wbar * (h - estimate)``, skewness ``g = sum(f**3) / sum(f**2)**1.5`` and
      ``n_e = sum(f**2)**2 / sum(f**4)`` draws that carry the variance, "hall" takes the quantile t of
      Student's t with ``nu = 2 / (1 / n_e - 1 / n)`` degrees of freedom (Satterthwaite) times ``1 + 2 / nu``,
      and from it the end ``estimate - std_error * x`` with ``x + g x**2 / 3 + g**2 x**3 / 27 + g / 6 = t``.
    * Both ends are ``1 / (2 (1 - khat))`` times as far away where khat of the weights is above 1/2, and
      ``1 / sqrt(1 - 4 v)`` times with v the relative variance ``1 / ESS - 1 / n`` of the mean weight.
    * Neither that nor ``1 + 2 / nu`` is theory: a sample that missed the largest weights has too small an
      error and too large an n_e. They were chosen on scenarios of a study, and tried on others:
      docs/explanation/which_rule.md has coverage and width.
    * From -inf to inf, or from bound to bound, where nothing can be said: where h is the same at every draw
      of positive weight, where khat is 1 or more, and where v is 1/4 or more.
    * "bounded": ``E[(estimate - mu)**2] <= 4 R**2 rho / n`` with R half the range of h and
      ``rho = E[w**2] / E[w]**2``, for which ``n / ESS`` stands. Wide, and right only as far as that
      plug-in is.
    * None of them sees what no draw shows.
    * Each component of h costs as much as an h of one.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Hall1992]_; [Satterthwaite1946]_ for the degrees of freedom; [Fieller1954]_ for the
    mean weight; [Agapiou2017]_, theorem 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=4000)  # proposal N(0, 1)
    >>> light = isdiag.confidence_interval(x, x > 1)  # target N(1, 1): the truth is 0.5
    >>> print(f"{light.low:.3f} to {light.high:.3f}, {light.error_draws:.0f} draws carry the error")
    0.470 to 0.525, 95 draws carry the error
    >>> heavy = isdiag.confidence_interval(2.5 * x, x > 1, bounds=(0, 1))
    >>> print(f"{heavy.low:.3f} to {heavy.high:.3f}. {heavy.claim[:42]}")
    0.223 to 1.000. Fewer than 6 draws carry the error: such i
    """
    one_of("method", method, IntervalMethod)
    level = number("level", level, 0.0, 1.0, "()")
    limits = None if bounds is None else expectation.bounds_of(bounds)
    if method == "bounded" and limits is None:
        msg = 'method="bounded" needs bounds, the range of h'
        raise ValueError(msg)
    rows = rows_of(log_w, axis, where, dependence=draws)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    found = expectation.interval(
        rows, values, exponent, lengths, level=level, method=method, bounds=limits, workers=workers
    )
    return ConfidenceInterval.of(rows, own, **found)

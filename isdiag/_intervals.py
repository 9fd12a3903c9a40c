"""What is known of one expectation: the tail of w |h - estimate|, and intervals."""

from __future__ import annotations

from typing import Any

from isdiag._core import expectation, tails
from isdiag._core.boundary import rows_of
from isdiag._core.check import number, one_of
from isdiag._core.result import ConfidenceInterval, ExpectationDiagnostics
from isdiag._core.typing import Axis, IntervalMethod


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
    method: IntervalMethod = "auto",
    bounds: tuple[float, float] | None = None,
    gamma: Any = 1.0,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> ConfidenceInterval:
    """Confidence interval for ``E[h]`` by a method that the tail of ``w * (h - estimate)`` permits.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    level : float, default 0.95
        Coverage, between 0 and 1.
    method : {"auto", "delta", "chebyshev", "bounded"}, default "auto"
        "delta": Student's t around the self-normalised estimate. "chebyshev": Chebyshev's inequality
        around the estimate with truncated weights. "bounded": for h within `bounds`, from the bound of
        Agapiou et al. on the mean squared error. "auto" is "delta" where khat < 1/2, else "bounded" if
        `bounds` are given and "chebyshev" if not.
    bounds : (low, high), optional
        Numbers between which h always lies.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0. Below 1 the interval is for the mean under the tempered target.
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
    ConfidenceInterval
        The ends, the method used, and in `claim` what can be claimed.

    Raises
    ------
    ValueError
        If "bounded" has no `bounds`, or h lies outside of its bounds.

    Notes
    -----
    * Two finite moments give Chebyshev's inequality and nothing exponential in the level: that takes
      bounded weights.
    * "bounded": ``E[(estimate - mu)**2] <= 4 R**2 rho / n`` with R half the range of h and
      ``rho = E[w**2] / E[w]**2``, for which ``n / ESS`` stands. Wide, and right only as far as that
      plug-in is.
    * A bounded h has no tail, but in a sample it may seem to have one: where `bounds` are given, khat and the
      claim are those of the weights.
    * None of them sees what no draw shows.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Agapiou2017]_, theorem 2.1; [Ionides2008]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=4000)  # proposal N(0, 1)
    >>> light = isdiag.confidence_interval(x, x > 1)  # target N(1, 1): the truth is 0.5
    >>> print(f"{light.low:.3f} to {light.high:.3f} by {light.method}")
    0.469 to 0.523 by delta
    >>> heavy = isdiag.confidence_interval(2.5 * x, x > 1, bounds=(0, 1))
    >>> print(f"{heavy.low:.3f} to {heavy.high:.3f} by {heavy.method}. {heavy.claim[:27]}")
    0.147 to 1.000 by bounded. No finite-variance claim: k
    """
    one_of("method", method, IntervalMethod)
    level = number("level", level, 0.0, 1.0, "()")
    limits = None if bounds is None else expectation.bounds_of(bounds)
    if method == "bounded" and limits is None:
        msg = 'method="bounded" needs bounds, the range of h'
        raise ValueError(msg)
    rows = rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    found = expectation.interval(
        rows, values, exponent, lengths, level=level, method=method, bounds=limits, workers=workers
    )
    return ConfidenceInterval.of(rows, own, **found)

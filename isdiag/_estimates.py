"""Importance sampling estimates: value, standard error, bias, interval; contrasts and quantiles."""

from __future__ import annotations

from typing import Any

from isdiag._core import estimate as _estimate
from isdiag._core import expectation, moments, quantiles, tails
from isdiag._core.boundary import rows_of
from isdiag._core.check import flag, number, one_of
from isdiag._core.estimate import Estimate
from isdiag._core.result import SNIS, Quantile, bare
from isdiag._core.typing import Axis, Covariance, Dependence, Smoothing

SMOOTHINGS = (False, True, "psis", "truncate", "auto")


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
    smooth : bool, "psis", "truncate" or "auto", default False
        Use the Pareto smoothed weights of ``w**gamma`` (True or "psis"), or cut them at
        ``sqrt(n) * mean(w**gamma)`` (Ionides). "auto" smooths rows whose tail fits, and cuts those whose tail
        cannot be fitted or does not look like its fit: `Status.POOR_TAIL_FIT`.
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
    * Over the 1404 cells of the study the root mean squared error with "auto" is 1.03 times that of the best
      of plain, "psis" and "truncate" in the cell (geometric mean), and 2.4 times at worst; with "psis" 1.05
      and 5.4. Where greedy policies were evaluated on data of others it was 1.25 times that of plain weights
      at worst, and with "psis" 9.19 (docs/results/honesty.md).
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
    >>> print(
    ...     f"{result.estimate:.4f} +- {result.std_error:.4f}, "
    ...     f"{result.low:.4f} to {result.high:.4f}"
    ... )
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
    return SNIS.of_records(rows, *found, own=own)


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


def estimate(
    log_w: Any,
    h: Any,
    *,
    gamma: Any = 1.0,
    smooth: Smoothing = False,
    normalize: bool = True,
    baseline: Any = None,
    clusters: Any = None,
    strata: Any = None,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Estimate:
    """Estimate ``E[h]`` so that differences and ratios of estimates on the same draws have the right error.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0. Below 1 the estimate is of the mean under the tempered target.
    smooth : bool, "psis", "truncate" or "auto", default False
        As for `snis`.
    normalize : bool, default True
        Divide by the sum of the weights. If False the estimate is ``mean(w**gamma * h)``, for which the
        log-weights must be those of normalised densities.
    baseline : array_like of h's shape, optional
        Values whose plain mean over the draws is added, and whose error is added draw by draw: for a doubly
        robust estimate h is the reward less a model's, and `baseline` the model's mean under the target.
    clusters : array_like of labels, shape of log_w or of its draws, optional
        Draws with the same label stand or fall together, as those of a prompt, an episode or a chain:
        influences are summed over each cluster before they are squared.
    strata : array_like of labels, shape of log_w or of its draws, optional
        Where a draw is from, if the number of draws from each place was fixed, as of several proposals:
        influences are taken about the mean of their stratum. Clusters must lie within strata.
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
    Estimate
        Value, standard error, interval, and the influence of each unit. ``a - b``, ``a + b``, ``a * b``,
        ``a / b``, ``c * a`` and ``a ** p`` of estimates on the same draws are estimates.

    Raises
    ------
    ValueError
        If labels have another shape or a cluster lies in two strata; later, if estimates of unequal n are
        combined.

    Notes
    -----
    * The influence of draw i is ``wbar_i (h_i - value)``, and ``(w_i h_i - value) / sqrt(n (n - 1))`` without
      normalising. Value and error are those of `snis`.
    * Combinations follow the delta method: the influence of ``a / b`` is ``(f_a - a / b f_b) / b``. A
      probability given an event is a ratio of two, a variance is the estimate of ``(h - value)**2``, and a
      standard deviation that ``** 0.5``.
    * The log-weights of the operands may differ, as those of two policies evaluated on one log. That the
      draws are the same is for the caller to know: only their number is compared.
    * With few clusters the error is uncertain: `Status.ERROR_UNCERTAIN` counts those that carry it.
    * A stratum with one draw has no error of its own: NaN.
    * Memory: the influences take as much as h.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Owen2013]_, sections 9.2 and 2.7; [Owen2000]_; [Cochran1977]_; [Su2020]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)  # draws of N(0, 1), for two targets
    >>> a = isdiag.estimate(0.5 * x, x)  # N(0.5, 1)
    >>> b = isdiag.estimate(0.6 * x, x)  # N(0.6, 1)
    >>> print(f"{a.value:.3f} +- {a.std_error:.3f}, {b.value:.3f} +- {b.std_error:.3f}")
    0.499 +- 0.030, 0.603 +- 0.033
    >>> print(f"{(b - a).value:.4f} +- {(b - a).std_error:.4f}")
    0.1042 +- 0.0051
    """
    one_of("smooth", smooth, SMOOTHINGS)
    rows = rows_of(log_w, axis, where, dependence=draws)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    level = None
    if baseline is not None:
        level, of_level = rows.trailing(baseline, "baseline")
        if of_level != own:
            msg = f"baseline must have h's shape, got axes {of_level} of its own where h has {own}"
            raise ValueError(msg)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    parts = _estimate.estimate(
        rows,
        values,
        own,
        exponent,
        lengths,
        smooth=smooth,
        normalize=flag("normalize", normalize),
        baseline=level,
        clusters=None if clusters is None else rows.groups(clusters, "clusters"),
        strata=None if strata is None else rows.groups(strata, "strata"),
        workers=workers,
    )
    return Estimate.of_parts(parts)


def quantile(
    log_w: Any,
    h: Any,
    q: Any,
    *,
    level: float = 0.95,
    smooth: Smoothing = False,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Quantile:
    """Estimate quantiles of h under the target, with intervals.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    q : float or array_like
        Shares between 0 and 1: 0.5 is the median.
    level : float, default 0.95
        Coverage of the interval, between 0 and 1.
    smooth : bool, "psis", "truncate" or "auto", default False
        As for `snis`.
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
    Quantile
        Estimate, interval and standard error of each q, whose axes come last.

    Notes
    -----
    * The estimate is the smallest value up to which the draws have a share q of the weight, one of the draws:
      `numpy.quantile` with ``method="inverted_cdf"`` and `weights`. It is found by sums over bins of h, in
      memory that does not grow with n; only the draws of the bin that it lies in are sorted.
    * The interval is that of the shares of the weight up to x which are compatible with q, read as values. It
      does not need the density of h. Where no draw bounds the quantile its end is infinite: an extreme q asks
      for draws beyond it.
    * `std_error` is half the width of such an interval for one standard error of the share.
    * `Status.ERROR_ROUGH` and `Status.ERROR_UNCERTAIN` say that few draws carry the error of the share below
      the quantile, the latter also that the quantile has no bound.
    * Of chains that are worth a dozen draws the interval of a quantile far out is too short: of two chains of
      500 draws with autocorrelation 0.97 it covers 0.88 for the median and 0.73 at 0.9.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Woodruff1952]_; [Owen2013]_, section 9.2.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=4000)  # proposal N(0, 1)
    >>> found = isdiag.quantile(x, x, [0.1, 0.5])  # target N(1, 1): -0.28 and 1
    >>> for k in range(2):
    ...     print(f"{found.estimate[k]:.2f}, {found.low[k]:.2f} to {found.high[k]:.2f}")
    -0.30, -0.33 to -0.26
    0.99, 0.93 to 1.07
    """
    one_of("smooth", smooth, SMOOTHINGS)
    shares = quantiles.levels_of(q)
    coverage = number("level", level, 0.0, 1.0, "()")
    rows = rows_of(log_w, axis, where, dependence=draws)
    values, own = rows.trailing(h)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    found = quantiles.quantiles(
        rows, values, shares.ravel(), lengths, level=coverage, smooth=smooth, workers=workers
    )
    shaped = {name: a.reshape(*a.shape[:2], *shares.shape) for name, a in found.items()}
    return Quantile.of(rows.naming("q"), own, **shaped)


def draws_needed(
    log_w: Any,
    h: Any,
    *,
    half_width: float,
    gamma: Any = 1.0,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> Any:
    """Tell from a pilot how many draws a 95 % interval for ``E[h]`` of that half width needs.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights of the pilot's draws up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    half_width : float
        Half the width wanted of the interval, in the units of h, > 0.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0.
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
    float or array
        Number of draws in all, those of the pilot included; in the batch shape followed by h's own axes. inf
        where no number is enough, khat being 1 or more, NaN where khat is unknown or h constant.

    Notes
    -----
    * It is ``n * (now / half_width)**(1 / (1 - k))`` with `now` the half width at hand and k the khat of
      `expectation_diagnostics`, 1/2 at least: below that four times the draws halve an error, above it
      takes more.
    * A pilot has mostly not seen the largest weights, and promises too much. `now` is wider for that by
      Student's t, and no credit is taken for its degrees of freedom to come; where few draws carry the error
      ask again as draws come in, and stop when ``SNIS.high - SNIS.low`` is small enough and the status is
      not `Status.ERROR_UNCERTAIN`.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Vehtari2024]_, section 3.2; [Satterthwaite1946]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=1000)  # proposal N(0, 1)
    >>> round(isdiag.draws_needed(0.5 * x, x, half_width=0.01))  # target N(0.5, 1)
    73941
    >>> isdiag.draws_needed(3 * np.abs(x), x, half_width=0.01)
    inf
    """
    wanted = number("half_width", half_width, 0.0, float("inf"), "()")
    rows = rows_of(log_w, axis, where, dependence=draws)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    needed, status = expectation.draws_needed(rows, values, exponent, lengths, wanted, workers)
    return bare(rows, needed, status, own)

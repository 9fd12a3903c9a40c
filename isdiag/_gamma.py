"""How far to temper: the largest gamma that the tail and the effective sample size allow."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from isdiag._core import least_error, selection, tails
from isdiag._core.bands import GOOD_KHAT, Constraints
from isdiag._core.boundary import exponents, rows_of
from isdiag._core.check import rule_needs_h
from isdiag._core.result import AccurateSelection, GammaSelection, MSECurve
from isdiag._core.typing import Axis, Dependence, Rule, StabilityRule


@overload
def select_gamma(
    log_w: Any,
    *,
    k_max: float | None = ...,
    ess_min: float = ...,
    gamma_max: float = ...,
    rule: StabilityRule = ...,
    h: None = ...,
    draws: Dependence = ...,
    r_eff: Any = ...,
    tail_length: int | None = ...,
    axis: Axis = ...,
    where: Any = ...,
    workers: int = ...,
) -> GammaSelection: ...


@overload
def select_gamma(
    log_w: Any,
    *,
    k_max: float | None = ...,
    ess_min: float = ...,
    gamma_max: float = ...,
    rule: Literal["mse"],
    h: Any,
    draws: Dependence = ...,
    r_eff: Any = ...,
    tail_length: int | None = ...,
    axis: Axis = ...,
    where: Any = ...,
    workers: int = ...,
) -> AccurateSelection: ...


def select_gamma(
    log_w: Any,
    *,
    k_max: float | None = GOOD_KHAT,
    ess_min: float = 0.3,
    gamma_max: float = 1.0,
    rule: Rule = "joint",
    h: Any = None,
    draws: Dependence = "independent",
    r_eff: Any = None,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> GammaSelection | AccurateSelection:
    """The largest gamma for which the weights ``w**gamma`` can be trusted.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    k_max : float or None, default 0.7
        Largest khat allowed, > 0; None for `khat_threshold(n)`, inf for no limit.
    ess_min : float, default 0.3
        Smallest ``ESS / n`` allowed, in [0, 1].
    gamma_max : float, default 1
        Largest gamma allowed, > 0; 1 is full importance sampling.
    rule : {"joint", "refit", "mse"}, default "joint"
        "joint" is the closed form ``min(k_max / khat, gamma_ess, gamma_max)``. It trusts that khat of
        ``w**gamma`` is gamma times khat of w, which holds for the law of the weights but not for the fit:
        see `khat_tempered`. "refit" is the largest gamma whose re-fitted khat and ESS both hold. Both are
        rules for stability. "mse" is for the accuracy of an estimate of ``E[h]``; it does not use `k_max`
        and `ess_min`.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws, for the rule "mse" and for no other.
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
    GammaSelection
        Gamma, what set it, and khat and ESS before and after. With the rule "mse" an `AccurateSelection`,
        which has `estimate`, `std_error`, `bias` and `mse` as well.

    Raises
    ------
    ValueError
        If `h` is missing for the rule "mse", or given for another.

    Notes
    -----
    * The ESS constraint holds as computed, and within 1e-10 of `ess_min` where it is what set gamma.
    * An unknown or infinite khat sets no limit; `status` says so and gamma rests on ESS alone. (A tail
      that cannot be fitted at gamma = 1 may be at a smaller one: there the rule "refit" does set a limit.)
    * If fewer than ``ess_min * n`` draws have positive weight gamma is 0: `Status.INFEASIBLE`.
    * Equal weights: gamma = `gamma_max`, `Status.FLAT`.
    * The rules "joint" and "refit" are for stability: the error of an estimate may be many times what it
      need be. docs/explanation/which_rule.md compares them.
    * The rule "mse" cuts the weights, between ``sqrt(n)`` times their mean and the level that a fit to their
      tail exceeds half a time in n draws, the less the more draws share what it takes from them, and then
      moves the estimate towards others that have less
      variance: Taylor polynomials in gamma of the tempered mean, at 1. It moves as far as the variances
      say, less where the difference is several standard errors, and not at all beyond three.
    * `bias` of the rule "mse" is ``estimate`` less the plain self-normalised estimate, plus the bias of that.
      It has the noise of the plain estimate and the true size on average: 0.76 of it (median over 467 cells
      where it shows), with the right sign in 87 % of samples. ``sqrt(mse)``, its squares averaged, is 1.02
      times the true root mean squared error (median over 876 cells, khat below and above 0.7; 5 % are below
      0.84, 5 % above 1.72); the standard error alone is 0.91 times (5 % below 0.41). See
      docs/results/honesty.md.
    * `std_error`, `bias` and `status` of the rule "mse" are about `estimate`; `Status.ERROR_ROUGH`
      and `Status.ERROR_UNCERTAIN` say that few draws carry the standard error. gamma is chosen as of
      independent draws.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Vehtari2024]_; [Kong1992]_; [Ionides2008]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = np.random.default_rng(1).normal(scale=3.0, size=1000)
    >>> chosen = isdiag.select_gamma(log_w)
    >>> chosen.limited_by, round(chosen.gamma, 6), round(chosen.ess_ratio, 6)
    ('ess', 0.342647, 0.3)
    >>> round(chosen.khat, 6), round(chosen.khat_tempered, 6)
    (1.080618, 0.331704)
    >>> x = log_w / 3  # a draw of N(0, 1), the target being N(3, 1)
    >>> accurate = isdiag.select_gamma(log_w, rule="mse", h=x)
    >>> print(f"{accurate.estimate:.2f} +- {accurate.std_error:.2f}, {accurate.status}")
    2.81 +- 0.15, ERROR_UNCERTAIN
    """
    rule_needs_h(rule, h)
    if h is not None and rule != "mse":
        msg = f'h is for rule="mse", and rule is {rule!r}'
        raise ValueError(msg)
    limits = Constraints(k_max, ess_min, gamma_max)
    rows = rows_of(log_w, axis, where, dependence=draws)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    if rule != "mse":
        return GammaSelection.of_records(rows, selection.select(rows, lengths, limits, rule, workers))
    values, own = rows.trailing(h)
    found = least_error.select_accurate(rows, values, lengths, limits.gamma_max, workers)
    return AccurateSelection.of_records(rows, *found, own=own)


def mse_curve(
    log_w: Any,
    h: Any,
    gammas: Any = None,
    *,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> MSECurve:
    """Estimated bias, variance and mean squared error of the tempered estimate of ``E[h]``, by gamma.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    gammas : array_like, shape (gammas,), default 0, 0.1, ..., 1
        Exponents, >= 0.
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
    MSECurve
        One entry a gamma.

    Notes
    -----
    * The bias of tempering does not vanish with n, the other two do: with more draws the best gamma tends
      to 1. ESS and khat cannot see it.
    * It is known no better than the reference is: see `tempering_bias_std_error`.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Owen2013]_, section 9.2. `isdiag.lognormal` has the closed forms for log-normal weights.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=500)  # proposal N(0, 1), target N(2, 1)
    >>> curve = isdiag.mse_curve(2 * x, x, [0.25, 0.5, 0.75, 1.0])
    >>> curve.tempering_bias.round(2)
    array([-1.32, -0.85, -0.33,  0.17])
    >>> curve.mse.round(2)
    array([1.74, 0.73, 0.14, 0.07])
    """
    rows = rows_of(log_w, axis, where)
    path = np.linspace(0.0, 1.0, 11) if gammas is None else exponents(gammas)
    values, own = rows.trailing(h)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    return MSECurve.of(rows, own, **least_error.mse_curve(rows, values, lengths, path, workers))

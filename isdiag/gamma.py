"""How far to temper: the largest gamma that the tail and the effective sample size allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from isdiag import _arrays, _threads
from isdiag._result import Result
from isdiag.accuracy import curve_of, least_error
from isdiag.ess import ess_rows
from isdiag.gpd import GOOD_KHAT, khat_threshold
from isdiag.psis import khat_rows, tail_lengths
from isdiag.snis import error_status

LIMITS = ("none", "psis", "ess", "max", "mse")
_NONE, _BY_MAX, _BY_MSE = (LIMITS.index(name) for name in ("none", "max", "mse"))
Rule = Literal["joint", "refit", "mse"]
RULES = get_args(Rule)

# The rule "mse" looks at gamma_max times these, all in one of its 13 passes over a row.
_EIGHTHS = np.arange(1, 9) / 8.0


@dataclass(frozen=True, eq=False, repr=False)
class GammaSelection(Result):
    """A chosen gamma, what set it, and the diagnostics before and after.

    Attributes
    ----------
    gamma : float or array of the batch shape
        ``min(gamma_psis, gamma_ess, gamma_max)``.
    gamma_psis : float or array of the batch shape
        Limit set by the tail: ``k_max / khat`` (joint) or the largest gamma up to `gamma_max` whose
        re-fitted khat is at most k_max (refit); inf where the tail sets none, be it harmless, unknown or
        beyond a fit.
    gamma_ess : float or array of the batch shape
        The largest gamma up to `gamma_max` with ``ESS >= ess_min * n``.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights.
    khat_tempered : float or array of the batch shape
        The same, re-fitted to the weights at the chosen gamma.
    ess : float or array of the batch shape
        Kish's effective sample size at the chosen gamma, in draws.
    ess_ratio : float or array of the batch shape
        ``ess / n``.
    n : int or array of the batch shape
        How many draws count.
    limited_by : str or NumPy array of str
        What set gamma: "psis", "ess", "max", "mse" (the rule of that name), or "none" where there is no
        gamma.
    status : Status or array of the batch shape
        What became of the row.
    """

    gamma: Any
    gamma_psis: Any
    gamma_ess: Any
    khat: Any
    khat_tempered: Any
    ess: Any
    ess_ratio: Any
    n: Any
    limited_by: Any
    status: Any


@dataclass(frozen=True, eq=False, repr=False)
class AccurateSelection(GammaSelection):
    """The gamma of least estimated error, and the estimate that has less of it than any gamma.

    `gamma_psis` and `gamma_ess` are inf: this rule sets no such limits. `gamma` is for whoever needs
    weights ``w**gamma``; it minimises `MSECurve.mse`, summed over the components of h. `estimate` is not
    the estimate at gamma but the one that the curve is measured against.

    Attributes
    ----------
    estimate : float or array
        Estimate of ``E[h]`` under the target, in the batch shape followed by h's own axes.
    std_error : float or array
        Jackknife standard error, in the units of h and the shape of `estimate`.
    bias : float or array
        Bias of the plain self-normalised estimate, which that of `estimate` resembles in sign and size.
    mse : float or array
        ``std_error**2 + bias**2``.
    error_draws : float or array
        How many draws carry the squared standard error, of this or of the plain estimate if it has fewer.
    """

    estimate: Any
    std_error: Any
    bias: Any
    mse: Any
    error_draws: Any


def bounded(name: str, value: Any, low: float, high: float) -> float:
    """The value as a float, which must lie in [low, high], or above 0 for low = 0 and high = inf."""
    if type(value) is float and low < value <= high:  # ten times faster than to ask NumPy
        return value
    if isinstance(value, (str, bytes)) or np.ndim(value) != 0 or value is None:
        msg = f"{name} must be a number, got {value!r}"
        raise TypeError(msg)
    number = float(value)
    if not (low <= number <= high) or (high == np.inf and number == 0):
        allowed = "above 0" if high == np.inf else f"between {low:g} and {high:g}"
        msg = f"{name} must be {allowed}, got {value!r}"
        raise ValueError(msg)
    return number


def select_gamma(
    log_w: Any,
    *,
    k_max: float | None = GOOD_KHAT,
    ess_min: float = 0.3,
    gamma_max: float = 1.0,
    rule: Rule = "joint",
    h: Any = None,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    axis: _arrays.Axis = -1,
    where: Any = None,
    workers: int = 1,
) -> GammaSelection:
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
    r_eff : float or array_like of the batch shape, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one a CPU.
        Results do not depend on it.

    Returns
    -------
    GammaSelection
        Gamma, what set it, and khat and ESS before and after. With the rule "mse" an `AccurateSelection`,
        which has `estimate`, `std_error`, `bias` and `mse` as well.

    Raises
    ------
    ValueError
        If `k_max`, `ess_min`, `gamma_max`, `rule`, `r_eff`, `tail_length` or `workers` is out of range, `h`
        is missing or not used, the sample axis is empty, or shapes do not fit.
    TypeError
        If `log_w` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN, all other rows are untouched.

    Notes
    -----
    * The ESS constraint holds as computed, and within 1e-10 of `ess_min` where it is what set gamma.
    * An unknown or infinite khat sets no limit; `status` says so and gamma rests on ESS alone. (A tail
      that cannot be fitted at gamma = 1 may be at a smaller one: there the rule "refit" does set a limit.)
    * If fewer than ``ess_min * n`` draws have positive weight gamma is 0: `Status.INFEASIBLE`.
    * Equal weights: gamma = `gamma_max`, `Status.FLAT`.
    * The rules "joint" and "refit" are for stability: the error of an estimate may be many times what it
      need be. docs/which_rule.md compares them.
    * The rule "mse" cuts the weights, between ``sqrt(n)`` times their mean and the level that a fit to their
      tail exceeds half a time in n draws, and then moves the estimate towards others that have less
      variance: Taylor polynomials in gamma of the tempered mean, at 1. It moves as far as the variances
      say, less where the difference is several standard errors, and not at all beyond three.
    * `std_error`, `bias` and `status` of the rule "mse" are about `estimate`; `Status.ERROR_UNCERTAIN` says
      that fewer than 25 draws carry the standard error.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58. Kong, A. (1992). A
    note on importance sampling using standardized weights. Ionides, E. L. (2008). Truncated importance
    sampling. JCGS 17(2), 295-311.

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
    rows = _arrays.rows_of(log_w, axis, where)
    lengths = tail_lengths(rows, r_eff, tail_length)
    if h is not None and rule != "mse":
        msg = f'h is for rule="mse", and rule is {rule!r}'
        raise ValueError(msg)
    selection, status = choose_rows(rows, lengths, k_max, ess_min, gamma_max, rule, h, workers)
    _arrays.warn_not_finite(status)
    return selection


def choose_rows(
    rows: _arrays.Rows,
    lengths: _arrays.Ints,
    k_max: float | None,
    ess_min: float,
    gamma_max: float,
    rule: Rule,
    h: Any,
    workers: int,
) -> tuple[GammaSelection, _arrays.Codes]:
    """Select a gamma for each row by the rule; also the status codes."""
    if rule not in RULES:
        msg = f"rule must be one of {RULES}, got {rule!r}"
        raise ValueError(msg)
    if rule != "mse":
        return select_rows(rows, lengths, k_max, ess_min, gamma_max, rule, workers)
    if h is None:
        msg = 'rule="mse" needs h, the values whose mean is estimated'
        raise ValueError(msg)
    return accurate_rows(rows, lengths, gamma_max, h, workers)


def _limit_names(limit: _arrays.Codes, shape: tuple[int, ...]) -> Any:
    return LIMITS[limit.item()] if shape == () else np.array(LIMITS)[limit].reshape(shape)


def allowed_khat(n: Any, k_max: float | None) -> Any:
    """The khat allowed with n draws, of the type and shape of n."""
    if k_max is None:
        return khat_threshold(np.maximum(n, 1))
    k_max = bounded("k_max", k_max, 0.0, np.inf)
    return k_max if isinstance(n, int) else np.full(np.shape(n), k_max)


def gamma_rows(
    rows: _arrays.Rows,
    lengths: _arrays.Ints,
    k_max: float | None,
    ess_min: float,
    gamma_max: float,
    rule: Rule,
    workers: int,
) -> tuple[_arrays.Floats, _arrays.Codes]:
    """Check the constraints and select a gamma for each row, "joint" or "refit".

    The first seven fields of `GammaSelection` are the columns of the numbers, limit and status of the codes.
    """
    ess_min = bounded("ess_min", ess_min, 0.0, 1.0)
    gamma_max = bounded("gamma_max", gamma_max, 0.0, np.inf)
    thresholds = allowed_khat(rows.n, k_max)
    numbers, codes = np.empty((len(rows), 7)), np.empty((len(rows), 2), np.int8)
    by_row = (rows.values, rows.n, lengths, thresholds, numbers, codes)
    shared = (ess_min, gamma_max, rows.eps)
    if rows.values.shape[1] >= _threads.LONG:
        _threads.select_long(*by_row, *shared, workers)
    else:
        _threads.spread(_arrays.kernels().select_rows, by_row, shared, workers)
    if rule == "refit":
        _threads.spread(_arrays.kernels().refit_rows, by_row, shared[1:], workers)
    return numbers, codes


def select_rows(
    rows: _arrays.Rows,
    lengths: _arrays.Ints,
    k_max: float | None,
    ess_min: float,
    gamma_max: float,
    rule: Rule,
    workers: int,
) -> tuple[GammaSelection, _arrays.Codes]:
    """`gamma_rows` as a result; also the status codes."""
    numbers, codes = gamma_rows(rows, lengths, k_max, ess_min, gamma_max, rule, workers)
    limit, status = codes[:, 0], codes[:, 1]
    gamma, gamma_psis, gamma_ess, khat, khat_tempered, ess, ess_ratio = rows.columns(numbers)
    selection = GammaSelection(
        gamma=gamma,
        gamma_psis=gamma_psis,
        gamma_ess=gamma_ess,
        khat=khat,
        khat_tempered=khat_tempered,
        ess=ess,
        ess_ratio=ess_ratio,
        n=rows.diagnostic(rows.n),
        limited_by=_limit_names(limit, rows.batch_shape),
        status=rows.status(status),
    )
    return selection, status


def accurate_rows(
    rows: _arrays.Rows, lengths: _arrays.Ints, gamma_max: float, h: Any, workers: int
) -> tuple[AccurateSelection, _arrays.Codes]:
    """The rule "mse"; also the status codes of the weights."""
    gammas = bounded("gamma_max", gamma_max, 0.0, np.inf) * _EIGHTHS
    values, own = rows.trailing(h)
    least = least_error(rows, values, lengths, workers)
    total = curve_of(rows, values, least, gammas).mse.sum(axis=1)
    known = np.isfinite(total).all(axis=1)
    # Of equals the largest: equal weights need no tempering.
    last = gammas.size - 1 - np.argmin(total[:, ::-1], axis=1)
    gamma = np.where(known, gammas[last], np.nan)
    limit = np.where(known, np.where(last == gammas.size - 1, _BY_MAX, _BY_MSE), _NONE).astype(np.int8)
    khat, status = khat_rows(rows, lengths, np.ones(len(rows)))
    khat_tempered, _ = khat_rows(rows, lengths, gamma)
    ess, _, _ = ess_rows(rows, gamma)
    no_limit = rows.diagnostic(np.where(known, np.inf, np.nan))
    selection = AccurateSelection(
        gamma=rows.diagnostic(gamma),
        gamma_psis=no_limit,
        gamma_ess=no_limit,
        khat=rows.diagnostic(khat),
        khat_tempered=rows.diagnostic(khat_tempered),
        ess=rows.diagnostic(ess),
        ess_ratio=rows.diagnostic(ess / np.maximum(rows.n, 1)),
        n=rows.diagnostic(rows.n),
        limited_by=_limit_names(limit, rows.batch_shape),
        status=rows.status(error_status(status, least.estimate, least.std_error, least.error_draws)),
        estimate=rows.diagnostic(least.estimate, own),
        std_error=rows.diagnostic(least.std_error, own),
        bias=rows.diagnostic(least.bias, own),
        mse=rows.diagnostic(least.mse, own),
        error_draws=rows.diagnostic(least.error_draws, own),
    )
    return selection, status

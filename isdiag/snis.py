"""Importance sampling estimates: value, standard error, bias, interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from isdiag import _arrays
from isdiag._result import Result
from isdiag.ess import ess_rows
from isdiag.psis import khat_rows, smooth_rows, tail_lengths
from isdiag.status import Status
from isdiag.weights import over_largest, temper_rows

Smoothing = bool | Literal["psis", "truncate"]
SMOOTHINGS = (False, True, "psis", "truncate")
Covariance = Literal["target", "proposal"]
COVARIANCES = get_args(Covariance)

# With so many draws behind it a standard error is itself known within a tenth: 1 / (2 sqrt(25)).
LEAST_ERROR_DRAWS = 25.0
_ROUNDING = 1e-13
LEVEL = 0.95


class Moments(NamedTuple):
    """What a pass over weights and h gives: (rows, d) for the first three, then a number a row."""

    estimate: _arrays.Floats
    std_error: _arrays.Floats
    bias: _arrays.Floats
    ess: _arrays.Floats
    log_total: _arrays.Floats
    error_draws: _arrays.Floats
    status: _arrays.Codes


def moments_of(log_weights: _arrays.Floats, gamma: _arrays.Floats, h: _arrays.Values) -> Moments:
    """Moments of `Rows.trailing` values under w^gamma."""
    rows, draws = log_weights.shape
    shape = (rows, h.shape[1] // draws)
    estimate, std_error, bias = np.empty(shape), np.empty(shape), np.empty(shape)
    ess, log_total, error_draws = np.empty(rows), np.empty(rows), np.empty(rows)
    moments = Moments(estimate, std_error, bias, ess, log_total, error_draws, np.empty(rows, np.int8))
    _arrays.kernels().moment_rows(log_weights, gamma, h, *moments)
    return moments


def mean_variance(ess: Any, n: Any) -> Any:
    """Variance of the mean of n weights of that ESS, over the square of the mean."""
    return 1.0 / ess - 1.0 / n


def log_mean(
    log_total: _arrays.Floats, ess: _arrays.Floats, n: _arrays.Ints
) -> tuple[_arrays.Floats, _arrays.Floats]:
    """Log of a mean weight, from the log of their sum, and its delta-method standard error."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return log_total - np.log(n), np.sqrt(np.maximum(mean_variance(ess, n), 0.0))


def half_width(std_error: _arrays.Floats, error_draws: _arrays.Floats, level: float) -> _arrays.Floats:
    """Half the width of a t interval.

    A variance that n_e draws carry, n_e = (sum f^2)^2 / sum f^4, varies as one of 2 n_e degrees of freedom
    (Satterthwaite 1946).
    """
    from scipy.special import stdtrit  # noqa: PLC0415 -- scipy is not imported before it is used

    return std_error * stdtrit(np.maximum(2.0 * error_draws, 1.0), 0.5 + 0.5 * level)


def error_status(
    status: _arrays.Codes, estimate: _arrays.Floats, std_error: _arrays.Floats, error_draws: _arrays.Floats
) -> _arrays.Codes:
    """The status codes of weights, told apart further by what is known of the error, both (rows, d)."""
    known = (error_draws >= LEAST_ERROR_DRAWS).all(axis=1)
    constant = (std_error <= _ROUNDING * np.abs(estimate)).all(axis=1)
    of_error = np.where(constant, Status.CONSTANT_H, np.where(known, Status.OK, Status.ERROR_UNCERTAIN))
    return np.where(status == Status.OK, of_error, status).astype(np.int8)


@dataclass(frozen=True, eq=False, repr=False)
class SNIS(Result):
    """An estimate of the mean of h under the tempered target.

    Attributes
    ----------
    estimate : float or array
        ``sum(wbar * h)``, in the batch shape followed by h's own axes.
    std_error : float or array
        Delta-method standard error, in the units of h and the shape of `estimate`.
    bias : float or array
        Estimated bias of self-normalising, in the units of h and the shape of `estimate`; subtract it to
        correct. 0 where weights are not normalised.
    ess : float or array of the batch shape
        Kish's effective sample size of the weights used, in draws.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights ``w**gamma``, also where smoothed ones were used. At
        khat >= 1/2 the variance is infinite and `std_error` and `bias` are too small.
    status : Status or array of the batch shape
        What became of the row.
    low, high : float or array
        Ends of a 95 % interval, in the shape of `estimate`: Student's t with ``2 * error_draws`` degrees of
        freedom.
    log_z : float or array of the batch shape
        Log of the mean of ``w**gamma``: of the ratio of normalising constants if the log-weights are
        those of unnormalised densities, gamma being 1.
    log_z_std_error : float or array of the batch shape
        Its delta-method standard error, ``sqrt(1 / ess - 1 / n)``.
    error_draws : float or array of the batch shape
        How many draws carry the squared standard error, ``sum(f**2)**2 / sum(f**4)`` with
        ``f = wbar * (h - estimate)``, or ``w h`` less its mean where weights are not normalised; of the
        weights alone, f = wbar, for h with axes of its own.
    """

    estimate: Any
    std_error: Any
    bias: Any
    ess: Any
    khat: Any
    status: Any
    low: Any
    high: Any
    log_z: Any
    log_z_std_error: Any
    error_draws: Any


def snis(
    log_w: Any,
    h: Any,
    *,
    gamma: Any = 1.0,
    smooth: Smoothing = False,
    normalize: bool = True,
    axis: _arrays.Axis = -1,
    where: Any = None,
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
    axis : int or tuple of int, default -1
        The sample axis or axes of `log_w`; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    SNIS
        Estimate, standard error, bias, interval, and the diagnostics of the weights.

    Raises
    ------
    ValueError
        If `gamma` is negative, NaN or infinite, `smooth` is unknown, the sample axis is empty, or shapes do
        not fit.
    TypeError
        If an argument is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows of `log_w` hold NaN or +inf; their results are NaN.

    Notes
    -----
    * With wbar the normalised weights the standard error is ``sqrt(sum(wbar**2 (h - est)**2))`` and the
      bias ``-sum(wbar**2 (h - est))``; without normalising they are ``std(w h) / sqrt(n)`` and 0.
    * `Status.ERROR_UNCERTAIN` says that fewer than 25 draws carry the standard error: heavy tails, few
      draws or a rare value of h.
    * Standard error and bias are those of the weights used: what smoothing or cutting took away is not in
      them.
    * NaN in h at a draw of positive weight makes that estimate NaN.
    * Draws are taken to be independent.

    References
    ----------
    Owen, A. B. (2013). Monte Carlo theory, methods and examples, section 9.2. Kong, A. (1992). A note on
    importance sampling using standardized weights. Ionides, E. L. (2008). Truncated importance sampling.
    JCGS 17(2), 295-311. Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58.
    Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components.
    Biometrics Bulletin 2(6), 110-114.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)  # proposal N(0, 1)
    >>> result = isdiag.snis(x - 0.5, x)  # target N(1, 1), whose mean is 1
    >>> print(f"{result.estimate:.4f} +- {result.std_error:.4f}, {result.low:.4f} to {result.high:.4f}")
    1.0257 +- 0.0556, 0.9037 to 1.1477
    >>> print(f"{result.khat:.4f} {result.ess:.1f} {result.error_draws:.1f} {result.status}")
    0.2460 693.8 5.6 ERROR_UNCERTAIN
    """
    if smooth not in SMOOTHINGS:
        msg = f"smooth must be one of {SMOOTHINGS}, got {smooth!r}"
        raise ValueError(msg)
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    log_weights, used, khat, status = _weights_to_use(rows, exponent, smooth)
    moments = moments_of(log_weights, used, values)
    if not normalize:
        moments = _not_normalized(rows, log_weights, used, values, moments)
    result = _snis(rows, moments, own, khat, status)
    _arrays.warn_not_finite(status)
    return result


def snis_rows(
    rows: _arrays.Rows, h: Any, gamma: _arrays.Floats, lengths: _arrays.Ints
) -> tuple[SNIS, _arrays.Codes]:
    """Self-normalised estimates under w^gamma, and the status code of the weights a row."""
    values, own = rows.trailing(h)
    khat, status = khat_rows(rows, lengths, gamma)
    return _snis(rows, moments_of(rows.values, gamma, values), own, khat, status), status


def _weights_to_use(
    rows: _arrays.Rows, gamma: _arrays.Floats, smooth: Smoothing
) -> tuple[_arrays.Floats, _arrays.Floats, _arrays.Floats, _arrays.Codes]:
    """(log-weights, exponent still to be applied, raw khat, status code)."""
    lengths = tail_lengths(rows, 1.0, None)
    if not smooth:
        return rows.values, gamma, *khat_rows(rows, lengths, gamma)
    applied = np.ones(len(rows))
    if smooth != "truncate":
        log_weights = rows.target()
        khat, _, _, status = smooth_rows(rows, lengths, gamma, False, 1, log_weights)
        return _arrays.read_only(log_weights), applied, khat, status
    khat, status = khat_rows(rows, lengths, gamma)
    return _arrays.read_only(truncated(rows, gamma)), applied, khat, status


def truncated(rows: _arrays.Rows, gamma: _arrays.Floats) -> _arrays.Floats:
    """Log-weights of w^gamma cut at sqrt(n) times their mean."""
    _, total, _ = ess_rows(rows, gamma)  # the sum of the weights over the largest
    with np.errstate(invalid="ignore", divide="ignore"):
        high = gamma * rows.values.max(axis=1)
        cap = high + np.log(total) - 0.5 * np.log(rows.n)
    tempered, _ = temper_rows(rows, gamma, False)
    return np.fmin(tempered, cap[:, None])  # no cap without weight


def _not_normalized(
    rows: _arrays.Rows,
    log_weights: _arrays.Floats,
    gamma: _arrays.Floats,
    h: _arrays.Values,
    moments: Moments,
) -> Moments:
    """The moments with mean(w h) and its error in place of the self-normalised ones."""
    count, draws = log_weights.shape
    cube = h.reshape(count, draws, h.shape[1] // draws)
    positive = log_weights > -np.inf
    estimate, std_error = np.empty_like(moments.estimate), np.empty_like(moments.estimate)
    error_draws = moments.error_draws
    n = rows.n.astype(np.float64)
    with np.errstate(all="ignore"):  # rows without weight, h of any kind
        weights, top = over_largest(log_weights, gamma)
        scale = np.exp(top[:, 0])
        weights[np.isnan(moments.ess)] = np.nan
        zeros = n - positive.sum(axis=1)
        for j in range(cube.shape[2]):
            product = np.where(weights == 0.0, 0.0, weights * cube[:, :, j])
            mean = product.sum(axis=1) / n
            off = np.where(positive, product - mean[:, None], 0.0)
            squares = (off**2).sum(axis=1) + zeros * mean**2
            estimate[:, j] = scale * mean
            std_error[:, j] = scale * np.sqrt(squares / (n - 1.0) / n)
            if cube.shape[2] == 1:
                fourths = (off**4).sum(axis=1) + zeros * mean**4
                error_draws = np.where(fourths > 0.0, squares**2 / fourths, 0.0)
    return moments._replace(
        estimate=estimate, std_error=std_error, bias=0.0 * moments.bias, error_draws=error_draws
    )


def _snis(
    rows: _arrays.Rows,
    moments: Moments,
    own: tuple[int, ...],
    khat: _arrays.Floats,
    status: _arrays.Codes,
) -> SNIS:
    estimate, std_error, bias, ess, log_total, error_draws, _ = moments
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        log_z, log_z_std_error = log_mean(log_total, ess, rows.n)
        half = half_width(std_error, error_draws[:, None], LEVEL)
        low, high = estimate - half, estimate + half
    return SNIS(
        estimate=rows.diagnostic(estimate, own),
        std_error=rows.diagnostic(std_error, own),
        bias=rows.diagnostic(bias, own),
        ess=rows.diagnostic(ess),
        khat=rows.diagnostic(khat),
        status=rows.status(error_status(status, estimate, std_error, error_draws[:, None])),
        low=rows.diagnostic(low, own),
        high=rows.diagnostic(high, own),
        log_z=rows.diagnostic(log_z),
        log_z_std_error=rows.diagnostic(log_z_std_error),
        error_draws=rows.diagnostic(error_draws),
    )


def kong_owen_bias(
    log_w: Any,
    h: Any,
    *,
    gamma: Any = 1.0,
    covariance: Covariance = "target",
    axis: _arrays.Axis = -1,
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
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    float or array
        Estimated bias in the units of h, in the batch shape followed by h's own axes; NaN for a row
        without weight or with NaN or +inf.

    Raises
    ------
    ValueError
        If `covariance` is unknown, `gamma` is out of range, the sample axis is empty, or shapes do not
        fit.
    TypeError
        If an argument is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows of `log_w` hold NaN or +inf.

    Notes
    -----
    * Both are of order 1/n and vanish where h does not covary with the weights.
    * The bias of tempering, the distance between the tempered target's mean and the target's, is
      another matter and not part of it.

    References
    ----------
    Owen, A. B. (2013). Monte Carlo theory, methods and examples, section 9.2. Kong, A. (1992). A note on
    importance sampling using standardized weights.

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
    if covariance not in COVARIANCES:
        msg = f"covariance must be one of {COVARIANCES}, got {covariance!r}"
        raise ValueError(msg)
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    moments = moments_of(rows.values, exponent, values)
    bias = moments.bias
    _arrays.warn_not_finite(moments.status)
    if covariance == "proposal":
        with np.errstate(invalid="ignore"):
            bias = (rows.mean(values) - moments.estimate) / np.maximum(rows.n, 1)[:, None]
    return rows.diagnostic(bias, own)

"""The geometric path from proposal to target: its weights, its steps, and normalising constants along it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from isdiag import _arrays
from isdiag._result import Result
from isdiag.gamma import gamma_rows
from isdiag.psis import khat_rows, tail_lengths
from isdiag.snis import LEAST_ERROR_DRAWS, log_mean, moments_of
from isdiag.status import Status
from isdiag.weights import temper_rows

TrapezoidRule = Literal["corrected", "trapezoid"]
RULES = get_args(TrapezoidRule)


@dataclass(frozen=True, eq=False, repr=False)
class GeometricPath(Result):
    """Weights that turn draws of mu into draws of ``p_g``, for each gamma g of a path, and their diagnostics.

    All but `gammas` have a leading axis of gammas. Behind it `log_weights` has the axes of the log-densities,
    the others have the batch shape.

    Attributes
    ----------
    gammas : ndarray, shape (gammas,)
        The exponents.
    log_weights : array
        Log-weights of ``w**gamma``, log-sum-exp 0 along the sample axis, in the float dtype of `log_mu`.
    ess : array
        Kish's effective sample size, in draws.
    khat : array
        Shape of the tail of ``w**gamma``, re-fitted at each gamma.
    log_z : array
        Log of the mean of ``w**gamma``: of the normalising constant of ``mu**(1 - gamma) * target**gamma``,
        the densities taken as given, over that of mu.
    log_z_std_error : array
        Its delta-method standard error, ``sqrt(1 / ess - 1 / n)``.
    status : array
        What became of the row at this gamma.
    """

    gammas: Any
    log_weights: Any
    ess: Any
    khat: Any
    log_z: Any
    log_z_std_error: Any
    status: Any


@dataclass(frozen=True, eq=False, repr=False)
class LogZ(Result):
    """Log of a ratio of normalising constants, target over mu.

    Attributes
    ----------
    estimate : float or array of the batch shape
        The estimate.
    std_error : float or array of the batch shape
        Its delta-method standard error, for independent draws in independent sets. Where khat is 1/2 or more
        it is too small.
    khat : float or array of the batch shape, or None
        Shape of the tail of the weights of the worst step, NaN if that of any step is unknown; None where
        the method has no weights.
    status : Status or array of the batch shape
        What became of the worst set of draws.
    """

    estimate: Any
    std_error: Any
    khat: Any
    status: Any


def _path_rows(log_w: Any, gammas: Any, where: Any) -> tuple[_arrays.Rows, _arrays.Floats]:
    """A row for each set of draws, the sets of a path in succession, and the gammas of a path."""
    path = _arrays.exponents(gammas)
    if path[0] != 0.0 or path[-1] > 1.0 or not (np.diff(path) > 0.0).all():
        msg = f"gammas must increase from 0 to at most 1, got {gammas!r}"
        raise ValueError(msg)
    rows = _arrays.rows_of(log_w, -1, where)
    if rows.batch_shape[-1:] != (path.size,):
        shape = (*rows.batch_shape, rows.values.shape[1])
        msg = f"log_w must have shape (..., {path.size}, n) for {path.size} gammas, got {shape}"
        raise ValueError(msg)
    return rows, path


def _log_mean(
    rows: _arrays.Rows, gamma: _arrays.Floats
) -> tuple[_arrays.Floats, _arrays.Floats, _arrays.Floats]:
    """Log of the mean of w^gamma, its standard error, and the ESS, a number a row."""
    moments = moments_of(rows.values, gamma, rows.values)  # h is not looked at here
    return *log_mean(moments.log_total, moments.ess, rows.n), moments.ess


def _worst(codes: _arrays.Codes) -> _arrays.Codes:
    """The worst status code along the last axis; FLAT only where all are."""
    flat = codes == Status.FLAT
    worst = np.where(flat, np.int8(Status.OK), codes).max(axis=-1)
    worst[flat.all(axis=-1)] = Status.FLAT
    return worst


def _stack(parts: list[Any]) -> Any:
    """Arrays of one kind along a new leading axis."""
    first = parts[0]
    namespace = first.__array_namespace__() if hasattr(first, "__array_namespace__") else sys.modules["torch"]
    return namespace.stack(parts)


def geometric_path(
    log_mu: Any,
    log_target: Any,
    gammas: Any,
    *,
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> GeometricPath:
    """The path ``p_g`` proportional to ``mu**(1 - g) target**g``, seen from draws of mu.

    Parameters
    ----------
    log_mu : array_like, shape (..., n)
        Log-density of mu at draws of mu, up to a constant.
    log_target : array_like, shape of log_mu
        Log-density of the target at the same draws, up to a constant. -inf is a draw of zero weight.
    gammas : array_like, shape (gammas,)
        Exponents g, finite and >= 0, in any order; 0 is mu, 1 the target, more is a sharper target.
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_mu`; the others come back as -inf.

    Returns
    -------
    GeometricPath
        Normalised log-weights, ESS, khat and the log of the normalising constant, at each gamma.

    Raises
    ------
    ValueError
        If a gamma is negative, NaN or infinite, the sample axis is empty, or shapes do not fit.
    TypeError
        If an argument is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows of ``log_target - log_mu`` hold NaN or +inf; their results are NaN, all other rows are
        untouched.

    Notes
    -----
    * ``p_g`` is the least of ``(1 - g) KL(p || mu) + g KL(p || target)`` over all laws p. The path is the
      geodesic of the exponential connection, not of the Fisher-Rao metric.
    * The target may be a tilt of mu: ``log_target - log_mu = r / beta`` for a reward r.
    * gamma = 0 is the limit from above: equal weights on the draws of positive weight, and a `log_z` that is
      the log of their share. `Status.FLAT`.
    * A row without weight has log-weights and `log_z` -inf: `Status.NO_WEIGHT`.
    * mu cannot draw where it has no density: `log_mu` -inf makes a row `Status.NOT_FINITE`.
    * Memory: `log_weights` holds a copy of the draws' weights for each gamma.
    * khat and ESS say how far along the path draws of mu reach; beyond, move the draws in steps
      (`next_gamma`, `stepping_stone`).

    References
    ----------
    Gelman, A. & Meng, X.-L. (1998). Simulating normalizing constants: from importance sampling to bridge
    sampling to path sampling. Statistical Science 13(2), 163-185. Amari, S. (2016). Information geometry
    and its applications, section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)  # mu = N(0, 1), target = N(2, 1), p_g = N(2 g, 1)
    >>> path = isdiag.geometric_path(-(x**2) / 2, -((x - 2) ** 2) / 2, [0.0, 0.25, 0.5, 1.0])
    >>> (np.exp(path.log_weights) @ x).round(2)
    array([-0.01,  0.5 ,  1.03,  2.09])
    >>> path.ess.round(1)
    array([2000. , 1542.5,  693.8,   49.8])
    """
    exponents = _arrays.exponents(gammas)
    rows = _difference(log_mu, log_target, axis, where)
    lengths = tail_lengths(rows, 1.0, None)
    weights: list[Any] = []
    shape = (exponents.size, len(rows))
    ess, khat, log_z, std_error = (np.empty(shape) for _ in range(4))
    status = np.empty(shape, np.int8)
    for g, exponent in enumerate(exponents):
        gamma = _arrays.filled(len(rows), exponent)
        weights.append(rows.weights(temper_rows(rows, gamma, True)[0]))
        khat[g], status[g] = khat_rows(rows, lengths, gamma)
        log_z[g], std_error[g], ess[g] = _log_mean(rows, gamma)
    _arrays.warn_not_finite(status[0])  # the same at every gamma
    along = replace(rows, batch_shape=(exponents.size, *rows.batch_shape))
    return GeometricPath(
        gammas=exponents,
        log_weights=_stack(weights),
        ess=along.diagnostic(ess),
        khat=along.diagnostic(khat),
        log_z=along.diagnostic(log_z),
        log_z_std_error=along.diagnostic(std_error),
        status=along.status(status),
    )


def _difference(log_mu: Any, log_target: Any, axis: _arrays.Axis, where: Any) -> _arrays.Rows:
    """log target - log mu, laid out as the latter is."""
    below, above = _arrays.real_array(log_mu, "log_mu")[0], _arrays.real_array(log_target, "log_target")[0]
    if below.shape != above.shape:
        msg = f"log_mu and log_target must have one shape, got {below.shape} and {above.shape}"
        raise ValueError(msg)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities: the row's status tells
        log_w = above.astype(np.float64) - below.astype(np.float64)
    eps = _arrays.rows_of(log_target, axis, where, "log_target").eps
    rows = _arrays.rows_of(log_mu, axis, where, "log_mu")
    return replace(rows, values=_arrays.rows_of(log_w, axis, where).values, eps=max(eps, rows.eps))


def next_gamma(
    log_w: Any,
    gamma: Any = 0.0,
    *,
    ess_min: float = 0.5,
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> Any:
    """The next gamma of adaptive tempering: as far as the effective sample size allows, at most 1.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        ``log target - log mu`` up to a constant, at equally weighted particles that follow ``p_gamma``; for
        a posterior tempered from its prior the log-likelihood. -inf is a particle of zero weight.
    gamma : float or array_like of the batch shape, default 0
        Where the particles are, in [0, 1]. NaN in an array stays NaN.
    ess_min : float, default 0.5
        Smallest ``ESS / n`` of the weights ``w**(next - gamma)``, in [0, 1].
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    float or array of the batch shape
        The largest gamma' in [gamma, 1] for which the weights ``w**(gamma' - gamma)`` of the step keep
        ``ESS >= ess_min * n``. NaN for a row without weight or with NaN or +inf.

    Raises
    ------
    ValueError
        If `gamma` or `ess_min` is out of range, the sample axis is empty, or shapes do not fit.
    TypeError
        If `log_w` is not real or not in CPU memory, `where` is not boolean, or `ess_min` is no number.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN, all other rows are untouched.

    Notes
    -----
    * The constraint holds as computed with the difference ``gamma' - gamma``, as floats subtract, and is met
      within 1e-10 of `ess_min` unless the step is so small that gamma cannot resolve it.
    * No step may be possible: with ``ess_min=1``, or with so many particles of zero weight that equal weights
      on the others miss `ess_min`, what comes back is gamma. A loop over steps must look for that.
    * Particles that have weights of their own must be resampled first.
    * A step is safe by ESS alone here; `isdiag.select_gamma` minds the tail of the weights as well.

    References
    ----------
    Jasra, A., Stephens, D. A., Doucet, A. & Tsagaris, T. (2011). Inference for Levy-driven stochastic
    volatility models via adaptive sequential Monte Carlo. Scandinavian Journal of Statistics 38(1), 1-22.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> rng = np.random.default_rng(1)
    >>> gammas = [0.0]  # from N(0, 1) to N(5, 1), by way of N(5 gamma, 1)
    >>> while gammas[-1] < 1:
    ...     x = rng.normal(5 * gammas[-1], 1.0, size=1000)
    ...     gammas.append(isdiag.next_gamma(5 * x, gammas[-1]))
    >>> [round(gamma, 3) for gamma in gammas]
    [0.0, 0.16, 0.325, 0.501, 0.652, 0.806, 0.981, 1.0]
    """
    rows = _arrays.rows_of(log_w, axis, where)
    before = rows.gamma(gamma)
    if (before > 1.0).any():
        msg = f"gamma must be at most 1, got {before.max():g}"
        raise ValueError(msg)
    no_tail = _arrays.filled(len(rows), 0, np.int64)
    numbers, codes = gamma_rows(rows, no_tail, np.inf, ess_min, 1.0, "joint", 1)
    step = numbers[:, 0]
    after = before + step
    after = np.where(after - before > step, np.nextafter(after, 0.0), after)
    after = np.where(step >= 1.0 - before, 1.0, after)
    _arrays.warn_not_finite(codes[:, 1])
    return rows.diagnostic(after)


def stepping_stone(log_w: Any, gammas: Any, *, where: Any = None) -> LogZ:
    """Log of the target's normalising constant over mu's, by importance sampling from gamma to gamma.

    Parameters
    ----------
    log_w : array_like, shape (..., gammas, n)
        ``log target - log mu``, both unnormalised: ``log_w[..., k, :]`` at n draws of ``p_g`` with
        ``g = gammas[k]``. -inf is a draw of zero weight.
    gammas : array_like, shape (gammas,)
        Where the draws are from, increasing from 0. The last step is to 1; a set of draws at 1 itself is not
        used.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`: sets may differ in size.

    Returns
    -------
    LogZ
        Estimate, standard error, and khat of the worst step.

    Raises
    ------
    ValueError
        If `gammas` do not increase from 0 to at most 1, or shapes do not fit.
    TypeError
        If an argument is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If sets that are used hold NaN or +inf; the estimate of their path is NaN.

    Notes
    -----
    * ``sum_k log mean(w_k**(gammas[k + 1] - gammas[k]))``. With ``gammas = [0]`` it is plain importance
      sampling. Z is unbiased; its logarithm is biased by about ``-std_error**2 / 2``.
    * The standard error is that of independent draws; for those of MCMC it is too small.
    * `next_gamma` finds steps that keep the ESS.
    * If no draw of a set has positive weight the estimate is -inf: `Status.NO_WEIGHT`.

    References
    ----------
    Xie, W., Lewis, P. O., Fan, Y., Kuo, L. & Chen, M.-H. (2011). Improving marginal likelihood estimation
    for Bayesian phylogenetic model selection. Systematic Biology 60(2), 150-160.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> gammas = np.linspace(0, 1, 8, endpoint=False)
    >>> x = np.random.default_rng(1).normal(6 * gammas, size=(1000, 8)).T  # from N(0, 1) to N(6, 1)
    >>> result = isdiag.stepping_stone(6 * x, gammas)  # log of E[exp(6 x)] under N(0, 1): 18
    >>> print(f"{result.estimate:.3f} +- {result.std_error:.3f}, khat {result.khat:.2f}")
    17.935 +- 0.079, khat 0.38
    """
    rows, path = _path_rows(log_w, gammas, where)
    steps = np.diff(path, append=1.0)
    used = np.count_nonzero(steps)
    step = np.tile(steps, len(rows) // path.size)
    log_mean, std_error, _ = _log_mean(rows, step)
    khat, codes = khat_rows(rows, tail_lengths(rows, 1.0, None), step)

    def by_path(numbers: Any) -> Any:
        return numbers.reshape(-1, path.size)[:, :used]

    status = _worst(by_path(codes))
    _arrays.warn_not_finite(status)
    paths = replace(rows, batch_shape=rows.batch_shape[:-1])
    return LogZ(
        estimate=paths.diagnostic(by_path(log_mean).sum(axis=1)),
        std_error=paths.diagnostic(np.sqrt((by_path(std_error) ** 2).sum(axis=1))),
        khat=paths.diagnostic(by_path(khat).max(axis=1)),
        status=paths.status(status),
    )


def thermodynamic(log_w: Any, gammas: Any, *, rule: TrapezoidRule = "corrected", where: Any = None) -> LogZ:
    """Log of the target's normalising constant over mu's, by integrating the mean of log w along the path.

    Parameters
    ----------
    log_w : array_like, shape (..., gammas, n)
        ``log target - log mu``, both unnormalised: ``log_w[..., k, :]`` at n draws of ``p_g`` with
        ``g = gammas[k]``. -inf is a draw of zero weight, which only mu can draw.
    gammas : array_like, shape (gammas,)
        Where the draws are from, increasing from 0 to 1, both included.
    rule : {"corrected", "trapezoid"}, default "corrected"
        How to integrate the means ``E_k`` of log w: "trapezoid", or less its leading error by the variances
        ``V_k`` of log w, which are the slopes of the integrand.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`: sets may differ in size.

    Returns
    -------
    LogZ
        Estimate and standard error; khat is None, as no weights are used.

    Raises
    ------
    ValueError
        If `gammas` do not increase from 0 to 1, `rule` is unknown, or shapes do not fit.
    TypeError
        If an argument is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If sets hold NaN or +inf, or -inf at a gamma above 0; the estimate of their path is NaN.

    Notes
    -----
    * With d_k the distance of two gammas, ``sum_k d_k (E_k + E_k+1) / 2``, corrected by
      ``-sum_k d_k**2 (V_k+1 - V_k) / 12``.
    * The error of the integration rule is NOT in `std_error`. The plain rule is too low or too high by about
      what the correction is, the corrected one is of order d_k**4: compare the two.
    * Where mu draws outside of the target's support, log Z jumps at 0: the log of the share of draws inside
      is added, and their mean alone is integrated.
    * A set needs two draws for a variance: with one, the standard error is NaN, and so is the corrected
      estimate.
    * `Status.ERROR_UNCERTAIN` says that fewer than 25 draws carry the standard error.
    * If the target has far thinner tails than mu, the mean of log w rises steeply near 0: put gammas there,
      as with ``np.linspace(0, 1, K)**5``.

    References
    ----------
    Friel, N., Hurn, M. & Wyse, J. (2014). Improving power posterior estimation of statistical evidence.
    Statistics and Computing 24(5), 709-723. Lartillot, N. & Philippe, H. (2006). Computing Bayes factors
    using thermodynamic integration. Systematic Biology 55(2), 195-207.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> gammas = np.linspace(0, 1, 9)
    >>> x = np.random.default_rng(1).normal(6 * gammas, size=(1000, 9)).T  # from N(0, 1) to N(6, 1)
    >>> result = isdiag.thermodynamic(6 * x, gammas)  # log of E[exp(6 x)] under N(0, 1): 18
    >>> print(f"{result.estimate:.3f} +- {result.std_error:.3f}, {result.status}")
    17.961 +- 0.065, OK
    """
    if rule not in RULES:
        msg = f"rule must be one of {RULES}, got {rule!r}"
        raise ValueError(msg)
    rows, path = _path_rows(log_w, gammas, where)
    if path[-1] != 1.0:
        msg = f"gammas must increase from 0 to 1, got {gammas!r}"
        raise ValueError(msg)
    distances = np.diff(path, prepend=0.0), np.diff(path, append=1.0)
    of_mean, of_variance = (distances[0] + distances[1]) / 2, (distances[0] ** 2 - distances[1] ** 2) / 12
    paths = len(rows) // path.size
    log_share, variance, status = _share_inside(rows, path.size)

    # The estimate is a sum of means, of h at the draws of each set.
    equal = np.zeros(len(rows))
    inside = (rows.values > -np.inf).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unbiased = inside / (inside - 1.0)  # for variances, whose plain form is too small
        h = np.tile(of_mean, paths)[:, None] * rows.values
        if rule == "corrected":
            mean = moments_of(rows.values, equal, rows.values).estimate
            h -= (np.tile(of_variance, paths) * unbiased)[:, None] * (rows.values - mean) ** 2
        moments = moments_of(rows.values, equal, _arrays.read_only(h))
        parts = (moments.std_error[:, 0] ** 2 * unbiased).reshape(paths, path.size)
        carried = moments.error_draws.reshape(parts.shape)
        estimate = log_share + moments.estimate.reshape(parts.shape).sum(axis=1)
        error_draws = parts.sum(axis=1) ** 2 / np.where(parts > 0.0, parts**2 / carried, 0.0).sum(axis=1)
        std_error = np.sqrt(variance + parts.sum(axis=1))
    estimate[status == Status.NOT_FINITE] = np.nan
    std_error[np.isnan(estimate)] = np.nan
    uncertain = (status == Status.OK) & ~(error_draws >= LEAST_ERROR_DRAWS)
    status[uncertain] = Status.ERROR_UNCERTAIN
    _arrays.warn_not_finite(status)
    result = replace(rows, batch_shape=rows.batch_shape[:-1])
    return LogZ(
        estimate=result.diagnostic(estimate),
        std_error=result.diagnostic(std_error),
        khat=None,
        status=result.status(status),
    )


def _share_inside(rows: _arrays.Rows, sets: int) -> tuple[_arrays.Floats, _arrays.Floats, _arrays.Codes]:
    """Log of the share of mu's draws that have weight, its variance, and a path's status: a number each."""
    log_share, std_error, _ = (a.reshape(-1, sets) for a in _log_mean(rows, np.zeros(len(rows))))
    _, codes = khat_rows(rows, np.zeros(len(rows), np.int64), np.ones(len(rows)))
    codes = codes.reshape(-1, sets)
    codes[(codes != Status.FLAT) & (codes < Status.NO_WEIGHT)] = Status.OK  # a tail is not needed
    codes[:, 1:][log_share[:, 1:] < 0.0] = Status.NOT_FINITE
    return log_share[:, 0], std_error[:, 0] ** 2, _worst(codes)

"""The geometric path from proposal to target: its weights, its steps, and normalising constants along it."""

from __future__ import annotations

from typing import Any

from isdiag._core import paths, tails
from isdiag._core.boundary import exponents, rows_of
from isdiag._core.check import number, one_of
from isdiag._core.result import GeometricPath, LogZ, bare
from isdiag._core.typing import Axis, TrapezoidRule


def geometric_path(
    log_mu: Any,
    log_target: Any,
    gammas: Any,
    *,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    axis: Axis = -1,
    where: Any = None,
    workers: int = 1,
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
    r_eff : float or array_like of the batch shape, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_mu`; the others come back as -inf.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    GeometricPath
        Normalised log-weights, ESS, khat and the log of the normalising constant, at each gamma.

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
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Gelman1998]_; [Amari2016]_, section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> # mu = N(0, 1), target = N(2, 1), p_g = N(2 g, 1)
    >>> x = np.random.default_rng(1).normal(size=2000)
    >>> path = isdiag.geometric_path(-(x**2) / 2, -((x - 2) ** 2) / 2, [0.0, 0.25, 0.5, 1.0])
    >>> (np.exp(path.log_weights) @ x).round(2)
    array([-0.01,  0.5 ,  1.03,  2.09])
    >>> path.ess.round(1)
    array([2000. , 1542.5,  693.8,   49.8])
    """
    path = exponents(gammas)
    rows, log_weights = paths.difference(log_mu, log_target, axis, where, path.size)
    along = rows.along(path.size)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    found = paths.geometric_path(rows, log_weights, path, lengths, workers)
    return GeometricPath.of(along, **found | {"log_weights": along.weights(found["log_weights"])})


def next_gamma(
    log_w: Any,
    gamma: Any = 0.0,
    *,
    ess_min: float = 0.5,
    log_weights: Any = None,
    axis: Axis = -1,
    where: Any = None,
) -> Any:
    """The next gamma of adaptive tempering: as far as the effective sample size allows, at most 1.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        ``log target - log mu`` up to a constant, at particles that follow ``p_gamma``; for a posterior
        tempered from its prior the log-likelihood. -inf is a particle of zero weight.
    gamma : float or array_like of the batch shape, default 0
        Where the particles are, in [0, 1]. NaN in an array stays NaN.
    ess_min : float, default 0.5
        Smallest ``ESS / n`` of the particles' weights after the step, in [0, 1].
    log_weights : array_like of log_w's shape, optional
        Log-weights that the particles have already, up to a constant; -inf is a particle of zero weight.
        Default: equal weights, as after resampling.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    float or array of the batch shape
        The largest gamma' in [gamma, 1] for which the weights after the step, those before it times
        ``w**(gamma' - gamma)``, keep ``ESS >= ess_min * n``. NaN for a row without weight or with NaN or
        +inf.

    Notes
    -----
    * The constraint holds as computed with the difference ``gamma' - gamma``, as floats subtract, and is met
      within 1e-10 of `ess_min` unless the step is so small that gamma cannot resolve it.
    * No step may be possible: with ``ess_min=1``, with so many particles of zero weight that equal weights on
      the others miss `ess_min`, or with `log_weights` that miss it already, what comes back is gamma. A loop
      over steps must look for that, and resample.
    * With weights of their own ESS need not fall all along the way. What comes back is 1 where that keeps
      it, else a gamma' that keeps it and just beyond which it is lost.
    * The weights after the step are ``log_weights + (next - gamma) * log_w``, and the log of their sum less
      that of the sum before is the step's part of log Z.
    * A step is safe by ESS alone here; `isdiag.select_gamma` minds the tail of the weights as well.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Jasra2011]_.

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
    rows = rows_of(log_w, axis, where)
    least = number("ess_min", ess_min, 0.0, 1.0)
    after, status = paths.next_gamma(rows, rows.gamma(gamma), least, log_weights)
    return bare(rows, after, status)


def stepping_stone(
    log_w: Any,
    gammas: Any,
    *,
    r_eff: Any = 1.0,
    tail_length: int | None = None,
    where: Any = None,
    workers: int = 1,
) -> LogZ:
    """Log of the target's normalising constant over mu's, by importance sampling from gamma to gamma.

    Parameters
    ----------
    log_w : array_like, shape (..., gammas, n)
        ``log target - log mu``, both unnormalised: ``log_w[..., k, :]`` at n draws of ``p_g`` with
        ``g = gammas[k]``. -inf is a draw of zero weight.
    gammas : array_like, shape (gammas,)
        Where the draws are from, increasing from 0. The last step is to 1; a set of draws at 1 itself is not
        used.
    r_eff : float or array_like of the batch shape, default 1
        Relative efficiency of draws from MCMC; sets the tail length only.
    tail_length : int, optional
        Pin the tail length; default `tail_length(n, r_eff)`.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`: sets may differ in size.
    workers : int, default 1
        Threads to spread the rows over, or the parts of rows of 2**20 draws and more; -1 for one per CPU.
        Results do not depend on it.

    Returns
    -------
    LogZ
        Estimate, standard error, and khat of the worst step.

    Raises
    ------
    ValueError
        If `gammas` do not increase from 0 to at most 1.

    Notes
    -----
    * ``sum_k log mean(w_k**(gammas[k + 1] - gammas[k]))``. With ``gammas = [0]`` it is plain importance
      sampling. Z is unbiased; its logarithm is biased by about ``-std_error**2 / 2``.
    * The standard error is that of independent draws; for those of MCMC it is too small.
    * The batch shape of `r_eff` is ``(..., gammas)``: each set of draws may have its own.
    * `next_gamma` finds steps that keep the ESS.
    * If no draw of a set has positive weight the estimate is -inf: `Status.NO_WEIGHT`.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Xie2011]_.

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
    rows, path = paths.sets_of(log_w, gammas, where)
    lengths = tails.lengths_of(rows, r_eff, tail_length)
    return LogZ.of(paths.by_path(rows), **paths.stepping_stone(rows, path, lengths, workers))


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
        If `gammas` do not increase from 0 to 1.

    Notes
    -----
    * With d_k the distance of two gammas, ``sum_k d_k (E_k + E_k+1) / 2``, corrected by
      ``-sum_k d_k**2 (V_k+1 - V_k) / 12``. A slope V counts as three times that of the chord if it is more:
      beyond that, at gammas too far apart, the correction would lead out of the range of the means.
    * A set at a gamma above 0 that holds -inf is not a sample of that power of the target: its path has
      `Status.NOT_FINITE`, as one whose sums are beyond float64 has.
    * The error of the integration rule is NOT in `std_error`. The plain rule is too low or too high by about
      `LogZ.disagreement`, what the correction is; the error of the corrected one is of order d_k**4.
    * Where mu draws outside of the target's support, log Z jumps at 0: the log of the share of draws inside
      is added, and their mean alone is integrated.
    * A set needs two draws for a variance: with one, the standard error is NaN, and so is the corrected
      estimate.
    * `Status.ERROR_UNCERTAIN` says that very few draws carry the standard error, or that the two rules
      differ by more than two of them: then put more gammas where the mean rises most.
    * The gammas of `stepping_stone` may end before 1; those that end at 1 serve both functions.
    * If the target has far thinner tails than mu, the mean of log w rises steeply near 0: put gammas there,
      as with ``np.linspace(0, 1, K)**5``.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Friel2014]_; [Lartillot2006]_; [Fritsch1980]_.

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
    one_of("rule", rule, TrapezoidRule)
    rows, path = paths.sets_of(log_w, gammas, where)
    if path[-1] != 1.0:
        msg = f"gammas must increase from 0 to 1, got {gammas!r}"
        raise ValueError(msg)
    found = paths.thermodynamic(rows, path, corrected=rule == "corrected")
    return LogZ.of(paths.by_path(rows), **found)

"""Closed forms for log-normal weights, the model in which everything about tempering can be written down.

Draws x ~ N(0, 1) from the proposal with ``log w = s x - s**2 / 2``: the target is N(s, 1), the target
tempered by gamma is N(gamma s, 1), and the estimate is the self-normalised one of the mean of h(x) = x.
What holds, exactly or to first order in 1/n, has a plain name; a form of it that is often printed but holds
only in part stands beside it as ``..._printed``. An argument outside of the range that its description
names raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from isdiag._core.boundary import like_scalar, numbers
from isdiag._core.check import number
from isdiag._core.typing import Floats

__all__ = [
    "best_gamma",
    "best_gamma_printed",
    "bias",
    "bias_printed",
    "ess_ratio",
    "moment",
    "mse",
    "mse_printed",
    "tempering_bias",
    "variance",
    "variance_printed",
]

# [0, 1] halved so often is narrower than an ulp of anything above 0.01.
_HALVINGS = 60


def _gamma_s(gamma: Any, s: Any) -> tuple[Floats, Floats]:
    return numbers("gamma", gamma, 0.0), numbers("s", s, 0.0)


def _root(slope: Callable[[Any], Any], highest: float, shape: tuple[int, ...]) -> Any:
    """Where an increasing `slope` changes sign in [0, `highest`]; 0 where it is nowhere negative."""
    low, high = np.zeros(shape), np.full(shape, highest)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        falling = slope(middle) < 0
        low, high = np.where(falling, middle, low), np.where(falling, high, middle)
    return like_scalar(np.where(slope(np.zeros(shape)) < 0, high, 0.0))


@np.errstate(over="ignore")
def moment(gamma: Any, s: Any) -> Any:
    """Moment of the weights, ``E_mu[w**gamma] = exp(gamma (gamma - 1) s**2 / 2)``.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.

    Returns
    -------
    float or array
        Moment of order gamma: 1 at gamma = 0 and 1, below 1 between them.

    References
    ----------
    [Owen2013]_, chapter 9.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> round(lognormal.moment(2.0, 1.0), 6)
    2.718282
    """
    gamma, s = _gamma_s(gamma, s)
    return like_scalar(np.exp(0.5 * (gamma * s) * ((gamma - 1) * s)))


@np.errstate(over="ignore")
def ess_ratio(gamma: Any, s: Any) -> Any:
    """Effective sample size over n in the limit of many draws, ``exp(-gamma**2 s**2)``.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.

    Returns
    -------
    float or array
        ``E_mu[w**gamma]**2 / E_mu[w**(2 gamma)]``, between 0 and 1.

    References
    ----------
    [Kong1992]_.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> lognormal.ess_ratio([0.5, 1.0], 1.0).round(6)
    array([0.778801, 0.367879])
    """
    gamma, s = _gamma_s(gamma, s)
    return like_scalar(np.exp(-((gamma * s) ** 2)))


@np.errstate(over="ignore", divide="ignore")
def variance(gamma: Any, s: Any, n: Any) -> Any:
    """First-order variance of the estimate, ``exp(gamma**2 s**2) (1 + gamma**2 s**2) / n``.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.
    n : float or array_like
        Number of draws, > 0.

    Returns
    -------
    float or array
        Variance of the self-normalised estimate of the tempered target's mean.

    Notes
    -----
    * It is ``E_mu[w**(2 gamma) (x - gamma s)**2] / (n E_mu[w**gamma]**2)``, the square of the delta
      method's standard error. It grows with gamma: the smallest is at gamma = 0.
    * Few draws from heavy weights vary less than this, since an estimate cannot leave their range.

    References
    ----------
    [Owen2013]_, section 9.2.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> round(lognormal.variance(1.0, 1.0, 100), 6)
    0.054366
    """
    gamma, s = _gamma_s(gamma, s)
    ess = numbers("n", n, 0.0, ends="()") * ess_ratio(gamma, s)
    return like_scalar((1 + (gamma * s) ** 2) / ess)


@np.errstate(over="ignore")
def variance_printed(gamma: Any, s: Any) -> Any:
    """Second moment of the weights, ``E_mu[w**(2 gamma)] = exp(gamma (2 gamma - 1) s**2)``.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.

    Returns
    -------
    float or array
        What is often printed as the variance up to a constant; it is least at gamma = 1/4.

    Notes
    -----
    The dip at gamma = 1/4 belongs to the weights' own size. The estimate divides by it:
    `variance` carries ``E_mu[w**(2 gamma)] / E_mu[w**gamma]**2``, which has no dip.

    References
    ----------
    [Owen2013]_, section 9.2.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> [round(lognormal.variance_printed(gamma, 2.0), 3) for gamma in (0.0, 0.25, 0.5)]
    [1.0, 0.607, 1.0]
    """
    gamma, s = _gamma_s(gamma, s)
    return moment(2 * gamma, s)


@np.errstate(over="ignore", divide="ignore")
def bias(gamma: Any, s: Any, n: Any) -> Any:
    """First-order bias of self-normalisation, ``-(gamma s / n) exp(gamma**2 s**2)``.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.
    n : float or array_like
        Number of draws, > 0.

    Returns
    -------
    float or array
        Mean of the estimate less the tempered target's mean, never positive.

    Notes
    -----
    It is ``-cov(w**gamma, x) / (n E_mu[w**gamma])`` with the covariance under the tempered target. Under
    the proposal the covariance is smaller by ``exp(gamma**2 s**2)`` and the bias would be
    ``-gamma s / n``.

    References
    ----------
    [Owen2013]_, section 9.2; [Kong1992]_.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> round(lognormal.bias(0.6, 1.0, 100), 6)
    -0.0086
    """
    gamma, s = _gamma_s(gamma, s)
    ess = numbers("n", n, 0.0, ends="()") * ess_ratio(gamma, s)
    return like_scalar(-(gamma * s) / ess)


@np.errstate(over="ignore", invalid="ignore")
def bias_printed(gamma: Any, s: Any, n: Any, *, scale: float = 1.0) -> Any:
    """The bias as it is often printed, ``-(scale / n) (exp(gamma s**2) - 1)``.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.
    n : float or array_like
        Number of draws, > 0.
    scale : float, default 1
        The constant ``rho sigma_r sigma_grad``: correlation of reward and score times their standard
        deviations.

    Returns
    -------
    float or array
        Bias that `bias` corrects.

    References
    ----------
    [Kong1992]_.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> round(lognormal.bias_printed(0.6, 1.0, 100), 6)
    -0.008221
    """
    gamma, s = _gamma_s(gamma, s)
    constant = number("scale", scale, -inf, ends="()")
    return like_scalar(-(constant / numbers("n", n, 0.0, ends="()")) * np.expm1((gamma * s) * s))


@np.errstate(over="ignore")
def tempering_bias(gamma: Any, s: Any) -> Any:
    """The bias of tempering, ``(gamma - 1) s``: the tempered target's mean less the target's.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.

    Returns
    -------
    float or array
        Distance that no number of draws makes smaller.

    References
    ----------
    [Owen2013]_, section 9.9.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> lognormal.tempering_bias(0.75, 2.0)
    -0.5
    """
    gamma, s = _gamma_s(gamma, s)
    return like_scalar((gamma - 1) * s)


@np.errstate(over="ignore", invalid="ignore")
def mse(gamma: Any, s: Any, n: Any) -> Any:
    """Mean squared error of the tempered estimate, ``(tempering_bias + bias)**2 + variance``.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.
    n : float or array_like
        Number of draws, > 0.

    Returns
    -------
    float or array
        Mean squared distance from the target's mean s.

    Notes
    -----
    * The two biases point the same way, away from the target, and add up before they are squared.
    * It is the sum of first-order terms and holds where ``n * ess_ratio(gamma, s)`` is large. At s = 2 and
      n = 1000 it is 0.285 for gamma = 1, simulated 0.074: an estimate cannot leave the range of its draws.

    References
    ----------
    [Owen2013]_, sections 9.2 and 9.9.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> round(lognormal.mse(0.5, 1.0, 100), 6)
    0.272512
    """
    of_n = bias(gamma, s, n)
    with np.errstate(invalid="ignore"):
        # It outgrows the other bias, of whatever sign: where both overflow the sum is not of their signs.
        total = np.where(np.isinf(of_n), np.inf, tempering_bias(gamma, s) + of_n)
    return like_scalar(np.square(total) + variance(gamma, s, n))


@np.errstate(over="ignore")
def mse_printed(gamma: Any, s: Any, n: Any, *, c1: float = 1.0, c2: float = 1.0) -> Any:
    """Mean squared error as it is often printed, without the bias of tempering.

    Parameters
    ----------
    gamma : float or array_like
        Exponent, >= 0.
    s : float or array_like
        Standard deviation of log w, >= 0.
    n : float or array_like
        Number of draws, > 0.
    c1 : float, default 1
        Constant of the squared bias, > 0.
    c2 : float, default 1
        Constant of the variance, > 0.

    Returns
    -------
    float or array
        ``c1 / n**2 (exp(gamma s**2) - 1)**2 + c2 / n exp(gamma (2 gamma - 1) s**2)``.

    References
    ----------
    [Kong1992]_.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> round(lognormal.mse_printed(0.5, 1.0, 100), 6)
    0.010042
    """
    squared_bias = numbers("c1", c1, 0.0, ends="()") * np.square(bias_printed(gamma, s, n))
    per_draw = numbers("c2", c2, 0.0, ends="()") * variance_printed(gamma, s)
    return like_scalar(squared_bias + per_draw / numbers("n", n, 0.0, ends="()"))


def best_gamma(s: Any, n: Any) -> Any:
    """Exponent in [0, 1] at which `mse` is least.

    Parameters
    ----------
    s : float or array_like
        Standard deviation of log w, >= 0.
    n : float or array_like
        Number of draws, > 0.

    Returns
    -------
    float or array
        Best exponent. It tends to 1 as n grows; 0 for n <= 1.

    Notes
    -----
    * `mse` has one minimum in [0, 1]: its derivative over ``2 s**2`` increases there.
    * s = 0 gives the limit s -> 0, ``(1 - 1/n) / (1 + 1/n**2)``.
    * It is as good as `mse` is. At s = 1/2 simulation gives the same within 0.1 for n >= 10. At s = 2 the
      first-order variance is too large and the best exponent too small: 0.446 and 0.889 for n = 10 and
      1000, simulated 1 on [0, 1] for both.

    References
    ----------
    [Owen2013]_, sections 9.2 and 9.9.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> lognormal.best_gamma(2.0, [10, 1e3, 1e6]).round(4)
    array([0.4464, 0.8895, 0.9997])
    """
    s, n = np.broadcast_arrays(numbers("s", s, 0.0), numbers("n", n, 0.0, ends="()"))

    @np.errstate(over="ignore", divide="ignore")
    def slope(gamma: Floats) -> Any:
        u = (gamma * s) ** 2
        per_ess = 1 / (n * ess_ratio(gamma, s))
        return (1 - gamma + gamma * per_ess) * (per_ess * (1 + 2 * u) - 1) + gamma * per_ess * (2 + u)

    return _root(slope, 1.0, s.shape)


@np.errstate(over="ignore", invalid="ignore")
def best_gamma_printed(s: Any, n: Any, *, c1: float = 1.0, c2: float = 1.0) -> Any:
    """Exponent at which `mse_printed` is least: at most 1/4, however many draws there are.

    Parameters
    ----------
    s : float or array_like
        Standard deviation of log w, >= 0.
    n : float or array_like
        Number of draws, > 0.
    c1 : float, default 1
        Constant of the squared bias, > 0.
    c2 : float, default 1
        Constant of the variance, > 0.

    Returns
    -------
    float or array
        Exponent in (0, 1/4]; 1/4 for s = 0, the limit s -> 0.

    Notes
    -----
    `mse_printed` is convex in gamma, so the minimum is the only one.

    References
    ----------
    [Kong1992]_.

    Examples
    --------
    >>> from isdiag import lognormal
    >>> lognormal.best_gamma_printed(2.0, [10, 1e3, 1e6]).round(4)
    array([0.1446, 0.2463, 0.25  ])
    """
    s, n = np.broadcast_arrays(numbers("s", s, 0.0), numbers("n", n, 0.0, ends="()"))
    of_bias, of_variance = numbers("c1", c1, 0.0, ends="()"), numbers("c2", c2, 0.0, ends="()")

    @np.errstate(over="ignore")
    def slope(gamma: Floats) -> Any:
        growth = bias_printed(gamma, s, 1.0, scale=-1.0)
        by_bias = 2 * of_bias / n * growth * (1 + growth)
        return by_bias + of_variance * (4 * gamma - 1) * variance_printed(gamma, s)

    return _root(slope, 0.25, s.shape)

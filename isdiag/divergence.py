"""Divergences of the target from the proposal, and the moments of the weights that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from isdiag import _arrays
from isdiag._result import Result
from isdiag.psis import khat_rows, tail_lengths
from isdiag.status import Status

Direction = Literal["target", "proposal"]
DIRECTIONS = get_args(Direction)
Estimator = Literal["k1", "k2", "k3"]
ESTIMATORS = get_args(Estimator)

_LARGEST = float(np.finfo(np.float64).max)
# Up to this spread of exponents a second difference of exponentials is summed as a series, whose terms
# beyond the fifteenth are below an ulp.
_NEAR = 0.5
_SERIES = 15

_Estimate = tuple[_arrays.Floats, _arrays.Floats]  # (rows, 1), and the influence of each draw on it


@dataclass(frozen=True, eq=False, repr=False)
class Divergence(Result):
    """An estimate of a divergence, or of the logarithm of a moment of the weights.

    Attributes
    ----------
    estimate : float or array of the batch shape
        The estimate; logarithms are natural.
    std_error : float or array of the batch shape
        Its delta-method standard error, with what normalising adds; NaN where there is none: for an infinite
        estimate and for alpha = inf.
    khat : float or array of the batch shape
        Shape of the tail of the weights, of the power that the estimate averages. At khat >= 1/2 their
        variance is infinite and `std_error` too small; at khat >= 1 the estimate itself does not converge.
    status : Status or array of the batch shape
        What became of the row.
    """

    estimate: Any
    std_error: Any
    khat: Any
    status: Any

    def __float__(self) -> float:
        return float(self.estimate)


class _Weights(NamedTuple):
    """Weights of the rows, as given or over their mean; 0 in `log` and `below` where there is none."""

    rows: _arrays.Rows
    positive: NDArray[np.bool_]
    some_zero: NDArray[np.bool_]  # (rows, 1)
    values: _arrays.Floats
    log: _arrays.Floats
    below: _arrays.Floats  # log less its largest
    top: _arrays.Floats  # that largest, (rows, 1)
    normalized: bool


def log_moment(
    log_w: Any, gamma: Any, *, normalize: bool = False, axis: _arrays.Axis = -1, where: Any = None
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
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    Divergence
        The logarithm, its standard error, and the diagnostics of the weights.

    Raises
    ------
    ValueError
        If `gamma` is negative, NaN or infinite, the sample axis is empty, or shapes do not fit.
    TypeError
        If `log_w` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN.

    Notes
    -----
    * gamma = 0 is the limit from above: the log of the share of draws of positive weight.
    * The moment is unbiased for log-weights of normalised densities; its logarithm is too small by about half
      the squared standard error.
    * khat is that of ``w**gamma``, of ``w**max(gamma, 1)`` if normalised: the mean of w is then averaged too.

    References
    ----------
    Owen, A. B. (2013). Monte Carlo theory, methods and examples, chapter 9.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> moment = isdiag.log_moment(np.log([1.0, 2.0, 3.0]), 2.0)
    >>> round(float(np.exp(moment.estimate)), 6)  # (1 + 4 + 9) / 3
    4.666667
    """
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    order = exponent[:, None]
    with np.errstate(all="ignore"):  # rows without weight, weights of any size
        w = _weights_of(rows, normalize)
        if normalize:
            value, influence = _renyi(w, order)
            found = ((order - 1.0) * value, (order - 1.0) * influence)
        else:
            found = _log_mean_power(w, order)
        result, status = _result(w, found, np.maximum(exponent, 1.0) if normalize else exponent)
    _arrays.warn_not_finite(status)
    return result


def renyi_divergence(
    log_w: Any, alpha: Any, *, normalize: bool = True, axis: _arrays.Axis = -1, where: Any = None
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
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    Divergence
        The divergence in nats, its standard error, and the diagnostics of the weights.

    Raises
    ------
    ValueError
        If `alpha` is negative or NaN, the sample axis is empty, or shapes do not fit.
    TypeError
        If `log_w` or `alpha` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN.

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

    References
    ----------
    van Erven, T. & Harremoes, P. (2014). Renyi divergence and Kullback-Leibler divergence. IEEE
    Transactions on Information Theory 60(7), 3797-3820.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)  # proposal N(0, 1), target N(0.5, 1)
    >>> half = isdiag.renyi_divergence(0.5 * x, 0.5)  # the truth is alpha * 0.5**2 / 2
    >>> print(f"{half.estimate:.4f} +- {half.std_error:.4f}")
    0.0641 +- 0.0023
    """
    rows = _arrays.rows_of(log_w, axis, where)
    exponent, infinite = _orders(rows, alpha)
    order = exponent[:, None]
    with np.errstate(all="ignore"):
        w = _weights_of(rows, normalize)
        value, influence = _renyi(w, order) if normalize else _renyi_as_given(w, order)
        value = np.where(infinite, w.top, value)
        influence = np.where(infinite, np.nan, influence)
        result, status = _result(w, (value, influence), np.maximum(exponent, 1.0) if normalize else exponent)
    _arrays.warn_not_finite(status)
    return result


def alpha_divergence(
    log_w: Any, alpha: Any, *, normalize: bool = True, axis: _arrays.Axis = -1, where: Any = None
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
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    Divergence
        The divergence, its standard error, and the diagnostics of the weights. At alpha = 0 it is inf if a
        draw has zero weight.

    Raises
    ------
    ValueError
        If `alpha` is negative, NaN or infinite, the sample axis is empty, or shapes do not fit.
    TypeError
        If `log_w` or `alpha` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN.

    Notes
    -----
    * Normalised, it is >= 0 and continuous in alpha, whatever the weights.
    * ``normalize=False`` estimates by the mean of ``(1 - w**alpha) / (alpha (1 - alpha))``, unbiased, and by
      that of ``w log w`` at alpha = 1. Near 1, but not at 1, it is useless, as its standard error says.
    * A negative order is another's with the roles swapped: ``1 - alpha`` with the weights ``1 / w`` of draws
      from the target.
    * khat is that of ``w**alpha``, of ``w**max(alpha, 1)`` if normalised. At alpha = 1 it is a lower
      bound, as for `renyi_divergence`; at alpha = 0 it is that of w, which says nothing of ``-log w``.

    References
    ----------
    Amari, S. (2016). Information geometry and its applications, Springer, chapter 4. Cichocki, A. & Amari, S.
    (2010). Families of alpha-, beta- and gamma-divergences. Entropy 12(6), 1532-1568.

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
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.per_row(alpha, "alpha", 0.0, exclusive=False, unknown=True)
    with np.errstate(all="ignore"):
        w = _weights_of(rows, normalize)
        found = _amari(w, exponent[:, None])
        of_tail = np.maximum(exponent, 1.0) if normalize else np.where(exponent == 0.0, 1.0, exponent)
        result, status = _result(w, found, of_tail)
    _arrays.warn_not_finite(status)
    return result


def kl_divergence(
    log_w: Any,
    *,
    direction: Direction = "target",
    estimator: Estimator = "k1",
    normalize: bool = True,
    axis: _arrays.Axis = -1,
    where: Any = None,
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
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    Divergence
        The divergence in nats, its standard error, and the diagnostics of the weights. KL(mu || pi) is inf if
        a draw has zero weight.

    Raises
    ------
    ValueError
        If `direction` or `estimator` is unknown, the sample axis is empty, or shapes do not fit.
    TypeError
        If `log_w` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN.

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

    References
    ----------
    Schulman, J. (2020). Approximating KL divergence. http://joschu.net/blog/kl-approx.html

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
    if direction not in DIRECTIONS:
        msg = f"direction must be one of {DIRECTIONS}, got {direction!r}"
        raise ValueError(msg)
    if estimator not in ESTIMATORS:
        msg = f"estimator must be one of {ESTIMATORS}, got {estimator!r}"
        raise ValueError(msg)
    rows = _arrays.rows_of(log_w, axis, where)
    one = np.ones(len(rows))
    order = (one if direction == "target" else np.zeros(len(rows)))[:, None]
    with np.errstate(all="ignore"):
        w = _weights_of(rows, normalize)
        if estimator == "k2":
            found = _half_square(w, direction)
        elif estimator == "k3":
            found = _generated(w, order)
        else:
            found = _amari(w, order)
        result, status = _result(w, found, one)
    _arrays.warn_not_finite(status)
    return result


def chi2_divergence(
    log_w: Any, *, normalize: bool = True, axis: _arrays.Axis = -1, where: Any = None
) -> Divergence:
    """Chi-squared divergence of the target from the proposal, ``E_mu[w**2] - 1``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights of draws from the proposal mu; -inf is a draw of zero weight.
    normalize : bool, default True
        Take the weights over their mean, the log-weights being known up to a constant. If False they must be
        those of normalised densities.
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    Divergence
        The divergence, its standard error, and the diagnostics of the weights.

    Raises
    ------
    ValueError
        If the sample axis is empty or shapes do not fit.
    TypeError
        If `log_w` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN.

    Notes
    -----
    * Normalised it is the squared coefficient of variation of the weights, ``n / ess(log_w) - 1``.
    * It is ``2 * alpha_divergence(log_w, 2)``.
    * khat is that of ``w**2``, about twice that of w: the standard error needs four moments of the weights.

    References
    ----------
    Kong, A. (1992). A note on importance sampling using standardized weights. Tech. rep. 348, Chicago.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> log_w = np.log([1.0, 2.0, 3.0])
    >>> round(float(isdiag.chi2_divergence(log_w)), 6), round(3 / isdiag.ess(log_w) - 1, 6)
    (0.166667, 0.166667)
    """
    rows = _arrays.rows_of(log_w, axis, where)
    two = _arrays.filled(len(rows), 2.0)
    with np.errstate(all="ignore"):
        w = _weights_of(rows, normalize)
        half, influence = _amari(w, two[:, None])
        result, status = _result(w, (2.0 * half, 2.0 * influence), two)
    _arrays.warn_not_finite(status)
    return result


# Below, `order` and everything else that a row has one of is (rows, 1).


def _orders(rows: _arrays.Rows, alpha: Any) -> tuple[_arrays.Floats, NDArray[np.bool_]]:
    """Orders of which some may be infinite: as exponents, 1 in their place, and where they are (rows, 1)."""
    array = _arrays.real_array(alpha, "alpha")[0].astype(np.float64)
    bad = ~(array >= 0.0) if array.ndim == 0 else array < 0.0
    if bad.any():
        msg = f"alpha must be at least 0, got {array[bad].flat[0]:g}"
        raise ValueError(msg)
    infinite = np.isposinf(array)
    finite = np.where(infinite, 1.0, array)
    exponent = rows.per_row(finite, "alpha", 0.0, exclusive=False, unknown=True)
    mask = rows.per_row(infinite.astype(np.float64), "alpha", 0.0, exclusive=False)
    return exponent, mask[:, None] > 0.0


def _weights_of(rows: _arrays.Rows, normalize: bool) -> _Weights:
    positive = rows.values > -np.inf
    # Draws without weight and entries left out look the same here: only n knows how many are draws.
    some_zero = rows.n[:, None] > positive.sum(axis=1, keepdims=True)
    top = rows.values.max(axis=1, keepdims=True)
    below = np.where(positive, np.maximum(rows.values - top, -_LARGEST), 0.0)
    log = rows.values
    if normalize:
        top = -_log_mean_exp(rows, positive, below)
        log = below + top
    log = np.where(positive, log, 0.0)
    values = np.where(positive, np.exp(log), 0.0)
    return _Weights(rows, positive, some_zero, values, log, below, top, normalize)


def _log_mean_exp(rows: _arrays.Rows, positive: NDArray[np.bool_], x: _arrays.Floats) -> _arrays.Floats:
    """Log of the mean of exp(x), x <= 0, over all draws, to the last digit also where it is near 0."""
    less_one = rows.mean(np.where(positive, np.expm1(x), -1.0))
    mean = rows.mean(np.where(positive, np.exp(x), 0.0))
    return np.where(less_one > -0.5, np.log1p(less_one), np.log(mean))


def _chord(x: _arrays.Floats, y: Any, gap: _arrays.Floats) -> _arrays.Floats:
    """``(exp(x) - exp(y)) / (x - y)``, ``exp(x)`` where they are equal; gap is ``abs(x - y)``."""
    gap = np.minimum(gap, _LARGEST)
    return np.exp(np.maximum(x, y)) * np.where(gap > 0.0, -np.expm1(-gap) / gap, 1.0)


def _power_over_order(log: _arrays.Floats, order: _arrays.Floats) -> _arrays.Floats:
    """``(w**order - 1) / order``, log w at order 0."""
    exponent = order * log
    return log * _chord(exponent, 0.0, np.abs(exponent))


def _generator(log: _arrays.Floats, order: _arrays.Floats) -> _arrays.Floats:
    """``(w**a - a w + a - 1) / (a (a - 1))`` for the order a: what Amari's divergence averages, >= 0.

    It is ``log(w)**2`` times the second divided difference of exp at 0, log w and a log w, which has a limit
    wherever two of them meet.
    """
    low, high = np.minimum(order, 1.0), np.maximum(order, 1.0)
    size = np.abs(log)
    inner, outer = low * log, high * log
    far = _chord(inner, outer, size * (high - low))
    change = np.where(far < np.inf, far - _chord(inner, 0.0, size * low), np.inf)
    out = log * change / high
    near = high * size <= _NEAR
    p, q = inner[near], outer[near]
    total, coefficient = np.zeros_like(p), 0.5
    power, term = np.ones_like(p), np.ones_like(p)  # of q; the complete homogeneous polynomial in p and q
    for k in range(_SERIES):
        total += coefficient * term
        coefficient /= k + 3.0
        power = power * q
        term = power + p * term
    out[near] = log[near] ** 2 * total
    return out


def _mean(w: _Weights, terms: _arrays.Floats, at_zero: Any) -> _Estimate:
    """The mean over the draws of terms that are `at_zero` where there is no weight."""
    terms = np.where(w.positive, terms, np.where(w.some_zero, at_zero, 0.0))
    mean = w.rows.mean(terms)
    return mean, terms - mean


def _generated(w: _Weights, order: _arrays.Floats) -> _Estimate:
    """The mean of Amari's generator, >= 0."""
    mean, influence = _mean(w, _generator(w.log, order), 1.0 / order)
    # Its derivative in log w is (w**a - w) / (a - 1), whose mean is a times that of the generator.
    return mean, influence - order * mean * (w.values - 1.0) if w.normalized else influence


def _amari(w: _Weights, order: _arrays.Floats) -> _Estimate:
    """Amari's divergence, by the plain formula where the weights are used as given."""
    if w.normalized:
        return _generated(w, order)
    power = _power_over_order(w.log, order)
    terms = np.where(order == 1.0, w.log * w.values, power / (order - 1.0))
    at_zero = np.where(order == 1.0, 0.0, 1.0 / order / (1.0 - order))
    return _mean(w, terms, at_zero)


def _half_square(w: _Weights, direction: Direction) -> _Estimate:
    """The mean of half the squared log-weight under target or proposal."""
    if direction == "target":
        tilted = w.values * w.log
        terms, slopes, at_zero = 0.5 * tilted * w.log, 0.5 * tilted * w.log + tilted, 0.0
    else:
        terms, slopes, at_zero = 0.5 * w.log**2, w.log, np.inf
    mean, influence = _mean(w, terms, at_zero)
    slope, _ = _mean(w, slopes, 0.0)
    return mean, influence - slope * (w.values - 1.0) if w.normalized else influence


def _over_mean(w: _Weights, order: _arrays.Floats) -> _Estimate:
    """Log of the mean of w**order over its largest, and w**order over its mean."""
    below = order * w.below
    log_mean = _log_mean_exp(w.rows, w.positive, below)
    return log_mean, np.where(w.positive, np.exp(below - log_mean), 0.0)


def _log_mean_power(w: _Weights, order: _arrays.Floats) -> _Estimate:
    log_mean, ratio = _over_mean(w, order)
    return order * w.top + log_mean, ratio - 1.0


def _renyi_as_given(w: _Weights, order: _arrays.Floats) -> _Estimate:
    log_mean, ratio = _over_mean(w, order)
    at_one, its_influence = _amari(w, np.ones_like(order))
    over = order - 1.0
    value = order / over * w.top + log_mean / over
    return np.where(over == 0.0, at_one, value), np.where(over == 0.0, its_influence, (ratio - 1.0) / over)


def _renyi(w: _Weights, order: _arrays.Floats) -> _Estimate:
    """Renyi's divergence of normalised weights: from their moment, or from Amari's where that is near 1."""
    log_mean, ratio = _over_mean(w, order)
    over = order - 1.0
    value = order / over * w.top + log_mean / over
    influence = (ratio - 1.0) / over - order / over * (w.values - 1.0)
    amari, its_influence = _generated(w, order)
    scaled = order * amari
    less_one = over * scaled  # the moment less 1
    log_ratio = np.where(less_one == 0.0, 1.0, np.log1p(less_one) / less_one)
    near = (np.abs(order * w.top + log_mean) < _NEAR) & np.isfinite(amari)
    value = np.where(near, scaled * log_ratio, value)
    return value, np.where(near, order * its_influence / (1.0 + less_one), influence)


def _result(w: _Weights, found: _Estimate, of_tail: _arrays.Floats) -> tuple[Divergence, _arrays.Codes]:
    """The result for an estimate whose tail is that of ``w**of_tail``; also the status codes."""
    rows, (value, influence) = w.rows, found
    khat, status = khat_rows(rows, tail_lengths(rows, 1.0, None), of_tail)
    largest = np.abs(influence).max(axis=1, keepdims=True)
    scale = np.where(largest > 0.0, largest, 1.0)
    std_error = (scale * np.sqrt(rows.mean((influence / scale) ** 2)))[:, 0] / np.sqrt(rows.n)
    estimate = value[:, 0]
    if w.normalized:
        # Equal up to rounding, so nothing but rounding errors is left.
        none = (status == Status.FLAT) & ~w.some_zero[:, 0] & ~np.isnan(estimate)
        std_error = np.where(none, 0.0, std_error)
        estimate = np.where(none, 0.0, estimate)
    unknown = (status >= Status.NO_WEIGHT) | np.isnan(of_tail)
    std_error = np.where(unknown | np.isinf(estimate), np.nan, std_error)
    result = Divergence(
        estimate=rows.diagnostic(np.where(unknown, np.nan, estimate)),
        std_error=rows.diagnostic(std_error),
        khat=rows.diagnostic(np.where(unknown, np.nan, khat)),
        status=rows.status(status),
    )
    return result, status

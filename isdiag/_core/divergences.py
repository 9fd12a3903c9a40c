"""Divergences and moments of the weights, each with the influence of every draw.

`order` and everything else that a row has one of is (rows, 1) here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from isdiag._core import chains, moments, statuses, tails
from isdiag._core.boundary import Rows
from isdiag._core.moments import log_mean_weight, mean
from isdiag._core.typing import Direction, Estimator, Floats, Ints, Mask
from isdiag._kernels.records import FLAT, NO_WEIGHT, NOT_FINITE

_LARGEST = float(np.finfo(np.float64).max)
# Up to this spread of exponents a second difference of exponentials is summed as a series, whose terms
# beyond the fifteenth are below an ulp.
_NEAR = 0.5
_SERIES = 15

_Estimate = tuple[Floats, Floats]  # (rows, 1), and the influence of each draw on it


class _Weights(NamedTuple):
    """Weights of the rows, as given or over their mean; 0 in `log` and `below` where there is none."""

    rows: Rows
    positive: Mask
    some_zero: Mask  # (rows, 1)
    values: Floats
    less_one: Floats  # values - 1, to the last digit
    log: Floats
    below: Floats  # log less its largest
    top: Floats  # that largest, (rows, 1)
    normalized: bool
    lengths: Ints  # of the tails
    workers: int


def log_moment(rows: Rows, gamma: Floats, lengths: Ints, *, normalize: bool, workers: int) -> dict[str, Any]:
    """Log of the mean of w^gamma."""
    if not normalize:
        return moments.log_moment(rows, gamma, lengths, workers)
    order = gamma[:, None]
    with np.errstate(all="ignore"):  # rows without weight, weights of any size
        w = _weights_of(rows, lengths, normalize, workers)
        value, influence = _renyi(w, order)
        return _found(w, ((order - 1.0) * value, (order - 1.0) * influence), np.maximum(gamma, 1.0))


def renyi(rows: Rows, alpha: Any, lengths: Ints, *, normalize: bool, workers: int) -> dict[str, Any]:
    """Renyi's divergence, the order inf included."""
    orders, infinite = _orders(rows, alpha)
    order = orders[:, None]
    with np.errstate(all="ignore"):
        w = _weights_of(rows, lengths, normalize, workers)
        value, influence = _renyi(w, order) if normalize else _renyi_as_given(w, order)
        value = np.where(infinite, w.top, value)
        influence = np.where(infinite, np.nan, influence)
        of_tail = np.maximum(orders, 1.0) if normalize else orders
        return _as_given(w, _found(w, (value, influence), of_tail))


def amari(rows: Rows, alpha: Floats, lengths: Ints, *, normalize: bool, workers: int) -> dict[str, Any]:
    """Amari's divergence."""
    with np.errstate(all="ignore"):
        w = _weights_of(rows, lengths, normalize, workers)
        of_tail = np.maximum(alpha, 1.0) if normalize else np.where(alpha == 0.0, 1.0, alpha)
        return _as_given(w, _found(w, _amari(w, alpha[:, None]), of_tail))


def kullback_leibler(
    rows: Rows, direction: Direction, estimator: Estimator, lengths: Ints, *, normalize: bool, workers: int
) -> dict[str, Any]:
    """Kullback and Leibler's divergence in either direction."""
    one = np.ones(len(rows))
    order = (one if direction == "target" else np.zeros(len(rows)))[:, None]
    with np.errstate(all="ignore"):
        w = _weights_of(rows, lengths, normalize, workers)
        if estimator == "k2":
            found = _half_square(w, direction)
        elif estimator == "k3":
            found = _generated(w, order)
        else:
            found = _amari(w, order)
        return _as_given(w, _found(w, found, one))


def chi2(rows: Rows, lengths: Ints, *, normalize: bool, workers: int) -> dict[str, Any]:
    """The chi-squared divergence, twice Amari's of order 2."""
    two = np.full(len(rows), 2.0)
    with np.errstate(all="ignore"):
        w = _weights_of(rows, lengths, normalize, workers)
        half, influence = _amari(w, two[:, None])
        return _as_given(w, _found(w, (2.0 * half, 2.0 * influence), two))


def _orders(rows: Rows, alpha: Any) -> tuple[Floats, Mask]:
    """Orders of which some may be infinite: as exponents, 1 in their place, and where they are (rows, 1)."""
    orders = rows.per_row("alpha", alpha, 0.0, "[]", unknown=True)
    infinite = orders == np.inf
    return np.where(infinite, 1.0, orders), infinite[:, None]


def _weights_of(rows: Rows, lengths: Ints, normalize: bool, workers: int) -> _Weights:
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
    less_one = np.where(positive, np.expm1(log), -1.0)
    return _Weights(rows, positive, some_zero, values, less_one, log, below, top, normalize, lengths, workers)


def _log_mean_exp(rows: Rows, positive: Mask, x: Floats) -> Floats:
    """Log of the mean of exp(x), x <= 0, over all draws, to the last digit also where it is near 0."""
    less_one = mean(rows, np.where(positive, np.expm1(x), -1.0))
    average = mean(rows, np.where(positive, np.exp(x), 0.0))
    return np.where(less_one > -0.5, np.log1p(less_one), np.log(average))


def _chord(x: Floats, y: Any, gap: Floats) -> Floats:
    """``(exp(x) - exp(y)) / (x - y)``, ``exp(x)`` where they are equal; gap is ``abs(x - y)``."""
    gap = np.minimum(gap, _LARGEST)
    return np.exp(np.maximum(x, y)) * np.where(gap > 0.0, -np.expm1(-gap) / gap, 1.0)


def _power_over_order(log: Floats, order: Floats) -> Floats:
    """``(w**order - 1) / order``, log w at order 0."""
    exponent = order * log
    return log * _chord(exponent, 0.0, np.abs(exponent))


def _generator(log: Floats, order: Floats) -> Floats:
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


def _mean(w: _Weights, terms: Floats, at_zero: Any) -> _Estimate:
    """The mean over the draws of terms that are `at_zero` where there is no weight."""
    terms = np.where(w.positive, terms, np.where(w.some_zero, at_zero, 0.0))
    average = mean(w.rows, terms)
    return average, terms - average


def _generated(w: _Weights, order: Floats) -> _Estimate:
    """The mean of Amari's generator, >= 0."""
    mean, influence = _mean(w, _generator(w.log, order), 1.0 / order)
    # Its derivative in log w is (w**a - w) / (a - 1), whose mean is a times that of the generator.
    return mean, influence - order * mean * w.less_one if w.normalized else influence


def _amari(w: _Weights, order: Floats) -> _Estimate:
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
    return mean, influence - slope * w.less_one if w.normalized else influence


def _over_mean(w: _Weights, order: Floats) -> _Estimate:
    """Log of the mean of w**order over its largest, and w**order over its mean."""
    below = order * w.below
    log_mean = _log_mean_exp(w.rows, w.positive, below)
    return log_mean, np.where(w.positive, np.exp(below - log_mean), 0.0)


def _renyi_as_given(w: _Weights, order: Floats) -> _Estimate:
    log_mean, ratio = _over_mean(w, order)
    at_one, its_influence = _amari(w, np.ones_like(order))
    over = order - 1.0
    value = order / over * w.top + log_mean / over
    return np.where(over == 0.0, at_one, value), np.where(over == 0.0, its_influence, (ratio - 1.0) / over)


def _renyi(w: _Weights, order: Floats) -> _Estimate:
    """Renyi's divergence of normalised weights: from their moment, or from Amari's where that is near 1."""
    log_mean, ratio = _over_mean(w, order)
    over = order - 1.0
    value = order / over * w.top + log_mean / over
    influence = (ratio - 1.0) / over - order / over * w.less_one
    amari, its_influence = _generated(w, order)
    scaled = order * amari
    less_one = over * scaled  # the moment less 1
    log_ratio = np.where(less_one == 0.0, 1.0, np.log1p(less_one) / less_one)
    near = (np.abs(order * w.top + log_mean) < _NEAR) & np.isfinite(amari)
    value = np.where(near, scaled * log_ratio, value)
    return value, np.where(near, order * its_influence / (1.0 + less_one), influence)


def _found(w: _Weights, found: _Estimate, of_tail: Floats) -> dict[str, Any]:
    """The fields of `Divergence` for an estimate whose tail is that of ``w**of_tail``."""
    rows, (value, influence) = w.rows, found
    khat, status = tails.khat(rows, w.lengths, of_tail, w.workers)
    largest = np.abs(influence).max(axis=1, keepdims=True)
    scale = np.where(largest > 0.0, largest, 1.0)
    squares = (influence / scale) ** 2
    mean_square, fourths = mean(rows, squares)[:, 0], mean(rows, squares**2)[:, 0]
    std_error = scale[:, 0] * np.sqrt(mean_square) / np.sqrt(rows.n)
    estimate = value[:, 0]
    if w.normalized:
        # Equal up to rounding, so nothing but rounding errors is left.
        none = (status == FLAT) & ~w.some_zero[:, 0] & ~np.isnan(estimate)
        std_error = np.where(none, 0.0, std_error)
        estimate = np.where(none, 0.0, estimate)
    unknown = (status == NO_WEIGHT) | (status == NOT_FINITE) | np.isnan(of_tail)
    error_draws = rows.n * mean_square**2 / fourths
    if rows.chain is not None:
        efficiency, _, error_draws = chains.along_chains(chains.centred(rows, influence), rows.chain)
        std_error = std_error / np.sqrt(efficiency)
    std_error = np.where(unknown | np.isinf(estimate), np.nan, std_error)
    statuses.erase(rows.n == 1, std_error)
    # Of equal weights the error is but rounding.
    uncertain = np.where(
        status == FLAT,
        status,
        statuses.of_error(error_draws, ~(std_error > 0.0) & ~(error_draws > 0.0)),
    )
    return {
        "estimate": np.where(unknown, np.nan, estimate),
        "std_error": std_error,
        "khat": np.where(unknown, np.nan, khat),
        "status": statuses.first_of(status, uncertain),
    }


def _as_given(w: _Weights, found: dict[str, Any]) -> dict[str, Any]:
    """The fields, where weights that are used as they are must have mean 1."""
    if not w.normalized:
        off = statuses.of_mean_weight(*log_mean_weight(w.rows, np.ones(len(w.rows)), w.workers))
        found["status"] = statuses.first_of(found["status"], off)
    return found

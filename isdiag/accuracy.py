"""The estimate of least error, and what error each gamma would have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isdiag import _arrays, _threads
from isdiag._result import Result
from isdiag.psis import tail_lengths


class LeastError(NamedTuple):
    """Estimates of least error, (rows, d), and the influence of each draw on them, (rows, d, n)."""

    estimate: _arrays.Floats
    std_error: _arrays.Floats
    bias: _arrays.Floats
    error_draws: _arrays.Floats
    influence: _arrays.Floats
    presence: _arrays.Codes  # a status code a row: OK, NO_WEIGHT or NOT_FINITE

    @property
    def mse(self) -> _arrays.Floats:
        """Expected squared error, (rows, d)."""
        return self.std_error**2 + self.bias**2


def least_error(
    rows: _arrays.Rows, values: _arrays.Values, lengths: _arrays.Ints, workers: int
) -> LeastError:
    """Truncate, and shrink along the path of tempering (see `isdiag.select_gamma`, rule "mse")."""
    kernels = _arrays.kernels()
    cap, presence = rows.floats(), rows.codes()
    _threads.spread(kernels.cap_rows, (rows.values, rows.n, lengths, cap, presence), (rows.eps,), workers)
    draws = rows.values.shape[1]
    shape = (len(rows), values.shape[1] // draws)
    numbers = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape), np.empty((*shape, draws))
    _threads.spread(kernels.least_error_rows, (rows.values, cap, values, *numbers), (), workers)
    return LeastError(*numbers, presence)


class Curve(NamedTuple):
    """Of each gamma along the last axis, (rows, d, gammas)."""

    estimate: _arrays.Floats
    std_error: _arrays.Floats
    bias: _arrays.Floats
    tempering_bias: _arrays.Floats
    tempering_bias_std_error: _arrays.Floats
    mse: _arrays.Floats


def curve_of(rows: _arrays.Rows, values: _arrays.Values, least: LeastError, gammas: _arrays.Floats) -> Curve:
    """The error of the plain tempered estimate at each gamma, with `least` for the truth."""
    shape = (*least.estimate.shape, gammas.size)
    estimate, std_error, bias, covariance = (np.empty(shape) for _ in range(4))
    centre = np.nan_to_num(least.estimate, posinf=0.0, neginf=0.0)
    by_row = (estimate, std_error, bias, covariance)
    _arrays.kernels().curve_rows(rows.values, gammas, values, centre, least.influence, *by_row)
    with np.errstate(invalid="ignore", over="ignore"):
        own_variance = (least.influence**2).sum(axis=-1)[..., None]
        difference = estimate - least.estimate[..., None]
        variance = np.maximum(std_error**2 + own_variance - 2.0 * covariance, 0.0)
        mse = np.maximum(difference**2 - variance, 0.0) + bias**2 + std_error**2
    return Curve(estimate, std_error, bias, difference, np.sqrt(variance), mse)


@dataclass(frozen=True, eq=False, repr=False)
class MSECurve(Result):
    """What error a tempered estimate is expected to have at each gamma.

    Arrays have the batch shape, then h's own axes, then the axis of gammas.

    Attributes
    ----------
    gamma : array, shape (gammas,)
        The exponents.
    estimate : array
        ``sum(wbar * h)`` with ``wbar`` the normalised ``w**gamma``, in the units of h.
    std_error : array
        Its delta-method standard error.
    bias : array
        Its bias of self-normalising, of order 1/n.
    tempering_bias : array
        ``estimate - reference``: how far the tempered target's mean is off.
    tempering_bias_std_error : array
        The standard error of that difference.
    mse : array
        Expected squared error: ``std_error**2 + bias**2`` and that part of ``tempering_bias**2`` which its
        own error does not explain.
    reference : float or array
        The estimate of least error that stands for the truth, as of ``select_gamma(rule="mse")``.
    reference_std_error : float or array
        Its standard error.
    """

    gamma: Any
    estimate: Any
    std_error: Any
    bias: Any
    tempering_bias: Any
    tempering_bias_std_error: Any
    mse: Any
    reference: Any
    reference_std_error: Any


def mse_curve(
    log_w: Any,
    h: Any,
    gammas: Any = None,
    *,
    axis: _arrays.Axis = -1,
    where: Any = None,
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
    axis : int or tuple of int, default -1
        The sample axis or axes of `log_w`; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    MSECurve
        One entry a gamma.

    Raises
    ------
    ValueError
        If a gamma is negative, NaN or infinite, the sample axis is empty, or shapes do not fit.
    TypeError
        If an argument is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows of `log_w` hold NaN or +inf; their results are NaN.

    Notes
    -----
    * The bias of tempering does not vanish with n, the other two do: with more draws the best gamma tends
      to 1. ESS and khat cannot see it.
    * It is known no better than the reference is: see `tempering_bias_std_error`.
    * Memory: one float64 a draw and component of h.

    References
    ----------
    Owen, A. B. (2013). Monte Carlo theory, methods and examples, section 9.2. `isdiag.lognormal` has the
    closed forms for log-normal weights.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=500)  # proposal N(0, 1), target N(2, 1)
    >>> curve = isdiag.mse_curve(2 * x, x, [0.25, 0.5, 0.75, 1.0])
    >>> curve.tempering_bias.round(2)
    array([-1.32, -0.85, -0.33,  0.18])
    >>> curve.mse.round(2)
    array([1.73, 0.73, 0.13, 0.07])
    """
    rows = _arrays.rows_of(log_w, axis, where)
    exponents = np.linspace(0.0, 1.0, 11) if gammas is None else _arrays.exponents(gammas)
    values, own = rows.trailing(h)
    least = least_error(rows, values, tail_lengths(rows, 1.0, None), 1)
    curve = curve_of(rows, values, least, exponents)
    _arrays.warn_not_finite(least.presence)
    along = (*own, exponents.size)
    return MSECurve(
        exponents,
        *(rows.diagnostic(part, along) for part in curve),
        reference=rows.diagnostic(least.estimate, own),
        reference_std_error=rows.diagnostic(least.std_error, own),
    )

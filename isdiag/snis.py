"""Self-normalised importance sampling: estimate, standard error, bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from isdiag import _arrays
from isdiag._result import Result
from isdiag.psis import khat_rows, smooth_rows, tail_lengths

Covariance = Literal["target", "proposal"]
COVARIANCES = get_args(Covariance)


Moments = tuple[_arrays.Floats, _arrays.Floats, _arrays.Floats, _arrays.Floats, _arrays.Codes]


def _moments(log_weights: _arrays.Floats, gamma: _arrays.Floats, h: _arrays.Values) -> Moments:
    """(estimate, standard error, bias), each (rows, d), then ESS and the status code a row."""
    rows, draws = log_weights.shape
    shape = (rows, h.shape[1] // draws)
    estimate, std_error, bias = np.empty(shape), np.empty(shape), np.empty(shape)
    ess, status = np.empty(rows), np.empty(rows, np.int8)
    _arrays.kernels().moment_rows(log_weights, gamma, h, estimate, std_error, bias, ess, status)
    return estimate, std_error, bias, ess, status


@dataclass(frozen=True, eq=False, repr=False)
class SNIS(Result):
    """A self-normalised estimate of the mean of h under the tempered target.

    Attributes
    ----------
    estimate : float or array
        ``sum(wbar * h)``, in the batch shape followed by h's own axes.
    std_error : float or array
        Delta-method standard error, in the units of h and the shape of `estimate`.
    bias : float or array
        Estimated bias of `estimate`, in the units of h and the shape of `estimate`; subtract it to
        correct.
    ess : float or array of the batch shape
        Kish's effective sample size of the weights used, in draws.
    khat : float or array of the batch shape
        Shape of the tail of the raw weights ``w**gamma``, also where smoothed ones were used. At
        khat >= 1/2 the variance is infinite and `std_error` and `bias` are too small.
    status : Status or array of the batch shape
        What became of the row.
    """

    estimate: Any
    std_error: Any
    bias: Any
    ess: Any
    khat: Any
    status: Any


def snis(
    log_w: Any,
    h: Any,
    *,
    gamma: Any = 1.0,
    smooth: bool = False,
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> SNIS:
    """Self-normalised importance sampling estimate of ``E[h]`` with its error and bias.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws: numbers, vectors or gradients. Where the weight is zero h is not looked at.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0. Below 1 the estimate is of the mean under the tempered target, which is another
        one; `bias` does not include that difference.
    smooth : bool, default False
        Use the Pareto smoothed weights of ``w**gamma``.
    axis : int or tuple of int, default -1
        The sample axis or axes of `log_w`; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    SNIS
        Estimate, standard error, bias, and the diagnostics of the weights.

    Raises
    ------
    ValueError
        If `gamma` is negative, NaN or infinite, the sample axis is empty, or shapes do not fit.
    TypeError
        If an argument is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows of `log_w` hold NaN or +inf; their results are NaN.

    Notes
    -----
    * With wbar the normalised weights the standard error is ``sqrt(sum(wbar**2 (h - est)**2))`` and the
      bias ``-sum(wbar**2 (h - est))``.
    * NaN in h at a draw of positive weight makes that estimate NaN.
    * Draws are taken to be independent.

    References
    ----------
    Owen, A. B. (2013). Monte Carlo theory, methods and examples, section 9.2. Kong, A. (1992). A note on
    importance sampling using standardized weights.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=2000)  # proposal N(0, 1)
    >>> isdiag.snis(x - 0.5, x)  # target N(1, 1), whose mean is 1
    SNIS(estimate=1.0257, std_error=0.0555714, bias=-0.00153041, ess=693.759, khat=0.246046, status=OK)
    """
    rows = _arrays.rows_of(log_w, axis, where)
    lengths = tail_lengths(rows, 1.0, None)
    result, status = snis_rows(rows, h, rows.gamma(gamma), lengths, smooth)
    _arrays.warn_not_finite(status)
    return result


def snis_rows(
    rows: _arrays.Rows, h: Any, gamma: _arrays.Floats, lengths: _arrays.Ints, smooth: bool
) -> tuple[SNIS, _arrays.Codes]:
    """Estimates under w^gamma, and the status code a row."""
    values, own = rows.trailing(h)
    if smooth:
        log_weights = rows.target()
        khat, _, _, status = smooth_rows(rows, lengths, gamma, True, 1, log_weights)
        moments = _moments(_arrays.read_only(log_weights), np.ones(len(rows)), values)
    else:
        khat, status = khat_rows(rows, lengths, gamma)
        moments = _moments(rows.values, gamma, values)
    estimate, std_error, bias, ess, _ = moments
    result = SNIS(
        estimate=rows.diagnostic(estimate, own),
        std_error=rows.diagnostic(std_error, own),
        bias=rows.diagnostic(bias, own),
        ess=rows.diagnostic(ess),
        khat=rows.diagnostic(khat),
        status=rows.status(status),
    )
    return result, status


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
    estimate, _, bias, _, status = _moments(rows.values, exponent, values)
    _arrays.warn_not_finite(status)
    if covariance == "proposal":
        with np.errstate(invalid="ignore"):
            bias = (rows.mean(values) - estimate) / np.maximum(rows.n, 1)[:, None]
    return rows.diagnostic(bias, own)

"""What is known of one expectation: the tail of w |h - estimate|, intervals, a test for finite variance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from isdiag import _arrays
from isdiag._result import Result
from isdiag.psis import khat_rows, tail_lengths
from isdiag.snis import Moments, error_status, half_width, moments_of, truncated
from isdiag.status import Status
from isdiag.weights import temper_rows

FINITE_VARIANCE = 0.5  # a tail index below it, so that two moments are finite
_SAME_LEVEL = 1e-9  # of log |w (h - estimate)|

Method = Literal["auto", "delta", "chebyshev", "bounded"]
METHODS = get_args(Method)


@dataclass(frozen=True, eq=False, repr=False)
class ExpectationDiagnostics(Result):
    """How far the weights can be trusted with this h.

    Attributes
    ----------
    khat : float or array
        Largest shape of the tails of ``w**gamma * (h - estimate)``, right and left, and of the weights; in
        the batch shape followed by h's own axes. NaN if that of a side is unknown which has most of
        ``sum(f**2)``.
    khat_right, khat_left : float or array
        Those of the draws above and below the estimate; NaN where too few lie there, where several share
        the largest value and the tail cannot be fitted, and where h takes fewer than three values.
    khat_weights : float or array of the batch shape
        That of ``w**gamma`` alone.
    ess : float or array
        ``sum(|f|)**2 / sum(f**2)`` with ``f = w**gamma * (h - estimate)``, in draws.
    error_draws : float or array
        ``sum(f**2)**2 / sum(f**4)``: how many draws carry the squared standard error.
    status : Status or array
        `CONSTANT_H` or `TWO_VALUED_H` where h leaves khat to the weights, else as for `SNIS`; in the shape
        of `khat`.
    """

    khat: Any
    khat_right: Any
    khat_left: Any
    khat_weights: Any
    ess: Any
    error_draws: Any
    status: Any


class _Components(NamedTuple):
    fields: dict[str, _arrays.Floats]  # each (rows, d)
    khat_weights: _arrays.Floats
    status: _arrays.Codes  # (rows, d)
    of_weights: _arrays.Codes
    moments: Moments


def _diagnose_components(rows: _arrays.Rows, values: _arrays.Values, gamma: _arrays.Floats) -> _Components:
    count, draws = rows.values.shape
    d = values.shape[1] // draws
    lengths = tail_lengths(rows, 1.0, None)
    khat_weights, of_weights = khat_rows(rows, lengths, gamma)
    moments = moments_of(rows.values, gamma, values)
    cube = values.reshape(count, draws, d)
    positive = rows.values > -np.inf
    fields = {key: np.empty((count, d)) for key in ("khat", "khat_right", "khat_left", "ess", "error_draws")}
    status = np.empty((count, d), np.int8)
    one = np.ones(count)
    tempered, _ = temper_rows(rows, gamma, False)
    with np.errstate(all="ignore"):  # rows without weight, h of any kind
        for j in range(d):
            h = np.where(positive, cube[:, :, j], np.nan).astype(np.float64)
            off = h - moments.estimate[:, j, None]
            log_f = np.where(positive & (off != 0.0), tempered + np.log(np.abs(off)), -np.inf)
            sizes = np.exp(log_f - log_f.max(axis=1, keepdims=True))
            squares = (sizes**2).sum(axis=1)
            fields["ess"][:, j] = sizes.sum(axis=1) ** 2 / squares
            draws_behind = fields["error_draws"][:, j] = squares**2 / (sizes**4).sum(axis=1)
            low, high = np.fmin.reduce(h, axis=1), np.fmax.reduce(h, axis=1)
            two_valued = ((h == low[:, None]) | (h == high[:, None]) | ~positive).all(axis=1)
            unknown = ~np.isfinite(moments.estimate[:, j])
            for key, on_side in (("khat_right", off > 0.0), ("khat_left", off < 0.0)):
                side = np.where(on_side, log_f, -np.inf)
                of_side = replace(rows, values=_arrays.read_only(side), eps=_arrays.EPS_FLOAT64)
                khat, _ = khat_rows(of_side, lengths, one)
                # Ties at the top are levels of a bounded h: that is no tail, and not a bad one.
                tied = (side >= side.max(axis=1, keepdims=True) - _SAME_LEVEL).sum(axis=1) > 1
                khat = np.where(two_valued | (tied & np.isinf(khat)), np.nan, khat)
                fields[key][:, j] = khat
                matters = (np.where(on_side, sizes, 0.0) ** 2).sum(axis=1) > 0.5 * squares
                unknown |= np.isnan(khat) & ~tied & ~two_valued & matters
            known = np.fmax(khat_weights, np.fmax(fields["khat_right"][:, j], fields["khat_left"][:, j]))
            fields["khat"][:, j] = np.where(unknown, np.nan, known)
            codes = error_status(
                of_weights, moments.estimate[:, [j]], moments.std_error[:, [j]], draws_behind[:, None]
            )
            about_h = np.where(low == high, Status.CONSTANT_H, Status.TWO_VALUED_H)
            plain = (of_weights == Status.OK) & two_valued
            status[:, j] = np.where(plain, about_h, codes)
    return _Components(fields, khat_weights, status, of_weights, moments)


def expectation_diagnostics(
    log_w: Any,
    h: Any,
    *,
    gamma: Any = 1.0,
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> ExpectationDiagnostics:
    """Tail shape and effective sample size of ``w * (h - estimate)``, which is what the error is made of.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0.
    axis : int or tuple of int, default -1
        The sample axis or axes of `log_w`; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    ExpectationDiagnostics
        One set of numbers a component of h.

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
    * The estimate has finite variance where the tail index of ``w |h - E[h]|`` is below 1/2. Weights may
      be harmless and h not: ``h = exp(x)`` under light-tailed weights.
    * A constant or two-valued h has no tail: `khat` is that of the weights and `status` says why.
    * Costs two tail fits and a few temporary arrays of log_w's size a component: for gradients look at
      `SNIS.khat` instead.

    References
    ----------
    Vehtari, A. et al. (2024). Pareto smoothed importance sampling. JMLR 25(72), 1-58, section 3. Owen, A. B.
    (2013). Monte Carlo theory, methods and examples, section 9.3.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=4000)
    >>> found = isdiag.expectation_diagnostics(0.5 * x, np.exp(2 * x))
    >>> print(f"{found.khat_weights:.2f} {found.khat:.2f} {found.ess:.0f} {found.status}")
    0.17 1.04 67 ERROR_UNCERTAIN
    """
    rows = _arrays.rows_of(log_w, axis, where)
    values, own = rows.trailing(h)
    fields, khat_weights, status, of_weights, _ = _diagnose_components(rows, values, rows.gamma(gamma))
    _arrays.warn_not_finite(of_weights)
    return ExpectationDiagnostics(
        **{key: rows.diagnostic(value, own) for key, value in fields.items()},
        khat_weights=rows.diagnostic(khat_weights),
        status=rows.status(status, own),
    )


@dataclass(frozen=True, eq=False, repr=False)
class ConfidenceInterval(Result):
    """An interval, and what it rests on.

    Attributes
    ----------
    low, high : float or array
        The ends, in the units of h and the batch shape followed by h's own axes.
    estimate : float or array
        The estimate that the interval is built around.
    level : float
        The coverage asked for.
    method : str or NumPy array of str
        "delta", "chebyshev" or "bounded": see `confidence_interval`.
    khat : float or array
        Largest tail shape of ``w**gamma * (h - estimate)`` and of the weights.
    status : Status or array
        As of `expectation_diagnostics`.
    """

    low: Any
    high: Any
    estimate: Any
    level: float
    method: Any
    khat: Any
    status: Any

    @property
    def claim(self) -> Any:
        """What can be claimed, in words: a str, or a NumPy array of them."""
        words = np.where(np.asarray(self.khat) < FINITE_VARIANCE, _FINITE, _NOT_FINITE)
        return words.item() if words.ndim == 0 else words


_FINITE = "khat is below 1/2: finite variance is plausible, and the interval is asymptotically right."
_NOT_FINITE = (
    "No finite-variance claim: khat is 1/2 or more, or unknown. The interval covers what the truncated or "
    "bounded weights estimate and may miss what the draws do not show."
)


def _between(name: str, value: Any) -> float:
    if isinstance(value, (str, bytes)) or np.ndim(value) != 0 or value is None:
        msg = f"{name} must be a number, got {value!r}"
        raise TypeError(msg)
    if not 0.0 < float(value) < 1.0:
        msg = f"{name} must be between 0 and 1, got {value!r}"
        raise ValueError(msg)
    return float(value)


def _bounds(bounds: Any) -> tuple[float, float]:
    array: NDArray[Any] = _arrays.real_array(bounds, "bounds")[0].astype(np.float64)
    if array.shape != (2,) or not (np.isfinite(array).all() and array[0] < array[1]):
        msg = f"bounds must be two finite numbers, the smaller first, got {bounds!r}"
        raise ValueError(msg)
    return float(array[0]), float(array[1])


def confidence_interval(
    log_w: Any,
    h: Any,
    *,
    level: float = 0.95,
    method: Method = "auto",
    bounds: tuple[float, float] | None = None,
    gamma: Any = 1.0,
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> ConfidenceInterval:
    """Confidence interval for ``E[h]`` by a method that the tail of ``w * (h - estimate)`` permits.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    h : array_like, shape of log_w, or that shape and axes of its own
        Values at the draws. Where the weight is zero h is not looked at.
    level : float, default 0.95
        Coverage, between 0 and 1.
    method : {"auto", "delta", "chebyshev", "bounded"}, default "auto"
        "delta": Student's t around the self-normalised estimate. "chebyshev": Chebyshev's inequality
        around the estimate with truncated weights. "bounded": for h within `bounds`, from the bound of
        Agapiou et al. on the mean squared error. "auto" is "delta" where khat < 1/2, else "bounded" if
        `bounds` are given and "chebyshev" if not.
    bounds : (low, high), optional
        Numbers between which h always lies.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0. Below 1 the interval is for the mean under the tempered target.
    axis : int or tuple of int, default -1
        The sample axis or axes of `log_w`; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    ConfidenceInterval
        The ends, the method used, and in `claim` what can be claimed.

    Raises
    ------
    ValueError
        If `level`, `method`, `bounds` or `gamma` is out of range, "bounded" has no `bounds`, h is out of
        its bounds, the sample axis is empty, or shapes do not fit.
    TypeError
        If an argument is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows of `log_w` hold NaN or +inf; their results are NaN.

    Notes
    -----
    * Two finite moments give Chebyshev's inequality and nothing exponential in the level: that takes
      bounded weights.
    * "bounded": ``E[(estimate - mu)**2] <= 4 R**2 rho / n`` with R half the range of h and
      ``rho = E[w**2] / E[w]**2``, for which ``n / ESS`` stands. Wide, and right only as far as that
      plug-in is.
    * None of them sees what no draw shows.

    References
    ----------
    Agapiou, S., Papaspiliopoulos, O., Sanz-Alonso, D. & Stuart, A. M. (2017). Importance sampling: intrinsic
    dimension and computational cost. Statistical Science 32(3), 405-431, theorem 2.1. Ionides, E. L. (2008).
    Truncated importance sampling. JCGS 17(2), 295-311.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> x = np.random.default_rng(1).normal(size=4000)  # proposal N(0, 1)
    >>> light = isdiag.confidence_interval(x, x > 1)  # target N(1, 1): the truth is 0.5
    >>> print(f"{light.low:.3f} to {light.high:.3f} by {light.method}")
    0.469 to 0.523 by delta
    >>> heavy = isdiag.confidence_interval(2.5 * x, x > 1, bounds=(0, 1))
    >>> print(f"{heavy.low:.3f} to {heavy.high:.3f} by {heavy.method}. {heavy.claim[:27]}")
    0.147 to 1.000 by bounded. No finite-variance claim: k
    """
    if method not in METHODS:
        msg = f"method must be one of {METHODS}, got {method!r}"
        raise ValueError(msg)
    level = _between("level", level)
    limits = None if bounds is None else _bounds(bounds)
    if method == "bounded" and limits is None:
        msg = 'method="bounded" needs bounds, the range of h'
        raise ValueError(msg)
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    values, own = rows.trailing(h)
    fields, _, status, of_weights, moments = _diagnose_components(rows, values, exponent)
    if method == "auto":
        other = "chebyshev" if limits is None else "bounded"
        chosen = np.where(fields["khat"] < FINITE_VARIANCE, "delta", other)
    else:
        chosen = np.full(status.shape, method)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        estimate = moments.estimate.copy()
        half = half_width(moments.std_error, fields["error_draws"], level)
        half = np.where(moments.std_error == 0.0, 0.0, half)
        if (chosen == "chebyshev").any():
            log_weights = _arrays.read_only(truncated(rows, exponent))
            cut = moments_of(log_weights, np.ones(len(rows)), values)
            estimate = np.where(chosen == "chebyshev", cut.estimate, estimate)
            half = np.where(chosen == "chebyshev", cut.std_error / np.sqrt(1.0 - level), half)
        if limits is not None:
            _check_within(rows, values, limits)
            spread = (limits[1] - limits[0]) / np.sqrt(moments.ess[:, None] * (1.0 - level))
            half = np.where(chosen == "bounded", spread, half)
        low, high = estimate - half, estimate + half
        if limits is not None:
            low, high = np.maximum(low, limits[0]), np.minimum(high, limits[1])
    _arrays.warn_not_finite(of_weights)
    shape = rows.batch_shape + own
    return ConfidenceInterval(
        low=rows.diagnostic(low, own),
        high=rows.diagnostic(high, own),
        estimate=rows.diagnostic(estimate, own),
        level=level,
        method=chosen.item() if shape == () else chosen.reshape(shape),
        khat=rows.diagnostic(fields["khat"], own),
        status=rows.status(status, own),
    )


def _check_within(rows: _arrays.Rows, values: _arrays.Values, limits: tuple[float, float]) -> None:
    count, draws = rows.values.shape
    cube = values.reshape(count, draws, -1)
    out = ((cube < limits[0]) | (cube > limits[1])) & (rows.values > -np.inf)[:, :, None]
    if out.any():
        msg = f"h must lie within bounds {limits}, got {cube[out].flat[0]:g}"
        raise ValueError(msg)


@dataclass(frozen=True, eq=False, repr=False)
class FiniteVarianceTest(Result):
    """A test of the hypothesis that the weights have finite variance, k <= 1/2.

    Attributes
    ----------
    statistic : float or array of the batch shape
        Signed root of the likelihood ratio; standard normal at k = 1/2.
    p_value : float or array of the batch shape
        Probability of a larger statistic at k = 1/2: small values speak against finite variance.
    k : float or array of the batch shape
        Maximum likelihood estimate of the tail index, without the prior of khat.
    status : Status or array of the batch shape
        What became of the row.
    """

    statistic: Any
    p_value: Any
    k: Any
    status: Any


def finite_variance_test(
    log_w: Any,
    *,
    gamma: Any = 1.0,
    tail_length: int | None = None,
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> FiniteVarianceTest:
    """Test whether the weights ``w**gamma`` have a finite variance: H0 is k <= 1/2.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0.
    tail_length : int, optional
        How many of the largest weights make the tail; default `tail_length(n)`.
    axis : int or tuple of int, default -1
        The sample axis or axes of `log_w`; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    FiniteVarianceTest
        Statistic, p-value and the tail index.

    Raises
    ------
    ValueError
        If `gamma` or `tail_length` is out of range, the sample axis is empty, or shapes do not fit.
    TypeError
        If `log_w` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; their results are NaN.

    Notes
    -----
    * The generalised Pareto likelihood of the excesses over the largest weight below the tail is
      maximised with k free and with k = 1/2; the statistic is the root of twice the difference of its
      logarithm, with the sign of k - 1/2.
    * A large p-value is no proof: a heavy tail that no draw has reached yet cannot be seen.
    * Equal weights have p-value 1; where the tail is too short or cannot be fitted all is NaN.

    References
    ----------
    Koopman, S. J., Shephard, N. & Creal, D. (2009). Testing the assumptions behind importance sampling.
    Journal of Econometrics 149(1), 2-11.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> tail = np.random.default_rng(1).exponential(size=(2, 4000))  # log of exact Pareto weights of index 1
    >>> test = isdiag.finite_variance_test(tail * [[0.3], [0.8]])
    >>> print(test.k.round(2), test.p_value.round(3))
    [0.22 0.93] [0.994 0.   ]
    """
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    lengths = tail_lengths(rows, 1.0, tail_length)
    _, status = khat_rows(rows, lengths, exponent)
    statistic, k = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for r in np.flatnonzero((status == Status.OK) & ~np.isnan(exponent)):
        statistic[r], k[r] = _signed_root(rows.values[r], int(lengths[r]), exponent[r])
    from scipy.special import ndtr  # noqa: PLC0415 -- scipy is not imported before it is used

    flat = status == Status.FLAT
    _arrays.warn_not_finite(status)
    return FiniteVarianceTest(
        statistic=rows.diagnostic(np.where(flat, -np.inf, statistic)),
        p_value=rows.diagnostic(np.where(flat, 1.0, ndtr(-statistic))),
        k=rows.diagnostic(np.where(flat, -np.inf, k)),
        status=rows.status(status),
    )


def _signed_root(row: _arrays.Floats, length: int, gamma: float) -> tuple[float, float]:
    """(signed root of the likelihood ratio against k = 1/2, maximum likelihood k) of a row's tail."""
    minimize = cast("Any", import_module("scipy.optimize")).minimize_scalar
    size = min(length, int(np.count_nonzero(row > -np.inf)))
    top: _arrays.Floats = np.sort(row)[-size - 1 :]
    cutoff = gamma * (top[0] - top[-1]) if size < row.size else -np.inf
    log_weights: _arrays.Floats = gamma * (top[-size:] - top[-1])
    x = np.exp(log_weights) * -np.expm1(cutoff - log_weights)
    x /= x.mean()

    def minus_profile(s: float) -> float:
        """Of s = log(1 + largest * k / sigma), which covers all k that the likelihood allows."""
        rate = np.expm1(s) / x.max()
        if abs(rate) < 1e-9:
            return 1.0
        k = np.log1p(rate * x).mean()
        return float(np.log(k / rate) + k + 1.0)

    def minus_at_half(log_sigma: float) -> float:
        return float(log_sigma + 3.0 * np.log1p(0.5 * x * np.exp(-log_sigma)).mean())

    # Below k = -1/2 the likelihood has no interior maximum; very heavy tails give it several: a grid first.
    least, largest = max(float(np.log(x[x > 0.0].min())), -700.0), float(np.log(x.max()))
    grid = np.linspace(-0.9 * float(np.log(size)), min(largest - least + 3.0, 700.0), 64).tolist()
    at = int(np.argmin([minus_profile(s) for s in grid]))
    free = minimize(minus_profile, bounds=(grid[max(at - 1, 0)], grid[min(at + 1, 63)]), method="bounded")
    half = minimize(minus_at_half, bounds=(least, largest), method="bounded", options={"xatol": 1e-10})
    k = float(np.log1p(np.expm1(free.x) / x.max() * x).mean())
    ratio = max(2.0 * size * (half.fun - free.fun), 0.0)
    return float(np.copysign(np.sqrt(ratio), k - 0.5)), k

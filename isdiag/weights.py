"""Tempered weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag import _arrays


def over_largest(log_w: _arrays.Floats, gamma: _arrays.Floats) -> tuple[_arrays.Floats, _arrays.Floats]:
    """Rows of w^gamma over the largest of the row, and that one's logarithm, (rows, 1)."""
    largest = log_w.max(axis=1, keepdims=True)
    exponent = gamma[:, None]
    # 0 * -inf: a draw of zero weight keeps it at gamma = 0.
    weights = np.where(log_w > -np.inf, np.exp(exponent * (log_w - largest)), 0.0)
    return weights, exponent * largest


def temper_rows(
    rows: _arrays.Rows, gamma: _arrays.Floats, normalize: bool
) -> tuple[_arrays.Floats, _arrays.Codes]:
    """Log-weights of w^gamma and the status code, a row each."""
    out, status = rows.target(), rows.codes()
    _arrays.kernels().temper_rows(rows.values, gamma, normalize, out, status)
    return out, status


def temper(
    log_w: Any,
    gamma: Any = 1.0,
    *,
    normalize: bool = True,
    axis: _arrays.Axis = -1,
    where: Any = None,
) -> Any:
    """Temper log-weights: return those of ``w**gamma``.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights, ``log target - log proposal``, up to a constant. -inf is a draw of zero
        weight.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0. NaN in an array gives a NaN row, so that `GammaSelection.gamma` can be passed.
    normalize : bool, default True
        Make the weights sum to one along `axis`.
    axis : int or tuple of int, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`; the others come back as -inf.

    Returns
    -------
    array of log_w's shape and kind
        ``gamma * log_w``, less its log-sum-exp if normalised, in `log_w`'s float dtype (float64 for
        integers).

    Raises
    ------
    ValueError
        If `gamma` is negative, NaN or infinite, the sample axis is empty, or shapes do not fit.
    TypeError
        If `log_w` is not real or not in CPU memory, or `where` is not boolean.

    Warns
    -----
    NonFiniteWarning
        If rows hold NaN or +inf; those rows are NaN.

    Notes
    -----
    * gamma = 0 is the limit from above: equal weights on the draws of positive weight.
    * A row without weight comes back as -inf throughout.

    References
    ----------
    Owen, A. B. (2013). Monte Carlo theory, methods and examples, section 9.9. Korba, A. & Portier, F.
    (2022). Adaptive importance sampling meets mirror descent. AISTATS.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> np.exp(isdiag.temper(np.log([1.0, 4.0, 4.0]), 0.5))
    array([0.2, 0.4, 0.4])
    """
    rows = _arrays.rows_of(log_w, axis, where)
    exponent = rows.gamma(gamma)
    out, status = temper_rows(rows, exponent, normalize)
    _arrays.warn_not_finite(status)
    return rows.weights(out)

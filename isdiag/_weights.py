"""Weights as they are: tempered, and their effective sample size."""

from __future__ import annotations

from typing import Any

from isdiag._core import weights
from isdiag._core.boundary import rows_of
from isdiag._core.check import flag, one_of
from isdiag._core.result import bare, warn_not_finite
from isdiag._core.typing import Axis, Kind


def temper(
    log_w: Any,
    gamma: Any = 1.0,
    *,
    normalize: bool = True,
    axis: Axis = -1,
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
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`; the others come back as -inf.

    Returns
    -------
    array of log_w's shape and kind
        ``gamma * log_w``, less its log-sum-exp if normalised, in `log_w`'s float dtype (float64 for
        integers).

    Notes
    -----
    * gamma = 0 is the limit from above: equal weights on the draws of positive weight.
    * A row without weight comes back as -inf throughout.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Owen2013]_, section 9.9; [Korba2022]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> np.exp(isdiag.temper(np.log([1.0, 4.0, 4.0]), 0.5))
    array([0.2, 0.4, 0.4])
    """
    rows = rows_of(log_w, axis, where)
    out, status = weights.temper(rows, rows.gamma(gamma), flag("normalize", normalize))
    warn_not_finite(status)
    return rows.weights(out)


def ess(
    log_w: Any,
    *,
    gamma: Any = 1.0,
    kind: Kind = "kish",
    axis: Axis = -1,
    where: Any = None,
) -> Any:
    """Effective sample size of the weights ``w**gamma``, in draws.

    Parameters
    ----------
    log_w : array_like, shape (..., n)
        Log importance weights up to a constant; -inf is a draw of zero weight.
    gamma : float or array_like of the batch shape, default 1
        Exponent, >= 0.
    kind : {"kish", "perplexity", "max"}, default "kish"
        With wbar the normalised weights: ``1 / sum(wbar**2)``, ``exp(-sum(wbar * log(wbar)))`` or
        ``1 / max(wbar)``.
    axis : int, str or tuple of them, default -1
        The sample axis or axes; the others are a batch.
    where : array_like of bool, optional
        Entries to count, broadcast to `log_w`.

    Returns
    -------
    float or array of the batch shape
        Between 1 and the number of draws of positive weight; float64. NaN for a row without weight or
        with NaN or +inf.

    Notes
    -----
    * ESS falls as gamma grows; as gamma -> 0 it tends to the number of draws of positive weight.
    * ESS describes the weights, not an estimate: a missed mode or a heavy tail that has not yet shown
      itself leaves it high. Read it beside khat.
    * Arrays, errors and warnings are those of every function, see `isdiag`.

    References
    ----------
    [Kong1992]_; [Martino2017]_.

    Examples
    --------
    >>> import numpy as np
    >>> import isdiag
    >>> isdiag.ess(np.log([1.0, 1.0, 2.0]))
    2.6666666666666665
    >>> isdiag.ess(np.log([1.0, 1.0, 2.0]), kind="max")
    2.0
    """
    one_of("kind", kind, Kind)
    rows = rows_of(log_w, axis, where)
    found, status = weights.ess(rows, rows.gamma(gamma), kind)
    return bare(rows, found, status)

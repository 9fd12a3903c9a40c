"""Formulas as they are often printed, where what holds is another.

They are here to compare with, not to decide by. Others stand beside what holds: those for log-normal weights
in `isdiag.lognormal`, the bias with a covariance under the proposal in
``kong_owen_bias(covariance="proposal")``, PPO's clip as a weight, ``clip(w, 1 - e, 1 + e)``, in
``isdiag.rl.CISPO(1 - e, 1 + e)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag._core import bands
from isdiag._core.boundary import like_scalar, numbers, real_array

__all__ = ["khat", "khat_threshold"]


def khat(excesses: Any) -> Any:
    """The ratio ``mean(log(excesses)) / log(mean(excesses))``, which estimates no tail index.

    Parameters
    ----------
    excesses : array_like, shape (..., m)
        Amounts >= 0 by which weights exceed a threshold.

    Returns
    -------
    float or array
        The ratio; NaN or infinite where a mean is 0 or 1, or an excess is 0.

    Raises
    ------
    ValueError
        If an excess is negative or NaN or infinite, or there are no excesses.

    Notes
    -----
    It changes with the units of the weights, which have none. `isdiag.gpd_fit` and `isdiag.pareto_khat`
    estimate the index.

    References
    ----------
    [Zhang2009]_.

    Examples
    --------
    >>> import numpy as np
    >>> from isdiag import gpd_fit, printed
    >>> p = (np.arange(500) + 0.5) / 500
    >>> excesses = ((1 - p) ** -0.5 - 1) / 0.5  # quantiles of k = 0.5
    >>> [round(printed.khat(unit * excesses), 2) for unit in (1.0, 2.0, 100.0)]
    [-0.46, 0.28, 0.82]
    >>> [round(gpd_fit(unit * excesses).k, 2) for unit in (1.0, 2.0, 100.0)]
    [0.5, 0.5, 0.5]
    """
    x = numbers("excesses", np.atleast_1d(real_array(excesses, "excesses")[0]), 0.0)
    if x.shape[-1] == 0:
        msg = f"excesses must not be empty, got shape {x.shape}"
        raise ValueError(msg)
    with np.errstate(all="ignore"):
        return like_scalar(np.log(x).mean(axis=-1) / np.log(x.mean(axis=-1)))


def khat_threshold(n: Any) -> Any:
    """The threshold ``1 - 1 / log10(n)`` without the bound of 0.7, which it passes at 2155 draws.

    Parameters
    ----------
    n : int or array_like of int
        Number of draws, >= 1.

    Returns
    -------
    float or array
        Threshold; -inf for n = 1, tending to 1.

    Raises
    ------
    ValueError
        If n < 1.

    Notes
    -----
    `isdiag.khat_threshold` is the smaller of it and 0.7.

    References
    ----------
    [Vehtari2024]_, section 3.2.3.

    Examples
    --------
    >>> from isdiag import khat_threshold, printed
    >>> printed.khat_threshold([100, 1e4, 1e6]).round(3)
    array([0.5  , 0.75 , 0.833])
    >>> khat_threshold([100, 1e4, 1e6]).round(3)
    array([0.5, 0.7, 0.7])
    """
    return like_scalar(bands.uncapped_threshold(numbers("n", n, 1.0)))

"""Intervals made of an estimate, its error, the skewness of that and the draws that carry it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core.chains import Error
from isdiag._core.typing import Floats, Ints

LEVEL = 0.95


def freedom(error_draws: Floats, n: Floats | Ints) -> Floats:
    """Degrees of freedom of a variance that so many of n draws carry; n (rows,) or (rows, d)."""
    found = np.empty(error_draws.shape)
    draws = n.astype(np.float64)
    _kernels.freedom_rows(error_draws, draws if n.ndim > 1 else draws[:, None], found)
    return found


@cache
def _quantile_of_student() -> Any:
    from scipy.special import stdtrit  # noqa: PLC0415 -- scipy is not imported before it is used

    return stdtrit


def quantile(freedom: Floats, level: float) -> Floats:
    """Half the width of an interval of Student's t around 0, in standard errors."""
    return _quantile_of_student()(freedom, 0.5 + 0.5 * level)


def interval(
    estimate: Floats, error: Error, khat: Floats, mean_error: Floats | None = None, level: float = LEVEL
) -> tuple[Floats, Floats]:
    """Low and high ends of intervals, (rows, d), for means with a known error; khat and mean_error (rows,).

    Quantiles of Student's t with Satterthwaite's degrees of freedom, widened by `_CAUTION` over these, go
    through the inverse of Hall's transformation, which takes the skewness out of a studentised mean. They are
    widened further for a khat of the weights above 1/2 and, where an estimate is divided by the mean weight,
    for its relative standard error. From -inf to inf where nothing can be said: where the error is 0, as what
    no draw shows may be of any size, from khat = 1 on, and where that mean is within two errors of 0.
    """
    low, high = np.empty_like(estimate), np.empty_like(estimate)
    nu = freedom(error.error_draws, error.n)
    of_rows = np.ascontiguousarray(khat), np.zeros(khat.shape) if mean_error is None else mean_error
    by_error = error.std_error, error.skewness, nu, quantile(nu, level)
    _kernels.interval_rows(estimate, *by_error, *of_rows, low, high)
    return low, high


def student(estimate: Floats, error: Error, level: float) -> tuple[Floats, Floats]:
    """As `interval`, of Student's t alone: symmetric, and of no width where the error is 0."""
    std_error, nu = error.std_error, freedom(error.error_draws, error.n)
    with np.errstate(invalid="ignore", over="ignore"):
        half = np.where(std_error == 0.0, 0.0, std_error * quantile(nu, level))
        return estimate - half, estimate + half

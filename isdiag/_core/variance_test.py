"""The likelihood ratio test of a finite variance."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag._core import tails
from isdiag._core.boundary import Rows
from isdiag._core.typing import Floats, Ints
from isdiag._kernels.records import FITTED
from isdiag.status import Status


def finite_variance(rows: Rows, gamma: Floats, lengths: Ints, workers: int) -> dict[str, Any]:
    """The fields of `FiniteVarianceTest`."""
    from scipy.special import ndtr  # noqa: PLC0415 -- scipy is not imported before it is used

    _, status = tails.khat(rows, lengths, gamma, workers)
    statistic, k = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for r in np.flatnonzero(np.isin(status, FITTED) & ~np.isnan(gamma)):
        statistic[r], k[r] = _signed_root(rows.values[r], int(lengths[r]), gamma[r])
    flat = status == Status.FLAT
    return {
        "statistic": np.where(flat, -np.inf, statistic),
        "p_value": np.where(flat, 1.0, ndtr(-statistic)),
        "k": np.where(flat, -np.inf, k),
        "status": status,
    }


def _signed_root(row: Floats, length: int, gamma: float) -> tuple[float, float]:
    """(signed root of the likelihood ratio against k = 1/2, maximum likelihood k) of a row's tail."""
    from scipy.optimize import minimize_scalar  # noqa: PLC0415

    size = min(length, int(np.count_nonzero(row > -np.inf)))
    first = max(row.size - size - 1, 0)
    top: Floats = np.sort(np.partition(row, first)[first:])
    with np.errstate(over="ignore"):  # a product beyond float64 is its largest: differences stay numbers
        below: Floats = np.maximum(gamma * (top - top[-1]), -np.finfo(np.float64).max)
    cutoff = below[0] if size < row.size else -np.inf
    log_weights = below[-size:]
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
    free = minimize_scalar(
        minus_profile, bounds=(grid[max(at - 1, 0)], grid[min(at + 1, 63)]), method="bounded"
    )
    half = minimize_scalar(minus_at_half, bounds=(least, largest), method="bounded", options={"xatol": 1e-10})
    k = float(np.log1p(np.expm1(free.x) / x.max() * x).mean())
    ratio = max(2.0 * size * (half.fun - free.fun), 0.0)
    return float(np.copysign(np.sqrt(ratio), k - 0.5)), k

"""Cautious powers of weights: w^gamma, with a larger exponent where the advantage is negative and w small."""

from __future__ import annotations

from collections.abc import Callable
from math import nan, prod
from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core.typing import Floats


def log_f(log_w: Floats, advantage: Floats, gamma: float, caution: float, log_z: float | None) -> Floats:
    """Log of the cautious power of exponent gamma > 0, draws along the last axis of arrays of one shape."""
    shape = prod(log_w.shape[:-1]), log_w.shape[-1]
    rows, signs = (np.ascontiguousarray(array).reshape(shape) for array in (log_w, advantage))
    out = np.empty(shape)
    _kernels.cautious_rows(rows, signs, gamma, caution, nan if log_z is None else log_z, out)
    return out.reshape(log_w.shape)


def power_mean(log_w: Floats, gamma: float) -> Any:
    """A `_kernels.caution.PowerMean` of one row; gamma > 0."""
    return _kernels.power_mean(log_w, gamma)


def ess(log_w: Floats, advantage: Floats, gamma: float, caution: float) -> float:
    """ESS of the cautious power of one row that is relative to its own mean; NaN without a weight."""
    return _kernels.cautious_ess(log_w, advantage, gamma, caution)


def held_gamma(log_w: Floats, advantage: Floats, gamma: float, caution: float, least: float) -> float:
    """The gamma up to this one at which such a power keeps the least ESS / n."""
    return _kernels.cautious_gamma(log_w, advantage, gamma, caution, least)


def held_by(ess_ratio: Callable[[float], float], gamma: float, least: float) -> float:
    """As `held_gamma`, of weights that have this ESS / n at a gamma."""

    def of_batch(gamma: float, _: None) -> float:
        return ess_ratio(gamma)

    return _kernels.holding(of_batch)(gamma, least, None)

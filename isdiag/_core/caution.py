"""Cautious powers of weights: w^gamma, with a larger exponent where the advantage is negative and w small."""

from __future__ import annotations

from math import nan, prod

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


def ess(log_w: Floats, advantage: Floats, gamma: float, caution: float) -> float:
    """ESS of the cautious power of one row that is relative to its own mean; NaN without a weight."""
    return _kernels.cautious_ess(log_w, advantage, gamma, caution)

"""What a step of off-policy learning tells of one row of log-ratios and of the weights made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core.boundary import read_only
from isdiag._core.typing import Floats


def all_known(log_w: Floats, advantage: Floats) -> bool:
    """Whether no log-ratio is NaN or +inf, and every advantage finite."""
    return _kernels.all_known(read_only(log_w), read_only(advantage))


def of_ratios(log_w: Floats, signal: Floats) -> Any:
    """A `_kernels.steps.OfRatios`."""
    return _kernels.ratio_sums(read_only(log_w), read_only(signal))


def of_weights(log_f: Floats, log_w: Floats, signal: Floats, log_bound: float, shares: Floats) -> Any:
    """A `_kernels.steps.OfWeights`.

    Shares, if not empty, are filled with f over its sum; they may be log_f itself.
    """
    rows = (read_only(row) for row in (log_f, log_w, signal))
    return _kernels.weight_sums(*rows, log_bound, shares)


def order_statistics(row: Floats, ranks: list[int]) -> list[float]:
    """The entries of these ranks, counted from 0 for the largest; none is NaN or +inf."""
    found = np.empty(len(ranks))
    _kernels.order_statistics(read_only(row), np.array(ranks), found)
    return found.tolist()

"""What a step of off-policy learning tells of one row of log-ratios and of the weights made of them."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core.typing import Floats

# Of a longer row a sample of this many draws brackets each order statistic.
_SAMPLE = 1024
_LONG = 16 * _SAMPLE


def of_ratios(log_w: Floats, signal: Floats) -> Any:
    """A `_kernels.steps.OfRatios`."""
    return _kernels.ratio_sums(log_w, signal)


def of_weights(log_f: Floats, log_w: Floats, signal: Floats, log_bound: float) -> tuple[Any, Floats]:
    """A `_kernels.steps.OfWeights`, and f over its sum."""
    shares = np.empty(log_f.size)
    return _kernels.weight_sums(log_f, log_w, signal, log_bound, shares), shares


def order_statistics(row: Floats, ranks: list[int]) -> list[float]:
    """The entries of these ranks, counted from 0 for the least; none is NaN."""
    if row.size <= _LONG:
        ordered = row.copy()
        ordered.partition(ranks)
        return [ordered.item(rank) for rank in ranks]
    stride = row.size // _SAMPLE
    sample = np.sort(row[::stride])
    spare = np.empty(row.size + 1)
    last = row.size - 1
    return [row.max().item() if rank == last else _one_of(row, rank, sample, spare) for rank in ranks]


def _one_of(row: Floats, rank: int, sample: Floats, spare: Floats) -> float:
    share = rank / (row.size - 1)
    # Five standard errors of a sample's share, and two draws for the ends.
    margin = 5.0 * (share * (1.0 - share) * sample.size) ** 0.5 + 2.0
    middle = share * (sample.size - 1)
    first, last = int(middle - margin), int(middle + margin) + 1
    low = sample.item(first) if first >= 0 else -inf
    high = sample.item(last) if last < sample.size else inf
    count, below = _kernels.entries_between(row, low, high, spare)
    if not below <= rank < below + count:  # the sample is of an order that is not chance, a period say
        spare, count, below = row.copy(), row.size, 0
    inside = spare[:count]
    inside.partition(rank - below)
    return inside.item(rank - below)

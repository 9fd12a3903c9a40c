"""Predictive densities: of an observation that is left out, by the draws that have seen it."""

from __future__ import annotations

import numpy as np

from isdiag import _kernels
from isdiag._core import threads
from isdiag._core.boundary import Rows, read_only
from isdiag._core.typing import Floats, Ints, Records
from isdiag._kernels.records import LEFT_OUT


def leave_one_out(rows: Rows, lengths: Ints, influence: Floats, workers: int = 1) -> Records:
    """A record of `LEFT_OUT` for each row, which holds minus the log-likelihood of one observation.

    Writes to `influence`, which may be the rows, how each draw moves the predicted log-density: their squares
    sum to the square of its error, those of the sum over rows to that of the sum of densities.
    """
    found = np.empty(len(rows), LEFT_OUT)
    by_row = (rows.values, rows.n, lengths, influence, found)
    threads.spread(_kernels.leave_one_out_rows, by_row, (rows.eps,), workers)
    return found


def predictive(surprise: Floats, log_weights: Floats, workers: int = 1) -> tuple[Floats, Floats]:
    """Logs of the weighted sum and of the plain mean of the likelihoods of each row."""
    weighted, plain = np.empty((2, len(surprise)))
    by_row = (read_only(surprise), read_only(log_weights), weighted, plain)
    threads.spread(_kernels.predictive_rows, by_row, (), workers)
    return weighted, plain

"""Choosing gamma for stability."""

from __future__ import annotations

import numpy as np

from isdiag import _kernels
from isdiag._core import threads
from isdiag._core.bands import Constraints
from isdiag._core.boundary import Rows
from isdiag._core.typing import Ints, Records, StabilityRule
from isdiag._kernels.records import SELECTION


def select(rows: Rows, lengths: Ints, limits: Constraints, rule: StabilityRule, workers: int) -> Records:
    """A gamma for each row by the rule "joint" or "refit": a record of `SELECTION` each."""
    found: Records = np.empty(len(rows), SELECTION)
    by_row = (rows.values, rows.n, lengths, limits.allowed_khat(rows.n), found)
    shared = (limits.ess_min, limits.gamma_max, rows.eps)
    if rows.values.shape[1] >= threads.LONG:
        threads.select_long(*by_row, *shared, workers)
    else:
        threads.spread(_kernels.select_rows, by_row, shared, workers)
    if rule == "refit":
        threads.spread(_kernels.refit_rows, by_row, shared, workers)
    return found

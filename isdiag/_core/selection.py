"""Choosing gamma for stability."""

from __future__ import annotations

from isdiag import _kernels
from isdiag._core import parts
from isdiag._core.bands import Constraints
from isdiag._core.boundary import Rows, records
from isdiag._core.typing import Floats, Ints, Records, StabilityRule
from isdiag._kernels.records import SELECTION


def allowed_khat(rows: Rows, limits: Constraints) -> Floats:
    """The largest khat allowed, for each row."""
    return limits.allowed_khat(rows.n) if limits.k_max is None else rows.same(limits.k_max)


def select(rows: Rows, lengths: Ints, limits: Constraints, rule: StabilityRule, workers: int) -> Records:
    """A gamma for each row by the rule "joint" or "refit": a record of `SELECTION` each."""
    found = records(rows.n.size, SELECTION)
    allowed = allowed_khat(rows, limits)
    by_row = (rows.values, rows.n, lengths, allowed, found)
    shared = (limits.ess_min, limits.gamma_max, rows.eps)
    parts.over_rows(_kernels.select_rows, by_row, shared, workers)
    if rule == "refit":
        by_row = (rows.values, lengths, allowed, found)
        parts.over_rows(_kernels.refit_rows, by_row, (limits.gamma_max, rows.eps), workers)
    return found

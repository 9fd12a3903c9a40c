"""The likelihood ratio test of a finite variance."""

from __future__ import annotations

from typing import Any

import numpy as np

from isdiag import _kernels
from isdiag._core import parts
from isdiag._core.boundary import Rows
from isdiag._core.typing import Floats, Ints


def finite_variance(rows: Rows, gamma: Floats, lengths: Ints, workers: int) -> dict[str, Any]:
    """The fields of `FiniteVarianceTest`."""
    from scipy.special import ndtr  # noqa: PLC0415 -- scipy is not imported before it is used

    statistic, k, status = rows.floats(), rows.floats(), rows.codes()
    by_row = (rows.values, rows.n, lengths, gamma, statistic, k, status)
    parts.over_rows(_kernels.likelihood_ratio_rows, by_row, (rows.eps,), workers)
    return {"statistic": statistic, "p_value": np.asarray(ndtr(-statistic)), "k": k, "status": status}

"""Compile every kernel ahead of its first use, for images and machines that should not wait."""

from __future__ import annotations

import numpy as np

import isdiag
from isdiag import _kernels
from isdiag._core import threads
from isdiag._core.boundary import rows_of
from isdiag._kernels.records import SELECTION
from isdiag.rl import GammaController


def warmup() -> str | None:
    """Call whatever compiles; returns the folder that the kernels were cached in, None if there is none."""
    log_w = -np.log(np.arange(1.0, 101.0))  # khat about 1
    isdiag.diagnose(log_w, np.stack([log_w, log_w], axis=1), rule="refit")
    isdiag.snis(log_w, log_w, smooth=True)
    isdiag.select_gamma(log_w, rule="mse", h=log_w)
    isdiag.temper(log_w)
    isdiag.ess(log_w, kind="perplexity")
    isdiag.gpd_fit(np.exp(log_w))
    rows = rows_of(log_w, -1, None)
    one = np.ones(1)
    # Once limited by ESS, once by the tail: the latter asks for one kernel more.
    for ess_min, k_max in ((0.9, one), (0.1, 1e-3 * one)):
        by_row = (rows.values, rows.n, np.array([30]), k_max, np.empty(1, SELECTION))
        threads.select_long(*by_row, ess_min, 1.0, rows.eps, 1)
    many = np.tile(log_w, 200)  # so many that their quantiles are searched for
    GammaController().step(many, many + 2.0)
    return _kernels.select_rows.stats.cache_path

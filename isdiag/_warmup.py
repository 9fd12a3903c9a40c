"""Compile every kernel ahead of its first use, for images and machines that should not wait."""

from __future__ import annotations

import numpy as np

import isdiag
from isdiag import _kernels
from isdiag._core import leave_one_out, parts, tails
from isdiag._core.boundary import rows_of
from isdiag.rl import GammaController


def warmup() -> str | None:
    """Call whatever compiles; returns the folder that the kernels were cached in, None if there is none."""
    log_w = -np.log(np.arange(1.0, 101.0))  # khat about 1
    isdiag.diagnose(log_w, np.stack([log_w, log_w], axis=1), rule="refit")
    isdiag.snis(log_w, log_w, smooth=True)
    isdiag.select_gamma(log_w, rule="mse", h=log_w)
    isdiag.select_gamma(log_w, rule="mse", h=np.ones(100))
    isdiag.estimate(log_w, log_w)
    isdiag.quantile(log_w, log_w, 0.5)
    isdiag.control_variate(log_w, log_w)
    isdiag.log_moment(log_w, 0.5)
    isdiag.finite_variance_test(log_w)
    isdiag.expectation_diagnostics(log_w, log_w)
    isdiag.truncate(log_w)
    isdiag.temper(log_w)
    isdiag.ess(log_w, kind="perplexity")
    isdiag.gpd_fit(np.exp(log_w))
    isdiag.gpd_fit(np.exp(log_w), weights=np.exp(log_w))
    isdiag.kl_divergence(log_w[:, None], axis=(0, 1), draws="mcmc")
    isdiag.geometric_path(log_w, 2.0 * log_w, [1.0])
    isdiag.thermodynamic(log_w.reshape(2, 50), [0.0, 1.0])
    isdiag.stepping_stone(log_w.reshape(2, 50), [0.0, 1.0])
    isdiag.relative_efficiency(log_w)
    isdiag.relative_efficiency(log_w[:10])  # all of its lags at once
    rows = rows_of(log_w, -1, None)
    leave_one_out.leave_one_out(rows, tails.lengths_of(rows), rows.values.copy())
    leave_one_out.predictive(rows.values, rows.values)
    for method in ("systematic", "residual", "multinomial"):
        isdiag.resample(log_w, method=method)
    isdiag.next_gamma(log_w, log_weights=log_w)
    long = -np.log(np.arange(1.0, parts.LONG + 1.0))
    isdiag.diagnose(long, long, rule="refit")
    isdiag.select_gamma(long, ess_min=0.01)  # limited by the tail: that asks for one kernel more
    isdiag.snis(long, np.stack([long, long], axis=1), smooth="truncate")
    isdiag.psis(long)
    isdiag.control_variate(long, long)
    isdiag.finite_variance_test(long)
    isdiag.kl_divergence(long)
    isdiag.renyi_divergence(30.0 * long, 0.1)
    isdiag.kl_divergence(long, estimator="k2")
    isdiag.kl_divergence(long, normalize=False)
    isdiag.geometric_path(long, 2.0 * long, [1.0])
    summary = isdiag.Summary.of(log_w, log_w)
    summary.merge(isdiag.Summary.of(log_w + 1.0, log_w)).diagnose(rule="refit")
    isdiag.Summary.of(log_w, np.stack([log_w, log_w], axis=1))
    many = np.tile(log_w, 200)  # so many that their quantiles are searched for
    GammaController().step(many, many + 2.0)
    return _kernels.select_rows.stats.cache_path

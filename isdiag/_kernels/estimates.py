"""What a result says of self-normalised estimates, of what sums and tails tell."""

import math

import numpy as np

from isdiag._kernels._jit import entry
from isdiag._kernels.averages import log_mean_of
from isdiag._kernels.interval import ends_of, first_named, graded, widening
from isdiag._kernels.records import CONSTANT_H


@entry
def estimate_rows(
    estimate, std_error, bias, skewness, error_draws, status_h, freedom, quantile,
    summed, n, origin, worth, khat, status, ranks, normalized, found, of_weights,
):  # fmt: skip
    """A record of `ESTIMATED` for each component of h, (rows, d), and one of `WEIGHED` for each row.

    The first line is (rows, d): moments, degrees of freedom and the quantile of Student's t of so many. Of
    each row summed is a `SUMMED`, origin what was taken off the log-weights, worth the relative efficiency
    of its weights, status that of its tail. Of one draw no error is known.
    """
    for r in range(n.size):
        weights, sums, alone = of_weights[r], summed[r], n[r] == 1
        log_mean, error = log_mean_of(sums.log_total, sums.variance, sums.n_finite, n[r])
        weights.ess = sums.ess * worth[r]
        weights.khat = khat[r]
        weights.log_z = log_mean + origin[r]
        weights.log_z_std_error = np.nan if alone else error / math.sqrt(worth[r])
        weights.error_draws = np.nan
        wider = widening(khat[r], weights.log_z_std_error if normalized else 0.0)
        for j in range(estimate.shape[1]):
            of_h, value = found[r, j], estimate[r, j]
            error, draws = (np.nan, np.nan) if alone else (std_error[r, j], error_draws[r, j])
            of_h.estimate = value
            of_h.std_error = error
            of_h.bias = np.nan if alone else bias[r, j]
            of_h.low, of_h.high = ends_of(value, error, skewness[r, j], freedom[r, j], quantile[r, j], wider)
            code = first_named(status[r], status_h[r, j], ranks)
            of_h.status = first_named(code, graded(draws, status_h[r, j] == CONSTANT_H), ranks)
            if j == 0:
                weights.error_draws = draws

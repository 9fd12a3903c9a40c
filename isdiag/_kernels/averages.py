"""Sums of the weights of rows, and self-normalised estimates."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.moments import effective_draws, estimate, first_at
from isdiag._kernels.power_sums import ess_of, power_sums, weight_variance
from isdiag._kernels.records import NO_WEIGHT, OK
from isdiag._kernels.sums import BLOCK
from isdiag._kernels.survey import extent_of
from isdiag._kernels.vector_moments import new_vector_scratch, vector_estimates


@entry
def store_sums(row, extent, gamma, s1, s2, record, e):
    """A row of `SUMMED`, given the sums of the weights and of their squares if there are weights."""
    record.status = extent.presence
    record.n_finite = extent.n_finite
    if extent.presence != OK or gamma != gamma:
        record.ess = record.variance = np.nan
        record.log_total = -np.inf if extent.presence == NO_WEIGHT else np.nan
        return
    record.ess = ess_of(s1, s2, extent.n_finite)
    record.variance = weight_variance(row, extent, gamma, s1, record.ess, e)
    record.log_total = gamma * extent.high + math.log(s1)


def weighing(extent_of, power_sums):
    def weight_rows(rows, gamma, summed):
        """A `SUMMED` for the weights w^gamma of each row."""
        e = np.empty(BLOCK)
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            extent = extent_of(row)
            s1 = s2 = np.nan
            if extent.presence == OK and g == g:
                s1, s2 = power_sums(row, extent, g, e)
            store_sums(row, extent, g, s1, s2, summed[r], e)

    return weight_rows


weight_rows = entry(weighing(extent_of, power_sums))


@inner
def log_mean_of(log_total, variance, n_finite, n):
    """Log of the mean of n weights, zeros among them, and its delta-method standard error."""
    zeros = (n - n_finite) / (n_finite * float(n))
    return log_total - math.log(n), math.sqrt(variance + zeros)


@entry
def log_mean_rows(log_total, variance, n_finite, n, log_mean, std_error):
    """`log_mean_of` of each row."""
    for r in range(n.size):
        log_mean[r], std_error[r] = log_mean_of(log_total[r], variance[r], n_finite[r], n[r])


def averaging(extent_of, first_at, estimate, vector_estimates):
    def moment_rows(rows, gamma, h, mean, std_error, bias, skewness, error_draws, status, summed):
        """Self-normalised estimates of h under w^gamma, h[r] being (n, d) flattened; a `SUMMED` for each row.

        With wbar the normalised weights: mean sum wbar h, delta-method variance sum wbar^2 (h - mean)^2, bias
        -sum wbar^2 (h - mean). A draw of zero weight is not looked at: its h may be anything. log_total is
        the log of sum w^gamma, variance that of `weight_variance`, skewness that of the mean (0 for h of
        several components), error_draws how many draws carry its variance (the sum wbar^2 alone for those),
        status what became of h.
        """
        d = mean.shape[1]
        ws = new_vector_scratch(rows.shape[1], d)
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            extent = extent_of(row)
            status[r, :] = OK
            s1 = s2 = np.nan
            if extent.presence != OK or g != g:
                mean[r, :] = np.nan
                std_error[r, :] = np.nan
                bias[r, :] = np.nan
                skewness[r, :] = np.nan
                error_draws[r, :] = np.nan
            elif d == 1:
                top = first_at(row, extent.high)
                found = estimate(row, extent.high, g, h[r], top, ws.alone)
                s1, s2 = found.s1, found.s2
                mean[r, 0], std_error[r, 0], bias[r, 0] = found.estimate, found.std_error, found.bias
                skewness[r, 0] = found.skewness
                error_draws[r, 0] = found.error_draws
                status[r, 0] = found.status
            else:
                top = first_at(row, extent.high)
                s1, s2, s4 = vector_estimates(
                    row, extent.high, g, h[r], top, mean[r], std_error[r], bias[r], status[r], ws
                )
                skewness[r, :] = 0.0
                error_draws[r, :] = effective_draws(s2, s4)
            store_sums(row, extent, g, s1, s2, summed[r], ws.alone.e)

    return moment_rows


moment_rows = entry(averaging(extent_of, first_at, estimate, vector_estimates))

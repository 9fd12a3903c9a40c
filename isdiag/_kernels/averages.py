"""Sums of the weights of rows, and self-normalised estimates."""

import math
from typing import NamedTuple

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.moments import effective_draws, estimate, first_at
from isdiag._kernels.power_sums import ess_of, power_sums, weight_variance
from isdiag._kernels.records import NO_WEIGHT, OK
from isdiag._kernels.sums import BLOCK
from isdiag._kernels.survey import extent_of
from isdiag._kernels.vector_moments import new_vector_scratch, vector_estimates


@entry
def sums_of(row, extent, gamma, s1, s2, e):
    """(ESS, log of sum w^gamma, `weight_variance`) from the sums of the weights and of their squares."""
    if extent.presence != OK or gamma != gamma:
        return np.nan, -np.inf if extent.presence == NO_WEIGHT else np.nan, np.nan
    ess = ess_of(s1, s2, extent.n_finite)
    return ess, gamma * extent.high + math.log(s1), weight_variance(row, extent, gamma, s1, ess, e)


@entry
def store_sums(row, extent, gamma, s1, s2, record, e):
    """A row of `SUMMED`, given the sums of the weights and of their squares if there are weights."""
    record.status = extent.presence
    record.n_finite = extent.n_finite
    record.ess, record.log_total, record.variance = sums_of(row, extent, gamma, s1, s2, e)


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


class Averages(NamedTuple):
    """Of each component of h under w^gamma, (d,).

    With wbar the normalised weights: mean sum wbar h, delta-method variance sum wbar^2 (h - mean)^2, bias
    -sum wbar^2 (h - mean). A draw of zero weight is not looked at: its h may be anything.
    """

    mean: np.ndarray
    std_error: np.ndarray
    bias: np.ndarray
    skewness: np.ndarray  # of the mean; 0 where h has several components
    error_draws: np.ndarray  # how many draws carry the variance; the sum wbar^2 alone for those
    status: np.ndarray  # what became of h


def averaging_row(first_at, estimate, vector_estimates):
    def average_row(row, extent, gamma, h, averages, ws):
        """Fill in averages, h being (n, d) flattened; returns sums of the weights and of their squares."""
        mean, std_error, bias, skewness, error_draws, status = averages
        status[:] = OK
        if extent.presence != OK or gamma != gamma:
            mean[:] = np.nan
            std_error[:] = np.nan
            bias[:] = np.nan
            skewness[:] = np.nan
            error_draws[:] = np.nan
            return np.nan, np.nan
        top = first_at(row, extent.high)
        if mean.size == 1:
            found = estimate(row, extent.high, gamma, h, top, ws.alone)
            mean[0], std_error[0], bias[0] = found.estimate, found.std_error, found.bias
            skewness[0], error_draws[0], status[0] = found.skewness, found.error_draws, found.status
            return found.s1, found.s2
        s1, s2, s4 = vector_estimates(row, extent.high, gamma, h, top, mean, std_error, bias, status, ws)
        skewness[:] = 0.0
        error_draws[:] = effective_draws(s2, s4)
        return s1, s2

    return average_row


average_row = inner(averaging_row(first_at, estimate, vector_estimates))


def averaging(extent_of, average_row):
    def moment_rows(rows, gamma, h, mean, std_error, bias, skewness, error_draws, status, summed):
        """`Averages` of h under w^gamma and a `SUMMED` for each row."""
        ws = new_vector_scratch(rows.shape[1], mean.shape[1])
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            extent = extent_of(row)
            averages = Averages(mean[r], std_error[r], bias[r], skewness[r], error_draws[r], status[r])
            s1, s2 = average_row(row, extent, g, h[r], averages, ws)
            store_sums(row, extent, g, s1, s2, summed[r], ws.alone.e)

    return moment_rows


moment_rows = entry(averaging(extent_of, average_row))

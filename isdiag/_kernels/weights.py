"""Tempered weights and their effective sample size."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.bits import LARGEST
from isdiag._kernels.power_sums import ess_of, power_sums, row_perplexity
from isdiag._kernels.records import NO_WEIGHT, OK
from isdiag._kernels.sums import BLOCK
from isdiag._kernels.survey import extent_of


@inner
def tempered(value, gamma):
    """gamma * value, where -inf stays -inf: gamma = 0 is the limit from above."""
    return gamma * value if value > -np.inf else value


@inner
def less(value, shift):
    """value - shift; a difference beyond float64 is its largest, as a weight of -inf would be no weight."""
    return max(value - shift, -LARGEST) if value > -np.inf else value


@entry
def write_tempered(row, origin, gamma, log_total, out):
    """Write the log-weights of w^gamma, less those of the origin, less log_total."""
    for i in range(row.size):
        out[i] = tempered(less(row[i], origin), gamma) - log_total


@entry
def fill(out, value):
    for i in range(out.size):
        out[i] = value


def tempering(extent_of, power_sums, write_tempered):
    def temper_rows(rows, gamma, out, status, normalize):
        e = np.empty(BLOCK)
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            extent = extent_of(row)
            status[r] = extent.presence
            if extent.presence != OK or g != g:
                fill(out[r], -np.inf if extent.presence == NO_WEIGHT else np.nan)
                continue
            origin = log_total = 0.0
            if normalize:
                origin = extent.high
                total, _ = power_sums(row, extent, g, e)
                log_total = math.log(total)
            write_tempered(row, origin, g, log_total, out[r])

    return temper_rows


temper_rows = entry(tempering(extent_of, power_sums, write_tempered))


def counting(extent_of, power_sums):
    def ess_rows(rows, gamma, by_kish, by_max, status):
        """The effective sample sizes that power sums tell."""
        e = np.empty(BLOCK)
        for r in range(rows.shape[0]):
            row, g = rows[r], gamma[r]
            extent = extent_of(row)
            status[r] = extent.presence
            by_kish[r] = by_max[r] = np.nan
            if extent.presence == OK and g == g:
                s1, s2 = power_sums(row, extent, g, e)
                by_kish[r] = ess_of(s1, s2, extent.n_finite)
                by_max[r] = s1

    return ess_rows


ess_rows = entry(counting(extent_of, power_sums))


@entry
def perplexity_rows(rows, gamma, perplexity, status):
    e, u = np.empty(BLOCK), np.empty(BLOCK)
    for r in range(rows.shape[0]):
        row, g = rows[r], gamma[r]
        extent = extent_of(row)
        status[r] = extent.presence
        perplexity[r] = np.nan
        if status[r] == OK and g == 0.0:
            perplexity[r] = extent.n_finite
        elif status[r] == OK and g == g:
            perplexity[r] = min(row_perplexity(row, extent.high, g, e, u), extent.n_finite)

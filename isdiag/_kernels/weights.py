"""Tempered weights and their effective sample size."""

import math

import numpy as np

from isdiag._kernels._jit import entry, inner
from isdiag._kernels.power_sums import kish, power_sums, row_perplexity
from isdiag._kernels.records import NOT_FINITE, OK
from isdiag._kernels.sums import BLOCK
from isdiag._kernels.survey import extent_of


@inner
def tempered(value, gamma):
    """gamma * value, where -inf stays -inf: gamma = 0 is the limit from above."""
    return gamma * value if value > -np.inf else value


@entry
def temper_rows(rows, gamma, normalize, out, status):
    e = np.empty(BLOCK)
    for r in range(rows.shape[0]):
        row, g = rows[r], gamma[r]
        extent = extent_of(row)
        status[r] = extent.presence
        if status[r] == NOT_FINITE or g != g:
            out[r, :] = np.nan
            continue
        shift = log_total = 0.0
        if normalize and extent.n_finite > 0:
            shift = extent.high
            total, _ = power_sums(row, extent, g, e)
            log_total = math.log(total)
        for i in range(row.size):
            out[r, i] = tempered(row[i] - shift, g) - log_total


@entry
def ess_rows(rows, gamma, by_kish, by_max, status):
    """The effective sample sizes that power sums tell."""
    e = np.empty(BLOCK)
    for r in range(rows.shape[0]):
        row, g = rows[r], gamma[r]
        extent = extent_of(row)
        status[r] = extent.presence
        by_kish[r] = by_max[r] = np.nan
        if status[r] == OK and g == g:
            s1, s2 = power_sums(row, extent, g, e)
            by_kish[r] = kish(s1, s2)
            by_max[r] = s1


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
            perplexity[r] = row_perplexity(row, extent.high, g, e, u)
